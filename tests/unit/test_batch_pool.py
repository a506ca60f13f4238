"""A pool of processes that a test wrote: what it makes of their ends, and its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from asr_batch import pool
from asr_batch.manifest import Row
from asr_batch.pool import Pool
from asr_batch.records import failed
from asr_batch.settings import WorkerSettings
from asr_batch.worker import BROKEN, READY, RECORDS, STARTED
from nemotron_asr.errors import invalid

SETTINGS = WorkerSettings("none", readers=2)
LEFT_BEHIND = """
import signal, time
from asr_batch import pool
from asr_batch.settings import WorkerSettings

def work(connection, settings, number):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection.send(("ready", None))
    time.sleep(600)

if __name__ == "__main__":
    pool.work = work
    workers = pool.Pool(WorkerSettings("none"), 2)._workers
    for worker in workers:
        worker.pipe.recv()
    print(*(worker.process.pid for worker in workers))
"""


def breaks(connection, _settings, _number) -> None:
    """A worker that one row breaks, and that lists with no rows kill."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection.send((READY, None))
    while True:
        rows = connection.recv()
        if not rows:
            os._exit(3)
        for row in rows:
            connection.send((STARTED, 1))
            if row.id == "4":
                connection.send((BROKEN, "RuntimeError: CUDA error"))
                os._exit(1)
            connection.send((RECORDS, [(row.index, failed(row, invalid("fine")))]))


@pytest.mark.timeout(120)
def test_a_process_that_breaks_costs_its_row_alone_and_none_is_given_no_rows(monkeypatch):
    monkeypatch.setattr(pool, "work", breaks)
    rows = [Row(i, str(i), "a", "a", {}) for i in range(12)]
    with Pool(SETTINGS, 2) as workers:
        found = dict(workers.run(rows, len(rows)))
    assert sorted(found) == list(range(12))
    messages = {index: record["error"]["message"] for index, record in found.items()}
    assert messages.pop(4) == (
        "the process ended with code 1 each time it had this file: RuntimeError: CUDA error"
    )
    assert set(messages.values()) == {"fine"}


def test_workers_that_were_not_stopped_do_not_keep_their_process(tmp_path):
    (tmp_path / "left.py").write_text(LEFT_BEHIND)
    command = [sys.executable, str(tmp_path / "left.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    for pid in done.stdout.split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
