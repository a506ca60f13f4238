"""Random steps on live streams, of an engine or a server, against a simple model of what they are.

The model: a stream is a list of stretches of audio, each with a language; a finalize and a change
of language end one stretch and begin the next. Its text is that of its stretches, each transcribed
whole.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from engine_client import pcm
from reference import is_tied

NUM_SLOTS = 3
AUDIO = pcm(400_000, seed=1)
IDS = st.integers(0, NUM_SLOTS + 1)
LANGUAGES = st.sampled_from(["auto", "de-DE", "fr-FR"])
LATENCIES = st.sampled_from([80, 160, 320, 560, 1120])
SIZES = st.one_of(st.just(0), st.integers(1, 4000), st.integers(4000, 60_000))
OFFSETS = st.integers(0, 300_000)


@dataclass
class Expected:
    """What the model knows of a stream."""

    latency_ms: int
    language: str
    last_active: float
    done: list[tuple[np.ndarray, str]] = field(default_factory=list)  # stretches that have ended
    audio: list[np.ndarray] = field(default_factory=list)  # of the stretch that is running
    answers_before: int = 0  # to this id, of earlier streams

    def cut(self) -> None:
        self.done.append((np.concatenate([*self.audio, np.zeros(0, np.int16)]), self.language))
        self.audio = []


class StreamMachine(RuleBasedStateMachine):
    """Steps that any client can take. Subclasses say what they are taken on."""

    recognizer = None  # both are set by the test
    connect = None  # makes what has `ask`, `send`, `settle` and `updates` of `engine_client.Client`

    @initialize()
    def begin(self):
        self.client = self.connect()
        self.streams: dict[int, Expected] = {}
        self.sent = 0

    def send(self, id_, audio=(), **kwargs):
        """Returns where the answer will be."""
        self.sent += 1
        at = len(self.client.updates[id_])
        self.client.ask(id_, audio, **kwargs)
        answers = self.client.updates[id_]
        assert len(answers) == at + 1, "one answer for one request"
        return answers[-1]

    def pick(self, data) -> int:
        return data.draw(st.sampled_from(sorted(self.streams)))

    def refused(self, update, code: str):
        assert str(update.error).startswith(code), update.error

    @rule(id_=IDS, language=LANGUAGES, latency_ms=LATENCIES, size=SIZES, offset=OFFSETS)
    def start(self, id_, language, latency_ms, size, offset):
        """On a free id, or on one in use: then that stream is over."""
        self.streams.pop(id_, None)
        before = len(self.client.updates[id_])
        audio = AUDIO[offset : offset + size]
        update = self.send(id_, audio, start=True, language=language, latency_ms=latency_ms)
        if len(self.streams) == NUM_SLOTS:
            self.refused(update, f"UNAVAILABLE: at capacity ({NUM_SLOTS}/{NUM_SLOTS})")
            return
        assert update.error is None
        assert update.server["slots"] == NUM_SLOTS
        self.streams[id_] = Expected(
            latency_ms, language, self.client.now, audio=[audio], answers_before=before
        )

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), size=SIZES, offset=OFFSETS)
    def packet(self, data, size, offset):
        id_ = self.pick(data)
        audio = AUDIO[offset : offset + size]
        update = self.send(id_, audio)
        self.streams[id_].audio.append(audio)
        self.streams[id_].last_active = self.client.now
        assert update.error is None
        assert not update.is_final

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), size=SIZES, offset=OFFSETS)
    def finalize(self, data, size, offset):
        id_ = self.pick(data)
        audio = AUDIO[offset : offset + size]
        assert self.send(id_, audio, finalize=True).error is None
        stream = self.streams[id_]
        stream.audio.append(audio)
        stream.cut()
        stream.last_active = self.client.now
        self.says_what_it_should(id_, stream)

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), language=LANGUAGES, size=SIZES, offset=OFFSETS)
    def change_language(self, data, language, size, offset):
        id_ = self.pick(data)
        audio = AUDIO[offset : offset + size]
        update = self.send(id_, audio, language=language)
        stream = self.streams[id_]
        if language != stream.language:
            stream.cut()
            stream.language = language
        stream.audio.append(audio)
        stream.last_active = self.client.now
        assert update.error is None

    @precondition(lambda self: self.streams)
    @rule(
        data=st.data(),
        bad=st.sampled_from([{"latency_ms": 81}, {"nonsense": 1}, {"language": "xx"}]),
        size=SIZES,
    )
    def bad_option(self, data, bad, size):
        """The packet is refused as a whole; the stream goes on as if it had never come."""
        id_ = self.pick(data)
        update = self.send(id_, AUDIO[:size], **bad)
        self.refused(update, "INVALID_ARGUMENT: ")

    @rule(id_=st.integers(0, NUM_SLOTS + 2), end=st.booleans(), bad=st.booleans())
    def nobody(self, id_, end, bad):
        """A packet for a stream that never began, has ended, expired or was refused."""
        if id_ not in self.streams:
            update = self.send(id_, AUDIO[:3000], end=end, **({"nonsense": 1} if bad else {}))
            self.refused(update, "NOT_FOUND: ")

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), size=SIZES, offset=OFFSETS)
    def end(self, data, size, offset):
        id_ = self.pick(data)
        audio = AUDIO[offset : offset + size]
        update = self.send(id_, audio, end=True)
        stream = self.streams.pop(id_)
        stream.audio.append(audio)
        stream.cut()
        assert update.is_final
        self.says_what_it_should(id_, stream)

    @precondition(lambda self: self.streams)
    @rule(sizes=st.lists(st.integers(0, 30_000), min_size=2, max_size=6), offset=OFFSETS)
    def burst(self, sizes, offset):
        """Packets of several streams before any round."""
        ids = itertools.cycle(sorted(self.streams))
        for id_, size in zip(ids, sizes, strict=False):
            audio = AUDIO[offset : offset + size]
            self.client.send(id_, audio)
            self.streams[id_].audio.append(audio)
            self.streams[id_].last_active = self.client.now
            self.sent += 1
        self.client.settle()

    def says_what_it_should(self, id_, stream: Expected):
        """Text and words of all that has ended, so far."""
        parts = [
            self.recognizer.transcribe([audio], language, stream.latency_ms)[0]
            for audio, language in stream.done
        ]
        answers = self.client.updates[id_][stream.answers_before :]
        text = "".join(answer.text for answer in answers)
        if text != " ".join(part.text for part in parts if part.text):
            tied = (is_tied(self.recognizer, a, lang, stream.latency_ms) for a, lang in stream.done)
            assert any(tied), f"{text!r} instead of {[part.text for part in parts]}"
            return
        words = [word.text for answer in answers for word in answer.words]
        assert words == [word.text for part in parts for word in part.words]
        ended = [e for answer in answers for e in answer.ended]
        assert [e.segment for e in ended] == list(range(len(ended)))
        assert len(ended) == sum(bool(part.text) for part in parts)


def steps(machine: type[StreamMachine], examples: int, each: int, **attributes) -> None:
    """Take so many steps, in so many runs from the beginning."""
    run_state_machine_as_test(
        type("Machine", (machine,), attributes),
        settings=settings(
            max_examples=examples,
            stateful_step_count=each,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
