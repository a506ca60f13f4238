"""The speech that benchmarks hear: the bundled recordings, one after another, again and again."""

from __future__ import annotations

import functools
import io

import numpy as np
import soundfile

from nemotron_asr.audio import decode_audio
from nemotron_asr.config import SAMPLE_RATE

from .report import ROOT


@functools.cache
def bundled_speech() -> np.ndarray:
    """All of samples/*.flac in a row, (n,) float32 at 16 kHz: 34 s."""
    files = sorted((ROOT / "samples").glob("*.flac"))
    if not files:
        raise FileNotFoundError(f"no recordings in {ROOT / 'samples'}")
    return np.concatenate([decode_audio(file.read_bytes()) for file in files])


def speech(duration_s: float, offset_s: float = 0.0) -> np.ndarray:
    """(n,) float32 of the bundled speech from `offset_s` on, repeated as often as it takes."""
    source, count = bundled_speech(), round(duration_s * SAMPLE_RATE)
    start = round(offset_s * SAMPLE_RATE) % len(source)
    repeats = -(-(start + count) // len(source))
    return np.tile(source, repeats)[start : start + count]


def speech_pcm(duration_s: float, offset_s: float = 0.0) -> np.ndarray:
    """The same as (n,) int16."""
    return np.clip(speech(duration_s, offset_s) * 32768, -32768, 32767).astype(np.int16)


def wav_file(samples: np.ndarray) -> bytes:
    """(n,) int16 as a WAV file."""
    out = io.BytesIO()
    soundfile.write(out, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return out.getvalue()
