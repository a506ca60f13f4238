"""Whose a port is: one gateway's alone, or that of the processes of one, which end together."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import psutil
import pytest

from server.gateway.conftest import free_port, start_gateway, stop, wait_for

pytestmark = pytest.mark.server


def test_a_port_that_is_taken_is_told_of(gateway):
    for taken, processes in (("--port", 1), ("--riva-port", 1), ("--port", 2)):
        ports = {"--port": free_port(), "--riva-port": free_port()}
        ports[taken] = {"--port": gateway.port, "--riva-port": gateway.riva_port}[taken]
        command = [sys.executable, "-m", "asr_client.cli", "gateway", "--processes", str(processes)]
        command += [str(part) for pair in ports.items() for part in pair]
        refused = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert refused.returncode == 1
        assert refused.stderr.endswith(f":{ports[taken]}: Address already in use\n")
        assert "Traceback" not in refused.stderr


def test_processes_share_a_port_and_end_with_their_parent(served):
    gateway = start_gateway(served.server, "--processes", "2")
    try:
        wait_for(lambda: len(workers(gateway)) == 2)
        children = workers(gateway)
        with gateway.socket("/v1/stream?language=auto") as socket:
            assert json.loads(socket.recv())["type"] == "ready"
        gateway.process.send_signal(signal.SIGKILL)
        gateway.process.wait()
        _, alive = psutil.wait_procs(children, timeout=60)
        assert not alive
    finally:
        stop(gateway)


def test_a_stop_while_processes_start_is_passed_on():
    ports = ["--port", str(free_port()), "--riva-port", str(free_port())]
    command = [sys.executable, "-m", "asr_client.cli", "gateway", "--processes", "3", *ports]
    gateway = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not psutil.Process(gateway.pid).children():
            assert gateway.poll() is None
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(60) == 0
    finally:
        gateway.kill()
        gateway.wait()


def workers(gateway) -> list[psutil.Process]:
    """Those that listen."""
    return [
        child
        for child in psutil.Process(gateway.process.pid).children()
        if any(c.status == psutil.CONN_LISTEN for c in child.net_connections("tcp"))
    ]
