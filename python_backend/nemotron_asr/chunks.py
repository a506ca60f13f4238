"""Which samples a chunk needs, and when a stream has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .config import HOP, SAMPLE_RATE, SUBSAMPLING
from .encoder import num_encoder_frames
from .features import FRAME_REACH, first_sample_of, num_mel_frames

if TYPE_CHECKING:
    from .biasing import Bias

LEAD = SUBSAMPLING - 1  # mel frames before encoder frame 0's own; see encoder.py
INT16_SCALE = 1.0 / 32768.0


@dataclass
class Chunk:
    """One row of a call: the next encoder frames of one stream."""

    samples: np.ndarray  # (n,) float32 or int16 from `start_sample` on, as far as there are any
    start_sample: int  # their place in the stream
    first_frame: int  # encoder frames done before
    num_samples: int | None  # length of the whole stream, None while it goes on
    prompt_id: int
    bias: Bias | None = None  # of a stream that has phrases or languages; decoding moves it on

    @property
    def first_mel(self) -> int:
        """The first mel frame of the call; negative where the stream begins."""
        return SUBSAMPLING * self.first_frame - LEAD

    def valid_frames(self, num_frames: int) -> int:
        """How many of the next `num_frames` encoder frames lie within the stream."""
        if self.num_samples is None:
            return num_frames
        return min(num_frames, max(0, total_frames(self.num_samples) - self.first_frame))

    def copy_samples(self, out: np.ndarray, start: int) -> None:
        """Fill `out`, float32, with the stream from sample `start` on, where there is any."""
        low = max(start, self.start_sample)
        high = min(start + len(out), self.start_sample + len(self.samples))
        if low < high:
            part = self.samples[low - self.start_sample : high - self.start_sample]
            scale = INT16_SCALE if self.samples.dtype == np.int16 else 1.0
            np.multiply(part, scale, out=out[low - start : high - start], dtype=np.float32)


def samples_needed(num_frames: int) -> int:
    """Samples after which encoder frame `num_frames - 1` can be computed exactly.

    Its last mel frame, 8 (num_frames - 1), reaches 200 samples past its centre.
    """
    return HOP * SUBSAMPLING * (num_frames - 1) + FRAME_REACH


def first_sample_needed(num_frames: int) -> int:
    """The first sample that frames from `num_frames` on still look at; may be negative."""
    return first_sample_of(SUBSAMPLING * num_frames - LEAD)


def total_frames(num_samples: int) -> int:
    """Encoder frames of a finished stream."""
    return num_encoder_frames(num_mel_frames(num_samples))


def milliseconds(num_samples: int) -> int:
    """Of 16 kHz audio, rounded down."""
    return num_samples * 1000 // SAMPLE_RATE
