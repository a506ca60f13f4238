"""Sessions and files at a time, of all and of one key; memory of a session; pieces of what came."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack

import pytest

pytest.importorskip("uvicorn")

from asr_client.errors import ServerUnavailable
from asr_client.results import Segment, Transcript, Word
from asr_gateway.access import Access, Caller, add_key
from asr_gateway.errors import TooMuch
from asr_gateway.gateway import MAX_KEPT_BYTES, _memory_of
from asr_gateway.metrics import Metrics
from asr_gateway.openai_answers import answer
from asr_gateway.pacer import PIECE_BYTES, Pacer
from asr_gateway.places import Places
from asr_gateway.settings import GatewaySettings


def places(tmp_path=None, keys: int = 0, **limits) -> Places:
    path = tmp_path / "keys.json" if keys else None
    for i in range(keys):
        add_key(path, f"key {i}", None, None)
    return Places(GatewaySettings(**limits), Access(path), Metrics())


def take(held: ExitStack, place) -> bool:
    try:
        held.enter_context(place)
    except TooMuch:
        return False
    return True


def test_a_connection_is_a_session_also_when_it_says_nothing():
    some, one, other = places(max_sessions=3), Caller("one", max_sessions=2), Caller("other")
    with ExitStack() as held:
        assert [take(held, some.session("riva", one)) for _ in range(3)] == [True, True, False]
        assert [take(held, some.session("riva", other)) for _ in range(2)] == [True, False]
        assert not some.is_busy
        with some.stream("riva", one):
            assert some.is_busy
    assert one.sessions == other.sessions == 0
    some.drain()
    with pytest.raises(ServerUnavailable), some.session("riva", one):
        pass


def test_one_of_several_keys_leaves_places_for_files_to_others(tmp_path):
    some = places(tmp_path, keys=2, max_files=8)
    greedy, modest = Caller("greedy"), Caller("modest")
    with ExitStack() as held:
        assert [take(held, some.file("riva", greedy)) for _ in range(9)].count(True) == 4
        assert [take(held, some.file("riva", modest)) for _ in range(9)].count(True) == 2
    assert greedy.files == modest.files == 0
    (tmp_path / "single").mkdir()
    for alone in (places(max_files=8), places(tmp_path / "single", keys=1, max_files=8)):
        with ExitStack() as held:
            taken = [take(held, alone.file("riva", greedy)) for _ in range(9)]
        assert taken.count(True) == 8


def test_a_file_is_a_request_before_its_first_byte():
    some, caller = places(), Caller("one", requests_per_minute=6)
    with some.file("openai", caller), some.stream("openai", caller, of_file=True):
        pass
    with pytest.raises(TooMuch), some.file("openai", caller):
        pass
    with pytest.raises(TooMuch), some.stream("openai", caller):
        pass


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16_000, 1), (48_000, 2), (48_000, 8)])
def test_a_session_keeps_no_more_memory_at_higher_rates(rate, channels):
    kept = _memory_of({"sample_rate": rate, "channels": channels})
    for seconds in kept.values():
        assert seconds >= 1
        assert seconds * 2 * rate * channels <= MAX_KEPT_BYTES
    assert kept["max_ahead_s"] <= 30
    assert _memory_of({})["max_replay_s"] == 300


class Slow(asyncio.Protocol):
    """Counts what it is given; pauses after each piece where it is told to."""

    def __init__(self, pauses: bool = False):
        self.pieces: list[bytes] = []
        self._pauses = pauses

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)
        if self._pauses:
            self.transport.pause_reading()


class Transport:
    """Whether somebody reads from it."""

    reads, name = True, "a transport"

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


async def paced(pauses: bool):
    slow, transport, data = Slow(pauses), Transport(), bytes(range(256)) * 100
    pacer = Pacer(slow)
    pacer.connection_made(transport)
    pacer.data_received(data)
    assert len(slow.pieces) == 1
    assert not transport.reads
    rounds = 0
    while not transport.reads:
        if pauses:
            before = len(slow.pieces)
            await asyncio.sleep(0)
            assert len(slow.pieces) == before  # it waits for who paused
            slow.transport.resume_reading()
        await asyncio.sleep(0)
        rounds += 1
    assert b"".join(slow.pieces) == data
    assert max(map(len, slow.pieces)) <= PIECE_BYTES
    assert rounds >= len(slow.pieces) - 1
    assert slow.transport.name == "a transport"


@pytest.mark.parametrize("pauses", [False, True])
def test_what_came_is_handed_over_piece_by_piece(pauses):
    asyncio.run(paced(pauses))


def test_json_made_in_parts_is_json():
    word = Word('a"b\u00e4', 0, 80, 0.5)
    segment = Segment(0, word.text, (word,), "en-US", True, 0, 80, "endpoint")
    transcript = Transcript(word.text, (word,) * 3, "en-US", 400, (segment,) * 2)
    made = json.loads(answer(transcript, "verbose_json", ("word", "segment"), None).body)
    assert made["text"] == made["segments"][1]["text"] == made["words"][2]["word"] == word.text
    assert made["duration"] == 0.4
    assert json.loads(answer(transcript, "verbose_json", (), None).body)["language"] == "english"
