"""Who speaks to the two servers: packets at the pace of speech, then the whole text."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from riva.client.proto.riva_asr_pb2 import EndpointingConfig
from websockets.sync.client import connect

from asr_client import LiveStream
from server.conftest import pcm
from server.gateway.test_riva import PUNCTUATED, live_config, service, text_of
from server.replicas.cluster import LIMIT_S

PACKET_S = 0.1
SAMPLES = int(16_000 * PACKET_S)
LONGEST_S = 200  # of a stream; an utterance is cut after 240 s, so that it can be kept


@dataclass
class Said:
    """What was said, and what was heard."""

    door: str
    audio: np.ndarray
    text: str


def packets(audio: np.ndarray, is_over: Callable[[], bool] = lambda: False) -> Iterator[np.ndarray]:
    """At the pace of speech, until it is over."""
    for at in range(0, len(audio), SAMPLES):
        if is_over():
            return
        yield audio[at : at + SAMPLES]
        time.sleep(PACKET_S)


def speak_native(address: str, seed: int, is_over: Callable[[], bool]) -> Said:
    """The project's own client, straight to Triton, until it is over."""
    audio, sent = pcm(LONGEST_S * 16_000, seed), 0
    with LiveStream(address, reconnect_s=LIMIT_S) as stream:
        for packet in packets(audio, is_over):
            stream.send(packet)
            sent += len(packet)
        while not is_over():
            stream.keep_alive()
            time.sleep(PACKET_S)
        transcript = stream.finish()
        results = list(stream.results())
    assert "".join(result.text for result in results) == transcript.text
    return Said("native", audio[:sent], transcript.text)


def speak_websocket(address: str, audio: np.ndarray, said: Iterable[np.ndarray]) -> Said:
    with connect(f"ws://{address}/v1/stream") as socket:
        socket.send("{}")
        assert json.loads(socket.recv())["type"] == "ready"
        messages = []
        # meanwhile: who does not read for 20 s is given up
        reading = threading.Thread(target=lambda: messages.extend(map(json.loads, socket)))
        reading.start()
        for packet in said:
            socket.send(packet.tobytes())
        socket.send('{"type": "end"}')
        reading.join()
    assert messages[-1]["type"] == "end", messages[-1]
    return Said("websocket", audio, "".join(m.get("text", "") for m in messages))


def speak_riva(address: str, audio: np.ndarray, said: Iterable[np.ndarray]) -> Said:
    """Over the one connection that all of Riva's calls here share."""
    no_pauses = EndpointingConfig(stop_history=0)  # one utterance, which is what the library hears
    config = live_config(endpointing_config=no_pauses, **PUNCTUATED)
    asr = service(SimpleNamespace(riva=address))
    answers = asr.streaming_response_generator((packet.tobytes() for packet in said), config)
    results = [result for answer in answers for result in answer.results]
    return Said("riva", audio, text_of(results))


class Held:
    """A session that has said half, and says the rest when it is told to."""

    def __init__(self, speak: Callable, address: str, seed: int):
        self.half_said, self._go_on = threading.Event(), threading.Event()
        audio = pcm(16_000 * 3, seed)
        self._thread = threading.Thread(target=self._run, args=(speak, address, audio), daemon=True)
        self._said: Said | None = None
        self._thread.start()

    def _run(self, speak: Callable, address: str, audio: np.ndarray) -> None:
        self._said = speak(address, audio, self._packets(audio))

    def _packets(self, audio: np.ndarray) -> Iterator[np.ndarray]:
        yield from packets(audio[: len(audio) // 2])
        self.half_said.set()
        assert self._go_on.wait(LIMIT_S)
        yield from packets(audio[len(audio) // 2 :])

    def finish(self) -> Said:
        self._go_on.set()
        self._thread.join(LIMIT_S)
        assert self._said is not None, "the session was lost"
        return self._said
