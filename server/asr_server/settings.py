"""What a server is told: where its models are, what they load, and where it listens."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from nemotron_asr.settings import DEVICES, DTYPES, MAX_IDLE_TIMEOUT_S, MAX_SLOTS, MIN_IDLE_TIMEOUT_S

from .errors import ServerError, SettingsError

DEFAULT_HOST = "127.0.0.1"
MAX_PORT = 65535
_GPU_FILES = ("/dev/nvidiactl", "/dev/dxg")  # NVIDIA's driver; under Windows
MAX_INSTANCES = 64  # each has the weights; there is no use for more of them than cores
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # listens everywhere -> answers here


def reachable(host: str, port: int | str) -> str:
    """`host:port` at which this machine itself reaches what listens at that host."""
    host = _WILDCARDS.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True)
class ServerSettings:
    """Everything one server needs. A port of 0 means: choose a free one (`with_free_ports`).

    checkpoint: handed to the models as it is; None leaves the choice to them.
    instances: processes that serve live streams, on each GPU or on the CPU.
    slots: live streams at a time, of each instance.
    idle_timeout_s: a stream silent for longer loses its slot.
    start_timeout_s: from the start of the process until every model answers.
    drain_timeout_s: what live streams get to end when `asr serve` is told to stop.
    exit_timeout_s: what requests in flight get when the server stops.
    metrics_host: where the metrics alone listen; None: at host.
    trace_url: OTLP collector of OpenTelemetry traces.  trace_rate: one of so many requests.
    """

    model_repository: Path
    checkpoint: Path | None = None
    device: str = "auto"
    dtype: str = "float32"
    instances: int = 1
    slots: int = 64
    idle_timeout_s: float = 30.0
    host: str = DEFAULT_HOST
    metrics_host: str | None = None
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    start_timeout_s: float = 300.0
    drain_timeout_s: float = 30.0
    exit_timeout_s: int = 10
    trace_url: str | None = None
    trace_rate: int = 1
    verbose: bool = False

    @property
    def room(self) -> str:
        """For live streams, as it is told."""
        slots = f"{self.slots} slots"
        return slots if self.instances == 1 else f"{self.instances} x {slots}"

    @property
    def ports(self) -> dict[str, int]:
        return {"http": self.http_port, "grpc": self.grpc_port, "metrics": self.metrics_port}

    def listen_host(self, endpoint: str) -> str:
        """Where "http", "grpc" or "metrics" listens."""
        return (self.metrics_host or self.host) if endpoint == "metrics" else self.host

    def address(self, endpoint: str) -> str:
        """`host:port` at which this machine itself reaches "http", "grpc" or "metrics"."""
        return reachable(self.listen_host(endpoint), self.ports[endpoint])

    def is_loopback(self) -> bool:
        """Whether only this machine can reach the models."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def with_free_ports(self) -> ServerSettings:
        """Replace every port 0 by one that is free now. All are held while choosing."""
        sockets = []
        try:
            chosen = {}
            for name, port in self.ports.items():
                if port == 0:
                    sockets.append(bound_socket(self.listen_host(name), 0))
                    sockets[-1].listen(1)
                    chosen[f"{name}_port"] = sockets[-1].getsockname()[1]
            return replace(self, **chosen)
        finally:
            for held in sockets:
                held.close()

    def environment(self) -> dict[str, str]:
        """What the models read."""
        env = {
            "ASR_DEVICE": self.device,
            "ASR_DTYPE": self.dtype,
            "ASR_SLOTS": str(self.slots),
            "ASR_IDLE_TIMEOUT_S": f"{self.idle_timeout_s:g}",
            # Five processes share the cores: a thread that spins while it waits takes them from the
            # others (a start beside another busy process took 22 s of CPU instead of 4). Those of
            # live streams do for a moment.
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        }
        if self.checkpoint is not None:
            env["ASR_CHECKPOINT"] = str(self.checkpoint.resolve())
        if self.device == "cpu":
            env["CUDA_VISIBLE_DEVICES"] = ""  # KIND_AUTO would take a GPU, and Triton its memory
        return env

    def validate(self) -> None:
        """Raises SettingsError for the first bad value, naming it and what is valid."""
        for problem in self._problems():
            raise SettingsError(problem)

    def _problems(self) -> Iterator[str]:
        if self.device not in DEVICES:
            yield f"device {self.device!r} is unknown; valid: {', '.join(DEVICES)}"
        if self.device == "cuda" and not any(map(os.path.exists, _GPU_FILES)):
            yield "device 'cuda': there is no GPU here; valid: auto, cpu"
        if self.dtype not in DTYPES:
            yield f"dtype {self.dtype!r} is unknown; valid: {', '.join(DTYPES)}"
        if not 1 <= self.instances <= MAX_INSTANCES:
            yield f"instances {self.instances} is out of range; valid: 1 to {MAX_INSTANCES}"
        if not 1 <= self.slots <= MAX_SLOTS:
            yield f"slots {self.slots} is out of range; valid: 1 to {MAX_SLOTS}"
        if not MIN_IDLE_TIMEOUT_S <= self.idle_timeout_s <= MAX_IDLE_TIMEOUT_S:
            yield (
                f"idle_timeout_s {self.idle_timeout_s:g} is out of range; "
                f"valid: {MIN_IDLE_TIMEOUT_S:g} to {MAX_IDLE_TIMEOUT_S:g}"
            )
        for name, port in self.ports.items():
            if not 0 <= port <= MAX_PORT:
                yield f"{name}_port {port} is no port; valid: 0 (a free one) to {MAX_PORT}"
        fixed = [port for port in self.ports.values() if port]
        if len(set(fixed)) < len(fixed):
            used = ", ".join(f"{name} {port}" for name, port in self.ports.items())
            yield f"the ports must differ, and are {used}"
        if not self.model_repository.is_dir():
            yield f"model repository not found: {self.model_repository}"
        elif not any(self.model_repository.glob("*/config.pbtxt")):
            yield f"no model (*/config.pbtxt) in the model repository {self.model_repository}"
        if self.checkpoint is not None and not self.checkpoint.exists():
            yield f"checkpoint not found: {self.checkpoint}"


def check_ports_free(settings: ServerSettings) -> None:
    """Raises ServerError naming every port that something else listens on."""
    check_free({name: (settings.listen_host(name), port) for name, port in settings.ports.items()})


def check_free(addresses: Mapping[str, tuple[str, int]]) -> None:
    """Raises ServerError naming every (host, port) where nobody can listen now.

    Raises SettingsError for a host that is none.
    """
    taken = []
    for name, (host, port) in addresses.items():
        try:
            with bound_socket(host, port) as bound:
                bound.listen(1)
        except OSError as error:
            taken.append(f"{name} port {port} on {host}: {error.strerror or error}")
    if taken:
        raise ServerError("cannot listen at " + "; ".join(taken))


def bound_socket(
    host: str, port: int, options: Iterable[tuple[int, int, int]] = ()
) -> socket.socket:
    """A socket that is bound there.  options: of it, (level, name, value).

    Raises SettingsError for a host that is none, OSError where the port cannot be had.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise SettingsError(f"host {host!r} is no address: {error.strerror}") from None
    bound = socket.socket(family, kind, proto)
    try:
        # connections of a server that just ended are no obstacle; a listening socket is
        for option in ((socket.SOL_SOCKET, socket.SO_REUSEADDR, 1), *options):
            bound.setsockopt(*option)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def checkout_root() -> Path | None:
    """The checkout that this package runs from (an editable install), if it does."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "model_repository").is_dir() else None


def default_model_repository(environ: Mapping[str, str] = os.environ) -> Path:
    """ASR_MODEL_REPOSITORY, or the checkout's. Raises SettingsError where there is neither."""
    if environ.get("ASR_MODEL_REPOSITORY"):
        return Path(environ["ASR_MODEL_REPOSITORY"])
    if root := checkout_root():
        return root / "model_repository"
    raise SettingsError(
        "no model repository beside this package (it is not an editable install): "
        "give --model-repository or ASR_MODEL_REPOSITORY"
    )


def default_checkpoint(environ: Mapping[str, str] = os.environ) -> Path:
    """ASR_CHECKPOINT, or the bundled one. Raises SettingsError where there is neither."""
    if environ.get("ASR_CHECKPOINT"):
        return Path(environ["ASR_CHECKPOINT"])
    if root := checkout_root():
        return root / "checkpoints" / "demo"
    raise SettingsError(
        "no bundled checkpoint beside this package (it is not an editable install): "
        "give --checkpoint or ASR_CHECKPOINT"
    )
