"""Thousands of random steps on the engine: each stream says what its audio says."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from engine_client import Client
from nemotron_asr.engine import StreamingEngine
from stream_machine import NUM_SLOTS, StreamMachine, steps

IDLE_S = 10.0


class EngineMachine(StreamMachine):
    """Also time, in steps longer than between two looks for idle streams, and what is held."""

    def connect(self) -> Client:
        return Client(StreamingEngine(self.recognizer, NUM_SLOTS, IDLE_S))

    @rule(seconds=st.sampled_from([0.3, 1.0, 3.0, 0.9 * IDLE_S, 1.1 * IDLE_S]))
    def wait(self, seconds):
        self.client.now += seconds
        self.client.settle()
        self.streams = {
            id_: stream
            for id_, stream in self.streams.items()
            if self.client.now - stream.last_active <= IDLE_S
        }

    @invariant()
    def slots_are_those_of_the_streams(self):
        if hasattr(self, "streams"):
            assert len(self.client.engine.table) == len(self.streams)
            assert sum(map(len, self.client.updates.values())) == self.sent

    @invariant()
    def little_audio_is_kept(self):
        if hasattr(self, "streams"):
            for session in self.client.engine.table:
                assert session.audio.stop - session.audio.start < 17_920 + 60_000


def test_whatever_clients_do_each_stream_says_what_its_audio_says(recognizer):
    steps(EngineMachine, examples=100, each=50, recognizer=recognizer)
