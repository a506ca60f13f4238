"""What one running server owns on this machine: a directory, shared-memory regions, a lock.

All three carry one unique name. The lock, in /dev/shm beside the regions, is held (flock) by the
launcher and by the guard, and the kernel lets go of it when both are dead: whatever has a name
whose lock can be taken was left behind, and is removed by the next start. No pid is compared, so
containers that share /dev/shm do not remove each other's regions.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
from pathlib import Path

from .errors import ServerError
from .guard import SHM, lock_path, remove_files

NAME_PREFIX = "nemotron-asr-"


class RuntimeDir:
    """A private directory for one start of the server. Raises ServerError if it cannot be made."""

    def __init__(self) -> None:
        if not SHM.is_dir() or not os.access(SHM, os.W_OK):
            raise ServerError(f"the server needs shared memory, and {SHM} cannot be written")
        temporary = Path(tempfile.gettempdir())
        self.name, self.lock_fd = _take_new_lock()
        self.path = temporary / self.name
        try:
            self.path.mkdir(mode=0o700)
        except OSError as error:
            self.remove()
            raise ServerError(f"cannot make {self.path}: {error.strerror}") from error

    @property
    def region_prefix(self) -> str:
        """What the names of the Python backend's shared-memory regions begin with."""
        return f"{self.name}-"

    def remove(self) -> None:
        """Remove all three. May be called twice."""
        remove_files(self.path)
        if self.lock_fd >= 0:
            os.close(self.lock_fd)
            self.lock_fd = -1


def remove_stale() -> list[str]:
    """Remove what servers of this user left behind; names of those."""
    removed = []
    for lock in SHM.glob(f"{NAME_PREFIX}*.lock"):
        try:
            fd = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue  # another user's, or just gone
        try:
            if os.fstat(fd).st_uid == os.getuid():
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                name = lock.name.removesuffix(".lock")
                remove_files(Path(tempfile.gettempdir()) / name)
                removed.append(name)
        except OSError:
            pass  # held: that server is alive
        finally:
            os.close(fd)
    return removed


def _take_new_lock() -> tuple[str, int]:
    while True:
        name = NAME_PREFIX + secrets.token_hex(4)
        fd = os.open(lock_path(name), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock_path(name).stat().st_ino == os.fstat(fd).st_ino:
                return name, fd
        except OSError:
            pass  # another start's sweep took it between the two calls above
        os.close(fd)
