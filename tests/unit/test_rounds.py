"""Rounds in fixed shapes give what rounds as they come give, and touch nothing but their slots."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch

from live_streams import Streams, ids_and_frames
from nemotron_asr.config import LOOKAHEADS, ModelConfig
from nemotron_asr.engine import Request, StreamingEngine, rounds
from nemotron_asr.engine import engine as engine_module
from nemotron_asr.engine.arena import Arena
from nemotron_asr.engine.rounds import PlainRounds, ShapedRounds, rounds_for, row_steps
from nemotron_asr.model import NemotronAsr
from nemotron_asr.recognizer import Recognizer
from reference import speech_like

MAX_ROWS = 6  # shapes of 1, 2, 4 and 6 rows


def shaped(recognizer, arena) -> ShapedRounds:
    return ShapedRounds(recognizer, arena, MAX_ROWS)


@pytest.mark.parametrize(
    ("most", "sizes"),
    [
        (1, [1]),
        (6, [1, 2, 4, 6]),
        (8, [1, 2, 4, 8]),
        (33, [1, 2, 4, 8, 16, 32, 33]),
        (128, [1, 2, 4, 8, 16, 32, 48, 64, 96, 128]),
    ],
)
def test_row_steps(most, sizes):
    assert row_steps(most) == sizes


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
@pytest.mark.parametrize("size", ["tiny", "biased"])
def test_shaped_equals_plain_for_all_numbers_of_rows(recognizers, size, lookahead):
    """Streams of any age, some of which end, in batches of any size and order."""
    recognizer, rng = recognizers(size), random.Random(lookahead)
    plain = Streams(recognizer, PlainRounds, 9, lookahead)
    fixed = Streams(recognizer, shaped, 9, lookahead)
    num_rows, wanted, num_tokens = set(), itertools.cycle(range(MAX_ROWS, 0, -1)), 0
    while live := plain.live():
        batch = rng.sample(live, min(len(live), next(wanted)))
        num_rows.add(len(batch))
        before = [x.clone() for x in fixed.memory()]
        expected, found = plain.step(batch), fixed.step(batch)
        assert ids_and_frames(found) == ids_and_frames(expected)
        for a, b in zip(itertools.chain(*found), itertools.chain(*expected), strict=True):
            assert a.confidence == pytest.approx(b.confidence, abs=1e-4)
        num_tokens += sum(map(len, found))
        used = [fixed.slot(i) for i in batch]
        rest = [slot for slot in range(fixed.arena.num_slots) if slot not in used]
        for old, new, theirs in zip(before, fixed.memory(), plain.memory(), strict=True):
            assert torch.equal(new[rest], old[rest]), "slots of others are as they were"
            torch.testing.assert_close(new[used], theirs[used], atol=1e-4, rtol=1e-4)
    assert num_rows == set(range(1, MAX_ROWS + 1))
    assert num_tokens > 20


@pytest.mark.parametrize("lookahead", [0, 3])
def test_rows_depend_on_nothing_else(recognizer, lookahead):
    """Alone, or with a neighbour and padding in slots full of NaN, behind a round full of others.

    What is left in the input memory by those is not heard.
    """
    alone = Streams(recognizer, shaped, 6, lookahead)
    among = Streams(recognizer, shaped, 6, lookahead)
    with torch.inference_mode():
        for x in among.memory():
            if x.is_floating_point():
                x[[among.slot(4), among.slot(5), among.arena.scratch]] = float("nan")
    for _ in range(2):
        among.step([3, 4, 5])  # NaN, and noise for the input memory
        expected = [alone.step([i])[0] for i in (0, 1, 2)]
        found = among.step([2, 0, 1])
        assert ids_and_frames(found) == ids_and_frames([expected[i] for i in (2, 0, 1)])
        for a, b in zip(alone.memory(), among.memory(), strict=True):
            used = [alone.slot(i) for i in (0, 1, 2)]
            torch.testing.assert_close(a[used], b[used], atol=1e-4, rtol=1e-4)


@pytest.fixture
def never_pauses(recognizer, monkeypatch) -> Recognizer:
    """The most symbols on every frame."""
    head = recognizer.net.joint.head
    monkeypatch.setattr(head, "bias", head.bias.clone())
    with torch.inference_mode():
        head.bias[recognizer.config.blank_token_id] = -1e4
    return recognizer


def test_rows_with_more_tokens_than_one_call_finds(never_pauses, monkeypatch):
    asked, recognizer = [], never_pauses
    collect = rounds.collect
    monkeypatch.setattr(rounds, "collect", lambda *a: asked.append(1) or collect(*a))
    streams = Streams(recognizer, shaped, 3, 6)
    plain = Streams(recognizer, PlainRounds, 3, 6)
    found = streams.step([1, 2])
    assert ids_and_frames(found) == ids_and_frames(plain.step([1, 2]))
    most = recognizer.config.max_symbols_per_step
    assert [len(row) for row in found] == [7 * most, 7 * most]
    assert len(asked) > 2


def test_a_round_that_failed_half_way_leaves_nothing_behind(never_pauses, monkeypatch):
    streams, fresh = (Streams(never_pauses, shaped, 2, 3) for _ in range(2))

    def fail(*args):
        raise RuntimeError("device lost")

    with monkeypatch.context() as patch:
        patch.setattr(rounds, "collect", fail)
        with pytest.raises(RuntimeError, match="device lost"):
            streams.step([0])
    assert ids_and_frames(streams.step([1])) == ids_and_frames(fresh.step([1]))


def test_a_slot_is_used_again(recognizer):
    """Another stream in it, behind a reset, hears what it would hear in a new arena."""
    streams = Streams(recognizer, shaped, 4, 3)
    for batch in ([0, 1], [0, 1, 2, 3], [1]):
        streams.step(batch)
    fresh = Streams(recognizer, shaped, 4, 3)
    streams.arena.reset(streams.slot(1))
    streams.frames[1] = 0
    for _ in range(2):
        assert ids_and_frames(streams.step([1])) == ids_and_frames(fresh.step([1]))


@pytest.mark.parametrize("make", [PlainRounds, shaped])
def test_warm_up_touches_no_stream(recognizer, make):
    streams = Streams(recognizer, make, 4, 3)
    streams.step([0, 1])
    before = [x.clone() for x in streams.memory()]
    streams.rounds.warm_up()
    slots = range(streams.arena.num_slots)
    for old, new in zip(before, streams.memory(), strict=True):
        assert torch.equal(new[slots], old[slots])


def test_warm_up_makes_every_shape_largest_first(recognizer, monkeypatch):
    made = []
    init = rounds._Shape.__init__

    def watch(self, recognizer, arena, lookahead, host, inputs, capture):
        made.append((lookahead, len(host.samples)))
        init(self, recognizer, arena, lookahead, host, inputs, capture)

    monkeypatch.setattr(rounds._Shape, "__init__", watch)
    streams = Streams(recognizer, shaped, 4, 13)
    streams.rounds.warm_up()
    assert made == sorted(itertools.product(LOOKAHEADS, [1, 2, 4, 6]), reverse=True)
    streams.step([0, 1, 2])
    assert len(made) == 4 * len(LOOKAHEADS), "nothing is made later"


def test_no_more_rows_than_slots(recognizer):
    assert ShapedRounds(recognizer, Arena(recognizer, 3), 128).sizes == [1, 2, 3]


def test_a_cpu_takes_rounds_as_they_come(recognizer):
    assert isinstance(rounds_for(recognizer, Arena(recognizer, 2), 8), PlainRounds)


def test_an_engine_streams_in_fixed_shapes(recognizer):
    """More ready streams than a round takes, of several lookaheads: the text is the offline one."""
    engine = StreamingEngine(recognizer, num_slots=9)
    engine.rounds = shaped(recognizer, engine.arena)
    engine.warm_up()
    told = [[] for _ in range(9)]
    audio = [(speech_like(9000 * i, i) * 32767).astype(np.int16) for i in range(9)]
    latencies_ms = [320, 1120, 320, 80, 320, 320, 320, 320, 320]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "MAX_ROWS", MAX_ROWS)
        for i, reply in enumerate(told):
            options = {"latency_ms": latencies_ms[i], "language": "de-DE"}
            engine.submit(Request(i, audio[i], True, True, options, reply.append))
        while engine.step(0.0):
            pass
    for samples, latency_ms, updates in zip(audio, latencies_ms, told, strict=True):
        expected = recognizer.transcribe([samples], "de-DE", latency_ms)[0]
        assert [u.text for u in updates] == [expected.text]
        assert [w[:3] for w in updates[0].words] == [w[:3] for w in expected.words]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_a_round_can_be_captured(lookahead, dtype):
    """It reads nothing back and takes nothing from the host: on `meta` both raise.

    Nor does the host decide anything by its content, as there is none. At the published sizes.
    """
    recognizer = on_meta(dtype)
    captured = []
    shape = make_shape(recognizer, lookahead, 5, lambda work: captured.append(work) or work)
    assert len(captured) == 2
    with torch.inference_mode():
        for work in captured:
            work()
    assert shape.found.is_meta


def on_meta(dtype: str) -> Recognizer:
    """A model of the published sizes without any values."""
    kind, device = getattr(torch, dtype), torch.device("meta")
    with device:
        net = NemotronAsr(ModelConfig())
    for part in (net.decoder, net.joint):
        part.to(kind)
    for part in (net.encoder, net.decoder, net.joint):
        part.prepare(dtype)
    return Recognizer(net.eval().requires_grad_(False), [], {}, "meta", device, kind)


def make_shape(recognizer, lookahead: int, num_rows: int, capture):
    runner = ShapedRounds(recognizer, Arena(recognizer, num_rows), num_rows)
    runner._capture = capture
    return runner._shape(lookahead, num_rows)
