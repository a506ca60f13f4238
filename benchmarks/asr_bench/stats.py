"""The arithmetic of the benchmarks: percentiles, lateness, searches, intervals. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` % of the values do not exceed (nearest rank)."""
    if not values:
        raise ValueError("no values")
    if not 0 <= percent <= 100:
        raise ValueError(f"percent is {percent}; valid: 0 to 100")
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * percent // 100))  # ceiling
    return ordered[int(rank) - 1]


def median(values: Sequence[float]) -> float:
    return percentile(values, 50)


def share_late(lags_s: Sequence[float], limit_s: float) -> float:
    """The share of chunks whose lag is over the limit, 0 to 1."""
    return sum(lag > limit_s for lag in lags_s) / len(lags_s) if lags_s else 0.0


def largest_passing(
    passes: Callable[[int], bool], first: int, limit: int, resolution: float = 0.05
) -> int:
    """The largest count found to pass, by doubling from `first` and then bisection; 0 for none.

    Ends when the failing count above is at most `resolution` (relative) or 1 away.
    """
    good, bad = 0, limit + 1
    count = min(first, limit)
    while count < bad:
        if passes(count):
            good = count
            count = min(2 * count, limit) if good < limit else bad
        else:
            bad = count
    while bad - good > max(1, resolution * good):
        middle = (good + bad) // 2
        if passes(middle):
            good = middle
        else:
            bad = middle
    return good


def bootstrap_interval(
    errors: Sequence[int], words: Sequence[int], rounds: int = 2000, level: float = 0.95, seed=0
) -> tuple[float, float]:
    """Confidence interval of a word error rate, resampling whole utterances.

    errors, words: of each utterance.  Returns the two ends, as fractions of the words.
    """
    errors, words = np.asarray(errors), np.asarray(words)
    if len(errors) != len(words) or words.sum() == 0:
        raise ValueError("errors and words must be of the same utterances, with words in them")
    rng, count = np.random.default_rng(seed), len(words)
    drawn = rng.integers(count, size=(rounds, count))
    totals = words[drawn].sum(axis=1)
    rates = (errors[drawn].sum(axis=1) / np.maximum(totals, 1))[totals > 0].tolist()
    tail = 100 * (1 - level) / 2
    return percentile(rates, tail), percentile(rates, 100 - tail)
