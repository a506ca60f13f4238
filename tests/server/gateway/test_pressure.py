"""Clients that send faster than Triton answers: they wait, in bounded memory, and are not lost."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager, suppress
from socket import SHUT_RDWR

import pytest
from websockets.exceptions import ConnectionClosed

from server.gateway.conftest import RunningGateway, start_gateway, stop, wait_for
from server.gateway.slow_triton import SlowTriton
from server.gateway.test_hostile import MIB, most_memory

pytestmark = pytest.mark.server
SECOND = bytes(32_000)  # of samples


@pytest.fixture
def triton():
    with SlowTriton() as triton:
        yield triton


@pytest.fixture
def pressed(triton):
    gateway = start_gateway(triton, "--idle-timeout-s", "2")
    yield gateway
    stop(gateway)


@contextmanager
def speaking(gateway: RunningGateway, message: bytes, messages: int, query: str = ""):
    """A session that sends this as fast as it is taken.  Yields its WebSocket and an event."""
    with gateway.socket(f"/v1/stream?language=auto{query}", ping_interval=None) as socket:
        assert json.loads(socket.recv())["type"] == "ready"
        sent = threading.Event()

        def speak() -> None:
            with suppress(ConnectionClosed, OSError):
                for _ in range(messages):
                    socket.send(message)
                socket.send('{"type": "end"}')
                sent.set()

        sending = threading.Thread(target=speak)
        sending.start()
        try:
            yield socket, sent
        finally:
            socket.socket.close()
            sending.join()


def test_who_waits_is_neither_idle_nor_gone(pressed, triton):
    """For longer than the idle limit, and than a ping may wait whose answer is behind audio."""
    with speaking(pressed, SECOND * 10, 300) as (socket, sent):
        for _ in range(5):
            assert not sent.wait(9)
            triton.answer(1)
        triton.answer(1_000_000)
        *_, last = (json.loads(message) for message in socket)
        assert last == {"type": "end", "audio_processed_ms": 3_000_000}
        assert sent.is_set()
    assert triton.samples == 300 * 10 * 16_000


def test_who_has_said_all_waits_for_the_rest(pressed, triton):
    with speaking(pressed, SECOND, 5) as (socket, sent):
        assert sent.wait(60)
        time.sleep(6)  # three times the idle limit
        triton.answer(1_000_000)
        *_, last = (json.loads(message) for message in socket)
        assert last == {"type": "end", "audio_processed_ms": 5000}


def test_who_is_gone_behind_audio_that_waits_is_noticed(pressed):
    def open_sessions() -> float:
        return pressed.metric("asr_gateway_sessions", door="websocket")

    with speaking(pressed, SECOND * 10, 10) as (socket, sent):
        assert sent.wait(60)
        assert open_sessions() == 1
        socket.socket.shutdown(SHUT_RDWR)
        wait_for(lambda: open_sessions() == 0)
    assert pressed.logged("session")[-1]["reason"] == "abandoned"


def test_what_waits_is_bounded_at_any_rate(pressed):
    """A second of 8 channels is 256 kB; 160 MiB are sent."""
    before = most_memory(pressed)
    with speaking(pressed, bytes(4 * MIB), 40, "&sample_rate=16000&channels=8") as (_, sent):
        assert not sent.wait(10)
        assert most_memory(pressed) - before < 60 * MIB
