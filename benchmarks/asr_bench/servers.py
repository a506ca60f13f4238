"""The server under test, started for a benchmark or found by its address: its CPU and memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from asr_client.address import grpc_target
from asr_server import ServerSettings, TritonServer, default_model_repository

from .report import say

STREAMING = "asr_streaming"
SERVER = "tritonserver"
MACHINE, STOLEN = "machine", "stolen"
IDLE_SHARE = 0.05  # of a core: a server that uses less has nothing left to do


@dataclass(frozen=True)
class Clock:
    """A moment, and the CPU seconds used up to it."""

    now_s: float
    cpu_s: dict[str, float]  # of the server's processes
    machine_s: float  # of everything on this machine
    stolen_s: float  # that the machine below gave to others

    def cores_since(self, before: Clock) -> dict[str, float]:
        """CPU seconds a second of each process; of the whole machine; stolen from it."""
        elapsed_s = self.now_s - before.now_s
        used = {name: s - before.cpu_s[name] for name, s in self.cpu_s.items()}
        used[MACHINE] = self.machine_s - before.machine_s
        used[STOLEN] = self.stolen_s - before.stolen_s
        return {name: round(s / elapsed_s, 3) for name, s in used.items()}


@dataclass(frozen=True)
class Target:
    """Where a server listens, and its processes by name: tritonserver, and a model's stub each."""

    grpc: str
    http: str | None
    processes: dict[str, psutil.Process]
    version: str | None = None

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds of each process so far."""
        return {name: _cpu_s(process) for name, process in self.processes.items()}

    def clock(self) -> Clock:
        """What can be subtracted later."""
        return Clock(time.monotonic(), self.cpu_s(), *_machine_s())

    def rss_mb(self) -> dict[str, float]:
        """Resident memory of each process; shared pages count in every one that touched them."""
        return {name: p.memory_info().rss / 1e6 for name, p in self.processes.items()}

    def wait_idle(self, timeout_s: float = 120.0) -> None:
        """Wait until what earlier runs left behind is done."""
        give_up_s = time.monotonic() + timeout_s
        while time.monotonic() < give_up_s:
            before, began_s = sum(self.cpu_s().values()), time.monotonic()
            time.sleep(0.5)
            used_s = sum(self.cpu_s().values()) - before
            if used_s < IDLE_SHARE * (time.monotonic() - began_s):
                return
        say(f"the server is still busy after {timeout_s:g} s")


@contextmanager
def serving(
    checkpoint: Path | None,
    url: str | None = None,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    slots: int = 64,
    instances: int = 1,
    start_timeout_s: float = 600.0,
) -> Iterator[Target]:
    """A server of our own on loopback, stopped afterwards; or the running one at `url`."""
    if url is not None:
        yield _running(url)
        return
    settings = ServerSettings(
        model_repository=default_model_repository(),
        checkpoint=checkpoint,
        device=device,
        dtype=dtype,
        slots=slots,
        instances=instances,
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        start_timeout_s=start_timeout_s,
    )
    say(f"starting a server: {checkpoint.name}, {dtype}, {device}, {settings.room}")
    with TritonServer(settings) as server:
        processes = _processes(psutil.Process(server.pid))
        yield Target(server.grpc_address, server.http_url, processes, _version(server.http_url))


def _running(url: str) -> Target:
    """A server that runs already. On this machine its processes are found by the port."""
    target = grpc_target(url)
    port = int(target.rpartition(":")[2])
    try:
        listening = (c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN)
        pid = next((c.pid for c in listening if c.laddr.port == port and c.pid), None)
    except psutil.AccessDenied:
        pid = None
    processes = _processes(psutil.Process(pid)) if pid is not None else {}
    if not processes:
        say(f"the processes behind {target} are not on this machine: no CPU times of theirs")
    return Target(target, None, processes)


def _processes(server: psutil.Process) -> dict[str, psutil.Process]:
    """The command of a stub is: STUB .../MODEL/VERSION/model.py ...; further ones are numbered."""
    found = {SERVER: server}
    for child in server.children():
        arguments = child.cmdline()
        if len(arguments) > 1 and arguments[1].endswith("model.py"):
            name = Path(arguments[1]).parts[-3]
            instances = sum(other.split()[0] == name for other in found)
            found[f"{name} {instances}" if instances else name] = child
    return found


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _machine_s() -> tuple[float, float]:
    times = psutil.cpu_times()
    stolen_s = getattr(times, "steal", 0.0)
    idle_s = times.idle + getattr(times, "iowait", 0.0)
    counted = ("guest", "guest_nice")  # in user and nice already
    total_s = sum(value for name, value in times._asdict().items() if name not in counted)
    return total_s - idle_s - stolen_s, stolen_s


def _version(http_url: str) -> str | None:
    try:
        answer = httpx.get(f"{http_url}/v2", timeout=5, trust_env=False).json()
        return f"{answer['version']}"
    except (httpx.HTTPError, KeyError, ValueError):
        return None
