"""What is loaded is spared, what comes later is not."""

from __future__ import annotations

import gc
import weakref

import pytest

from nemotron_asr.engine.garbage import spare_what_is_loaded


class Node:
    def __init__(self):
        self.self = self  # only the collector frees it


@pytest.fixture(autouse=True)
def as_before():
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_a_full_collection_visits_nothing_that_was_loaded():
    loaded = [Node() for _ in range(50_000)]
    spare_what_is_loaded()
    assert gc.get_freeze_count() > len(loaded)
    visited = {id(x) for x in gc.get_objects()}
    assert not any(id(node) in visited for node in loaded)


def test_cycles_that_come_later_are_collected_unasked():
    spare_what_is_loaded()
    gone = weakref.ref(Node())
    kept = []
    while gone() is not None and len(kept) < 10_000_000:
        kept.append([])
    assert gone() is None
