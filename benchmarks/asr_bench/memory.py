"""Peak memory of processes while something runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

SAMPLE_S = 0.1
SAMPLING_SHARE = 0.02  # of a core, at most: the kernel walks all of a process's pages for a sample


class PeakMemory:
    """Peaks of some processes while it is entered, in MB.

    peak_mb: of each process, resident, by the kernel's own high-water mark (VmHWM, reset at the
        beginning); by samples where that may not be reset.
    peak_pss_mb: of all together, by samples, with pages that they share counted once.
    """

    def __init__(self, processes: Mapping[str, psutil.Process]):
        self._processes = dict(processes)
        self.peak_mb: dict[str, float] = {}
        self.peak_pss_mb = 0.0

    def __enter__(self) -> PeakMemory:
        self._by_kernel = all(_reset(process.pid) for process in self._processes.values())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_exc) -> None:
        self._stop.set()
        self._thread.join()
        if self._by_kernel:
            self.peak_mb = {name: _high_water_mb(p.pid) for name, p in self._processes.items()}

    def _sample(self) -> None:
        while True:
            began_s = time.monotonic()
            self.peak_pss_mb = max(self.peak_pss_mb, proportional_mb(self._processes))
            for name, mb in resident_mb(self._processes).items():
                self.peak_mb[name] = max(mb, self.peak_mb.get(name, 0.0))
            took_s = time.monotonic() - began_s
            if self._stop.wait(max(SAMPLE_S, took_s / SAMPLING_SHARE)):
                return


def resident_mb(processes: Mapping[str, psutil.Process]) -> dict[str, float]:
    """Of each; a shared page counts in every process that touched it."""
    return {name: process.memory_info().rss / 1e6 for name, process in processes.items()}


def proportional_mb(processes: Mapping[str, psutil.Process]) -> float:
    """Of all; a shared page counts once."""
    return sum(_pss_mb(process.pid) for process in processes.values())


def _reset(pid: int) -> bool:
    """Let the high-water mark begin at what is resident now."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _high_water_mb(pid: int) -> float:
    return _kib(f"/proc/{pid}/status", "VmHWM:") * 1024 / 1e6


def _pss_mb(pid: int) -> float:
    return _kib(f"/proc/{pid}/smaps_rollup", "Pss:") * 1024 / 1e6


def _kib(path: str, field: str) -> int:
    for line in Path(path).read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise RuntimeError(f"no {field} in {path}")
