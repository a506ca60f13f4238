"""Processes on this machine that transcribe, watched by the one that has the manifest.

A process that dies, of a file that crashes a decoder or for want of memory, is replaced; what it
had is tried again one file at a time, and the one that kills again is recorded as failed.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from multiprocessing import connection

from nemotron_asr.errors import INTERNAL, AsrError

from .errors import BatchError
from .manifest import Row
from .records import Record, failed
from .settings import WorkerSettings
from .worker import BROKEN, FAILED, READY, RECORDS, STARTED, work

MAX_FAILED_STARTS = 3
STOP_S = 5.0  # that a process gets to end
_NAME = "asr-batch-worker"
_log = logging.getLogger("asr_batch")
_context = multiprocessing.get_context("spawn")  # a fork would share locks of threads


@atexit.register
def _kill_workers() -> None:
    """Runs before multiprocessing's own, which asks with SIGTERM and would wait for ever."""
    for process in multiprocessing.active_children():
        if process.name == _NAME:
            process.kill()


class Pool:
    """num_workers processes.  Use as a context manager: it ends them."""

    def __init__(self, settings: WorkerSettings, num_workers: int):
        self._settings = settings
        self._workers = [_Worker(settings, number) for number in range(num_workers)]
        self._suspects: deque[Row] = deque()  # what dead processes had
        self._failed_starts = 0
        self._no_more = False

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_exc) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.stop()

    def run(self, rows: Iterable[Row], _num_rows: int) -> Iterator[tuple[int, Record]]:
        """(index, record) of every row, once, as they are ready.  One run at a time.

        Raises BatchError where no process can be started with these settings.
        """
        rows, self._no_more = iter(rows), False
        while True:
            for worker in self._workers:
                self._feed(worker, rows)
            if self._no_more and not self._suspects and not any(w.has for w in self._workers):
                return
            for ready in connection.wait([worker.pipe for worker in self._workers]):
                worker = next(one for one in self._workers if one.pipe is ready)
                try:
                    kind, content = worker.pipe.recv()
                except (EOFError, OSError):
                    yield from self._replace(worker)
                    continue
                yield from self._take(worker, kind, content)

    def _take(self, worker: _Worker, kind: str, content) -> Iterator[tuple[int, Record]]:
        if kind == FAILED:
            raise BatchError(content)
        if kind == READY:
            worker.is_ready = True
            self._failed_starts = 0
        elif kind == STARTED:
            worker.queued -= content
        elif kind == BROKEN:
            worker.reason = f": {content}"
        elif kind == RECORDS:
            for index, record in content:
                del worker.has[index]
                yield index, record

    def _feed(self, worker: _Worker, rows: Iterator[Row]) -> None:
        """Give it what it can begin soon: rows that wait here may go to any other."""
        if not worker.is_ready or (worker.alone and worker.has):
            return
        if self._suspects and not worker.has:
            worker.give([self._suspects.popleft()], alone=True)
            return
        if self._no_more:
            return
        room = 2 * self._settings.readers - worker.queued
        if room >= self._settings.readers:
            more = list(islice(rows, room))
            self._no_more = len(more) < room
            if more:
                worker.give(more)

    def _replace(self, worker: _Worker) -> Iterator[tuple[int, Record]]:
        how = worker.stop()
        lost = list(worker.has.values())
        if not worker.is_ready:
            self._failed_starts += 1
            if self._failed_starts == MAX_FAILED_STARTS:
                raise BatchError(f"{MAX_FAILED_STARTS} workers in a row {how} at their start")
        if worker.alone and lost:
            row = lost.pop()
            message = f"the process {how} each time it had this file{worker.reason}"
            yield row.index, failed(row, AsrError(INTERNAL, message))
        self._suspects.extend(lost)
        how += worker.reason
        _log.warning("worker %d %s; %d files are tried again", worker.number, how, len(lost))
        self._workers[self._workers.index(worker)] = _Worker(self._settings, worker.number)


class _Worker:
    """A process, and what it has been given."""

    def __init__(self, settings: WorkerSettings, number: int):
        self.number = number
        self.pipe, theirs = _context.Pipe()
        arguments = (theirs, settings, number)
        self.process = _context.Process(target=work, args=arguments, name=_NAME, daemon=True)
        self.process.start()
        theirs.close()  # or its death would not close the pipe
        self.is_ready = False
        self.has: dict[int, Row] = {}  # by index
        self.queued = 0  # rows that it has not begun to read
        self.alone = False  # its row is one that a process may have died of
        self.reason = ""  # for which it ends, where it could say so

    def give(self, rows: list[Row], alone: bool = False) -> None:
        self.alone = alone
        self.has.update((row.index, row) for row in rows)
        self.queued += len(rows)
        with suppress(OSError):  # where it died, the pipe says so when it is read
            self.pipe.send(rows)

    def stop(self) -> str:
        """Make sure that it is over.  Returns how it ended."""
        self.process.join(STOP_S)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        self.pipe.close()
        code = self.process.exitcode
        return f"died of signal {-code}" if code < 0 else f"ended with code {code}"
