"""A gateway as its users run it, a process of its own, before the real server."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from asr_gateway.run import bind
from server.test_replay import wait_for as wait_longer

READY_S = 60
wait_for = partial(wait_longer, limit_s=60)


@dataclass
class RunningGateway:
    """Its addresses, and what it logs."""

    process: subprocess.Popen
    port: int
    riva_port: int
    said: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def riva(self) -> str:
        return f"127.0.0.1:{self.riva_port}"

    def socket(self, path: str, **kwargs):
        """A WebSocket, of the library's own client."""
        return connect(f"ws://127.0.0.1:{self.port}{path}", **kwargs)

    def logged(self, message: str) -> list[dict]:
        """Lines of its log with this message."""
        lines = [json.loads(line) for line in self.said if line.startswith("{")]
        return [line for line in lines if line["message"] == message]

    def metric(self, name: str, **labels: str) -> float:
        """A sample of the metrics page, 0 where there is none."""
        for line in httpx.get(f"{self.url}/metrics").text.splitlines():
            if line.startswith(name) and all(f'{k}="{v}"' in line for k, v in labels.items()):
                return float(line.rpartition(" ")[2])
        return 0.0


def free_port() -> int:
    with bind("127.0.0.1", 0) as held:
        return held.getsockname()[1]


def start_gateway(server, *arguments: str) -> RunningGateway:
    """A gateway before this server, with these arguments of `asr gateway` more."""
    port, riva_port = free_port(), free_port()
    command = [
        sys.executable, "-m", "asr_client.cli", "gateway", "--grpc-url", server.grpc_address,
        "--http-url", server.http_url, "--port", str(port), "--riva-port", str(riva_port),
        *arguments,
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    running = RunningGateway(process, port, riva_port)
    threading.Thread(target=lambda: running.said.extend(process.stderr), daemon=True).start()
    give_up_s = time.monotonic() + READY_S
    while not _answers(running):
        assert process.poll() is None, running.said
        assert time.monotonic() < give_up_s, running.said
        time.sleep(0.1)
    return running


def _answers(running: RunningGateway) -> bool:
    try:
        scheme = "https" if "--tls-cert" in running.process.args else "http"
        address = f"{scheme}://127.0.0.1:{running.port}/health"
        return httpx.get(address, verify=False).status_code == 200
    except httpx.TransportError:
        return False


def stop(running: RunningGateway) -> int:
    running.process.terminate()
    return running.process.wait(60)


@pytest.fixture(scope="package")
def gateway(served):
    """Before the tiny random model, which says much: see `served`."""
    running = start_gateway(served.server)
    yield running
    assert stop(running) == 0


@pytest.fixture
def sample() -> Path:
    return Path(__file__).parents[3] / "samples" / "pico_us.flac"
