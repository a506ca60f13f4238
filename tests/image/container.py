"""Runs an image's files as a container engine does: own namespaces, nothing to write on, no rights.

The root is bound read-only, /tmp and /dev/shm are the only places to write, the network is loopback
alone, and the process is the image's user without a capability, under the image's entry point.
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
import time
from pathlib import Path

SHM_SIZE = "2g"
READY_S = 300
STOP_S = 60
DEVICES = ("null", "zero", "full", "random", "urandom")


class Container:
    """Use as a context manager. mounts: directories to show, place in the image -> path here."""

    def __init__(self, root: Path, config: dict, mounts: dict[str, Path] | None = None):
        self._root = root
        self._config = config
        self._mounts = mounts or {}

    def __enter__(self) -> Container:
        spaces = ["--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
        self._log = tempfile.TemporaryFile("w+")
        self._unshare = subprocess.Popen(
            ["unshare", *spaces, "sh", "-euc", self._script()],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._unshare.kill()
        self._unshare.wait()
        self._log.close()

    def run(self, *command: str, root: bool = False) -> subprocess.CompletedProcess:
        """A further command inside, as `docker exec` does."""
        enter = ["nsenter", f"--target={self._pid()}", "--net", "--mount", "--pid", "--ipc"]
        inside = [*enter, "--root", "--wd", *self._as_its_user(root), *command]
        return subprocess.run(inside, capture_output=True, text=True, timeout=READY_S)

    def is_healthy(self) -> bool:
        """What the image's HEALTHCHECK says."""
        kind, *command = self._config["Healthcheck"]["Test"]
        assert kind == "CMD"
        return self.run(*command).returncode == 0

    def wait_until_healthy(self) -> None:
        give_up_s = time.monotonic() + READY_S
        while not (self._has_begun() and self.is_healthy()):
            assert self._unshare.poll() is None, self.log()
            assert time.monotonic() < give_up_s, self.log()
            time.sleep(2)

    def log(self) -> str:
        """All that it printed."""
        self._log.seek(0)
        return self._log.read()

    def stop(self) -> int:
        """Tells it to stop by its STOPSIGNAL; the exit status."""
        subprocess.run(["kill", "-s", self._config["StopSignal"], str(self._pid())], check=True)
        return self._unshare.wait(STOP_S)

    def _pid(self) -> int:
        """Of its first process, as it is called out here; 0 while there is none."""
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        return int((children.read_text().split() or [0])[0])

    def _has_begun(self) -> bool:
        """Whether that is the entry point by now, and no longer the script."""
        try:
            name = Path(f"/proc/{self._pid()}/comm").read_text().strip()
        except FileNotFoundError:
            return False
        return name == Path(self._config["Entrypoint"][0]).name

    def _script(self) -> str:
        root = shlex.quote(str(self._root))
        lines = [
            "ip link set lo up",
            "mount --make-rprivate /",
            f"mount --bind {root} {root}",
            f"mount -o remount,bind,ro {root}",
            f"mount -t proc proc {root}/proc",
            f"mount -t tmpfs -o mode=755 tmpfs {root}/dev",
            f"mkdir {root}/dev/shm",
        ]
        for device in DEVICES:
            lines += [
                f"touch {root}/dev/{device}",
                f"mount --bind /dev/{device} {root}/dev/{device}",
            ]
        options = f"mode=1777,size={SHM_SIZE},nosuid,nodev,noexec"
        lines += [
            f"mount -t tmpfs -o {options} tmpfs {root}/{place}" for place in ("dev/shm", "tmp")
        ]
        for inside, here in self._mounts.items():
            target = f"{root}{shlex.quote(inside)}"
            lines += [
                f"mount --bind {shlex.quote(str(here))} {target}",
                f"mount -o remount,bind,ro {target}",
            ]
        served = [*self._config["Entrypoint"], *(self._config["Cmd"] or [])]
        lines.append(f"exec chroot {root} {shlex.join([*self._as_its_user(), *served])}")
        return "\n".join(lines)

    def _as_its_user(self, root: bool = False) -> list[str]:
        uid, gid = self._config["User"].split(":")
        ids = [] if root else [f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
        none = ["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
        environment = ["env", "-i", f"--chdir={self._config['WorkingDir']}", *self._config["Env"]]
        return ["setpriv", *ids, *none, *environment]
