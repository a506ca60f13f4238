"""`python -m asr_server.health`: whether what `asr serve` runs here works, for containers."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

import httpx

from .probe import Probe

TIMEOUT_S = 8.0  # of each of at most four requests: a check may take 30 s


def trouble(environ: Mapping[str, str] = os.environ) -> str | None:
    """None, or what is wrong: with a live stream straight to the model, or with the gateway.

    A server at capacity is well. Ports are those that `asr serve` was told by its variables.
    """

    def url(variable: str, port: int) -> str:
        return f"http://127.0.0.1:{environ.get(variable) or port}"

    metrics = f"{url('ASR_METRICS_PORT', 8002)}/metrics"
    wrong = Probe(url("ASR_HTTP_PORT", 8000), metrics, timeout_s=TIMEOUT_S)()
    if wrong is None and environ.get("ASR_GATEWAY"):
        address = f"{url('ASR_GATEWAY_PORT', 8080)}/health"
        if environ.get("ASR_GATEWAY_TLS_CERT"):  # which names the world's address, not this one
            address = address.replace("http:", "https:")
        try:
            httpx.get(address, timeout=TIMEOUT_S, trust_env=False, verify=False).raise_for_status()
        except httpx.HTTPError as error:
            return f"no answer from the gateway: {error}"
    return wrong


if __name__ == "__main__":
    sys.exit(trouble())
