"""The launcher and the supervisor, on the real Triton server with a model of a few lines."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from asr_server import ServerError, ServerSettings, SettingsError, TritonServer
from asr_server.probe import Probe
from asr_server.supervisor import RestartPolicy, Supervisor

pytestmark = pytest.mark.server

CONFIG = """
backend: "python"
max_batch_size: 16
input [{ name: "AUDIO" data_type: TYPE_INT16 dims: [-1] allow_ragged_batch: true }]
output [{ name: "TEXT" data_type: TYPE_STRING dims: [1] }]
sequence_batching {
  max_sequence_idle_microseconds: 30000000
  oldest { max_candidate_sequences: 4 }
  control_input [
    { name: "START" control [{ kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }] },
    { name: "END" control [{ kind: CONTROL_SEQUENCE_END int32_false_true: [0, 1] }] }
  ]
}
instance_group [{ kind: KIND_AUTO count: 1 }]
"""
# Files in the "checkpoint" directory tell this model how to misbehave.
MODEL = """
import json, os, time
import numpy as np
import triton_python_backend_utils as pb_utils

CHECKPOINT = os.environ["ASR_CHECKPOINT"]


def told(what):
    return os.path.exists(os.path.join(CHECKPOINT, what))


class TritonPythonModel:
    def initialize(self, args):
        if told("crash"):
            print("last words", flush=True)
            os._exit(3)
        if told("broken"):
            raise ValueError("model.safetensors: missing tensor 'joint.bias'\\nand 3 more")
        while told("slow"):
            time.sleep(0.1)

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        for error in ("UNAVAILABLE: at capacity (4/4)", "INTERNAL: out of memory"):
            if told(error.split(":")[0]):
                return pb_utils.InferenceResponse(error=pb_utils.TritonError(error))
        num_samples = pb_utils.get_input_tensor_by_name(request, "AUDIO").as_numpy().size
        env = {k: v for k, v in os.environ.items() if k.startswith("ASR_")}
        text = json.dumps({"n": num_samples, "env": env, "parameters": request.parameters()})
        out = np.array([[text.encode()]], dtype=np.object_)
        return pb_utils.InferenceResponse([pb_utils.Tensor("TEXT", out)])
"""


@pytest.fixture(scope="module", autouse=True)
def temporary_directory(tmp_path_factory):
    """Where servers put their files, so that kept logs go away with the test's own."""
    with pytest.MonkeyPatch.context() as patch:
        path = str(tmp_path_factory.mktemp("tmp"))
        patch.setenv("TMPDIR", path)
        patch.setattr(tempfile, "tempdir", path)
        yield Path(path)


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path)


@pytest.fixture(scope="module")
def server(tmp_path_factory, temporary_directory):
    """A server that the tests below only read from."""
    with TritonServer(settings(make_folder(tmp_path_factory.mktemp("server")))) as running:
        yield running


def make_folder(path: Path) -> Path:
    (path / "checkpoint").mkdir()
    model = path / "repository" / "asr_streaming"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(CONFIG)
    (model / "1" / "model.py").write_text(MODEL)
    return path


def settings(folder: Path, **changes) -> ServerSettings:
    defaults = {
        "model_repository": folder / "repository",
        "checkpoint": folder / "checkpoint",
        "slots": 7,
        "http_port": 0,
        "grpc_port": 0,
        "metrics_port": 0,
        "start_timeout_s": 60,
        "exit_timeout_s": 1,
    }
    return ServerSettings(**(defaults | changes))


def probe_of(server: TritonServer, timeout_s: float = 5.0) -> Probe:
    return Probe(server.http_url, server.metrics_url, timeout_s=timeout_s)


def wait_for(condition, limit_s=30.0):
    """Wait until `condition()` is true, and return what it returned."""
    give_up_s = time.monotonic() + limit_s
    while time.monotonic() < give_up_s:
        if result := condition():
            return result
        time.sleep(0.05)
    raise AssertionError(f"not within {limit_s} s: {condition}")


def processes_of(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # a start runs short-lived helpers
        return []


def the(processes: list[psutil.Process], name: str) -> psutil.Process | None:
    return next((p for p in processes if name in " ".join(command_of(p)[:1])), None)


def name_of(http_url: str) -> str:
    """The unique name of a running server: of its directory and its shared memory."""
    return httpx.get(f"{http_url}/v2", trust_env=False).json()["name"]


def assert_nothing_left(name: str, processes: list[psutil.Process], limit_s: float = 10.0):
    _, alive = psutil.wait_procs(processes, timeout=limit_s)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    wait_for(lambda: not list(Path("/dev/shm").glob(f"{name}*")), limit_s)
    wait_for(lambda: not list(Path(tempfile.gettempdir()).glob(f"{name}*")), limit_s)


# --- a server that runs ---


def test_models_get_the_settings_as_environment(server):
    response = infer_http(server)
    text = response.json()["outputs"][0]["data"][0]
    assert f'"ASR_CHECKPOINT": "{server.settings.checkpoint}"' in text
    assert '"ASR_SLOTS": "7"' in text
    assert '"ASR_IDLE_TIMEOUT_S": "30"' in text
    assert '"ASR_DEVICE": "auto"' in text
    assert '"ASR_DTYPE": "float32"' in text


def test_only_the_option_headers_become_parameters(server):
    headers = {"Language": "de-DE", "Accept-Language": "fr", "latency_ms": "80", "x_language": "a"}
    text = infer_http(server, headers).json()["outputs"][0]["data"][0]
    parameters = text.lower().partition('"parameters"')[2]
    assert "de-de" in parameters
    assert "latency_ms" in parameters
    assert "accept" not in parameters
    assert "x_language" not in parameters


def infer_http(server: TritonServer, headers: dict[str, str] | None = None) -> httpx.Response:
    body = {
        "inputs": [{"name": "AUDIO", "shape": [1, 2], "datatype": "INT16", "data": [1, 2]}],
        "parameters": {"sequence_id": 5, "sequence_start": True, "sequence_end": True},
    }
    url = f"{server.http_url}/v2/models/asr_streaming/infer"
    return httpx.post(url, json=body, headers=headers, trust_env=False)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "v2/models/asr_streaming/config"),
        ("GET", "v2/models/asr_streaming/stats"),
        ("GET", "v2/models/stats"),
        ("POST", "v2/repository/index"),
        ("POST", "v2/repository/models/asr_streaming/unload"),
        ("GET", "v2/systemsharedmemory/status"),
        ("POST", "v2/systemsharedmemory/region/x/register"),
        ("GET", "v2/cudasharedmemory/status"),
        ("GET", "v2/trace/setting"),
        ("GET", "v2/logging"),
        ("POST", "v2/logging"),
    ],
)
def test_administration_over_http_is_closed(server, method, path):
    response = httpx.request(method, f"{server.http_url}/{path}", trust_env=False)
    assert response.status_code == httpx.codes.FORBIDDEN


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.get_model_config("asr_streaming"),
        lambda c: c.get_inference_statistics(),
        lambda c: c.get_model_repository_index(),
        lambda c: c.unload_model("asr_streaming"),
        lambda c: c.get_system_shared_memory_status(),
        lambda c: c.register_system_shared_memory("x", "/x", 1),
        lambda c: c.get_cuda_shared_memory_status(),
        lambda c: c.get_trace_settings(),
        lambda c: c.update_log_settings({"log_file": "/tmp/x"}),
    ],
)
def test_administration_over_grpc_is_closed(server, call):
    client = triton_grpc.InferenceServerClient(server.grpc_address)
    with pytest.raises(InferenceServerException, match="restricted"):
        call(client)


def test_health_and_metadata_are_open(server):
    client = triton_grpc.InferenceServerClient(server.grpc_address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("asr_streaming")
    assert client.get_model_metadata("asr_streaming").inputs[0].name == "AUDIO"
    assert "nv_inference_request_success" in httpx.get(server.metrics_url, trust_env=False).text


def test_listens_on_loopback_only(server):
    listening = [c for c in psutil.Process(server.pid).net_connections() if c.status == "LISTEN"]
    assert {c.laddr.ip.removeprefix("::ffff:") for c in listening} == {"127.0.0.1"}
    assert {c.laddr.port for c in listening} == set(server.settings.ports.values())


def test_probe_opens_and_ends_streams(server):
    probe = probe_of(server)
    for _ in range(20):  # five times max_candidate_sequences: none is left behind
        assert probe() is None


def test_probe_takes_a_full_server_for_alive_and_an_error_for_an_error(server):
    for file, answer in (("UNAVAILABLE", None), ("INTERNAL", "INTERNAL: out of memory")):
        path = server.settings.checkpoint / file
        path.touch()
        try:
            for _ in range(5):  # a refused START holds a candidate slot until its END
                assert probe_of(server)() == answer
        finally:
            path.unlink()
    assert probe_of(server)() is None


def test_a_port_that_is_taken_is_named(server, folder):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        twin = TritonServer(settings(folder, grpc_port=port, http_port=server.settings.http_port))
        with pytest.raises(ServerError) as failed:
            twin.start()
    assert f"grpc port {port} on 127.0.0.1: Address already in use" in str(failed.value)
    assert f"http port {server.settings.http_port}" in str(failed.value)
    assert "metrics" not in str(failed.value)


# --- starts that fail ---


def test_stop_leaves_nothing_and_the_same_ports_start_again(folder):
    server = TritonServer(settings(folder))
    for _ in range(2):
        server.start()
        name, processes = name_of(server.http_url), processes_of(server.pid)
        assert the(processes, "triton_python_backend_stub")
        assert list(Path("/dev/shm").glob(f"{name}-*"))
        assert server.trouble() is None
        server.stop()
        assert_nothing_left(name, processes, limit_s=0.5)
        assert server.trouble() is not None
    server.stop()


@pytest.mark.parametrize(
    ("file", "telling"),
    [
        ("broken", ["model asr_streaming: ValueError: model.safetensors: missing", "and 3 more"]),
        ("crash", ["not healthy", "last words"]),
    ],
)
def test_why_a_model_did_not_load_is_told(folder, file, telling):
    (folder / "checkpoint" / file).touch()
    with pytest.raises(ServerError) as failed:
        TritonServer(settings(folder)).start()
    message = str(failed.value)
    for text in telling:
        assert text in message
    assert len(message.splitlines()) < 8
    kept = Path(message.rpartition("the whole log: ")[2])
    assert kept.read_text()


def test_a_start_that_takes_too_long_is_ended(folder):
    (folder / "checkpoint" / "slow").touch()
    server = TritonServer(settings(folder, start_timeout_s=2))
    with pytest.raises(ServerError, match="not ready within 2 s"):
        server.start()
    assert server.pid is None


@pytest.mark.parametrize(
    ("changes", "telling"),
    [
        ({"checkpoint": Path("/no/such")}, "checkpoint not found: /no/such"),
        ({"model_repository": Path("/no/such")}, "model repository not found: /no/such"),
        ({"device": "tpu"}, "valid: auto, cpu, cuda"),
        ({"dtype": "int4"}, "valid: float32, bfloat16, float16"),
        ({"slots": 0}, "slots 0"),
        ({"instances": 0}, "instances 0"),
        ({"idle_timeout_s": 0}, "idle_timeout_s 0"),
        ({"http_port": 70000}, "http_port 70000"),
        ({"http_port": 9000, "grpc_port": 9000}, "ports must differ"),
    ],
)
def test_a_bad_setting_is_named(folder, changes, telling):
    with pytest.raises(SettingsError) as failed:
        TritonServer(settings(folder, **changes))
    assert telling in str(failed.value)


def test_a_missing_wheel_says_what_to_install(folder, monkeypatch):
    monkeypatch.setattr("asr_server.wheel.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ServerError, match=r"pip install '\.\[serve\]'"):
        TritonServer(settings(folder)).start()


@pytest.mark.parametrize(
    ("function", "value", "telling"),
    [
        ("machine", "aarch64", "Linux x86-64 only, this is Linux aarch64"),
        ("system", "Darwin", "Linux x86-64 only, this is Darwin"),
        ("libc_ver", ("glibc", "2.31"), "needs glibc 2.35"),
        ("libc_ver", ("", ""), "needs glibc 2.35"),
    ],
)
def test_another_platform_is_refused(folder, monkeypatch, function, value, telling):
    monkeypatch.setattr(f"asr_server.wheel.platform.{function}", lambda: value)
    with pytest.raises(ServerError, match=telling):
        TritonServer(settings(folder)).start()


def test_an_unsupported_python_is_refused(folder, monkeypatch):
    version = type("Version", (tuple,), {"major": 3, "minor": 14})((3, 14))
    monkeypatch.setattr("asr_server.wheel.sys.version_info", version)
    with pytest.raises(ServerError, match=r"no Python 3\.14 inside; valid: 3\.8, .*3\.12"):
        TritonServer(settings(folder)).start()


def test_what_a_killed_launcher_and_guard_left_is_removed_by_the_next_start(folder):
    server = TritonServer(settings(folder))
    server.start()
    name, processes = name_of(server.http_url), processes_of(server.pid)
    psutil.Process(server.pid).parent().kill()  # the guard; the kernel ends tritonserver
    wait_for(lambda: server.trouble())
    os.close(server._runtime.lock_fd)  # as if this process had died too
    server._runtime.lock_fd, server._runtime.path = -1, Path("gone")
    server.stop()
    assert list(Path("/dev/shm").glob(f"{name}*"))
    with TritonServer(settings(folder)):
        assert_nothing_left(name, processes)


# --- the supervisor ---


def start_cli(folder: Path, *options: str, cwd: str = "/") -> subprocess.Popen:
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
    paths = ["--checkpoint", folder / "checkpoint", "--model-repository", folder / "repository"]
    command = [sys.executable, "-m", "asr_server.cli", *ports, *paths, *options]
    return subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )


def http_url_of(ready_line: str) -> str:
    return "http://" + ready_line.partition("  http ")[2].split()[0]


def test_serve_restarts_a_killed_server_and_sigterm_ends_it(folder):
    with start_cli(folder) as serve:
        ready = serve.stdout.readline()
        assert ready.startswith(f"serving {folder}/checkpoint (float32, auto, 64 slots): grpc 127.")
        assert serve.stderr.readline().startswith(f"loading {folder}/checkpoint")
        first, name = processes_of(serve.pid)[1:], name_of(http_url_of(ready))
        the(first, "tritonserver/bin/tritonserver").kill()
        assert "the server process ended (signal SIGKILL)" in serve.stderr.readline()
        assert serve.stdout.readline() == ready
        assert_nothing_left(name, first)
        second, name = processes_of(serve.pid)[1:], name_of(http_url_of(ready))
        serve.send_signal(signal.SIGTERM)
        assert serve.wait(20) == 0
        assert_nothing_left(name, second, limit_s=0.5)


def test_serve_restarts_when_a_model_process_is_killed(folder):
    with start_cli(folder) as serve:
        ready = serve.stdout.readline()
        the(processes_of(serve.pid), "triton_python_backend_stub").kill()
        serve.stderr.readline()  # loading
        assert "the process of model asr_streaming ended" in serve.stderr.readline()
        assert serve.stdout.readline() == ready
        serve.send_signal(signal.SIGINT)
        assert serve.wait(20) == 0


def test_nothing_is_left_when_serve_is_killed(folder):
    with start_cli(folder) as serve:
        name = name_of(http_url_of(serve.stdout.readline()))
        processes = processes_of(serve.pid)
        assert len(processes) == 4  # serve, guard, tritonserver, one model
        serve.kill()
        assert_nothing_left(name, processes)


def test_a_first_start_that_crashes_is_tried_once_more(folder):
    (folder / "checkpoint" / "slow").touch()
    with start_cli(folder) as serve:
        wait_for(lambda: the(processes_of(serve.pid), "triton_python_backend_stub"))
        the(processes_of(serve.pid), "tritonserver/bin/tritonserver").kill()
        wait_for(lambda: "start 1 of 2 failed" in serve.stderr.readline())
        (folder / "checkpoint" / "slow").unlink()
        assert serve.stdout.readline().startswith("serving ")
        serve.send_signal(signal.SIGINT)
        assert serve.wait(20) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_during_the_start_ends_everything(folder, number):
    (folder / "checkpoint" / "slow").touch()
    with start_cli(folder) as serve:
        wait_for(lambda: the(processes_of(serve.pid), "triton_python_backend_stub"))
        processes = processes_of(serve.pid)
        guard = next(p for p in processes if "guard.py" in " ".join(command_of(p)[:4]))
        name = Path(command_of(guard)[5]).name
        assert name.startswith("nemotron-asr-")
        serve.send_signal(number)
        assert serve.wait(10) == (0 if number != signal.SIGKILL else -number)
        assert_nothing_left(name, processes, limit_s=5)


@pytest.mark.parametrize(
    ("options", "status", "telling"),
    [
        (["--device", "tpu"], 2, "'tpu' is not one of 'auto', 'cpu', 'cuda'"),
        (["--slots", "0"], 2, "0 is not in the range 1<=x<=16384"),
        (["--gateway", "--gateway-host", "no.such.host.invalid"], 2, "no.such.host.invalid"),
        (["--gateway", "--gateway-keys", "none.json"], 2, "'none.json' does not exist"),
        (["--checkpoint", "/no/such"], 2, "checkpoint not found: /no/such"),
        (["--host", "no.such.host.invalid"], 2, "no.such.host.invalid"),
        ([], 1, "ValueError: model.safetensors: missing tensor 'joint.bias'"),
    ],
)
def test_serve_says_why_it_cannot(folder, options, status, telling):
    (folder / "checkpoint" / "broken").touch()
    with start_cli(folder, *options) as serve:
        stdout, stderr = serve.communicate(timeout=60)
    assert serve.returncode == status
    assert stdout == ""
    assert telling in stderr
    assert "Traceback" not in stderr


def test_a_model_that_hangs_is_noticed_by_the_probe(folder):
    """A stopped process looks alive to everyone, and health stays green: only a request tells."""
    said = []
    policy = RestartPolicy(probe_interval_s=0.3, retry_interval_s=0.1, backoff_s=0.1)
    supervisor = Supervisor(settings(folder), policy, say=said.append)
    server = supervisor.server
    supervisor._probe = probe_of(server, timeout_s=1)
    exit_codes = []
    thread = threading.Thread(target=lambda: exit_codes.append(supervisor.run()))
    thread.start()
    try:
        wait_for(lambda: len(said) == 1)
        the(processes_of(server.pid), "triton_python_backend_stub").suspend()
        wait_for(lambda: len(said) == 2)
        assert said[1].startswith("3 probes failed in a row (no answer from asr_streaming within")
        wait_for(lambda: len(said) == 3)
        assert said[2] == said[0]
        assert probe_of(server)() is None
    finally:
        supervisor.stop()
        thread.join(30)
    assert exit_codes == [0]


def test_restarts_that_fail_end_with_1(folder):
    said = []
    policy = RestartPolicy(backoff_s=0.1, max_start_failures=2)
    supervisor = Supervisor(settings(folder), policy, say=said.append)
    exit_codes = []
    thread = threading.Thread(target=lambda: exit_codes.append(supervisor.run()))
    thread.start()
    wait_for(lambda: said)
    (folder / "checkpoint" / "broken").touch()
    psutil.Process(supervisor.server.pid).kill()
    thread.join(60)
    assert exit_codes == [1]
    assert sum("missing tensor 'joint.bias'" in line for line in said) == 2


def test_waits_between_restarts_grow_up_to_a_limit():
    policy = RestartPolicy(backoff_s=1, max_backoff_s=5)
    assert [policy.wait_s(n) for n in (1, 2, 3, 4, 50)] == [1, 2, 4, 5, 5]
