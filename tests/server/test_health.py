"""The check of a container, and the server of NVIDIA's image, which the wheel's stands in for."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from asr_server import ServerError, TritonServer, wheel
from asr_server.health import trouble
from server.conftest import settings_for

pytestmark = pytest.mark.server


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The parts where NVIDIA's image has them, and no wheel."""
    parts, root = wheel.find_wheel(), tmp_path / "tritonserver"
    backend = root / "backends" / "python"
    shutil.copytree(parts.python_backend, backend, dirs_exist_ok=True)
    (root / "bin").mkdir()
    (root / "bin" / "tritonserver").symlink_to(parts.binary)
    (root / "lib").symlink_to(parts.libs)
    stub = backend / "triton_python_backend_stub"
    stub.unlink(missing_ok=True)
    stub.symlink_to(parts.stub)
    monkeypatch.setattr(wheel, "INSTALLED", root)
    monkeypatch.setattr("asr_server.wheel.importlib.util.find_spec", lambda name: None)
    return root


def test_an_installed_server_is_told_to_take_long_files(installed):
    server = wheel.find_wheel()
    assert server.binary == installed / "bin" / "tritonserver"
    assert server.options == ("--http-max-input-size=1073741824",)
    (installed / "bin" / "tritonserver").unlink()
    with pytest.raises(ServerError, match="not installed"):
        wheel.find_wheel()


def test_a_check_of_an_installed_server(installed, monkeypatch, checkpoints, live_repository):
    """It starts, with an option that the wheel's server knows; its check tells a dead model."""
    monkeypatch.setattr(wheel, "MAX_INPUT", "--http-thread-count=3")
    settings = settings_for(checkpoints("tiny"), model_repository=live_repository, slots=2)
    with TritonServer(settings) as server:
        ports = {
            f"ASR_{name.upper()}_PORT": str(port) for name, port in server.settings.ports.items()
        }
        assert trouble(ports) is None
        gateway = {"ASR_GATEWAY": "1", "ASR_GATEWAY_PORT": "1"}  # where nothing listens
        assert "no answer from the gateway" in trouble(ports | gateway)
        monkeypatch.setattr("asr_server.health.TIMEOUT_S", 1.0)
        for pid in server._find_stubs():
            os.kill(pid, signal.SIGKILL)
        assert "no answer from asr_streaming" in trouble(ports)


@contextmanager
def answering(host: str, wait_s: float = 0.0):
    """A server there that answers everything with 200, after so long.  Yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            time.sleep(wait_s)
            self.send_response(200)
            self.end_headers()

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_args):
            """Nothing."""

    server = ThreadingHTTPServer((host, 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield str(server.server_port)
    finally:
        server.shutdown()
        server.server_close()


def test_a_check_asks_where_the_parts_listen():
    with answering("127.0.0.2") as port, answering("127.0.0.3") as other:
        ports = {"ASR_HTTP_PORT": port, "ASR_METRICS_PORT": port, "ASR_GATEWAY_PORT": other}
        hosts = {"ASR_HOST": "127.0.0.2", "ASR_GATEWAY_HOST": "127.0.0.3"}
        assert trouble({"ASR_GATEWAY": "1"} | ports | hosts) is None
        assert "asr_streaming" in trouble(ports)
    with answering("127.0.0.1") as port:
        assert trouble({"ASR_HOST": "0.0.0.0", "ASR_HTTP_PORT": port}) is None


def test_a_check_ends_in_time_whatever_is_slow(monkeypatch):
    monkeypatch.setattr("asr_server.health.TOTAL_S", 0.5)
    with answering("127.0.0.1", wait_s=2) as port:
        began_s = time.monotonic()
        assert trouble({"ASR_HTTP_PORT": port}) == "no answer within 0.5 s"
        assert time.monotonic() - began_s < 2
