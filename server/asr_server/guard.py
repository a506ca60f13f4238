"""Stands between the launcher and tritonserver, so that nothing is ever left running.

The launcher may be killed with SIGKILL, and tritonserver may crash: neither can clean up after
itself. This small process (standard library only) outlives both by a moment. It ends the server
when told (SIGTERM: gently; SIGQUIT: at once) or when the launcher is gone, ends the Python stubs
that a crashed server leaves, and removes shared memory. If the guard itself is killed, the kernel
kills tritonserver (PR_SET_PDEATHSIG), and stubs end by themselves about two seconds after it.

    guard.py LAUNCHER_PID RUNTIME_DIRECTORY GRACE_S COMMAND...

Exits with the server's exit status, or 128 + the number of the signal that ended it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
PR_SET_CHILD_SUBREAPER = 36
POLL_S = 0.25
REAP_TIMEOUT_S = 10.0
MAX_LOG_BYTES = 64 << 20
SHM = Path("/dev/shm")
SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP}
_LIBC = ctypes.CDLL(None)


def main(argv: list[str]) -> int:
    launcher_pid, directory = int(argv[1]), Path(argv[2])
    grace_s, command = float(argv[3]), argv[4:]
    _LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # stubs of a dead server become ours
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # they wait for sigtimedwait below
    guard_pid = os.getpid()

    def before_exec() -> None:
        end_with(guard_pid, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    server = subprocess.Popen(command, preexec_fn=before_exec)
    orphaned = watch(server, launcher_pid, grace_s)
    kill_children()
    remove_regions(directory.name)
    if orphaned:  # else the launcher still reads the log in there, and removes it
        remove_files(directory)
    return server.returncode if server.returncode >= 0 else 128 - server.returncode


def end_with(parent_pid: int, number: int) -> None:
    """For a child: get this signal when the parent dies, however that comes; it may be dead now."""
    _LIBC.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


def watch(server: subprocess.Popen, launcher_pid: int, grace_s: float) -> bool:
    """Wait until the server has ended; whether the launcher was gone by then."""
    kill_at_s = None
    while server.poll() is None:
        got = signal.sigtimedwait(SIGNALS, POLL_S)
        orphaned = os.getppid() != launcher_pid
        told = got is not None and got.si_signo != signal.SIGCHLD
        if (told or orphaned) and kill_at_s is None:
            server.terminate()
            kill_at_s = time.monotonic() + grace_s
        at_once = told and got.si_signo == signal.SIGQUIT
        if at_once or (kill_at_s is not None and time.monotonic() > kill_at_s):
            server.kill()
        bound_log()
    return os.getppid() != launcher_pid


def bound_log() -> None:
    """Begin the log again when it is large. It is opened for appending, so this is safe."""
    if os.fstat(1).st_size > MAX_LOG_BYTES:
        os.ftruncate(1, 0)


def kill_children() -> None:
    """Kill and reap every process that is ours by now, for at most REAP_TIMEOUT_S seconds."""
    give_up_s = time.monotonic() + REAP_TIMEOUT_S
    while time.monotonic() < give_up_s:
        for pid in children(os.getpid()):
            os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.02)


def children(parent_pid: int) -> list[int]:
    """Processes whose parent is `parent_pid`, from /proc."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and process_stat(int(entry))[1] == parent_pid:
            found.append(int(entry))
    return found


def process_stat(pid: int) -> tuple[str, int]:
    """State letter and parent's pid of a process; ("", 0) if there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            state, parent = stat.read().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return "", 0
    return state, int(parent)


def lock_path(name: str) -> Path:
    return SHM / f"{name}.lock"


def remove_regions(name: str) -> None:
    """Remove the shared memory of a server that has ended."""
    for region in SHM.glob(f"{name}-*"):
        region.unlink(missing_ok=True)


def remove_files(directory: Path) -> None:
    """Remove everything on disk that belongs to a server that has ended, its lock last."""
    remove_regions(directory.name)
    shutil.rmtree(directory, ignore_errors=True)
    lock_path(directory.name).unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
