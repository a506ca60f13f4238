"""The same on a GPU: tokens of whole recordings, streaming against them, and rounds as graphs."""

from __future__ import annotations

import itertools
import random
import time

import numpy as np
import pytest
import torch

from live_streams import Streams, ids_and_frames
from nemotron_asr import load_checkpoint
from nemotron_asr.config import ModelConfig
from nemotron_asr.decoding import greedy_decode, looping_decode
from nemotron_asr.engine import Request, StreamingEngine
from nemotron_asr.engine.arena import Arena
from nemotron_asr.engine.rounds import PlainRounds, ShapedRounds, rounds_for
from nemotron_asr.model import NemotronAsr
from nemotron_asr.recognizer import Recognizer
from reference import speech_like

pytestmark = pytest.mark.gpu

AUDIO = [speech_like(n, n) for n in (0, 5000, 50_077, 200_000)]
DEVICE = torch.device("cuda")


@pytest.fixture(scope="module")
def on_gpu(checkpoints):
    return load_checkpoint(checkpoints("tiny"), device="cuda")


def graphs(recognizer, arena) -> ShapedRounds:
    return ShapedRounds(recognizer, arena, max_rows=6)  # shapes of 1, 2, 4 and 6 rows


def same_shapes_without_graphs(recognizer, arena) -> ShapedRounds:
    rounds = graphs(recognizer, arena)
    rounds._capture = lambda work: work
    return rounds


@pytest.mark.parametrize("latency_ms", [80, 320, 1120])
def test_tokens_equal_the_cpu_s(on_gpu, recognizer, latency_ms):
    for a, b in zip(
        on_gpu.transcribe(AUDIO, "de-DE", latency_ms),
        recognizer.transcribe(AUDIO, "de-DE", latency_ms),
        strict=True,
    ):
        assert [(t.id, t.frame) for t in a.tokens] == [(t.id, t.frame) for t in b.tokens]


@pytest.mark.parametrize("latency_ms", [80, 320, 1120])
def test_streaming_equals_offline(on_gpu, latency_ms):
    engine, texts = StreamingEngine(on_gpu, num_slots=4), {}
    pcm = [(audio * 32767).astype(np.int16) for audio in AUDIO]
    for i, samples in enumerate(pcm):
        texts[i] = []
        options = {"latency_ms": latency_ms}
        engine.submit(Request(i, samples, True, True, options, texts[i].append))
    while engine.step(0.0):
        pass
    offline = on_gpu.transcribe(pcm, latency_ms=latency_ms)
    assert [texts[i][0].text for i in texts] == [r.text for r in offline]


def test_float32_is_float32(on_gpu):
    """TensorFloat-32 would be off by 1e-3 and more."""
    torch.manual_seed(0)
    x, w = torch.randn(64, 512, device=DEVICE), torch.randn(512, 512, device=DEVICE)
    torch.testing.assert_close(x @ w, (x.double() @ w.double()).float(), atol=1e-4, rtol=1e-5)
    y = torch.nn.functional.conv1d(x[None], w[:, :64, None])
    exact = torch.nn.functional.conv1d(x[None].double(), w[:, :64, None].double())
    torch.testing.assert_close(y, exact.float(), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("num_frames", [1, 4, 14, 112])
@pytest.mark.parametrize("batch", [1, 3, 9, 64])
def test_both_ways_of_decoding_find_the_same(on_gpu, batch, num_frames):
    net = on_gpu.net
    torch.manual_seed(batch + num_frames)
    f = 3 * torch.randn(batch, num_frames, net.config.decoder_hidden_size, device=DEVICE)
    lengths = torch.randint(0, num_frames + 1, (batch,)).tolist()
    slots = torch.randperm(batch + 2)[:batch].tolist()
    results = []
    for decode in (greedy_decode, looping_decode):
        state = net.decoder.fresh(batch + 2)
        results.append((decode(net, f, lengths, [0] * batch, state, slots), state))
    (greedy, one), (looping, other) = results
    assert ids_and_frames(looping) == ids_and_frames(greedy)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_the_engine_gets_graphs(on_gpu):
    assert isinstance(rounds_for(on_gpu, Arena(on_gpu, 2), 8), ShapedRounds)


@pytest.mark.parametrize("lookahead", [0, 1, 3, 6, 13])
@pytest.mark.parametrize("warm", [True, False])
def test_graphs_equal_rounds_as_they_come(on_gpu, lookahead, warm):
    """Batches of any size; shapes made at start, or when they are first needed."""
    plain = Streams(on_gpu, PlainRounds, 9, lookahead)
    fixed = Streams(on_gpu, graphs, 9, lookahead)
    if warm:
        fixed.rounds.warm_up()
    rng, wanted, num_tokens = random.Random(0), itertools.cycle(range(6, 0, -1)), 0
    while live := plain.live():
        batch = rng.sample(live, min(len(live), next(wanted)))
        before = [x.clone() for x in fixed.memory()]
        expected, found = plain.step(batch), fixed.step(batch)
        assert ids_and_frames(found) == ids_and_frames(expected)
        num_tokens += sum(map(len, found))
        used = [fixed.slot(i) for i in batch]
        rest = [slot for slot in range(fixed.arena.num_slots) if slot not in used]
        for old, new, theirs in zip(before, fixed.memory(), plain.memory(), strict=True):
            assert torch.equal(new[rest], old[rest]), "slots of others are as they were"
            torch.testing.assert_close(new[used], theirs[used], atol=1e-3, rtol=1e-3)
    assert num_tokens > 20


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_graphs_equal_the_same_shapes_without(checkpoints, dtype):
    """In half precision, where rounding depends on the shape."""
    recognizer = load_checkpoint(checkpoints("wide"), device="cuda", dtype=dtype)
    captured, eager = (Streams(recognizer, make, 6, 3)
                       for make in (graphs, same_shapes_without_graphs))  # fmt: skip
    captured.rounds.warm_up()
    while live := captured.live():
        expected, found = eager.step(live), captured.step(live)
        assert ids_and_frames(found) == ids_and_frames(expected)
        for a, b in zip(captured.memory(), eager.memory(), strict=True):
            slots = [captured.slot(i) for i in live]
            torch.testing.assert_close(a[slots], b[slots], atol=1e-2, rtol=1e-2)


def test_graphs_look_on_where_tokens_are_many(checkpoints):
    recognizer = load_checkpoint(checkpoints("tiny"), device="cuda")
    with torch.inference_mode():
        recognizer.net.joint.head.bias[recognizer.config.blank_token_id] = -1e4
    found = Streams(recognizer, graphs, 3, 13).step([1, 2])
    assert ids_and_frames(found) == ids_and_frames(
        Streams(recognizer, PlainRounds, 3, 13).step([1, 2])
    )
    assert [len(row) for row in found] == [14 * recognizer.config.max_symbols_per_step] * 2


def test_a_slot_is_used_again(on_gpu):
    """Behind a reset, by replays of graphs that were captured before it."""
    streams, fresh = (Streams(on_gpu, graphs, 4, 3) for _ in range(2))
    for batch in ([0, 1], [0, 1, 2, 3], [1]):
        streams.step(batch)
    streams.arena.reset(streams.slot(1))
    streams.frames[1] = 0
    for _ in range(2):
        assert ids_and_frames(streams.step([1])) == ids_and_frames(fresh.step([1]))


def test_graphs_outlive_those_of_another_engine(on_gpu):
    """Captures of several owners, of which one goes: the others' memory stays theirs."""
    streams, plain = Streams(on_gpu, graphs, 4, 3), Streams(on_gpu, PlainRounds, 4, 3)
    other = Streams(on_gpu, graphs, 4, 3)
    for each in (streams, plain, other):
        each.step([0, 1, 2])
    del other, each
    torch.cuda.empty_cache()
    filler = torch.full((1 << 26,), float("nan"), device=DEVICE)  # over what was given back
    for batch in ([1, 2], [3], [2, 3]):
        assert ids_and_frames(streams.step(batch)) == ids_and_frames(plain.step(batch))
    assert filler.isnan().all()


def test_published_sizes_time_and_memory_of_all_graphs(capsys, record_property):
    """Reported, not judged. In random weights of the published sizes."""
    with DEVICE, torch.no_grad():
        net = NemotronAsr(ModelConfig())
        net.joint.head.bias[net.config.blank_token_id] = 100  # else it never pauses
    for part in (net.encoder, net.decoder, net.joint):
        part.to(torch.bfloat16)
    net.prepare("bfloat16")
    recognizer = Recognizer(net, [], {}, "random", DEVICE, torch.bfloat16)
    streams = Streams(
        recognizer, lambda *a: ShapedRounds(*a, max_rows=128), num_streams=128, lookahead=13
    )
    torch.cuda.synchronize()
    free_before, began = torch.cuda.mem_get_info()[0], time.perf_counter()
    streams.rounds.warm_up()
    torch.cuda.synchronize()
    report = {
        "capture_s": round(time.perf_counter() - began, 1),
        "graphs_mb": round((free_before - torch.cuda.mem_get_info()[0]) / 1e6),
        "slot_mb": round(streams.arena.bytes_per_slot / 1e6, 2),
    }
    for num_rows in (1, 32, 128):
        times = []
        for _ in range(5):
            streams.frames = [0] * 128
            began = time.perf_counter()
            streams.step(list(range(num_rows)))
            times.append(1000 * (time.perf_counter() - began))
        report[f"round_ms_{num_rows}_x_1120_ms"] = round(min(times), 2)
    for name, value in report.items():
        record_property(name, value)
    with capsys.disabled():
        print(f"\nCUDA graphs at the published sizes, bfloat16: {report}")
    assert all(bool(x.isfinite().all()) for x in streams.arena.prediction)


@pytest.mark.parametrize("latency_ms", [80, 1120])
def test_phrases_and_languages_leave_the_graphs_and_say_what_the_cpu_says(
    on_gpu, recognizer, latency_ms
):
    """Files and live streams, among others without that stay in the graphs."""
    pcm = [(audio * 32767).astype(np.int16) for audio in AUDIO for _ in range(2)]
    biased = {"phrases": "ba be bi; fade; mo", "boost": 4.0, "languages": "de-DE,fr-FR"}
    options = [biased if i % 2 else {} for i in range(len(pcm))]
    expected = [
        recognizer.transcribe([samples], latency_ms=latency_ms, **its)[0].text
        for samples, its in zip(pcm, options, strict=True)
    ]
    assert len(set(expected[-2:])) == 2
    assert expected == [
        on_gpu.transcribe([samples], latency_ms=latency_ms, **its)[0].text
        for samples, its in zip(pcm, options, strict=True)
    ]
    engine, answers = StreamingEngine(on_gpu, num_slots=len(pcm)), {}
    for i, (samples, its) in enumerate(zip(pcm, options, strict=True)):
        answers[i] = []
        engine.submit(
            Request(i, samples, True, True, {"latency_ms": latency_ms, **its}, answers[i].append)
        )
    while engine.step(0.0):
        pass
    assert [answers[i][0].text for i in answers] == expected
