"""Start and stop one Triton server: a private directory, a guarded process, a wait until ready."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx

from nemotron_asr.options import option_table

from . import guard
from .errors import ServerCrashed, ServerError, StartCancelled
from .probe import PROBE_MODEL
from .repository import with_instances
from .runtime_dir import NAME_PREFIX, RuntimeDir, remove_stale
from .server_log import LogReader, failure_reasons, waits_only_for
from .settings import ServerSettings, check_ports_free
from .wheel import assemble, check_platform, find_wheel, stub_environment

# Anyone who reaches the port could otherwise read configurations, map shared memory or turn on
# logging into a file of their choice. Health, metadata and inference stay open.
RESTRICTED_APIS = "shared-memory,model-config,model-repository,statistics,trace,logging"
# HTTP headers that become request parameters. Without the anchors "Accept-Language" matches too.
OPTION_HEADERS = "^({})$".format("|".join(option_table((), ())))
SHM_BYTES = 4 << 20  # per model, at start and per step of growth: four models fit a 64 MB /dev/shm
WORDS = ("drain", "stop")  # that the streaming model is told by files of these names
POLL_S = 0.1
REFUSAL_S = 2.0  # what the streaming model gets to refuse the streams that are left
LOOK_S = 1.0
STOP_MARGIN_S = 10.0  # beyond Triton's own exit timeout, then it is killed


class TritonServer:
    """One Triton server process, of the wheel, with every model of a repository.

    Use as a context manager, or call `start` and `stop`. It can be started again after a stop.
    Ports of 0 are chosen once, here, and stay the same over restarts.
    """

    def __init__(self, settings: ServerSettings):
        """Raises SettingsError for a bad setting."""
        settings.validate()
        self.settings = settings.with_free_ports()
        self._process: subprocess.Popen | None = None  # the guard; tritonserver is its child
        self._runtime: RuntimeDir | None = None
        self._log: LogReader | None = None
        self._kept_log: Path | None = None
        self._stubs: dict[int, str] = {}  # pid -> model
        self._can_let_go = False  # whether the streaming model reads what `_control` says

    def __enter__(self) -> TritonServer:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def http_url(self) -> str:
        return f"http://{self.settings.address('http')}"

    @property
    def grpc_address(self) -> str:
        """`host:port`, as tritonclient.grpc takes it."""
        return self.settings.address("grpc")

    @property
    def metrics_url(self) -> str:
        return f"http://{self.settings.address('metrics')}/metrics"

    @property
    def name(self) -> str | None:
        """What the names of its directory and shared-memory regions begin with."""
        return self._runtime.name if self._runtime else None

    @property
    def pid(self) -> int | None:
        """The process id of tritonserver itself, None while there is none."""
        if self._process is None or self._process.poll() is not None:
            return None
        return next(iter(guard.children(self._process.pid)), None)

    @property
    def log_path(self) -> Path | None:
        """The log of the running server, at most 64 MB, removed when it stops."""
        return self._runtime.path / "server.log" if self._runtime else None

    def start(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Start, and wait until every model is ready.

        should_stop: asked ten times a second; when true, whatever was started is stopped.
        Raises ServerError with the reason if a port is taken, the wheel or a library is missing,
        a model does not load, or `start_timeout_s` is over; StartCancelled if told to stop.
        """
        if self._process is not None:
            raise ServerError("this server is already started")
        self.settings.validate()
        check_platform()
        wheel = find_wheel()
        check_ports_free(self.settings)
        remove_stale()
        try:
            self._runtime = RuntimeDir()
            layout = assemble(wheel, self._runtime.path)
            self._make_control()
            env = stub_environment(layout) | self.settings.environment()
            env["ASR_CONTROL_DIR"] = str(self._control)
            arguments = self._arguments(layout.backend_directory, self._model_repository())
            self._spawn([str(wheel.binary), *wheel.options, *arguments], env)
            self._wait_until_ready(should_stop)
            self._stubs = self._find_stubs()
            self._can_let_go = self.has_streams()
        except BaseException as error:
            self.stop(at_once=True)
            if isinstance(error, OSError):
                raise ServerError(f"cannot start: {error}") from error
            raise

    def drain(self) -> None:
        """Refuse new live streams; those that live go on."""
        if self._runtime is not None:
            self._tell("drain")

    def has_streams(self) -> bool:
        """Whether a live stream may be left since `drain`."""
        return self._runtime is not None and any(self._control.glob("*.serving"))

    def stop(self, at_once: bool = False) -> None:
        """Stop the server and everything it started. Without effect if it is not running.

        Live streams are refused, files in flight get `exit_timeout_s`; with `at_once` all are lost.
        """
        process, self._process = self._process, None
        try:
            if process is not None:
                self._end(process, at_once)
        finally:
            self.forward_log()
            runtime, self._runtime, self._log = self._runtime, None, None
            self._stubs = {}
            if runtime is not None:
                runtime.remove()

    def trouble(self) -> str | None:
        """What of this server has died, in a few words; None while all its processes live."""
        if self._process is None:
            return "the server is not started"
        status = self._process.poll()
        if status is not None:
            return f"the server process ended ({_describe_exit(status)})"
        for pid, model in self._stubs.items():
            if guard.process_stat(pid)[0] in ("", "Z", "X"):
                return f"the process of model {model} ended"
        return None

    def forward_log(self) -> None:
        """Write what is new in the log to stderr, if `verbose`."""
        if self._log is not None and self.settings.verbose:
            with suppress(OSError):  # a file on a full disk
                sys.stderr.write(self._log.new_text())
                sys.stderr.flush()

    def keep_log(self) -> Path | None:
        """Copy the log to a file that survives `stop`; the next copy replaces it.

        None where there is no log, or no room for another.
        """
        if self.log_path is None or not self.log_path.exists():
            return None
        try:
            if self._kept_log is None:  # one per launcher, whatever the number of restarts
                fd, name = tempfile.mkstemp(prefix=NAME_PREFIX, suffix=".log")
                os.close(fd)
                self._kept_log = Path(name)
            shutil.copyfile(self.log_path, self._kept_log)
        except OSError:
            return None
        return self._kept_log

    @property
    def _control(self) -> Path:
        """Where the streaming model looks for what it is told; it says there that it serves."""
        return self._runtime.path / "control"

    def _make_control(self) -> None:
        self._control.mkdir()
        for word in WORDS:
            (self._control / f"not-{word}").touch()

    def _tell(self, word: str) -> None:
        """Say `drain` or `stop` by renaming a file: a full disk may not take another one."""
        with suppress(FileNotFoundError):  # said before
            (self._control / f"not-{word}").rename(self._control / word)

    def _model_repository(self) -> Path:
        s = self.settings
        if s.instances == 1:
            return s.model_repository.resolve()
        return with_instances(s.model_repository, s.instances, self._runtime.path)

    def _arguments(self, backend_directory: Path, model_repository: Path) -> list[str]:
        s, name = self.settings, self._runtime.name
        closed = f"{RESTRICTED_APIS}:{secrets.token_hex(8)}={secrets.token_hex(32)}"
        return [
            f"--id={name}",
            f"--model-repository={model_repository}",
            f"--backend-directory={backend_directory}",
            *(f"--{endpoint}-port={port}" for endpoint, port in s.ports.items()),
            *(f"--{endpoint}-address={s.listen_host(endpoint)}" for endpoint in s.ports),
            f"--backend-config=python,shm-region-prefix-name={self._runtime.region_prefix}",
            f"--backend-config=python,shm-default-byte-size={SHM_BYTES}",
            f"--backend-config=python,shm-growth-byte-size={SHM_BYTES}",
            f"--http-restricted-api={closed}",
            f"--grpc-restricted-protocol={closed}",
            f"--http-header-forward-pattern={OPTION_HEADERS}",
            f"--exit-timeout-secs={s.exit_timeout_s}",
            "--log-info=true",  # it tells what a server that stops waits for
            "--model-control-mode=none",
            "--strict-readiness=true",
            "--exit-on-error=true",
            "--allow-sagemaker=false",
            "--allow-vertex-ai=false",
            *self._tracing(),
        ]

    def _tracing(self) -> list[str]:
        s = self.settings
        if s.trace_url is None:
            return []
        return [
            "--trace-config=mode=opentelemetry",
            "--trace-config=level=TIMESTAMPS",
            f"--trace-config=rate={s.trace_rate}",
            f"--trace-config=opentelemetry,url={s.trace_url}",
            "--trace-config=opentelemetry,resource=service.name=asr",
        ]

    def _spawn(self, command: list[str], env: dict[str, str]) -> None:
        grace_s = self.settings.exit_timeout_s + STOP_MARGIN_S / 2
        python = [sys.executable, "-I", "-S"]  # standard library only: starts in 20 ms
        ours = [str(os.getpid()), str(self._runtime.path), str(grace_s)]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*python, guard.__file__, *ours, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                cwd=self._runtime.path,
                pass_fds=(self._runtime.lock_fd,),
                start_new_session=True,  # Ctrl-C is for the launcher, which then stops the server
            )
        self._log = LogReader(self.log_path)

    def _wait_until_ready(self, should_stop: Callable[[], bool]) -> None:
        give_up_s = time.monotonic() + self.settings.start_timeout_s
        with httpx.Client(base_url=self.http_url, timeout=2.0, trust_env=False) as client:
            while not self._is_ready(client):
                self.forward_log()
                if should_stop():
                    raise StartCancelled("told to stop while starting")
                if (status := self._process.poll()) is not None:
                    kind = ServerCrashed if _signal_of(status) else ServerError
                    raise self._failure(
                        f"the server did not start ({_describe_exit(status)})", kind
                    )
                if time.monotonic() > give_up_s:
                    limit_s = self.settings.start_timeout_s
                    raise self._failure(f"the server was not ready within {limit_s:g} s")
                time.sleep(POLL_S)
        self.forward_log()

    def _is_ready(self, client: httpx.Client) -> bool:
        """Whether it is this server, and not another at the same port, that is ready."""
        try:
            if client.get("/v2/health/ready").status_code != httpx.codes.OK:
                return False
            return client.get("/v2").json().get("name") == self._runtime.name
        except (httpx.HTTPError, ValueError):
            return False

    def _failure(self, what: str, kind: type[ServerError] = ServerError) -> ServerError:
        log = self.log_path.read_text(encoding="utf-8", errors="replace")
        reasons = "".join(f"\n  {reason}" for reason in failure_reasons(log))
        return kind(f"{what}:{reasons}\n  the whole log: {self.keep_log()}")

    def _find_stubs(self) -> dict[int, str]:
        """The Python processes of the models. Their command: STUB .../MODEL/VERSION/model.py ..."""
        stubs = {}
        for pid in guard.children(self.pid) if self.pid else []:
            try:
                arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
                stubs[pid] = Path(arguments[1]).parts[-3]
            except (OSError, IndexError):
                continue
        return stubs

    def _end(self, process: subprocess.Popen, at_once: bool) -> None:
        """End the guard's server, then the guard. Repeated interrupts do not cut this short."""
        try:
            if not at_once:
                self._end_gently(process)
            process.send_signal(signal.SIGQUIT)
            process.wait(STOP_MARGIN_S / 2 + guard.REAP_TIMEOUT_S)
        except BaseException as error:
            process.kill()  # the kernel kills tritonserver with it
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise

    def _end_gently(self, process: subprocess.Popen) -> None:
        """Wait until the server has ended, or nothing is left that is worth waiting for.

        Triton waits for streams that nobody ends, though the model has let go of them.
        """
        give_up_s = time.monotonic() + REFUSAL_S
        self._tell("stop")
        while self.has_streams() and time.monotonic() < give_up_s:
            time.sleep(POLL_S)
        process.send_signal(signal.SIGTERM)
        give_up_s = time.monotonic() + self.settings.exit_timeout_s + STOP_MARGIN_S / 2
        while time.monotonic() < give_up_s:
            try:
                process.wait(LOOK_S)
            except subprocess.TimeoutExpired:
                let_go = self._can_let_go and not self.has_streams()
                if let_go and waits_only_for(
                    PROBE_MODEL, self.log_path.read_text(errors="replace")
                ):
                    return
            else:
                return


def _describe_exit(status: int) -> str:
    ended_by = _signal_of(status)
    return f"signal {ended_by.name}" if ended_by else f"exit status {status}"


def _signal_of(status: int) -> signal.Signals | None:
    """What ended the server, out of an exit status as the guard passes it on: 128 + n."""
    try:
        return signal.Signals(-status if status < 0 else status - 128)
    except ValueError:
        return None
