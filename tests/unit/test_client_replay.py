"""Streams that are lost at any moment and sent again, on an engine without a connection."""

from __future__ import annotations

import difflib
import itertools
import json
import random
import struct

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from asr_client.audio import AudioFormat
from asr_client.replay import AUDIO, END, Overlap, Tape
from asr_client.results import Word
from asr_client.session import StreamSession
from engine_client import Client, pcm
from nemotron_asr.engine import StreamingEngine

RELUCTANCE = 3.5  # added to blank, so that the random model falls silent at times


class Wire:
    """Requests of a session to an engine, answers back; what is under way can be lost."""

    def __init__(self, recognizer):
        self.client = Client(StreamingEngine(recognizer, num_slots=4))

    def send(self, request: service_pb2.ModelInferRequest) -> tuple:
        """Returns the stream and the number of its answer."""
        fields = {
            name: getattr(value, value.WhichOneof("parameter_choice"))
            for name, value in request.parameters.items()
        }
        id_, start, end = (fields.pop(f"sequence_{name}") for name in ("id", "start", "end"))
        audio = np.frombuffer(request.raw_input_contents[0], "<i2")
        number = len(self.client.updates[id_])
        self.client.ask(id_, audio, start=start, end=end, **fields)
        return id_, number, [output.name for output in request.outputs]

    def answer(self, id_, number: int, names: list[str]) -> service_pb2.ModelStreamInferResponse:
        update = self.client.updates[id_][number]
        response = service_pb2.ModelStreamInferResponse()
        if update.error is not None:
            response.error_message = str(update.error)
            return response
        values = {"TEXT": update.text, "RESULT": json.dumps(update.as_dict())}
        for name in names:
            data = values[name].encode()
            response.infer_response.outputs.add(name=name, datatype="BYTES", shape=[1, 1])
            raw = struct.pack("<I", len(data)) + data
            response.infer_response.raw_output_contents.append(raw)
        return response


@pytest.fixture
def pausing(recognizer, monkeypatch):
    head = recognizer.net.joint.head
    bias = head.bias.clone()
    bias[recognizer.config.blank_token_id] += RELUCTANCE
    monkeypatch.setattr(head, "bias", bias)
    return recognizer


def run(recognizer, packets, options, format=AudioFormat(), loss=0.0, seed=0) -> StreamSession:  # noqa: B008
    """A whole stream.  packets: (audio, options).  loss: how often what is under way is lost."""
    wire, rng = Wire(recognizer), random.Random(seed)
    session = StreamSession(options, details=True, progress=False, replay=True, format=format)
    packets, in_flight, losses = list(packets), [], 0
    while not session.done:
        in_flight += map(wire.send, session.requests())
        if packets and rng.random() < 0.6:
            audio, marks = packets.pop(0)
            session.put(AUDIO, audio, **marks)
        elif not packets and not session.ending:
            session.put(END)
        for _ in range(rng.randint(0, 3)):
            if in_flight:
                session.accept(wire.answer(*in_flight.pop(0)))
        if rng.random() < loss and not session.done:
            losses += 1
            in_flight.clear()
            wire.send(session.end_request())
            session.restart()
    assert losses or not loss
    return session


def ragged(audio, rng: random.Random, marks=(), largest: int = 9000):
    """Packets of any size, and at times an option between them."""
    at = 0
    while at < len(audio):
        size = rng.randint(1, largest)
        yield audio[at : at + size], {}
        at += size
        if marks and rng.random() < 0.15:
            yield audio[:0], rng.choice(marks)


def given(session: StreamSession) -> str:
    return "".join(result.text for result in session.results)


MARKS = ({"finalize": True}, {"language": "de-DE"}, {"language": "fr-FR"})


@pytest.mark.parametrize("seed", range(6))
def test_a_stream_that_is_lost_again_and_again_says_what_it_would_have_said(pausing, seed):
    options = {"endpoint_ms": 400, "latency_ms": (80, 320, 1120)[seed % 3], "language": "auto"}
    packets = list(ragged(pcm(110_000, seed), random.Random(seed), MARKS[: seed % 4]))
    calm = run(pausing, packets, options)
    lossy = run(pausing, packets, options, loss=0.25, seed=seed)
    assert len(calm.transcript().segments) >= 2
    assert given(lossy) == lossy.transcript().text == calm.transcript().text
    assert_same(lossy.transcript().segments, calm.transcript().segments)
    pieces = [piece for result in lossy.results for piece in result.segments]
    for segment in lossy.transcript().segments:
        own = "".join(piece.text for piece in pieces if piece.segment == segment.segment)
        assert own.strip() == segment.text


def turns(session: StreamSession) -> list[str]:
    """What was given up to each finalize, and behind the last one."""
    said = [""]
    for result in session.results:
        said[-1] += result.text
        if result.finalized:
            said.append("")
    return said


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 44_100, 48_000])
def test_each_turn_has_its_own_text_at_any_rate(pausing, rate):
    """Resamplers round where a turn ends; a replay begins there nevertheless."""
    options = {"latency_ms": 80, "language": "auto", "sample_rate": rate}
    packets, audio = [], pcm(rate * 8, seed=4)
    for turn in np.array_split(audio, 17):
        packets += [(part, {}) for part in np.array_split(turn, 3)]
        packets.append((turn[:0], {"finalize": True}))
    format = AudioFormat(rate)
    calm = run(pausing, packets, options, format)
    lossy = run(pausing, packets, options, format, loss=0.2, seed=rate)
    assert len(turns(calm)) == 18
    assert sum(map(bool, turns(calm))) > 5
    assert turns(lossy) == turns(calm)


def test_what_was_finalized_is_not_kept(recognizer):
    """After any number of turns the tape begins at the very sample where the last one ended."""
    wire, rate = Wire(recognizer), 48_000
    options = {"latency_ms": 80, "sample_rate": rate}
    session = StreamSession(
        options, details=True, progress=False, replay=True, format=AudioFormat(rate)
    )

    def say(num_samples: int, **marks) -> None:
        session.put(AUDIO, np.zeros(num_samples, np.int16), **marks)
        for _ in range(2):  # the START has to be answered before anything else goes
            for request in list(session.requests()):
                session.accept(wire.answer(*wire.send(request)))

    for i in range(40):
        say(2002 if i < 30 else 2003)  # 48 kHz to 16: a third of a sample too much, or missing
        say(0, finalize=True)
        turn_end = session.tape.end
        say(1)
        assert session.tape.begin == turn_end
        assert not any(packet.options.get("finalize") for packet in session.tape)


def test_languages_beyond_those_to_detect_are_sent_again(pausing):
    """A running stream may change to any; a START may not name one that is not among them."""
    options = {"language": "auto", "languages": "de-DE,en-US", "latency_ms": 320}
    marks = [{"language": name} for name in ("fr-FR", "auto", "en", "auto")]
    packets = []
    for part, mark in zip(np.array_split(pcm(100_000, seed=7), 4), marks, strict=True):
        packets += [(piece, {}) for piece in np.array_split(part, 4)] + [(part[:0], mark)]
    calm = run(pausing, packets, options)
    lossy = run(pausing, packets, options, loss=0.3, seed=5)
    assert len(calm.transcript().segments) >= 3
    assert_same(lossy.transcript().segments, calm.transcript().segments)


def test_short_and_empty_packets_are_sent_again_as_long_ones(pausing):
    rng, audio = random.Random(2), pcm(60_000, seed=6)
    options = {"endpoint_ms": 400, "latency_ms": 320}
    edges = np.cumsum([rng.choice([0, 1, 37, 900]) for _ in range(1000)])
    packets = [(part, {}) for part in np.split(audio, edges[edges < len(audio)])]
    calm = run(pausing, packets, options)
    lossy = run(pausing, packets, options, loss=0.02, seed=3)
    assert len(packets) > 200
    assert given(lossy) == calm.transcript().text
    assert_same(lossy.transcript().segments, calm.transcript().segments)


def assert_same(segments, expected) -> None:
    """Equal, but for the posteriors' last digits and a millisecond of rounding."""
    for got, wanted in zip(segments, expected, strict=True):
        assert (got.text, got.language, got.reason) == (wanted.text, wanted.language, wanted.reason)
        for a, b in zip([got, *got.words], [wanted, *wanted.words], strict=True):
            assert a.text == b.text
            assert abs(a.start_ms - b.start_ms) <= 1
            assert abs(a.end_ms - b.end_ms) <= 1


@pytest.mark.parametrize(
    ("rate", "channels"), [(8000, 1), (44_100, 1), (48_000, 2), (16_000, 2), (11_025, 3)]
)
def test_other_rates_and_channels_are_sent_again_from_the_same_place(pausing, rate, channels):
    """The resampler begins anew too, and a random model decides by a hair: some words differ."""
    options = {
        "endpoint_ms": 400, "latency_ms": 320, "language": "auto",
        "sample_rate": rate, "channels": channels,
    }  # fmt: skip
    packets = [
        (np.repeat(part, channels), marks)
        for part, marks in ragged(pcm(rate * 8, seed=3), random.Random(1), MARKS[:1], rate // 2)
    ]
    format = AudioFormat(rate, channels)
    calm = run(pausing, packets, options, format)
    lossy = run(pausing, packets, options, format, loss=0.2, seed=2)
    expected, got = calm.transcript(), lossy.transcript()
    assert given(lossy) == got.text
    assert got.audio_processed_ms == pytest.approx(8000, abs=2)
    assert len(expected.words) > 10
    a, b = ([w.text for w in t.words] for t in (expected, got))
    assert difflib.SequenceMatcher(None, a, b).ratio() > (0.75 if rate != 16_000 else 0.999)


# --- a replay that differs ---


def words(text: str, first_ms: int = 0) -> tuple[Word, ...]:
    """A word every 400 ms; `-` is a pause as long as a word."""
    placed = ((word, first_ms + 400 * i) for i, word in enumerate(text.split()))
    return tuple(Word(word, ms, ms + 320) for word, ms in placed if word != "-")


@pytest.mark.parametrize(
    ("text", "known", "again", "whole"),
    [
        ("one two", "one two", "one two three four", "one two three four"),
        ("one two thr", "one two", "one two three four", "one two three four"),
        ("one two thr", "one two", "one too three four", "one two three four"),
        ("one two thr", "one two", "one two four five", "one two thr five"),
        ("one two", "one", "one tone three", "one two three"),
        ("one two three", "one two three", "one - three four", "one two three four"),
        ("one - three", "one - three", "one two three four", "one three four"),
        ("one two three", "one two three", "one", "one two three"),
        ("o", "", "one two", "one two"),
        ("o", "", "two three", "o three"),
    ],
)
@pytest.mark.parametrize("step", [1, 3, 100])
def test_what_was_given_stays_and_what_follows_is_appended(text, known, again, whole, step):
    """text, known: given, the words that were complete.  again: what the replay says."""
    text = text.replace("- ", "")
    overlap = Overlap(text, words(known))
    said, new_words = again.replace("- ", ""), words(again)
    ends = list(itertools.accumulate(len(w.text) + 1 for w in new_words))
    out, out_words, done = text, list(words(known)), 0
    for at in range(0, len(said), step):
        stop = min(at + step, len(said))
        last = stop == len(said)
        complete = [w for w, end in zip(new_words, ends, strict=True) if end <= stop or last]
        piece = tuple(complete[done:])
        done = len(complete)
        more, more_words = overlap.new(said[at:stop], piece, last, bool(out))
        out += more
        out_words += more_words
    assert out == whole
    assert " ".join(w.text for w in out_words) == whole


def test_a_replay_of_the_same_is_told_from_one_that_differs():
    same, other = (Overlap("one two", words("one two")) for _ in range(2))
    same.new("one two", words("one two"), False, True)
    other.new("one too", words("one too"), False, True)
    assert (same.over, same.differs) == (True, False)
    assert (other.over, other.differs) == (False, True)
    assert other.past(700)
    assert not other.past(300)


def test_a_tape_keeps_what_has_no_answer_and_what_runs():
    tape = Tape({"language": "auto"})
    first = tape.add(AUDIO, np.arange(10, dtype=np.int16), {})
    mark = tape.add(AUDIO, np.zeros(0, np.int16), {"language": "de-DE"})
    second = tape.add(AUDIO, np.arange(10, 20, dtype=np.int16), {})
    tape.drop_before(15)
    assert tape.begin == 0, "nothing is answered"
    for packet in (first, mark):
        tape.answered(packet)
    tape.drop_before(4)
    assert (tape.begin, list(first.pcm)) == (4, [4, 5, 6, 7, 8, 9])
    assert [packet.options for packet in tape] == [{"language": "auto"}, {}, mark.options, {}]
    tape.drop_before(15)
    assert (tape.begin, tape.backlog) == (10, 10)
    assert [packet.options for packet in tape] == [{"language": "auto"}, mark.options, {}]
    tape.answered(second)
    tape.drop_before(15)
    assert (list(second.pcm), second.begin, tape.backlog) == ([15, 16, 17, 18, 19], 15, 0)
    tape.drop_before(20)
    assert ([packet.begin for packet in tape], tape.begin) == ([20, 20], 20)


def test_a_tape_of_short_packets_is_short():
    """Audio, keep-alives, and audio that comes before or behind these."""
    tape = Tape({})
    audio = np.arange(20_000, dtype=np.int16)
    parts = [part for sample in np.split(audio, len(audio)) for part in (sample, sample[:0])]
    packets = [tape.add(AUDIO, part, {}) for part in parts]
    packets += [tape.add(AUDIO, part, {}) for part in (audio[:0], audio)]
    for _ in range(2):  # and once more on another connection
        for packet in packets:
            tape.answered(packet)
    start, *kept = tape
    assert start.options == {}
    assert len(kept) == 3
    assert np.array_equal(np.concatenate([packet.pcm for packet in kept]), [*audio, *audio])
    assert [packet.begin for packet in kept] == [0, 16_384, 20_000]
    assert (tape.backlog, tape.end) == (0, 40_000)
