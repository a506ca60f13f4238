"""Triton is killed beneath the doors: sessions go on, and say what the library says."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import riva.client
from openai import OpenAI

from asr_client import LiveStream
from server.conftest import pcm, settings_for
from server.gateway.conftest import RunningGateway, start_gateway, stop
from server.gateway.test_realtime import COMPLETED, DELTA, b64, client_of, transcription
from server.gateway.test_riva import PUNCTUATED, live_config, service
from server.test_replay import LIMIT_S, Supervised

pytestmark = pytest.mark.server
PAUSE = {"endpoint_ms": 400}
PART_S, PACKET = 4, 1777
SPEED_S = 0.01  # of a packet, of 0.11 s
EACH = 2  # sessions of each door


class Speech:
    """What is said in one session, in parts."""

    def __init__(self, seed: int):
        self.parts = np.split(pcm(16_000 * PART_S * 4, seed), 4)
        self.is_heard = threading.Event()  # the first text came
        self.goes_on = threading.Event()  # behind the first part

    def packets(self, part: np.ndarray) -> Iterator[bytes]:
        if part is not self.parts[0]:
            assert self.goes_on.wait(LIMIT_S)
        for at in range(0, len(part), PACKET):
            time.sleep(SPEED_S)
            yield part[at : at + PACKET].tobytes()

    def all_packets(self) -> Iterator[bytes]:
        for part in self.parts:
            yield from self.packets(part)


class Door:
    """Utterances end at pauses."""

    def expected(self, url: str, speech: Speech) -> str:
        with LiveStream(url, **PAUSE) as stream:
            stream.send(np.concatenate(speech.parts))
            return stream.finish().text


class WebSocket(Door):
    def said(self, gateway: RunningGateway, speech: Speech) -> str:
        text = ""
        with gateway.socket("/v1/stream?endpoint_ms=400") as socket, ThreadPoolExecutor(1) as pool:

            def speak() -> None:
                for packet in speech.all_packets():
                    socket.send(packet)
                socket.send('{"type": "end"}')

            pool.submit(speak)
            for message in map(json.loads, socket):
                assert message["type"] != "error", message
                text += message.get("text", "")
                if text:
                    speech.is_heard.set()
        return text


class Riva(Door):
    def said(self, gateway: RunningGateway, speech: Speech) -> str:
        config = live_config(interim=True, **PUNCTUATED)
        riva.client.add_endpoint_parameters_to_config(config, -1, -1, 400, -1, -1, -1)
        text = ""
        for response in service(gateway).streaming_response_generator(speech.all_packets(), config):
            speech.is_heard.set()
            for result in response.results:
                text += result.alternatives[0].transcript if result.is_final else ""
        return text


class Realtime(Door):
    """OpenAI's: each part is committed."""

    def expected(self, url: str, speech: Speech) -> str:
        with LiveStream(url) as stream:
            for part in speech.parts:
                stream.send(part)
                stream.finalize()
            return stream.finish().text

    def said(self, gateway: RunningGateway, speech: Speech) -> str:
        texts: list[str] = []
        settings = transcription(format={"type": "audio/pcm", "rate": 16_000})
        query = {"intent": "transcription"}
        with (
            client_of(gateway, kind=OpenAI).realtime.connect(extra_query=query) as connection,
            ThreadPoolExecutor(1) as pool,
        ):
            connection.session.update(session=settings)

            def speak() -> None:
                for part in speech.parts:
                    for packet in speech.packets(part):
                        connection.input_audio_buffer.append(audio=b64(packet))
                    connection.input_audio_buffer.commit()

            pool.submit(speak)
            while len(texts) < len(speech.parts):
                event = connection.recv()
                assert event.type != "error", event
                if event.type == DELTA:
                    speech.is_heard.set()
                if event.type == COMPLETED:
                    texts.append(event.transcript)
        return " ".join(filter(None, texts))


DOORS = [WebSocket(), Riva(), Realtime()] * EACH


@pytest.fixture(scope="module")
def supervised(pausing_checkpoint, live_repository):
    settings = settings_for(pausing_checkpoint, model_repository=live_repository, slots=8)
    running = Supervised(settings)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def before(supervised):
    """A gateway before it."""
    gateway = start_gateway(supervised.server)
    yield gateway
    assert stop(gateway) == 0


@pytest.mark.parametrize("what", ["server", "stub"])
def test_sessions_of_every_door_outlive_triton(supervised, before, what):
    speeches = [Speech(seed) for seed in range(len(DOORS))]
    expected = [
        door.expected(supervised.url, speech) for door, speech in zip(DOORS, speeches, strict=True)
    ]
    assert all(len(text) > 50 for text in expected)
    ready = supervised.times_ready
    with ThreadPoolExecutor(len(DOORS)) as pool:
        talks = [
            pool.submit(door.said, before, speech)
            for door, speech in zip(DOORS, speeches, strict=True)
        ]
        for speech in speeches:
            assert speech.is_heard.wait(LIMIT_S)
            speech.goes_on.set()
        time.sleep(0.2)
        supervised.kill(what)
        assert not any(talk.done() for talk in talks)
        supervised.wait_until_ready(ready + 1)
        assert [talk.result(LIMIT_S) for talk in talks] == expected
