"""Audio files to the samples that the model hears. Used by the server and by clients."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import soundfile
import soxr

from .config import SAMPLE_RATE
from .errors import invalid

BLOCK_S = 10  # decoded at a time: a long file is never in memory at its own rate
MIN_RATE, MAX_RATE = 4_000, 384_000  # Hz; what a header outside of them says is not to be believed
DEFAULT_MAX_S = 4 * 3600.0
LENGTH_TOLERANCE_S = 0.1  # headers of compressed files are off by a codec frame or two


def decode_audio(data: bytes, max_s: float = DEFAULT_MAX_S) -> np.ndarray:
    """A file as it is (WAV, FLAC, OGG, MP3, ...: what libsndfile reads) to 16 kHz mono.

    Channels are mixed down. Returns (n,) float32, in [-1, 1] for integer formats.
    Raises AsrError INVALID_ARGUMENT with the decoder's reason, also for a file that ends before its
    header says, one longer than max_s seconds, and samples that are no finite numbers.
    """
    if not data:
        raise invalid("the audio is empty (0 bytes); valid: a WAV, FLAC, OGG or MP3 file")
    parts = list(decode_blocks(io.BytesIO(data), f"the audio ({len(data)} bytes)", max_s))
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def decode_blocks(file, name: str, max_s: float = DEFAULT_MAX_S) -> Iterator[np.ndarray]:
    """The same, block by block as it is decoded.  file: a path or a binary file."""
    try:
        with soundfile.SoundFile(file) as sound:
            _check_header(sound, name, max_s)
            done = 0
            for block in _resampled(_mono_blocks(sound, name), sound.samplerate):
                _check_finite(block, done, name)
                done += len(block)
                yield block
    except (soundfile.SoundFileRuntimeError, OSError, ValueError) as error:
        reason = getattr(error, "error_string", str(error))
        raise invalid(
            f"cannot read {name}: {reason} Valid: a whole WAV, FLAC, OGG or MP3 file"
        ) from error


def _check_header(sound: soundfile.SoundFile, name: str, max_s: float) -> None:
    rate = sound.samplerate
    if not MIN_RATE <= rate <= MAX_RATE:
        raise invalid(f"{name} has {rate} samples a second; valid: {MIN_RATE} to {MAX_RATE}")
    if sound.frames > max_s * rate:
        raise invalid(f"{name} lasts {sound.frames / rate:.0f} s; valid: at most {max_s:g} s")


def _mono_blocks(sound: soundfile.SoundFile, name: str) -> Iterator[np.ndarray]:
    """Blocks of (n,) float32 at the file's own rate, every one of its samples."""
    done = 0
    # Not sound.blocks(): where a file ends early, that yields memory that was never written.
    while len(block := sound.read(BLOCK_S * sound.samplerate, dtype="float32", always_2d=True)):
        done += len(block)
        yield block.mean(axis=1, dtype=np.float32)
    if done < sound.frames - LENGTH_TOLERANCE_S * sound.samplerate:
        raise invalid(f"{name} ends early: {done} of {sound.frames} samples are there")


def _resampled(blocks: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    if rate == SAMPLE_RATE:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _check_finite(block: np.ndarray, done: int, name: str) -> None:
    finite = np.isfinite(block)
    if not finite.all():
        seconds = (done + int(np.argmin(finite))) / SAMPLE_RATE
        raise invalid(f"{name} has a sample that is not a finite number at {seconds:.3f} s")
