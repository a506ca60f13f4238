"""`python -m asr_server.health`: whether what `asr serve` runs here works, for containers."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping

import click
import httpx

from .probe import Probe
from .settings import DEFAULT_HOST, reachable

TIMEOUT_S = 8.0  # of a request
TOTAL_S = 25.0  # of all of them: a check may take 30 s


def trouble(environ: Mapping[str, str] = os.environ) -> str | None:
    """None, or what is wrong: with a live stream straight to the model, or with the gateway.

    A server at capacity is well. Addresses are those that `asr serve` was told by its variables.
    """
    found: list[str | None] = []
    asking = threading.Thread(target=lambda: found.append(_trouble(environ)), daemon=True)
    asking.start()
    asking.join(TOTAL_S)
    return found[0] if found else f"no answer within {TOTAL_S:g} s"


def _trouble(environ: Mapping[str, str]) -> str | None:
    def url(host: str | None, variable: str, port: int) -> str:
        return f"http://{reachable(host or DEFAULT_HOST, environ.get(variable) or port)}"

    host = environ.get("ASR_HOST")
    metrics = url(environ.get("ASR_METRICS_HOST") or host, "ASR_METRICS_PORT", 8002)
    server = url(host, "ASR_HTTP_PORT", 8000)
    wrong = Probe(server, f"{metrics}/metrics", timeout_s=TIMEOUT_S)()
    if wrong is None and click.BOOL(environ.get("ASR_GATEWAY") or "0"):
        address = url(environ.get("ASR_GATEWAY_HOST"), "ASR_GATEWAY_PORT", 8080) + "/health"
        if environ.get("ASR_GATEWAY_TLS_CERT"):  # which names the world's address, not this one
            address = address.replace("http:", "https:")
        try:
            httpx.get(address, timeout=TIMEOUT_S, trust_env=False, verify=False).raise_for_status()
        except httpx.HTTPError as error:
            return f"no answer from the gateway: {error}"
    return wrong


if __name__ == "__main__":
    sys.exit(trouble())
