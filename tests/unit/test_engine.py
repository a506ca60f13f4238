"""Streaming equals offline, whoever the neighbours are; slots come back; time is an argument."""

from __future__ import annotations

import queue
import random

import numpy as np
import pytest
import torch

from engine_client import Client, packets, pcm
from nemotron_asr.chunks import samples_needed, total_frames
from nemotron_asr.engine import Request, StreamingEngine
from nemotron_asr.engine.sessions import SessionTable

CHUNK = {80: 1280, 160: 2560, 320: 5120, 560: 8960, 1120: 17920}


@pytest.fixture
def client(recognizer):
    return Client(StreamingEngine(recognizer, num_slots=8))


def stream(client, id_, audio, sizes, **options) -> str:
    client.ask(id_, start=True, **options)
    for packet in sizes(audio):
        client.ask(id_, packet)
    client.ask(id_, end=True)
    return client.text(id_)


def same_words(live, offline) -> bool:
    """Equal but for the last digits of a posterior."""
    strip = [[w[:3] for w in words] for words in (live, offline)]
    close = [abs(a.confidence - b.confidence) < 1e-3 for a, b in zip(live, offline, strict=True)]
    return strip[0] == strip[1] and all(close)


@pytest.mark.parametrize("latency_ms", CHUNK)
def test_streaming_equals_offline_wherever_the_audio_ends(client, recognizer, latency_ms):
    chunk = CHUNK[latency_ms]
    lengths = [0, 1, 159, 160, 199, 200, 201, 1000, 1280, 1479, 1480, 1481, 3 * chunk]
    lengths += [k * chunk + 200 + d for k in (1, 2) for d in (-1281, -1, 0, 1, 39, 40, 41, 160)]
    lengths += [int(x) for x in np.linspace(2 * chunk, 3 * chunk, 9)] + [60_000]
    rng = random.Random(latency_ms)
    for i, length in enumerate(lengths):
        audio = pcm(length, seed=i)
        offline = recognizer.transcribe([audio], "de-DE", latency_ms)[0]
        live = stream(
            client, i, audio, lambda a: packets(a, rng, 4000),
            language="de-DE", latency_ms=latency_ms,
        )  # fmt: skip
        assert live == offline.text, f"{length} samples"
        assert same_words(client.words(i), offline.words), f"{length} samples"
        assert all(w.start_ms <= w.end_ms <= length // 16 for w in offline.words)
        assert client.updates[i][-1].audio_processed_ms == length // 16
    assert len(client.engine.table) == 0


@pytest.mark.parametrize("packet", [1, 7, 160, 1280, 50_000, 10**9])
def test_packets_of_any_size_give_the_same_text(client, recognizer, packet):
    audio = pcm(3000 if packet == 1 else 50_123, seed=3)
    live = stream(
        client, "s", audio, lambda a: [a[i : i + packet] for i in range(0, len(a), packet)]
    )
    assert live == recognizer.transcribe([audio], latency_ms=320)[0].text


@pytest.mark.parametrize("latency_ms", CHUNK)
def test_an_answer_tells_what_the_next_chunk_lacks(client, latency_ms):
    """One sample fewer completes none; with them it is complete."""
    audio, at = pcm(5 * CHUNK[latency_ms], seed=latency_ms), 0
    missing = client.ask("s", start=True, latency_ms=latency_ms).missing
    for _ in range(3):
        for size, chunks in ((missing - 1, 0), (1, 1)):
            before = client.engine.metrics.rounds
            update = client.ask("s", audio[at : at + size])
            assert client.engine.metrics.rounds - before == chunks
            at += size
        missing = update.missing
        assert missing == CHUNK[latency_ms]


def test_neighbours_of_other_lookaheads_and_languages_change_nothing(recognizer):
    rng = random.Random(7)
    client = Client(StreamingEngine(recognizer, num_slots=32))
    jobs = {}
    for i in range(32):
        options = {
            "language": rng.choice(["auto", "de-DE", "fr-FR", "en-US"]),
            "latency_ms": rng.choice(list(CHUNK)),
        }
        audio = pcm(rng.randint(0, 90_000), seed=100 + i)
        jobs[i] = (options, audio, list(packets(audio, rng, rng.choice([300, 2000, 30_000]))))
    left = {i: list(job[2]) for i, job in jobs.items()}
    waiting = list(jobs)
    while waiting or left:
        if waiting and rng.random() < 0.3:
            id_ = waiting.pop()
            client.send(id_, start=True, **jobs[id_][0])
        started = [i for i in left if i not in waiting]
        for id_ in rng.sample(started, min(len(started), 6)):
            if left[id_]:
                client.send(id_, left[id_].pop(0))
            else:
                client.send(id_, end=True)
                del left[id_]
        client.engine.step(client.now)
    client.settle()
    distinct = set()
    for i, (options, audio, _) in jobs.items():
        offline = recognizer.transcribe([audio], **options)[0]
        assert client.text(i) == offline.text
        assert same_words(client.words(i), offline.words)
        distinct |= {t.id for t in offline.tokens}
    assert len(distinct) >= 20, "the model says too little for this test to mean anything"
    assert len(client.engine.table) == 0


def test_text_is_only_appended_and_final_comes_with_end(client):
    client.ask("s", start=True)
    for packet in packets(pcm(60_000), random.Random(0), 3000):
        assert not client.ask("s", packet).is_final
    assert client.ask("s", end=True).is_final
    assert client.text("s") == client.text("s").strip()


def test_start_tells_what_is_on_offer(client):
    offer = client.ask("s", start=True).server
    assert offer["latencies_ms"] == [80, 160, 320, 560, 1120]
    assert "de-DE" in offer["languages"]
    assert offer["sample_rates"][0] == 8000
    assert 16_000 in offer["sample_rates"]
    assert offer["max_channels"] == 8
    assert offer["slots"] == 8
    assert client.ask("s").server is None


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"language": "xx-YY"}, ["'xx-YY'", "de-DE", "auto"]),
        ({"language": 3}, ["3", "de-DE"]),
        ({"latency_ms": 100}, ["100", "80, 160, 320, 560, 1120"]),
        ({"latency_ms": "soon"}, ["'soon'", "320"]),
        ({"latency_ms": 320.5}, ["320.5", "320"]),
        ({"sample_rate": 44000}, ["44000", "16000", "44100"]),
        ({"channels": 9}, ["9", "1, 2, 3"]),
        ({"endpoint_ms": -1}, ["-1", "0 to 10000"]),
        ({"finalize": "perhaps"}, ["'perhaps'", "true, false"]),
        ({"channel": 1}, ["'channel'", "not for a live stream", "channels"]),
        ({"langauge": "de-DE"}, ["'langauge'", "language, latency_ms, sample_rate"]),
    ],
)
def test_a_bad_option_is_named_and_takes_no_slot(client, parameters, words):
    error = client.ask("s", start=True, **parameters).error
    assert str(error).startswith("INVALID_ARGUMENT: ")
    assert all(word in str(error) for word in words)
    assert len(client.engine.table) == 0
    assert str(client.ask("s").error).startswith("NOT_FOUND: ")


def test_an_option_on_a_running_stream_is_refused_and_nothing_is_lost(client, recognizer):
    audio = pcm(40_000)
    client.ask("s", audio[:20_000], start=True)
    assert str(client.ask("s", latency_ms=80).error).startswith("INVALID_ARGUMENT: ")
    client.ask("s", audio[20_000:], end=True)
    assert client.text("s") == recognizer.transcribe([audio], latency_ms=320)[0].text


def test_unknown_and_ended_streams_are_not_found(client):
    assert str(client.ask("s", pcm(100)).error).startswith("NOT_FOUND: ")
    assert str(client.ask("s", end=True).error).startswith("NOT_FOUND: ")
    client.ask("s", start=True)
    client.ask("s", end=True)
    assert str(client.ask("s", pcm(100)).error).startswith("NOT_FOUND: ")


def test_a_packet_behind_end_is_refused_and_end_is_still_answered(client):
    client.send("s", pcm(30_000), start=True)
    client.send("s", end=True)
    client.send("s", pcm(10))
    client.settle()
    refused, *answers = client.updates["s"]
    assert str(refused.error).startswith("NOT_FOUND: ")
    assert [a.error for a in answers] == [None, None]
    assert answers[-1].is_final


def test_start_on_a_live_id_begins_anew(client, recognizer):
    client.ask("s", pcm(40_000, seed=1), start=True)
    client.updates.clear()
    audio = pcm(50_000, seed=2)
    client.ask("s", audio, start=True, end=True)
    assert client.text("s") == recognizer.transcribe([audio], latency_ms=320)[0].text
    assert len(client.engine.table) == 0


def test_end_and_start_behind_each_other_lose_nothing(client, recognizer):
    """The same id begins again before its END is decoded."""
    audio = pcm(60_000, seed=3)
    for _ in range(2):
        client.send("s", audio, start=True)
        client.send("s", end=True)
    client.settle()
    expected = recognizer.transcribe([audio], latency_ms=320)[0].text
    assert [u.error for u in client.updates["s"]] == [None] * 4
    assert client.text("s") == expected * 2
    assert len(client.engine.table) == 0


def test_a_refused_start_on_a_live_id_ends_that_stream(client):
    client.ask("s", pcm(40_000), start=True)
    assert "INVALID_ARGUMENT" in str(client.ask("s", start=True, language="xx").error)
    assert "NOT_FOUND" in str(client.ask("s", pcm(100)).error)
    assert len(client.engine.table) == 0


def test_options_may_be_sent_again_with_every_packet(client, recognizer):
    audio = pcm(50_000, seed=4)
    options = {"language": "de-DE", "latency_ms": "560"}
    client.ask("s", audio[:20_000], start=True, **options)
    client.ask("s", audio[20_000:], **options)
    client.ask("s", end=True, **options)
    assert client.text("s") == recognizer.transcribe([audio], "de-DE", 560)[0].text


def test_an_end_with_another_option_is_refused_and_frees_the_slot(client):
    client.ask("s", pcm(20_000), start=True)
    error = client.ask("s", end=True, latency_ms=80).error
    assert str(error).startswith("INVALID_ARGUMENT: latency_ms 80 on a running stream")
    assert len(client.engine.table) == 0


def test_the_idle_limit_counts_from_the_answer(client):
    client.ask("s", start=True)
    client.send("s", pcm(6_000))
    client.engine.step(100.0)  # decoding took longer than the limit
    client.now = 101.0
    client.settle()
    assert client.ask("s", end=True).is_final


def test_short_chunks_are_answered_before_long_ones_of_the_same_round(client, recognizer):
    order = []

    def long_frames() -> int:
        return client.engine.table.get("long").segment.frames

    for id_, latency_ms in (("long", 1120), ("short", 80)):
        request = Request(
            id_, pcm(20_000), True, False, {"latency_ms": latency_ms},
            lambda update, id_=id_: order.append((id_, long_frames())),
        )  # fmt: skip
        client.engine.submit(request)
    client.settle()
    assert order[-1][0] == "short", "16 rounds against one"
    order.clear()
    for id_, samples in (("long", 17_920), ("short", 1280)):
        client.engine.submit(
            Request(
                id_, pcm(samples), False, False, {},
                lambda update, id_=id_: order.append((id_, long_frames())),
            )
        )  # fmt: skip
    client.engine.step(client.now)
    assert order == [("short", 14), ("long", 28)]


def test_a_fault_answers_its_request_and_frees_its_slot(client, monkeypatch):
    reset = client.engine.arena.reset

    def fail_once(slot):
        monkeypatch.setattr(client.engine.arena, "reset", reset)
        raise RuntimeError("device lost")

    monkeypatch.setattr(client.engine.arena, "reset", fail_once)
    assert str(client.ask("a", start=True).error) == "INTERNAL: decoding failed: RuntimeError"
    assert len(client.engine.table) == 0
    for i in range(8):
        assert client.ask(i, start=True).error is None


def test_a_fault_in_one_stream_s_text_harms_no_neighbour(client, recognizer, monkeypatch):
    for id_ in "abc":
        client.ask(id_, start=True)

    def fail(tokens):
        raise ValueError("no such piece")

    monkeypatch.setattr(client.engine.table.get("b").segment.assembler, "push", fail)
    audio = pcm(50_000)
    for id_ in "abc":
        client.send(id_, audio)
    client.settle()
    assert str(client.updates["b"][-1].error) == "INTERNAL: decoding failed: ValueError"
    expected = recognizer.transcribe([audio], latency_ms=320)[0].text
    for id_ in "ac":
        client.ask(id_, end=True)
        assert client.text(id_) == expected
    assert len(client.engine.table) == 0


def test_capacity_is_refused_at_once_and_slots_come_back(client):
    for i in range(8):
        assert client.ask(i, start=True).error is None
    assert str(client.ask("more", start=True).error) == "UNAVAILABLE: at capacity (8/8)"
    client.ask(3, end=True)
    assert client.ask("more", start=True).error is None
    for i in ["more", *range(8)]:
        client.ask(i, end=True)
    assert len(client.engine.table) == 0


def test_idle_streams_expire_and_keep_alive_prevents_it(client):
    client.ask("idle", start=True)
    client.ask("alive", start=True)
    for _ in range(5):
        client.now += 10
        assert client.ask("alive").error is None
    assert str(client.ask("idle").error).startswith("NOT_FOUND: ")
    assert "30 s" in str(client.updates["idle"][-1].error)
    client.now += 31
    client.settle()
    assert len(client.engine.table) == 0


def test_a_fast_stream_does_not_hold_up_a_live_one(client):
    client.ask("fast", start=True)
    client.ask("live", start=True)
    client.send("fast", pcm(160_000))
    client.send("live", pcm(5_200))
    client.engine.step(client.now)
    assert len(client.updates["live"]) == 2, "answered in the first round"
    assert len(client.updates["fast"]) == 1, "many rounds to go"
    client.settle()
    assert len(client.updates["fast"]) == 2


def test_a_live_stream_shares_every_round_with_several_fast_ones(client):
    """Files sent as fast as can be: a live packet is answered by the next round all the same."""
    fast = [f"fast {i}" for i in range(6)]
    for id_ in [*fast, "live"]:
        client.ask(id_, start=True)
    for id_ in fast:
        for _ in range(8):
            client.send(id_, pcm(160_000))
    client.engine.step(client.now)
    for packets_sent in range(1, 9):
        client.send("live", pcm(5_200))
        client.engine.step(client.now)
        assert len(client.updates["live"]) == 1 + packets_sent
    heard = [client.engine.table.get(id_).segment.frames for id_ in fast]
    assert set(heard) == {9 * 4}, "each fast one had a chunk a round too"


def test_queued_audio_is_bounded_and_says_how_much_waits(recognizer):
    client = Client(StreamingEngine(recognizer, num_slots=2, max_queued_s=10.0))
    audio = pcm(320_000)
    for id_ in "ab":
        client.ask(id_, start=True)
    for id_ in "ab":
        client.send(id_, audio[:150_000])
    client.send("a", audio[150_000:200_000])  # 9.4 s wait, 3.1 s come
    client.send("b", audio[150_000:160_000])
    client.engine.step(client.now)
    [refused] = [update for update in client.updates["a"] if update.error]
    assert str(refused.error).startswith("UNAVAILABLE: 9.4 s of this stream's audio wait")
    client.settle()
    for id_ in "ab":  # what was refused is sent again
        client.ask(id_, audio[{"a": 150_000, "b": 160_000}[id_] : 200_000])
        client.send(id_, audio[200_000:300_000])
        client.ask(id_, audio[300_000:], end=True)  # the last comes through
        assert client.text(id_) == recognizer.transcribe([audio], latency_ms=320)[0].text
    assert len(client.engine.table) == 0


def test_packets_that_wait_are_bounded_too(client, recognizer, monkeypatch):
    """Also those without audio; they are answered once there is room, and END at any time."""
    monkeypatch.setattr("nemotron_asr.engine.engine.MAX_WAITING", 50)
    audio = pcm(100_000)
    client.ask("s", start=True)
    client.send("s", audio[:90_000])
    for _ in range(60):
        client.send("s")
    client.engine.step(client.now)
    refused = [str(update.error) for update in client.updates["s"] if update.error]
    assert len(refused) == 11
    assert refused[0].startswith("UNAVAILABLE: 50 packets of this stream wait; it was not heard")
    client.settle()
    client.send("s", audio[90_000:])
    for _ in range(49):
        client.send("s")
    assert client.ask("s", end=True).is_final
    assert client.text("s") == recognizer.transcribe([audio], latency_ms=320)[0].text


def test_a_client_that_died_with_a_long_queue_gives_its_slot_back(client, recognizer):
    audio, answers = pcm(160_000), []
    client.ask("dead", start=True)
    client.ask("alive", start=True)
    for _ in range(3):
        dead = Request("dead", audio, False, False, {}, answers.append, lambda: True)
        client.engine.submit(dead)
    client.send("alive", audio)
    client.now += 1
    client.engine.step(client.now)
    assert [str(a.error).partition(":")[0] for a in answers] == ["UNAVAILABLE"] * 3
    assert client.engine.table.get("dead") is None
    assert client.engine.metrics.ended["cancelled"] == 1
    client.ask("alive", end=True)
    assert client.text("alive") == recognizer.transcribe([audio], latency_ms=320)[0].text


def test_a_packet_above_the_bound_is_refused_in_its_own_rate(recognizer):
    client = Client(StreamingEngine(recognizer, num_slots=2, max_queued_s=10.0))
    options = {"sample_rate": 8000, "channels": 2}
    frames = 8000 * 10
    assert client.ask("a", pcm(2 * frames), start=True, **options).error is None
    error = client.ask("a", pcm(2 * frames + 2000)).error
    assert str(error) == "INVALID_ARGUMENT: 10.1 s of audio in a packet; valid: up to 10 s"
    assert client.ask("b", pcm(200_000), start=True).error.code == "INVALID_ARGUMENT"
    assert len(client.engine.table) == 1, "a stream whose START is refused does not begin"


def test_a_draining_engine_refuses_new_streams_and_ends_the_others(client, recognizer):
    audio = pcm(50_000)
    client.ask("a", audio[:20_000], start=True)
    client.engine.drain()
    assert str(client.ask("b", start=True).error).startswith("UNAVAILABLE: draining")
    assert not client.engine.is_drained
    client.ask("a", audio[20_000:], end=True)
    assert client.text("a") == recognizer.transcribe([audio], latency_ms=320)[0].text
    assert client.engine.is_drained


def test_a_round_touches_only_streams_that_have_something_to_do(client, monkeypatch):
    for i in range(8):
        client.ask(i, start=True)
    monkeypatch.setattr(SessionTable, "__iter__", lambda _: pytest.fail("all were visited"))
    assert client.ask(3, pcm(30_000)).error is None
    assert client.ask(3, end=True).is_final
    client.now += 1.0  # time to look for idle ones
    with pytest.raises(pytest.fail.Exception, match="all were visited"):
        client.ask(4)


def test_packets_handed_over_together_are_one_round(recognizer):
    engine = StreamingEngine(recognizer, num_slots=8)
    step, rounds, answers = engine.step, [], queue.SimpleQueue()

    def counted(now):
        rounds.append(now)
        return step(now)

    engine.step = counted
    engine.start()
    try:
        engine.submit(
            *(
                Request(i, pcm(10), True, False, {}, lambda _: answers.put(len(rounds)))
                for i in range(8)
            )
        )
        assert len({answers.get(timeout=60) for _ in range(8)}) == 1
    finally:
        engine.stop()


def test_32_ready_streams_are_one_forward_call(recognizer, monkeypatch):
    client = Client(StreamingEngine(recognizer, num_slots=32))
    for i in range(32):
        client.ask(i, start=True)
    # A young stream, an old one and one that ends share the batch too.
    client.ask(0, pcm(30_000))
    rows = []
    step = recognizer.step
    monkeypatch.setattr(
        recognizer, "step", lambda chunks, *args: rows.append(len(chunks)) or step(chunks, *args)
    )
    for i in range(32):
        client.send(i, pcm({0: 6_000, 5: 4_000}.get(i, 5_000), seed=i), end=i == 5)
    client.settle()
    assert rows == [32]


def test_a_failing_batch_ends_its_streams_and_no_others(client, recognizer, monkeypatch):
    client.ask("bad", start=True, latency_ms=80)
    client.ask("good", start=True)
    step = recognizer.step

    def fail(rows, num_frames, *args):
        if num_frames == 1:
            raise RuntimeError("out of memory")
        return step(rows, num_frames, *args)

    monkeypatch.setattr(recognizer, "step", fail)
    client.send("good", pcm(20_000))
    error = client.ask("bad", pcm(20_000)).error
    assert str(error) == "INTERNAL: decoding failed: RuntimeError"
    assert client.ask("good", end=True).is_final
    assert len(client.engine.table) == 0


def test_an_answer_that_cannot_be_delivered_harms_nobody(client, recognizer):
    def vanish(update):
        raise ConnectionError("the client is gone")

    audio = pcm(50_000)
    client.engine.submit(Request("gone", audio, True, True, {}, vanish))
    client.ask("s", audio, start=True, end=True)
    assert client.text("s") == recognizer.transcribe([audio], latency_ms=320)[0].text
    assert len(client.engine.table) == 0


def test_a_slot_carries_nothing_over(client, recognizer):
    """A poisoned slot is wiped on START: NaN left behind would reach every output."""
    with torch.inference_mode():
        for x in [*client.engine.arena.encoder[:-1], *client.engine.arena.prediction]:
            x.fill_(float("nan"))
    audio = pcm(50_000)
    client.ask("s", audio, start=True, end=True)
    assert client.text("s") == recognizer.transcribe([audio], latency_ms=320)[0].text


def test_stop_answers_everything(recognizer):
    client = Client(StreamingEngine(recognizer, num_slots=2))
    client.engine.start()
    client.send("s", pcm(1_000_000), start=True)
    client.engine.stop()
    client.send("s", pcm(10))
    assert len(client.updates["s"]) == 2
    assert all(str(u.error).startswith("UNAVAILABLE: ") for u in client.updates["s"])


def test_memory_of_a_long_stream_is_bounded(client):
    client.ask("s", start=True, latency_ms=1120)
    session = client.engine.table.get("s")
    for _ in range(60):
        client.ask("s", np.zeros(16_000, np.int16))
        kept = session.audio.stop - session.audio.start
        assert kept < CHUNK[1120] + 16_000 + 1000


def test_needed_samples_match_the_published_chunk_table():
    assert [samples_needed(n) for n in (1, 2, 4, 7, 14)] == [200, 1480, 4040, 7880, 16840]
    assert samples_needed(8) - samples_needed(4) == 5120
    assert [total_frames(n) for n in (0, 159, 160, 320, 1440, 1600)] == [0, 0, 1, 2, 2, 3]
