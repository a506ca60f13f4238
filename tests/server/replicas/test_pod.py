"""The variables that the chart gives a pod, read by the server itself."""

from __future__ import annotations

import os
import subprocess
import sys

import httpx
import pytest

from deploy.chart import TLS, environment, needs_helm, render
from server.replicas.cluster import BIND, HOSTS, LIMIT_S, free_ports, wait_for

pytestmark = [pytest.mark.server, needs_helm]
ELSEWHERE = HOSTS["a"]  # where what listens at every address can be reached, and loopback's cannot


def test_a_pod_with_tls_opens_its_doors_and_no_others(
    checkpoints, live_repository, authority, tmp_path
):
    (_, cert, key), keys = authority, tmp_path / "keys.json"
    subprocess.run([sys.executable, "-m", "asr_client.cli", "gateway-key", "one", "--file", keys])
    env = environment(render(*TLS)) | {"ASR_CHECKPOINT": str(checkpoints("tiny"))}
    env |= {"ASR_MODEL_REPOSITORY": str(live_repository), "ASR_GATEWAY_KEYS": str(keys)}
    env |= {"ASR_GATEWAY_TLS_CERT": str(cert), "ASR_GATEWAY_TLS_KEY": str(key)}
    ports = free_ports() | {f"triton_{door}": port for door, port in free_ports().items()}
    env |= {  # those of the chart may be taken on this machine
        "ASR_GATEWAY_PORT": str(ports["http"]),
        "ASR_GATEWAY_RIVA_PORT": str(ports["riva"]),
        "ASR_METRICS_PORT": str(ports["triton"]),
        "ASR_HTTP_PORT": str(ports["triton_http"]),
        "ASR_GRPC_PORT": str(ports["triton_riva"]),
    }

    def get(host: str, door: str, path: str, scheme: str = "http") -> httpx.Response | None:
        try:
            address = f"{scheme}://{host}:{ports[door]}{path}"
            return httpx.get(address, verify=False, trust_env=False, timeout=LIMIT_S)
        except httpx.TransportError:
            return None

    def is_ready() -> bool:
        assert serve.poll() is None
        answer = get(ELSEWHERE, "http", "/ready", "https")
        return answer is not None and answer.status_code == 200

    serve = subprocess.Popen(
        [sys.executable, "-m", "asr_client.cli", "serve"],
        env=os.environ | env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(is_ready)
        assert get(ELSEWHERE, "http", "/v1/offer", "https").status_code == 401
        assert "asr_slots" in get(ELSEWHERE, "triton", "/metrics").text
        assert get(BIND, "triton_http", "/v2/health/ready").status_code == 200
        assert get(ELSEWHERE, "triton_http", "/v2/health/ready") is None
        serve.terminate()
        assert serve.wait(LIMIT_S) == 0
    finally:
        serve.kill()
        serve.wait()
