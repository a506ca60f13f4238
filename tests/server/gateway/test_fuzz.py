"""Requests that nobody would make, by the description of the doors and by mutation.

None is answered with a fault of the gateway, and a neighbour's stream says all of its text.
"""

from __future__ import annotations

import base64
import json
import random
import threading
from contextlib import contextmanager, suppress
from socket import SHUT_WR

import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from server.conftest import Served, pcm, wav
from server.gateway.conftest import RunningGateway, wait_for
from server.gateway.test_hostile import connect, handshake, is_closed, masked
from server.gateway.test_openai import form

pytestmark = pytest.mark.server
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance,
    response_schema_conformance,
]  # fmt: skip
DECENT = [{"type": kind} for kind in ("finalize", "keep_alive", "end", "language")] + [
    {"type": f"input_audio_buffer.{kind}"} for kind in ("append", "commit", "clear")
]
EVENTS = [
    *DECENT,
    {"type": "language", "language": "de-DE"},
    {"type": "input_audio_buffer.append", "audio": base64.b64encode(bytes(3200)).decode()},
    {
        "type": "session.update",
        "session": {
            "type": "transcription",
            "audio": {"input": {"transcription": {"language": "de"}, "turn_detection": None}},
        },
    },
]


@pytest.mark.parametrize("mode", GenerationMode, ids=lambda mode: mode.name)
def test_the_doors_are_as_described(gateway, mode):
    schema = schemathesis.openapi.from_url(f"{gateway.url}/openapi.json")
    for found in schema.get_all_operations():
        operation = found.ok()
        strategy = operation.as_strategy(generation_mode=mode)

        @settings(
            max_examples=10, derandomize=True, deadline=None, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=strategy)
        def call(case):
            case.call_and_validate(checks=CHECKS)

        with suppress(Unsatisfiable):  # where nothing can be wrong
            call()


@contextmanager
def neighbour(gateway: RunningGateway, served: Served, seed: int):
    """A stream that speaks while something else goes on, and must say what the library says."""
    audio = pcm(16_000 * 4, seed=seed)
    over, texts = threading.Event(), []

    def speak() -> None:
        with gateway.socket("/v1/stream?language=de-DE") as socket:
            for packet in np.array_split(audio[:48_000], 30):
                socket.send(packet.tobytes())
                over.wait(0.1)
            while not over.wait(1):
                socket.send('{"type": "keep_alive"}')
            socket.send(audio[48_000:].tobytes())
            socket.send('{"type": "end"}')
            texts.extend(json.loads(message).get("text", "") for message in socket)

    speaking = threading.Thread(target=speak)
    speaking.start()
    try:
        yield
    finally:
        over.set()
        speaking.join()
    assert "".join(texts) == served.expected(audio, "de-DE").text


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Bits turned, bytes cut off, put in, or repeated."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(changed) + 1)
        kind = rng.randrange(4)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[at : at + rng.choice([1, 2, 50])]
        elif kind == 2:
            changed[at:at] = rng.randbytes(rng.randrange(1, 9))
        else:
            changed[at:at] = changed[at : at + 20] * rng.choice([1, 30])
    return bytes(changed)


@pytest.mark.parametrize("path", ["/v1/stream?language=auto", "/v1/realtime"])
def test_mutated_frames_harm_no_neighbour(gateway, served, path):
    rng = random.Random(7)
    with neighbour(gateway, served, seed=31):
        for _ in range(60):
            frames = []
            for _ in range(rng.randrange(1, 6)):
                event = json.dumps(rng.choice(EVENTS)).encode()
                event = mutated(event, rng) if rng.random() < 0.5 else event
                odd = masked(0x80 | rng.randrange(16), event[:125])
                frames.append(rng.choice([masked(0x81, event), odd]))
                frames.append(masked(0x82, rng.randbytes(rng.randrange(3200))))
            data = b"".join(frames)
            with handshake(gateway, path) as connection, suppress(OSError):
                connection.sendall(mutated(data, rng) if rng.random() < 0.5 else data)
                connection.sendall(masked(0x88))
                connection.shutdown(SHUT_WR)
                assert is_closed(connection)
    unharmed(gateway)


def test_frames_before_the_answer_to_the_handshake(gateway):
    asked = (
        b"GET /v1/stream?language=auto HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n"
    )
    text = (masked(0x81, data) for data in (b'{"type": "end"}', b"\xff"))
    for early in (*text, b"\xff" * 9, masked(0x88)):
        with connect(gateway) as connection:
            connection.sendall(asked + early * 3)
            connection.shutdown(SHUT_WR)
            assert is_closed(connection)
    unharmed(gateway)


def test_mutated_requests_harm_no_neighbour(gateway, served):
    rng = random.Random(8)
    body = form(wav(pcm(3200, seed=1)), b'name="language"\r\n\r\nde')
    statuses = set()
    with neighbour(gateway, served, seed=32):
        for _ in range(120):
            sent = body if rng.random() < 0.5 else mutated(body, rng)
            head = (
                "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                f"Content-Length: {len(sent)}\r\n"
                "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
            ).encode()
            head = mutated(head, rng) if sent is body else head
            with connect(gateway) as connection, suppress(ConnectionError, TimeoutError):
                connection.settimeout(3)  # of a length that is more than there is
                connection.sendall(head + sent)
                statuses.add(connection.recv(12)[9:])
    assert {b"200", b"400", b"404"} <= statuses
    assert b"500" not in statuses
    unharmed(gateway)


def unharmed(gateway: RunningGateway) -> None:
    """Nothing is left behind, and nothing went wrong that the log tells of."""
    wait_for(lambda: gateway.metric("asr_gateway_sessions") == 0)
    assert httpx.get(f"{gateway.url}/ready", timeout=60).status_code == 200
    wrong = [line for line in gateway.said if '"exception"' in line]
    assert not wrong, wrong[0]
