"""The load tests themselves: a short run of every kind of user, its report, pass and fail."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from asr_server import TritonServer
from conftest import ROOT
from server.conftest import settings_for
from server.gateway.conftest import free_port, start_gateway, stop

pytestmark = pytest.mark.server
KINDS = ["LiveUser", "AbandoningUser", "OfflineUser", "WebSocketUser", "RivaUser", "OpenAiUser"]
NAMES = {
    "live start", "live chunk", "live final", "abandoned", "offline", "websocket start",
    "websocket chunk", "websocket final", "riva chunk", "riva final", "openai file",
}  # fmt: skip


@pytest.fixture(scope="module")
def addresses(demo_checkpoint):
    with TritonServer(settings_for(demo_checkpoint, idle_timeout_s=20)) as server:
        gateway = start_gateway(server)
        yield [
            "--grpc-url", server.grpc_address, "--http-url", server.http_url,
            "--gateway-url", gateway.url, "--riva-url", gateway.riva,
        ]  # fmt: skip
        stop(gateway)


FILES = ",".join(str(ROOT / "tests" / "load" / name) for name in ("locustfile.py", "doors.py"))
COMMAND = [sys.executable, "-m", "locust", "-f", FILES]


def locust(addresses, tmp_path, *arguments: str) -> subprocess.CompletedProcess:
    command = [
        *COMMAND, "--headless", "--only-summary", "--audio-dir", str(ROOT / "samples"), *addresses,
        *arguments,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)


def test_every_kind_of_user_in_one_run(addresses, tmp_path):
    users = ["--users", "12", "--spawn-rate", "6", "--run-time", "30s"]  # by their weights
    limits = ["--max-chunk-p95-ms", "20000", "--html", "report.html"]
    done = locust(addresses, tmp_path, *users, *limits, *KINDS)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "passed" in done.stderr
    rows = {name for name in NAMES if re.search(rf"{name} +\d+ +0\(0\.00%\)", said)}
    assert rows == NAMES, said
    assert "websocket chunk" in (tmp_path / "report.html").read_text()


def test_a_threshold_that_is_passed_is_an_exit_code(addresses, tmp_path):
    arguments = ["--users", "1", "--run-time", "15s", "--max-chunk-p95-ms", "0", "LiveUser"]
    done = locust(addresses, tmp_path, *arguments)
    assert done.returncode == 1
    assert "p95 of 'live chunk'" in done.stderr


def test_a_growing_load_says_what_is_carried(addresses, tmp_path):
    files = ",".join(str(ROOT / "tests" / "load" / f) for f in ("locustfile.py", "ramp.py"))
    command = [
        sys.executable, "-m", "locust", "-f", files, "--headless", "--only-summary",
        "--audio-dir", str(ROOT / "samples"), *addresses, "--max-chunk-p95-ms", "20000",
        "--ramp-users", "1", "--ramp-s", "6", "--ramp-steps", "2", "LiveUser",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "carried 2 users" in done.stderr


def test_load_from_several_machines(addresses, tmp_path):
    """A master that judges, and a worker that speaks."""
    port = free_port()
    worker = subprocess.Popen(
        [*COMMAND, "--worker", "--master-port", str(port), *KINDS],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    try:
        here = ["--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", str(port)]
        load = ["--expect-workers", "1", "--users", "6", "--spawn-rate", "6", "--run-time", "20s"]
        done = locust(addresses, tmp_path, *here, *load, "--max-chunk-p95-ms", "20000", *KINDS)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert "passed" in done.stderr
        for name in ("live chunk", "websocket chunk", "riva chunk"):
            assert re.search(rf"{name} +\d+ +0\(0\.00%\)", said), said
        assert worker.wait(60) == 0, worker.stderr.read()
    finally:
        worker.kill()
        worker.communicate()
