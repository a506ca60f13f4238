"""The check of a container, and the server of NVIDIA's image, which the wheel's stands in for."""

from __future__ import annotations

import os
import shutil
import signal

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
