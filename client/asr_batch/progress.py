"""How far a run is: a bar where there is a terminal, else a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .records import Record

LINE_EVERY_S = 60.0


class Report:
    """Counts records.  Use as a context manager.

    num_rows: all of the manifest.  num_done: those that an earlier run did.
    clock: seconds; only differences count.
    """

    def __init__(
        self,
        num_rows: int,
        num_done: int,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.num_rows, self.num_done = num_rows, num_done
        self.num_new = self.num_failed = 0
        self.audio_s = 0.0
        self._clock = clock
        self._console = console or Console(stderr=True)
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._bar = Progress(
            *columns,
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=num_rows, completed=num_done)
        self._started = self._said = clock()

    def __enter__(self) -> Report:
        self._bar.start()
        return self

    def __exit__(self, *_exc) -> None:
        self._bar.stop()

    def add(self, record: Record) -> None:
        """One more record."""
        self.num_new += 1
        self.num_failed += record["error"] is not None
        self.audio_s += record["duration_s"] or 0.0
        self._bar.update(self._task, advance=1, description=self._rate())
        now = self._clock()
        if not self._console.is_terminal and now - self._said >= LINE_EVERY_S:
            self._said = now
            done = self.num_done + self.num_new
            self._console.out(f"{done} of {self.num_rows} files, {self._rate()}{self._left(now)}")

    def summary(self) -> str:
        """One line about this run."""
        before = f"; {self.num_done} were done before" if self.num_done else ""
        seconds = self._clock() - self._started
        return f"{self.num_new} files in {seconds:.1f} s, {self._rate()}{before}"

    def _rate(self) -> str:
        times = self.audio_s / max(self._clock() - self._started, 1e-9)
        hours = self.audio_s / 3600
        return f"{hours:.3f} h of audio, {times:.1f} times real time, {self.num_failed} failed"

    def _left(self, now: float) -> str:
        left = self.num_rows - self.num_done - self.num_new
        return f", {left * (now - self._started) / self.num_new:.0f} s left"
