"""What an engine counts about itself: plain numbers, for whoever publishes them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from ..errors import INTERNAL, INVALID_ARGUMENT, NOT_FOUND, UNAVAILABLE

CODES = (INVALID_ARGUMENT, UNAVAILABLE, NOT_FOUND, INTERNAL)
END_REASONS = ("end", "idle", "cancelled", "restart", "error", "shutdown")
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)  # up to the largest batch
LAG_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Histogram:
    """How many values were at most each bound. `counts` has one more, for those above all."""

    def __init__(self, bounds: tuple[float, ...]):
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times


def _zeros(*keys: str) -> Counter[str]:
    return Counter(dict.fromkeys(keys, 0))


@dataclass
class Metrics:
    """Everything since the engine began. One thread writes, the engine's; any thread may read."""

    started: int = 0  # streams
    refused: Counter[str] = field(
        default_factory=lambda: _zeros(*CODES)
    )  # STARTs, by code of the error
    ended: Counter[str] = field(default_factory=lambda: _zeros(*END_REASONS))  # streams
    errors: Counter[str] = field(default_factory=lambda: _zeros(*CODES))  # refused STARTs too
    audio_samples: int = 0  # heard, at 16 kHz
    rounds: int = 0  # that had something to decode
    busy_s: float = 0.0  # spent in them
    batch_rows: Histogram = field(default_factory=lambda: Histogram(ROWS))  # of each forward call
    chunk_lag_s: Histogram = field(default_factory=lambda: Histogram(LAG_S))  # of each chunk
