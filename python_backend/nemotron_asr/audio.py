"""Audio files to the samples that the model hears. Used by the server and by clients."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import soundfile

from .config import SAMPLE_RATE
from .errors import invalid
from .pcm import MIX, Resampler, mix

BLOCK_SAMPLES = 1_000_000  # decoded at a time, all channels: a long file is never whole in memory
MIN_RATE, MAX_RATE = 4_000, 384_000  # Hz; what a header outside of them says is not to be believed
DEFAULT_MAX_S = 4 * 3600.0
LENGTH_TOLERANCE_S = 0.1  # headers of compressed files are off by a codec frame or two
_FORMATS = "WAV, FLAC, OGG, MP3"
_MORE_FORMATS = "WebM, MKV, M4A, MP4, MOV, 3GP, AAC, AMR, WMA"
_NOT_LIBSNDFILES = (1, 4)  # its codes for a format and for an encoding that it does not know


def decode_audio(data: bytes, max_s: float = DEFAULT_MAX_S, channel: int | str = MIX) -> np.ndarray:
    """A file as it is to 16 kHz mono.

    What libsndfile reads (WAV, FLAC, OGG, MP3, ...) is decoded by it, all else (M4A, WebM, ...) by
    FFmpeg where the extra `formats` is installed.
    channel: "mix" for the mean of all, or the number of one, from 0.
    Returns (n,) float32, in [-1, 1] for integer formats.
    Raises AsrError INVALID_ARGUMENT with the decoder's reason, also for a file that ends before its
    header says (but a WAV is taken as far as it goes: recorders often leave its length unset), one
    longer than max_s seconds, one without that channel, and samples that are no finite numbers.
    """
    parts = list(file_blocks(data, max_s, channel))
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def file_blocks(
    data: bytes, max_s: float = DEFAULT_MAX_S, channel: int | str = MIX
) -> Iterator[np.ndarray]:
    """The same, block by block as it is decoded. Lets go of the file at its end."""
    if not data:
        raise invalid(f"the audio is empty (0 bytes); valid: {formats()}")
    yield from decode_blocks(io.BytesIO(data), f"the audio ({len(data)} bytes)", max_s, channel)


def decode_blocks(
    file, name: str, max_s: float = DEFAULT_MAX_S, channel: int | str = MIX
) -> Iterator[np.ndarray]:
    """The same, block by block as it is decoded.  file: a path or a binary file."""
    try:
        with _open(file) as source:
            _check_header(source, name, max_s, channel)
            done = 0
            for block in _resampled(source, channel):
                _check_finite(block, done, name)
                done += len(block)
                if done > max_s * SAMPLE_RATE + 1:  # the header did not tell
                    raise invalid(f"{name} is too long; valid: at most {max_s:g} s")
                yield block
    except (soundfile.SoundFileRuntimeError, OSError, ValueError) as error:
        reason = getattr(error, "error_string", str(error))
        raise invalid(f"cannot read {name}: {reason} Valid: {formats()}") from error


def formats() -> str:
    """What can be decoded here, for messages."""
    if _containers() is not None:
        return f"a whole file of {_FORMATS}, {_MORE_FORMATS}"
    install = f'for {_MORE_FORMATS} install the extra: pip install -e ".[formats]"'
    return f"a whole file of {_FORMATS}; {install}"


def _containers() -> ModuleType | None:
    """containers.py, loaded with FFmpeg (40 MB) when a file wants it; None without the extra."""
    try:
        return importlib.import_module(".containers", __package__)
    except ImportError:
        return None


class _SoundFile(soundfile.SoundFile):
    """What libsndfile reads, with the attributes of a `Container`."""

    @property
    def rate(self) -> int:
        return self.samplerate

    @property
    def duration_s(self) -> float:
        return self.frames / self.samplerate

    def blocks(self) -> Iterator[np.ndarray]:
        """(n, channels) float32, every sample of the file."""
        done = 0
        size = max(1, BLOCK_SAMPLES // self.channels)
        # Not the inherited blocks(): where a file ends early, that yields memory never written.
        while len(block := self.read(size, dtype="float32", always_2d=True)):
            done += len(block)
            yield block
        if done < self.frames - LENGTH_TOLERANCE_S * self.rate:
            raise ValueError(f"It ends early: {done} of {self.frames} samples are there.")


def _open(file):
    """A `_SoundFile`, or a `Container` where libsndfile does not know the format."""
    try:
        return _SoundFile(file)
    except soundfile.LibsndfileError as error:
        containers = _containers() if error.code in _NOT_LIBSNDFILES else None
        if containers is None:
            raise
    return containers.Container(file)


def _check_header(source, name: str, max_s: float, channel: int | str) -> None:
    if not MIN_RATE <= source.rate <= MAX_RATE:
        raise invalid(f"{name} has {source.rate} samples a second; valid: {MIN_RATE} to {MAX_RATE}")
    if source.duration_s is not None and source.duration_s > max_s:
        raise invalid(f"{name} lasts {source.duration_s:.0f} s; valid: at most {max_s:g} s")
    if channel != MIX and channel >= source.channels:
        valid = ", ".join(map(str, range(source.channels)))
        raise invalid(f"{name} has no channel {channel}; valid: {MIX}, {valid}")


def _resampled(source, channel: int | str) -> Iterator[np.ndarray]:
    """(n,) float32 at 16 kHz."""
    mono = (mix(block) if channel == MIX else block[:, channel] for block in source.blocks())
    if source.rate == SAMPLE_RATE:
        yield from mono
        return
    resampler = Resampler(source.rate)
    for block in mono:
        yield resampler.push(np.ascontiguousarray(block))
    yield resampler.finish()


def _check_finite(block: np.ndarray, done: int, name: str) -> None:
    finite = np.isfinite(block)
    if not finite.all():
        seconds = (done + int(np.argmin(finite))) / SAMPLE_RATE
        raise invalid(f"{name} has a sample that is not a finite number at {seconds:.3f} s")
