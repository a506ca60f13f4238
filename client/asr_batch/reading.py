"""Recordings from wherever fsspec reads: tried again where that may help, then decoded."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import fsspec
import numpy as np
import soundfile
from fsspec.callbacks import Callback

from nemotron_asr.audio import decode_blocks
from nemotron_asr.errors import NOT_FOUND, UNAVAILABLE, AsrError, invalid
from nemotron_asr.options import Options

from .manifest import Row, is_url
from .settings import WorkerSettings

FIRST_PAUSE_S = 0.5  # before the second try; doubled for each one after
MAX_PAUSE_S = 60.0
MAX_BYTES_PER_S = 48_000 * 4 * 8  # of a copy: eight channels of 32 bits, or video of 12 Mbit/s
_MORE_BYTES = 10_000_000  # pictures and other metadata
_BYTES_PER_S = 4_000  # of a format whose header libsndfile cannot read: 32 kbit/s, so no less audio
_AGAIN = (408, 425, 429)  # of HTTP's client errors, those that go away
_GONE = (404, 410)


def read_recording(
    row: Row, options: Options, settings: WorkerSettings, make_room: Callable[[float], None]
) -> np.ndarray:
    """A recording as (n,) float32 at 16 kHz.

    make_room: called with about how many seconds there are, before they are decoded.
    Raises AsrError: NOT_FOUND, UNAVAILABLE (it could not be read now), INVALID_ARGUMENT (no audio).
    """
    with _local(row, settings) as path:
        make_room(min(_about_s(path), settings.max_file_s))
        parts = list(decode_blocks(path, row.audio, settings.max_file_s, options.channel))
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


@contextmanager
def _local(row: Row, settings: WorkerSettings) -> Iterator[str]:
    """The path of a file that can be read; of what is not here already, a copy while it is used.

    The copy has no name in a folder, so that nothing is left of it however this process ends.
    """
    if not is_url(row.location):
        _tried(lambda: _check(row.location), row, settings)
        yield row.location
        return
    with tempfile.TemporaryFile() as copy:
        path = f"/dev/fd/{copy.fileno()}"
        _tried(lambda: _fetch(row.location, path, settings), row, settings)
        _check(path)
        yield path


def _check(path: str) -> None:
    with open(path, "rb", opener=_without_waiting) as file:
        status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise invalid(f"{path} is not a regular file")
    if not status.st_size:
        raise invalid("the audio is empty (0 bytes)")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe would wait for its writer


class _Limit(Callback):
    """Told of a download's progress.  Raises INVALID_ARGUMENT where it is too long for audio."""

    def __init__(self, max_file_s: float):
        super().__init__()
        self._max_bytes = int(max_file_s * MAX_BYTES_PER_S) + _MORE_BYTES

    def set_size(self, size: int | None) -> None:
        self._check(size or 0)
        super().set_size(size)

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        self._check(self.value)

    def _check(self, num_bytes: int) -> None:
        if num_bytes > self._max_bytes:
            raise invalid(f"the file is too large; valid: at most {self._max_bytes} bytes")


def _fetch(url: str, path: str, settings: WorkerSettings) -> None:
    options = {}
    if url.startswith(("http://", "https://")):
        from aiohttp import ClientTimeout

        options["client_kwargs"] = {"timeout": ClientTimeout(total=settings.timeout_s)}
    filesystem, remote = fsspec.url_to_fs(url, **options)
    filesystem.get_file(remote, path, callback=_Limit(settings.max_file_s))


def _tried(read: Callable[[], None], row: Row, settings: WorkerSettings) -> None:
    for attempt in range(settings.retries + 1):
        try:
            return read()
        except AsrError:
            raise
        except Exception as error:  # every file system has its own
            reason = f"cannot read {row.audio}: {_shown(error)}"
            if isinstance(error, FileNotFoundError) or _status(error) in _GONE:
                raise AsrError(NOT_FOUND, f"{row.audio}: no such file") from error
            if isinstance(error, (ValueError, ImportError, IsADirectoryError, NotADirectoryError)):
                raise invalid(reason) from error
            if attempt == settings.retries or not _may_go_away(error):
                raise AsrError(UNAVAILABLE, f"{reason} ({attempt + 1} tries)") from error
        time.sleep(min(MAX_PAUSE_S, FIRST_PAUSE_S * 2**attempt))
    return None


def _may_go_away(error: Exception) -> bool:
    status = _status(error)
    if status is not None and 400 <= status < 500:
        return status in _AGAIN
    return not isinstance(error, PermissionError)


def _status(error: Exception) -> int | None:
    """HTTP's, where the error has one."""
    status = getattr(error, "status", None)
    return status if isinstance(status, int) else None


def _shown(error: Exception) -> str:
    """Timeouts have no text of their own."""
    text = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _about_s(path: str) -> float:
    try:
        return soundfile.info(path).duration
    except (soundfile.SoundFileError, OSError):
        return os.path.getsize(path) / _BYTES_PER_S
