"""Utterances within a stream: each says what its own audio says as a stream of its own."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch

from engine_client import Client, packets, pcm
from nemotron_asr.chunks import milliseconds
from nemotron_asr.engine import StreamingEngine
from nemotron_asr.engine.segments import Segment
from nemotron_asr.options import Options

LATENCIES = (80, 320, 1120)
PAUSE = {"endpoint_ms": 400}
RELUCTANCE = 3.5  # added to blank, so that the random model falls silent at times


@pytest.fixture
def client(recognizer, monkeypatch):
    head = recognizer.net.joint.head
    bias = head.bias.clone()
    bias[recognizer.config.blank_token_id] += RELUCTANCE
    monkeypatch.setattr(head, "bias", bias)
    return Client(StreamingEngine(recognizer, num_slots=8))


def send_all(client, id_, audio, rng, largest=6000, **options):
    """A whole stream in packets.  Returns its text and its segments."""
    client.ask(id_, start=True, **options)
    for packet in packets(audio, rng, largest):
        client.ask(id_, packet)
    client.ask(id_, end=True)
    return client.text(id_), segments(client, id_)


def segments(client, id_) -> list[dict]:
    """The segments with text, put together from what each answer added to them."""
    found: dict[int, dict] = {}
    for update in client.updates[id_]:
        result = update.as_dict()
        assert all(w.end_ms <= update.audio_processed_ms for w in update.words)
        alone = [{**result, "is_final": False}] if result["text"] or result["words"] else []
        for piece in result.get("segments", alone):
            whole = found.setdefault(piece["segment"], {"text": "", "words": []})
            assert not whole.get("is_final"), "a segment that had ended goes on"
            text, words = whole["text"] + piece["text"], whole["words"] + piece["words"]
            whole |= piece | {"text": text, "words": words}
    for whole in (s for s in found.values() if s["is_final"]):
        for edge in ("start_ms", "end_ms"):
            times = [whole["start_ms"], *(w[edge] for w in whole["words"]), whole["end_ms"]]
            assert times == sorted(times)
    assert list(found) == list(range(len(found)))
    assert "".join(s["text"] for s in found.values()) == client.text(id_)
    return [{**s, "text": s["text"].lstrip()} for s in found.values()]


def told(segment: dict) -> tuple:
    """What is the same however a stream is sent: posteriors differ in their last digits."""
    words = [(w["text"], w["start_ms"], w["end_ms"]) for w in segment["words"]]
    return segment["text"], words, segment["end_ms"], segment["reason"]


def samples(ms: int) -> int:
    return ms * 16


@pytest.mark.parametrize("latency_ms", LATENCIES)
def test_finalize_equals_end_and_start(client, recognizer, latency_ms):
    rng = random.Random(latency_ms)
    audio = pcm(120_000, seed=latency_ms)
    options = {"language": "de-DE", "latency_ms": latency_ms}
    client.ask("s", start=True, **options)
    cuts, at = [0], 0
    for packet in packets(audio, rng, 8000):
        at += len(packet)
        finalize = rng.random() < 0.2
        update = client.ask("s", packet, **({"finalize": True} if finalize else {}))
        if finalize:
            assert update.audio_processed_ms == at // 16
            cuts.append(at)
    client.ask("s", end=True)
    cuts.append(at)
    assert len(cuts) > 4
    parts = [recognizer.transcribe([audio[a:b]], **options)[0] for a, b in itertools.pairwise(cuts)]
    parts = [part for part in parts if part.text]
    live = segments(client, "s")
    assert [s["text"] for s in live] == [part.text for part in parts]
    assert client.text("s") == " ".join(part.text for part in parts)
    assert {s["reason"] for s in live[:-1]} == {"finalize"}
    for segment, part in zip(live, parts, strict=True):
        starts = [w["start_ms"] - segment["start_ms"] for w in segment["words"]]
        ms, end_ms = segment["end_ms"] - segment["start_ms"], milliseconds(part.num_samples)
        assert starts == [ms if w.start_ms == end_ms else w.start_ms for w in part.words]


def test_a_language_holds_from_its_packet_on(client, recognizer):
    first, second = pcm(30_001, seed=1), pcm(30_000, seed=2)
    client.ask("s", start=True, language="de-DE")
    client.ask("s", first)
    client.ask("s", second[:10_000], language="fr-FR")
    client.ask("s", second[10_000:], language="fr-FR")  # again: changes nothing
    client.ask("s", end=True)
    expected = [
        recognizer.transcribe([first], "de-DE", 320)[0].text,
        recognizer.transcribe([second], "fr-FR", 320)[0].text,
    ]
    assert [s["text"] for s in segments(client, "s")] == [text for text in expected if text]
    assert segments(client, "s")[0]["reason"] == "language"


def test_a_language_does_not_reach_back_into_audio_that_waits(client, monkeypatch):
    """Segments that begin before it do so with the language before it."""
    first, second = pcm(200_000, seed=5), pcm(30_000, seed=2)
    begun = []
    assembler = client.engine.recognizer.assembler

    def recorded(options):
        begun.append(options.language)
        return assembler(options)

    monkeypatch.setattr(client.engine.recognizer, "assembler", recorded)
    client.send("s", first, start=True, language="de-DE", **PAUSE)
    for language in ("fr-FR", "de-DE", "fr-FR", "fr-FR"):
        client.send("s", second, language=language)
    client.settle()
    assert begun[:4] == ["de-DE"] * 4
    changes = [new for old, new in itertools.pairwise(begun) if new != old]
    assert changes == ["fr-FR", "de-DE", "fr-FR"]


def test_other_options_cannot_change_and_the_stream_goes_on(client, recognizer):
    audio = pcm(30_000)
    client.ask("s", start=True)
    client.ask("s", audio[:10_000])
    error = client.ask("s", audio[10_000:], latency_ms=80).error
    assert "latency_ms 80 on a running stream" in str(error)
    assert "valid on later packets: language, finalize" in str(error)
    client.ask("s", audio[10_000:])
    client.ask("s", end=True)
    assert client.text("s") == recognizer.transcribe([audio], latency_ms=320)[0].text


@pytest.mark.parametrize("latency_ms", LATENCIES)
def test_what_follows_an_endpoint_is_a_stream_of_its_own(client, latency_ms):
    options = {**PAUSE, "latency_ms": latency_ms}
    audio = pcm(200_000, seed=5)
    _, whole = send_all(client, "s", audio, random.Random(1), **options)
    assert len(whole) >= 4
    assert {s["reason"] for s in whole[:-1]} == {"endpoint"}
    starts = {u.segment_start // 16 for u in client.updates["s"]}
    assert starts >= {s["start_ms"] for s in whole}
    for k in (1, len(whole) // 2):
        start = samples(whole[k - 1]["end_ms"])
        _, rest = send_all(client, k, audio[start:], random.Random(k), **options)
        assert [s["text"] for s in rest] == [s["text"] for s in whole[k:]]
        assert [s.get("end_ms", 0) for s in rest] == [
            s["end_ms"] - whole[k - 1]["end_ms"] for s in whole[k:]
        ]


@pytest.mark.parametrize("latency_ms", LATENCIES)
def test_endpoints_do_not_depend_on_packets_or_neighbours(client, latency_ms):
    audio = pcm(200_000, seed=5)
    options = {**PAUSE, "latency_ms": latency_ms}
    expected = send_all(client, "alone", audio, random.Random(1), 100, **options)
    assert len(expected[1]) >= 2
    for i in range(4):
        client.send(i, start=True, **(options if i % 2 else {"latency_ms": latency_ms}))
        client.send(i, audio if i else pcm(90_000, seed=7))
    client.settle()
    for i in range(4):
        client.ask(i, end=True)
    for i in (1, 3):
        assert client.text(i) == expected[0]
        assert [told(s) for s in segments(client, i)] == [told(s) for s in expected[1]]


def test_segments_follow_each_other_without_gap_or_overlap(client):
    _, found = send_all(client, "s", pcm(200_000, seed=8), random.Random(2), **PAUSE)
    for before, after in itertools.pairwise(found):
        assert before["end_ms"] <= after["start_ms"]
        assert before["words"][-1]["start_ms"] < after["words"][0]["start_ms"]
        assert after["words"][0]["start_ms"] >= after["start_ms"]
    assert found[-1]["reason"] == "end"
    assert found[-1]["end_ms"] == 200_000 // 16


def test_what_is_too_long_is_cut(client):
    chunk_ms = 320
    options = {"max_utterance_ms": 1600, "latency_ms": chunk_ms}
    _, found = send_all(client, "s", pcm(300_000, seed=9), random.Random(3), **options)
    assert len(found) > 5
    assert max(s["end_ms"] - s["start_ms"] for s in found) <= 1.25 * 1600 + 2 * chunk_ms
    assert {s["reason"] for s in found[:-1]} == {"max_length"}


@pytest.mark.parametrize(
    ("spoken", "frames", "cut"),
    [
        (40, 49, None),  # not too long yet, of 50 frames
        (46, 50, None),  # too long, and within a word perhaps
        (44, 50, 47),
        (50, 55, None),
        (57, 59, None),
        (58, 60, 59),  # far too long: any pause will do
        (59, 60, None),
        (0, 60, None),
    ],
)
def test_what_is_too_long_ends_at_a_pause(spoken, frames, cut):
    segment = Segment(None, frames=frames, spoken=spoken)
    found = segment.endpoint(Options(320, max_utterance_ms=50 * 80))
    assert found == (cut and (cut * 1280, "max_length", None))


def test_silence_keeps_little_audio_and_says_nothing(client):
    client.ask("s", start=True, **PAUSE)
    session = client.engine.table.get("s")
    kept = []
    for _ in range(60):
        client.ask("s", np.zeros(16_000, np.int16))
        kept.append(session.audio.stop - session.audio.start)
    assert max(kept) < 3 * 16_000
    assert session.segment.frames < 300  # begun afresh every 20 s


def test_of_a_long_silence_little_is_kept_and_heard_again(client):
    """The longest utterance ends in it."""
    client.ask("s", pcm(40_000, seed=5), start=True, latency_ms=80, max_utterance_ms=30_000)
    deafen(client, "s")
    session = client.engine.table.get("s")
    rounds, kept = [], []
    for _ in range(40):
        before = client.engine.metrics.rounds
        client.ask("s", np.zeros(16_000, np.int16))
        rounds.append(client.engine.metrics.rounds - before)
        kept.append(session.audio.stop - session.audio.start)
    assert segments(client, "s")[0]["reason"] == "max_length"
    assert max(rounds) <= 13 + 12  # of the packet, and the second before it
    assert max(kept) < 3 * 16_000


def deafen(client, id_) -> None:
    """Put the decoder where it says blank to everything."""
    deafen_slot(client.engine.arena, client.engine.table.get(id_).slot)


@torch.inference_mode()
def deafen_slot(arena, slot: int) -> None:
    arena.prediction.g[slot] = -1e4


ONSET = 40_000  # sample at which somebody begins to speak


def begun_afresh(client, id_, audio, size, **options) -> int:
    """The sample at which a stream whose decoder is stuck begins afresh, 0 where it does not.

    size: samples of a packet; 0: as many as the next chunk lacks.
    """
    missing, at, starts = client.ask(id_, start=True, **options).missing, 0, {0}
    deafen(client, id_)
    while at < len(audio):
        packet = audio[at : at + (size or missing)]
        update = client.ask(id_, packet)
        missing, at = update.missing, at + len(packet)
        starts.add(update.segment_start)
    client.ask(id_, end=True)
    return sorted(starts)[:2][-1]


@pytest.mark.parametrize("latency_ms", [80, 160, *LATENCIES[1:]])
def test_a_stuck_decoder_recovers(client, latency_ms):
    """From before the speech began, whatever the packets are."""
    audio = np.concatenate([np.zeros(ONSET, np.int16), pcm(160_000, seed=10)])
    options = {"latency_ms": latency_ms, "recover_ms": 2000}
    starts = {
        size: begun_afresh(client, size, audio, size, **options)
        for size in (0, 320, 5120, 7777, 30_000)
    }
    start = starts[0]
    assert ONSET - 20_000 < start <= ONSET - 8000
    assert set(starts.values()) == {start}
    text, _ = send_all(client, "alone", audio[start:], random.Random(5), latency_ms=latency_ms)
    assert text.startswith(segments(client, 0)[0]["text"])
    assert len({client.text(size) for size in starts}) == 1


def test_what_was_loud_is_not_lost_where_long_silence_begins_afresh(client):
    """Which it does every 20 s: sooner than this recover_ms."""
    audio = np.concatenate([np.zeros(ONSET, np.int16), pcm(320_000, seed=10)])
    options = {"recover_ms": 25_000, "endpoint_ms": 800}
    assert ONSET - 20_000 < begun_afresh(client, "s", audio, 5120, **options) <= ONSET - 8000


def test_what_was_loud_is_heard_twice_at_most(client, monkeypatch):
    deafen_all(client, monkeypatch)
    client.ask("s", start=True, recover_ms=60_000, endpoint_ms=800)
    for i in range(100):
        client.ask("s", pcm(16_000, seed=i))
    assert client.text("s") == ""
    assert client.engine.metrics.rounds < 2.2 * 100 * 16_000 / 5120


def test_a_stuck_decoder_stays_stuck_where_nobody_asked(client):
    client.ask("s", start=True)
    deafen(client, "s")
    client.ask("s", pcm(200_000, seed=10))
    assert client.ask("s", end=True).is_final
    assert client.text("s") == ""


def deafen_all(client, monkeypatch) -> list[int]:
    """No decoder hears anything from now on.  Returns the slots that begin afresh, as they do."""
    arena, begun = client.engine.arena, []
    reset = arena.reset

    def reset_deaf(slot):
        begun.append(slot)
        reset(slot)
        deafen_slot(arena, slot)

    monkeypatch.setattr(arena, "reset", reset_deaf)
    return begun


@pytest.mark.parametrize("kind", ["silence", "noise", "speech"])
def test_what_cannot_be_heard_is_not_tried_again_for_ever(client, kind, monkeypatch):
    """Loud audio that is no speech: the model begins afresh ever more rarely."""
    rng = np.random.default_rng(0)
    second = {
        "silence": np.zeros(16_000, np.int16),
        "noise": rng.normal(0, 3000, 16_000).astype(np.int16),
        "speech": pcm(16_000, seed=11),
    }[kind]
    begun = deafen_all(client, monkeypatch)
    client.ask("s", start=True, recover_ms=1000)
    for i in range(120):
        client.ask("s", np.concatenate([second, np.zeros(2000, np.int16)]) if i % 5 else second)
    assert client.text("s") == ""
    assert len(begun) - 1 <= (0 if kind == "silence" else 8)
    assert len(begun) - 1 >= (3 if kind == "speech" else 0)
