"""The arithmetic of the benchmarks."""

from __future__ import annotations

import numpy as np
import pytest

from asr_bench.stats import (
    bootstrap_interval,
    largest_passing,
    median,
    percentile,
    share_late,
)


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (50, 5), (51, 6), (90, 9), (95, 10), (100, 10)]
)
def test_percentile_is_the_nearest_rank(percent, expected):
    assert percentile([3, 1, 2, 10, 9, 8, 7, 6, 5, 4], percent) == expected


def test_percentile_of_one_and_of_none():
    assert percentile([7.5], 99) == median([7.5]) == 7.5
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)
    with pytest.raises(ValueError, match="101"):
        percentile([1], 101)


def test_a_chunk_is_late_when_its_lag_is_over_the_limit():
    assert share_late([0.1, 0.32, 0.33, 5.0], limit_s=0.32) == 0.5
    assert share_late([], limit_s=0.32) == 0


@pytest.mark.parametrize("most", [0, 1, 2, 3, 17, 63, 64])
@pytest.mark.parametrize("first", [1, 5, 64, 100])
def test_search_finds_the_largest_that_passes(most, first):
    asked = []

    def passes(count: int) -> bool:
        asked.append(count)
        return count <= most

    assert largest_passing(passes, first, limit=64, resolution=0) == most
    assert len(asked) == len(set(asked)), "nothing is tried twice"
    assert all(1 <= count <= 64 for count in asked)


def test_search_stops_within_its_resolution():
    asked = []
    found = largest_passing(lambda n: asked.append(n) or n <= 777, 1, 5000, resolution=0.05)
    assert 0.95 * 777 <= found <= 777
    assert len(asked) < 18


def test_bootstrap_interval_covers_the_true_rate():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(40):
        words = rng.integers(3, 20, size=150)
        errors = rng.binomial(words, 0.1)
        low, high = bootstrap_interval(errors, words, rounds=400)
        assert low <= errors.sum() / words.sum() <= high
        covered += low <= 0.1 <= high
    assert covered >= 34


def test_bootstrap_interval_of_perfect_and_of_broken_input():
    assert bootstrap_interval([0, 0, 0], [5, 6, 7]) == (0.0, 0.0)
    assert bootstrap_interval([1, 9], [5, 6], seed=3) == bootstrap_interval([1, 9], [5, 6], seed=3)
    for errors, words in (([], []), ([1], [1, 2]), ([0], [0])):
        with pytest.raises(ValueError, match="words"):
            bootstrap_interval(errors, words)
