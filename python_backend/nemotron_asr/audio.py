"""Audio files to the samples that the model hears."""

from __future__ import annotations

import io

import numpy as np
import soundfile
import soxr

from .config import SAMPLE_RATE
from .errors import invalid

BLOCK_FRAMES = 1 << 18  # frames decoded at a time: a long file is never in memory at its own rate


def decode_audio(data: bytes) -> np.ndarray:
    """A file as it is (WAV, FLAC, OGG, MP3, ...: what libsndfile reads) to 16 kHz mono.

    Channels are mixed down. Returns (n,) float32, in [-1, 1] for integer formats.
    Raises AsrError INVALID_ARGUMENT with the decoder's reason.
    """
    if not data:
        raise invalid("the audio is empty (0 bytes); valid: a WAV, FLAC, OGG or MP3 file")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            parts = list(_blocks(file))
    except (soundfile.LibsndfileError, soundfile.SoundFileRuntimeError, ValueError) as error:
        reason = getattr(error, "error_string", str(error))
        raise invalid(
            f"cannot read the audio ({len(data)} bytes): {reason} "
            "Valid: a whole WAV, FLAC, OGG or MP3 file"
        ) from error
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    finite = np.isfinite(samples)
    if not finite.all():
        seconds = int(np.argmin(finite)) / SAMPLE_RATE
        raise invalid(f"the audio has a sample that is not a finite number at {seconds:.3f} s")
    return samples


def _blocks(file: soundfile.SoundFile):
    """Mono blocks at 16 kHz."""
    resample = None
    if file.samplerate != SAMPLE_RATE:
        resample = soxr.ResampleStream(file.samplerate, SAMPLE_RATE, 1, dtype="float32")
    for block in file.blocks(BLOCK_FRAMES, dtype="float32", always_2d=True):
        mono = np.ascontiguousarray(block.mean(axis=1, dtype=np.float32))
        yield resample.resample_chunk(mono) if resample else mono
    if resample:
        yield resample.resample_chunk(np.zeros(0, np.float32), last=True)
