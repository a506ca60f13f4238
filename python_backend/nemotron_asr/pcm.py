"""Samples as callers have them to those that the model hears: G.711, channels, rates. No torch.

On the wire a live stream is int16. G.711 (mu-law, A-law) is not: it is a table of 256 exact int16
values, so whoever holds the codes, a client or a gateway, looks them up before it sends.
"""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import soundfile
import soxr

from .config import SAMPLE_RATE
from .errors import invalid

SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # Hz, of live audio
MAX_CHANNELS = 8  # of live audio
MIX = "mix"  # of all channels of a file; or a channel's number, from 0
PCM16 = "pcm16"
_G711 = {"mulaw": "ULAW", "alaw": "ALAW"}  # encoding -> libsndfile's name of it
ENCODINGS = (PCM16, *_G711)
HELD_BACK_MS = 120  # by the resampler, at most
_FULL_SCALE = np.float32(32768)


def decode_g711(codes: bytes | np.ndarray, encoding: str) -> np.ndarray:
    """Telephone audio, a byte a sample, to (n,) int16: exact, nothing is lost.

    encoding: "mulaw" or "alaw".  Raises AsrError INVALID_ARGUMENT for another one.
    """
    if encoding not in _G711:
        raise invalid(f"encoding {encoding!r} is no G.711; valid: {', '.join(_G711)}")
    return _g711_table(encoding)[np.frombuffer(codes, np.uint8)]


@cache
def _g711_table(encoding: str) -> np.ndarray:
    table, _ = soundfile.read(
        io.BytesIO(bytes(range(256))),
        dtype="int16",
        samplerate=8000,
        channels=1,
        format="RAW",
        subtype=_G711[encoding],
    )
    return table


def mix(frames: np.ndarray) -> np.ndarray:
    """(n, channels) float32 to their mean, (n,) float32."""
    return frames.mean(axis=1, dtype=np.float32)


class Resampler:
    """A signal of any rate to 16 kHz, block by block.

    soxr keeps its filters' state, so that the result is the same to the bit however the signal is
    cut. It holds back what its filters still need: at most 58 ms of the signal from 16 kHz up, 84
    at 11 and 12 kHz, 116 at 8 kHz. `finish` gives that out: n samples become n * 16000 / rate.
    """

    def __init__(self, rate: int):
        self._stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")

    def push(self, samples: np.ndarray) -> np.ndarray:
        """samples: (n,) float32, n >= 0.  Returns (m,) float32, m >= 0, at 16 kHz."""
        return self._stream.resample_chunk(samples)

    def finish(self) -> np.ndarray:
        """The end of the signal: what was held back, (m,) float32. Nothing may be pushed after."""
        return self._stream.resample_chunk(np.zeros(0, np.float32), last=True)


class LiveAudio:
    """One live stream's samples, as they come, to 16 kHz mono.

    What comes out depends on the samples alone, not on how they are cut into packets: to the bit
    what `decode_audio` makes of a file of them. 16 kHz mono passes as the int16 that it is; all
    else comes out as float32 in [-1, 1]: rounded once more it would not be what a file gives.
    """

    def __init__(self, sample_rate: int = SAMPLE_RATE, channels: int = 1):
        """sample_rate: Hz, one of SAMPLE_RATES.  channels: 1 to MAX_CHANNELS, interleaved."""
        self._rate, self._channels = sample_rate, channels
        self._as_it_is = sample_rate == SAMPLE_RATE and channels == 1
        self._begin()

    def _begin(self) -> None:
        self._resampler = Resampler(self._rate) if self._rate != SAMPLE_RATE else None
        self._part = np.zeros(0, np.int16)  # of a frame whose other channels are still to come

    def push(self, packet: np.ndarray) -> np.ndarray:
        """packet: (n,) int16, n >= 0; it may end within a frame of several channels.

        Returns (m,) int16 or float32, always the same of a stream, m >= 0.
        """
        if self._as_it_is:
            return packet
        samples = np.concatenate([self._part, packet])
        whole = len(samples) - len(samples) % self._channels
        self._part = samples[whole:]
        mono = mix(samples[:whole].reshape(-1, self._channels) / _FULL_SCALE)
        return mono if self._resampler is None else self._resampler.push(mono)

    def least(self, num_samples: int) -> int:
        """Samples of a channel without which so many more, at 16 kHz, surely do not come out."""
        if self._resampler is None:
            return max(0, num_samples)
        held_back = self._rate * HELD_BACK_MS // 1000
        return max(0, num_samples * self._rate // SAMPLE_RATE - held_back)

    def finish(self) -> np.ndarray:
        """The end of a signal: what was held back; what is pushed next begins another.

        A last frame that is not whole is left out.
        """
        resampler = self._resampler
        self._begin()
        if resampler is not None:
            return resampler.finish()
        return np.zeros(0, np.int16 if self._as_it_is else np.float32)
