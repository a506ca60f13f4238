"""A process with a model: rows come in by a pipe, records go out.

Messages to it: lists of rows. From it: ("ready", None), ("failed", why), ("started", rows that it
began to read), ("records", [(index, record), ...]), ("broken", why) when it ends of a recording.
It ends with the process at the other end.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection

from nemotron_asr.errors import AsrError

from .manifest import Row
from .settings import WorkerSettings

READY, FAILED, STARTED, RECORDS, BROKEN = "ready", "failed", "started", "records", "broken"


def work(connection: Connection, settings: WorkerSettings, number: int) -> None:
    """The body of worker `number`, from 0."""
    for number_of_signal in (signal.SIGINT, signal.SIGTERM):  # both may reach a whole group
        signal.signal(number_of_signal, signal.SIG_IGN)
    pipe = _Pipe(connection)
    try:
        from .transcriber import Transcriber  # torch, which the process that starts this one lacks

        transcriber = Transcriber(replace(settings, device=_device(settings.device, number)))
    except (AsrError, ValueError, OSError) as error:
        pipe.send(FAILED, str(error))
        return
    pipe.send(READY, None)
    try:
        for records in transcriber.run(pipe.rows()):
            pipe.send(RECORDS, records)
    except Exception as error:
        pipe.send(BROKEN, f"{type(error).__name__}: {error}")
        os._exit(1)  # at once: what would be cleaned up may be broken


def _device(device: str, number: int) -> str:
    """Workers take the GPUs in turn."""
    import torch

    if device in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{number % torch.cuda.device_count()}"
    return device


class _Pipe:
    def __init__(self, connection: Connection):
        self._connection = connection
        self._sending = threading.Lock()
        self._rows: queue.SimpleQueue[Row] = queue.SimpleQueue()
        threading.Thread(target=self._receive, name="asr-batch-rows", daemon=True).start()

    def send(self, kind: str, content: object) -> None:
        try:
            with self._sending:
                self._connection.send((kind, content))
        except OSError:
            os._exit(1)  # nobody is left who would take a record

    def rows(self) -> Iterator[Row]:
        while True:
            row = self._rows.get()
            self.send(STARTED, 1)
            yield row

    def _receive(self) -> None:
        """Always reads, so that neither side ever waits for the other to read first."""
        try:
            while True:
                for row in self._connection.recv():
                    self._rows.put(row)
        except (EOFError, OSError):
            os._exit(1)
