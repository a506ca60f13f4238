"""Recordings read ahead by threads, as many as fit: room is made by those that are transcribed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from nemotron_asr.options import Options

from .manifest import Row


@dataclass(frozen=True)
class Heard:
    """A recording that was read, or the error why not.  samples: (n,) float32 at 16 kHz."""

    row: Row
    options: Options | None = None
    samples: np.ndarray | None = None
    error: Exception | None = None
    room_s: float = 0.0  # what it holds of the window


class Window:
    """Between threads that read recordings and one that transcribes them.

    limit_s: seconds of audio in it, but one recording alone may be longer.
    enough: so many recordings are a batch; fewer are given out where no more are on their way.
    """

    def __init__(self, limit_s: float, enough: int):
        self._limit_s = limit_s
        self._enough = enough
        self._changed = threading.Condition()
        self._turn = threading.Lock()  # a long recording waits for room before those behind it
        self._ready: list[Heard] = []
        self._held_s = 0.0
        self._reading = 0  # rows that threads have now
        self._waiting = False  # for room
        self._threads = 0
        self._failure: BaseException | None = None
        self._closed = False

    def fill(
        self,
        rows: Iterator[Row],
        read: Callable[[Row, Callable[[float], None]], Heard],
        num_threads: int,
    ) -> None:
        """Start threads that read rows.  read(row, make_room) never raises."""
        self._threads = num_threads
        taking = threading.Lock()
        for _ in range(num_threads):
            # Daemons: one that waits for a file that never comes must not keep the process.
            threading.Thread(
                target=self._fill, args=(rows, read, taking), name="asr-batch-read", daemon=True
            ).start()

    def batches(self) -> Iterator[list[Heard]]:
        """All that is ready, again and again until every row was given out.

        Raises what the iterator of rows raised.
        """
        while True:
            if not self._wait():
                return
            yield self._take()

    def _wait(self) -> bool:
        with self._changed:
            self._changed.wait_for(self._has_news)
            if self._failure is not None:
                raise self._failure
            return bool(self._ready)

    def _take(self) -> list[Heard]:
        """Its caller alone has them then: audio must not outlive the room that it holds."""
        with self._changed:
            ready, self._ready = self._ready, []
        return ready

    def free(self, room_s: float) -> None:
        """Give back the room of a recording that is no longer held."""
        with self._changed:
            self._held_s -= room_s
            self._changed.notify_all()

    def close(self) -> None:
        """The threads end with the file that they read."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_news(self) -> bool:
        if self._failure is not None or not self._threads:
            return True
        some = len(self._ready) >= self._enough or self._waiting or not self._reading
        return bool(self._ready) and some

    def _fill(self, rows: Iterator[Row], read: Callable, taking: threading.Lock) -> None:
        try:
            while not self._closed:
                with taking:
                    row = next(rows, None)
                    if row is None:
                        break
                    self._count(1)
                self._read(row, read)
        except BaseException as error:
            self._failure = error
        finally:
            with self._changed:
                self._threads -= 1
                self._changed.notify_all()

    def _read(self, row: Row, read: Callable) -> None:
        held_s = 0.0

        def make_room(seconds: float) -> None:
            nonlocal held_s
            self._make_room(seconds)
            held_s = seconds

        heard = read(row, make_room)
        with self._changed:
            self._held_s += heard.room_s - held_s  # the header was a guess
            self._ready.append(heard)
            self._reading -= 1
            self._changed.notify_all()

    def _make_room(self, seconds: float) -> None:
        with self._turn, self._changed:
            if not self._fits(seconds):
                self._waiting = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._fits(seconds))
                self._waiting = False
            self._held_s += seconds

    def _fits(self, seconds: float) -> bool:
        # Sums of floats that were added in another order: nearly nothing is nothing.
        return self._closed or self._held_s < 1e-3 or self._held_s + seconds <= self._limit_s

    def _count(self, more: int) -> None:
        with self._changed:
            self._reading += more
            self._changed.notify_all()
