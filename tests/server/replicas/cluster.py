"""Two servers, each `asr serve --gateway` at an address of its own, behind a real HAProxy."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from server.conftest import ROOT
from server.test_replay import wait_for as wait_shorter

CONFIG = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
BIND, HOSTS = "127.0.0.1", {"a": "127.0.0.2", "b": "127.0.0.3"}
DOORS = ("http", "riva", "triton")
DRAIN_S = 600  # longer than anything here takes
PRE_STOP_S = 1.0  # calls that are on their way to a server arrive before it is told to stop
LIMIT_S = 300  # for anything on a busy machine
wait_for = partial(wait_shorter, limit_s=LIMIT_S)


def free_ports() -> dict[str, int]:
    """One for each door, free at all three addresses."""
    addresses = (BIND, *HOSTS.values())
    held, ports = [], {}
    try:
        while len(ports) < len(DOORS):
            first = _bound(addresses[0], 0)
            held.append(first)
            port = first.getsockname()[1]
            with suppress(OSError):  # taken at another of the addresses
                held += [_bound(address, port) for address in addresses[1:]]
                ports[DOORS[len(ports)]] = port
        return ports
    finally:
        for one in held:
            one.close()


def _bound(host: str, port: int) -> socket.socket:
    one = socket.socket()
    try:
        one.bind((host, port))
    except OSError:
        one.close()
        raise
    return one


@dataclass
class Replica:
    """One server, which can be stopped and begun again.  ports: by door."""

    name: str
    ports: dict[str, int]
    checkpoint: Path
    repository: Path
    log: Path
    process: subprocess.Popen | None = None

    @property
    def host(self) -> str:
        return HOSTS[self.name]

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.ports['http']}"

    def start(self) -> None:
        command = [
            sys.executable, "-m", "asr_client.cli", "serve", "--gateway", "--device", "cpu",
            "--checkpoint", self.checkpoint, "--model-repository", self.repository,
            "--host", self.host, "--gateway-host", self.host,
            "--http-port", 0, "--metrics-port", 0, "--grpc-port", self.ports["triton"],
            "--gateway-port", self.ports["http"], "--riva-port", self.ports["riva"],
            "--drain-timeout-s", DRAIN_S,
        ]  # fmt: skip
        with self.log.open("a") as log:
            self.process = subprocess.Popen([*map(str, command)], stdout=log, stderr=log)

    def is_ready(self) -> bool:
        assert self.process.poll() is None
        answer = self._get("/ready")
        return answer is not None and answer.status_code == 200

    def has_gateway(self) -> bool:
        return self._get("/health") is not None

    def _get(self, path: str) -> httpx.Response | None:
        """None where nobody listens."""
        try:  # the environment's proxy could not reach a loopback
            return httpx.get(self.url + path, timeout=LIMIT_S, trust_env=False)
        except httpx.TransportError:
            return None

    def metric(self, name: str) -> float:
        """The sum of a metric of the gateway over its doors."""
        lines = self._get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}{{"))

    def tell_to_stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        return self.process.wait(LIMIT_S)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()  # what it started ends with it
            self.process.wait()


class Proxy:
    """HAProxy with the configuration that users can take."""

    def __init__(self, ports: dict[str, int], folder: Path):
        self.ports = ports
        self._admin = folder / "speech.sock"
        env = {f"SPEECH_{door.upper()}_PORT": str(port) for door, port in ports.items()}
        env |= {f"SPEECH_{name.upper()}": host for name, host in HOSTS.items()}
        env |= {"SPEECH_BIND": BIND, "SPEECH_ADMIN": str(self._admin)}
        with (folder / "haproxy.log").open("w") as log:
            self._process = subprocess.Popen(
                ["haproxy", "-db", "-f", CONFIG], env=os.environ | env, stdout=log, stderr=log
            )
        self._log = Path(log.name)
        wait_for(self._is_up)

    def _is_up(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        return self._admin.exists()

    def address(self, door: str) -> str:
        return f"{BIND}:{self.ports[door]}"

    def admin(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(self._admin))
            one.sendall(f"{command}\n".encode())
            return b"".join(iter(partial(one.recv, 1 << 16), b"")).decode()

    def state(self, door: str, name: str) -> dict[str, str]:
        """What it knows of a server: `status`, `check_status`, `scur` (calls under way), ..."""
        rows = csv.DictReader(self.admin("show stat").removeprefix("# ").splitlines())
        return next(row for row in rows if (row["pxname"], row["svname"]) == (door, name))

    def is_well(self, name: str) -> bool:
        """Whether the check found it ready."""
        return self.state("http", name)["check_status"].lstrip("* ") == "L7OK"

    def is_out(self, name: str) -> bool:
        """Whether nothing new is sent to it, as the check says."""
        return all(self.state(door, name)["status"].startswith("DOWN") for door in DOORS)

    def set_state(self, name: str, state: str) -> None:
        """`drain`: send it nothing new, which is what Kubernetes does at first; `ready` again."""
        assert not self.admin(f"set server http/{name} state {state}").strip()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class Cluster:
    replicas: list[Replica]
    proxy: Proxy

    def wait_until_ready(self, replica: Replica) -> None:
        """Until it is, and the proxy has found out."""
        wait_for(replica.is_ready)
        wait_for(lambda: self.proxy.is_well(replica.name))

    def restart(self, replica: Replica, drained: Callable[[], None] = lambda: None) -> None:
        """As an update does it: nothing new, told to stop, gone, begun again, ready.

        The gateway's sessions end as they would; streams that are left then are cut.
        drained: called between.
        """
        self.proxy.set_state(replica.name, "drain")
        time.sleep(PRE_STOP_S)
        replica.tell_to_stop()
        wait_for(lambda: not replica.has_gateway())
        drained()
        replica.tell_to_stop()  # again: the end of the drain limit, without waiting for it
        assert replica.wait() == 0
        replica.start()
        self.wait_until_ready(replica)
        self.proxy.set_state(replica.name, "ready")
