"""Reading ahead: how much is held, what is a batch, and how it ends."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest

from asr_batch.manifest import Row
from asr_batch.transcriber import BATCH_ROWS, like_length
from asr_batch.window import Heard, Window
from nemotron_asr.options import Options

TIMEOUT_S = 30.0


def rows(seconds):
    """Rows whose ids tell how long they are."""
    return [Row(i, str(s), "a", "a", {}) for i, s in enumerate(seconds)]


def heard(row, make_room):
    make_room(float(row.id))
    return Heard(row, samples=np.zeros(1), room_s=float(row.id))


def filled(limit_s, seconds, read=heard, enough=4, num_threads=3):
    window = Window(limit_s, enough)
    window.fill(iter(rows(seconds)), read, num_threads)
    return window


@pytest.mark.parametrize("limit_s", [1.0, 7.0, 1000.0])
def test_every_row_comes_once_and_no_more_is_held_than_fits(limit_s):
    seconds = [(7 * i) % 5 + 0.5 for i in range(60)] + [50.0, 0.0, 2.0]
    window = filled(limit_s, seconds)
    seen = []
    for batch in window.batches():
        held = sum(one.room_s for one in batch)
        assert held <= max(limit_s, 50.0)
        assert held <= limit_s or len([one for one in batch if one.room_s]) == 1
        for one in batch:
            seen.append(one.row.index)
            window.free(one.room_s)
    assert sorted(seen) == list(range(len(seconds)))


def test_readers_wait_while_nobody_transcribes():
    begun = []
    room = threading.Semaphore(0)

    def read(row, make_room):
        make_room(2.0)
        begun.append(row.index)
        room.release()
        return Heard(row, room_s=2.0)

    window = filled(4.0, range(10), read, num_threads=4)
    batches = window.batches()
    first = next(batches)
    for _ in range(2):
        assert room.acquire(timeout=TIMEOUT_S)
    assert not room.acquire(timeout=0.3)  # the third waits: four seconds are held
    assert len(begun) == 2
    for one in first:
        window.free(one.room_s)
    for _ in first:
        assert room.acquire(timeout=TIMEOUT_S)
    window.close()


def test_a_guess_is_replaced_by_what_there_is():
    def read(row, make_room):
        make_room(100.0)  # a header that lies
        return Heard(row, room_s=1.0)

    window = filled(100.0, range(20), read)
    seen = 0
    for batch in window.batches():
        seen += len(batch)
        for one in batch:
            window.free(one.room_s)
    assert seen == 20


def test_failures_hold_no_room():
    def read(row, make_room):
        make_room(3.0)
        return Heard(row, error=ValueError())

    window = filled(3.0, range(20), read)
    assert sum(len(batch) for batch in window.batches()) == 20  # and nothing was freed


def test_few_are_a_batch_where_no_more_are_on_their_way():
    """A source that waits for the first record before it has another row."""
    answered = threading.Event()

    def source():
        yield Row(0, "1", "a", "a", {})
        answered.wait(TIMEOUT_S)

    window = Window(100.0, enough=4)
    window.fill(source(), heard, 2)
    batches = window.batches()
    assert [one.row.index for one in next(batches)] == [0]
    answered.set()
    assert list(batches) == []


def test_what_the_source_raises_is_raised():
    def source():
        yield from rows([1.0])
        raise KeyError("manifest")

    window = Window(100.0, enough=4)
    window.fill(source(), heard, 1)
    with pytest.raises(KeyError, match="manifest"):
        list(window.batches())


def test_no_rows():
    assert list(filled(1.0, []).batches()) == []


def test_batches_are_of_one_kind_and_of_like_length():
    random = np.random.default_rng(0)
    kinds = [Options(latency_ms=1120), Options(latency_ms=1120, language="de-DE")]
    ready = [
        Heard(row, kinds[i % 2], np.zeros(random.integers(1, 1000)))
        for i, row in enumerate(rows(range(90)))
    ]
    batches = like_length(ready)
    assert sorted(one.row.index for batch in batches for one in batch) == list(range(90))
    assert all(len({one.options for one in batch}) == 1 for batch in batches)
    assert max(map(len, batches)) == BATCH_ROWS
    for kind in kinds:
        of_kind = [batch for batch in batches if batch[0].options == kind]
        assert len(of_kind) == 3
        for longer, shorter in pairwise(of_kind):
            shortest = min(len(one.samples) for one in longer)
            assert shortest >= max(len(one.samples) for one in shorter)
