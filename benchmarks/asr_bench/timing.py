"""Timing of calls that take turns, so that noise from outside hits all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from .stats import median

Call = Callable[[], object]


def interleaved(
    calls: Mapping[str, Call], repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Run every call `repeats` times, turn by turn, after one turn that does not count.

    Returns the wall times of each in ms.  On a GPU each waits until its work is done.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for turn in range(repeats + 1):
        shift = turn % len(names)  # nobody always follows the same one
        for name in names[shift:] + names[:shift]:
            elapsed_ms = timed(calls[name], device)
            if turn:
                times[name].append(elapsed_ms)
    return times


def timed(call: Call, device: torch.device) -> float:
    """Wall time of one call in ms."""
    synchronize(device)
    started_s = time.perf_counter()
    call()
    synchronize(device)
    return (time.perf_counter() - started_s) * 1000


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def summary(times_ms: list[float]) -> dict[str, float]:
    """What a report keeps of them."""
    return {
        "min_ms": round(min(times_ms), 4),
        "median_ms": round(median(times_ms), 4),
        "repeats": len(times_ms),
    }
