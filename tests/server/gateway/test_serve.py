"""`asr serve --gateway`: both in one command, restarted and stopped together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial

import httpx
import psutil
import pytest
from websockets.sync.client import connect

from server.conftest import pcm
from server.gateway.conftest import free_port
from server.gateway.conftest import wait_for as wait_shorter

pytestmark = pytest.mark.server
LIMIT_S = 120
wait_for = partial(wait_shorter, limit_s=LIMIT_S)


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready").status_code == 200
    except httpx.TransportError:
        return False


def gateway_of(serve: subprocess.Popen) -> psutil.Process | None:
    for child in psutil.Process(serve.pid).children():
        with suppress(psutil.Error):  # a zombie
            if "gateway" in child.cmdline():
                return child
    return None


def test_both_in_one_command(checkpoints):
    port = free_port()
    ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--gateway-port"]
    command = [
        sys.executable, "-m", "asr_client.cli", "serve", "--gateway", *ports, str(port),
        "--riva-port", "0", "--checkpoint", str(checkpoints("tiny")), "--device", "cpu",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    serve = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: is_ready(url))
        first = gateway_of(serve)
        os.kill(first.pid, signal.SIGKILL)
        wait_for(lambda: gateway_of(serve) not in (None, first) and is_ready(url))
        with connect(f"ws://127.0.0.1:{port}/v1/stream") as socket:
            socket.send("{}")
            socket.recv()
            socket.send(pcm(30_000, seed=1).tobytes())
            serve.send_signal(signal.SIGTERM)  # the session may end
            wait_for(lambda: not is_ready(url))
            socket.send('{"type": "end"}')
            kinds = [json.loads(message)["type"] for message in socket]
        assert kinds[-1] == "end"
        assert serve.wait(LIMIT_S) == 0
        assert f"open {url}" in serve.stdout.read()
        assert not first.is_running()
    finally:
        serve.kill()
        serve.wait()


def test_a_gateway_ends_with_its_server_however_that_dies(checkpoints):
    port = free_port()
    command = [
        sys.executable, "-m", "asr_client.cli", "serve", "--gateway", "--http-port", "0",
        "--grpc-port", "0", "--metrics-port", "0", "--gateway-port", str(port), "--riva-port", "0",
        "--checkpoint", str(checkpoints("tiny")), "--device", "cpu",
    ]  # fmt: skip
    serve = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_for(lambda: is_ready(f"http://127.0.0.1:{port}"))
    gateway = gateway_of(serve)
    serve.kill()
    serve.wait()
    wait_for(lambda: not gateway.is_running())
