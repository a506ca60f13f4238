"""Timing of calls that take turns, so that noise from outside hits all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import psutil
import torch

from .stats import median

BURST_S, PAUSE_S = 1.0, 5.0
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


def stolen_s() -> float:
    """CPU seconds so far that the machine below this one gave to others."""
    return getattr(psutil.cpu_times(), "steal", 0.0)


def wait_calm(share: float, timeout_s: float = 120.0) -> None:
    """Wait until less than this share of the cores is stolen.

    That shows only while they are busy, so all are kept busy for a moment at a time.
    """
    x = torch.ones(1024, 1024)
    give_up_s = time.monotonic() + timeout_s
    while time.monotonic() < give_up_s:
        began_s, before_s = time.monotonic(), stolen_s()
        while time.monotonic() - began_s < BURST_S:
            x @ x
        stolen = (stolen_s() - before_s) / (time.monotonic() - began_s)
        if stolen < share * torch.get_num_threads():
            return
        time.sleep(PAUSE_S)


def summary(times_ms: list[float]) -> dict[str, float]:
    """What a report keeps of them."""
    return {
        "min_ms": round(min(times_ms), 4),
        "median_ms": round(median(times_ms), 4),
        "repeats": len(times_ms),
    }
