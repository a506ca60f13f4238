"""OpenAI's own client on the Realtime API: items, their texts the library's; errors; settings."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace

import numpy as np
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from asr_client import LiveStream
from asr_client.errors import ServerUnavailable
from asr_client.results import Result, Segment
from asr_gateway.access import add_key
from asr_gateway.openai_realtime import Session
from asr_gateway.settings import GatewaySettings
from asr_server import TritonServer
from nemotron_asr.pcm import decode_g711
from server.conftest import pcm, settings_for
from server.gateway.conftest import RunningGateway, start_gateway, stop, wait_for

pytestmark = pytest.mark.server
RATE = 24_000
PAUSE_MS = 400
AUDIO = np.repeat(pcm(16_000 * 6, seed=5), 3)[::2]  # 24 kHz
CODES = np.random.default_rng(0).integers(0, 256, 8000 * 3).astype(np.uint8).tobytes()
DELTA = "conversation.item.input_audio_transcription.delta"
COMPLETED = "conversation.item.input_audio_transcription.completed"


def b64(audio: np.ndarray | bytes) -> str:
    data = audio if isinstance(audio, bytes) else audio.astype("<i2").tobytes()
    return base64.b64encode(data).decode()


def client_of(gateway: RunningGateway, key: str = "none", kind=AsyncOpenAI):
    return kind(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0)


def connect(gateway: RunningGateway, **kwargs):
    query = {"intent": "transcription"}
    return client_of(gateway, **kwargs).realtime.connect(extra_query=query)


def transcription(turn_detection=None, **settings) -> dict:
    """A session of today's shape."""
    audio = {"turn_detection": turn_detection, **settings}
    return {"type": "transcription", "audio": {"input": audio}}


def vad(**settings) -> dict:
    return {"type": "server_vad", "silence_duration_ms": PAUSE_MS, **settings}


async def append(connection, audio: np.ndarray | bytes, step: int = 7000) -> None:
    for at in range(0, len(audio), step):
        await connection.input_audio_buffer.append(audio=b64(audio[at : at + step]))


async def until(connection, *kinds: str) -> list:
    """Events up to the first of these kinds."""
    events = []
    while not events or events[-1].type not in kinds:
        events.append(await asyncio.wait_for(connection.recv(), 120))
    return events


def texts(events) -> list[str]:
    """Of items, where the deltas of each are its transcript."""
    done = [event for event in events if event.type == COMPLETED]
    for event in done:
        own = [e.delta for e in events if e.type == DELTA and e.item_id == event.item_id]
        assert "".join(own) == event.transcript
    return [event.transcript for event in done]


def expected(server, *parts: np.ndarray, **options):
    """Transcripts of a live stream that is finalized after each part."""
    with LiveStream(server.grpc_address, **{"sample_rate": RATE, **options}) as stream:
        for part in parts:
            stream.send(part)
            stream.finalize()
        return stream.finish()


def test_commits_by_hand(gateway, served):
    parts = AUDIO[:50_001], AUDIO[50_001:]
    language = {"language": "de", "model": "gpt-4o-transcribe", "prompt": "x"}

    async def talk():
        async with connect(gateway) as connection:
            created = await connection.recv()
            await connection.session.update(session=transcription(transcription=language))
            updated = await connection.recv()
            heard = []
            for part in parts:
                await append(connection, part)
                events = await until(connection, DELTA)  # text does not wait for the commit
                await connection.input_audio_buffer.commit()
                heard.append(events + await until(connection, COMPLETED))
            return created, updated, heard

    created, updated, heard = asyncio.run(talk())
    assert (created.type, updated.type) == ("session.created", "session.updated")
    assert created.session.audio.input.turn_detection.silence_duration_ms == 500
    assert updated.session.audio.input.turn_detection is None
    assert updated.session.audio.input.format.rate == RATE
    assert updated.session.audio.input.transcription.language == "de"
    segments = expected(served.server, *parts, language="de-DE").segments
    assert [texts(events)[0] for events in heard] == [s.text for s in segments]
    for events, part in zip(heard, parts, strict=True):
        assert [e.type for e in events if e.type != DELTA] == [
            "input_audio_buffer.committed", "conversation.item.added", "conversation.item.done",
            COMPLETED,
        ]  # fmt: skip
        assert events[-1].usage.type == "duration"
        assert events[-1].usage.seconds == pytest.approx(len(part) / RATE, abs=0.002)
    ids = [events[-1].item_id for events in heard]
    assert len(set(ids)) == 2
    assert [e.previous_item_id for events in heard for e in events if "added" in e.type] == [
        None, ids[0],
    ]  # fmt: skip
    wait_for(lambda: gateway.metric("asr_gateway_sessions", door="realtime") == 0)
    assert gateway.logged("session")[-1]["reason"] == "closed"


def test_a_client_of_threads_and_the_settings_that_hold_without_any(gateway, served):
    query = {"intent": "transcription", "model": served.recognizer.name}
    with client_of(gateway, kind=OpenAI).realtime.connect(extra_query=query) as connection:
        assert connection.recv().type == "session.created"
        connection.input_audio_buffer.append(audio=b64(AUDIO))
        connection.input_audio_buffer.commit()
        events = []
        while not events or events[-1].type != COMPLETED:
            events.append(connection.recv())
    segments = expected(served.server, AUDIO, endpoint_ms=500).segments
    assert texts(events) == [s.text for s in segments]


@pytest.fixture(scope="module")
def pausing(pausing_checkpoint, live_repository):
    """A server of live streams whose model falls silent at times, and a gateway before it."""
    settings = settings_for(pausing_checkpoint, model_repository=live_repository, slots=16)
    with TritonServer(settings) as server:
        gateway = start_gateway(server)
        yield server, gateway
        assert stop(gateway) == 0


LONG = np.repeat(pcm(16_000 * 15, seed=5), 3)[::2]


def test_pauses_end_items(pausing):
    server, gateway = pausing

    async def talk():
        async with connect(gateway) as connection:
            await connection.session.update(session=transcription(vad(prefix_padding_ms=0)))
            await append(connection, LONG)
            await connection.input_audio_buffer.commit()
            await connection.session.update(session=transcription(vad()))
            events = await until(connection, "session.updated")
            return events + await until_items(connection, events, len(segments))

    segments = expected(server, LONG, endpoint_ms=PAUSE_MS).segments
    events = [e for e in asyncio.run(talk()) if not e.type.startswith("session.")]
    assert len(segments) > 5
    assert texts(events) == [s.text for s in segments]
    started = [e for e in events if e.type.endswith("speech_started")]
    stopped = [e for e in events if e.type.endswith("speech_stopped")]
    assert [e.audio_end_ms for e in stopped] == [
        s.end_ms for s in segments if s.reason == "endpoint"
    ]
    for start, stop_, segment in zip(started, stopped, segments, strict=False):
        assert segment.start_ms - 400 <= start.audio_start_ms < stop_.audio_end_ms
    first = started[0].item_id
    kinds = [e.type for e in events if getattr(e, "item_id", None) == first and e.type != DELTA]
    assert kinds == [
        "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed", COMPLETED,
    ]  # fmt: skip
    seconds = sum(e.usage.seconds for e in events if e.type == COMPLETED)
    assert seconds == pytest.approx(segments[-1].end_ms / 1000, abs=0.002)


async def until_items(connection, events: list, count: int) -> list:
    done, more = sum(e.type == COMPLETED for e in events), []
    while done < count:
        more += await until(connection, COMPLETED)
        done += 1
    return more


def test_cleared_audio_is_not_heard(gateway, served):
    first, gone, last = np.split(AUDIO, [40_000, 80_000])

    async def talk():
        async with connect(gateway) as connection:
            await connection.session.update(session=transcription())
            await connection.input_audio_buffer.clear()
            events = await until(connection, "input_audio_buffer.cleared")
            await append(connection, first)
            await connection.input_audio_buffer.commit()
            await append(connection, gone)
            await connection.input_audio_buffer.clear()
            await append(connection, last)
            await connection.input_audio_buffer.commit()
            events += await until(connection, "input_audio_buffer.cleared")
            return events + await until(connection, COMPLETED)

    events = asyncio.run(talk())
    segments = expected(served.server, first, gone, last).segments
    assert texts(events) == [segments[0].text, segments[2].text]
    assert events[-1].usage.seconds == pytest.approx(len(last) / RATE, abs=0.002)


@pytest.mark.parametrize(
    ("kind", "encoding"), [("audio/pcmu", "mulaw"), ("audio/pcma", "alaw")]
)  # fmt: skip
def test_telephone_audio(gateway, served, kind, encoding):
    async def talk():
        async with connect(gateway) as connection:
            await connection.session.update(session=transcription(format={"type": kind}))
            await append(connection, CODES, step=1111)
            await connection.input_audio_buffer.commit()
            return await until(connection, COMPLETED)

    segments = expected(served.server, decode_g711(CODES, encoding), sample_rate=8000).segments
    assert texts(asyncio.run(talk())) == [segments[0].text]


def test_settings_may_change_on_the_way(gateway, served):
    """Another language in the same stream; another rate, or lookahead, in another one."""
    parts = np.split(AUDIO, [50_000, 100_000])

    async def talk():
        async with connect(gateway) as connection:
            await connection.session.update(
                session=transcription(transcription={"language": "de-DE"})
            )
            await append(connection, parts[0])
            await connection.session.update(
                session=transcription(transcription={"language": "fr", "delay": "medium"})
            )
            await append(connection, parts[1])
            await connection.input_audio_buffer.commit()
            changed = {"delay": "minimal", "language": "auto"}
            await connection.session.update(
                session=transcription(
                    format={"type": "audio/pcm", "rate": 16_000}, transcription=changed
                )
            )
            await append(connection, parts[2])
            await connection.input_audio_buffer.commit()
            return await until(connection, COMPLETED) + await until(connection, COMPLETED)

    with LiveStream(served.server.grpc_address, language="de-DE", sample_rate=RATE) as stream:
        stream.send(parts[0])
        stream.set_language("fr-FR")
        stream.send(parts[1])
        first = stream.finish().text
    second = expected(served.server, parts[2], sample_rate=16_000, latency_ms=80).text
    assert texts(asyncio.run(talk())) == [first, second]


def test_the_shape_of_the_beta(gateway, served):
    headers = {"OpenAI-Beta": "realtime=v1"}
    with gateway.socket("/v1/realtime?intent=transcription", additional_headers=headers) as socket:
        created = json.loads(socket.recv())
        session = {
            "input_audio_format": "g711_ulaw", "turn_detection": None,
            "input_audio_transcription": {"model": "whisper-1", "language": "de"},
        }  # fmt: skip
        socket.send(json.dumps({"type": "transcription_session.update", "session": session}))
        updated = json.loads(socket.recv())
        socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": b64(CODES)}))
        socket.send('{"type": "input_audio_buffer.commit"}')
        events = []
        while not events or events[-1]["type"] != COMPLETED:
            events.append(json.loads(socket.recv()))
    assert created["type"] == "transcription_session.created"
    assert updated["type"] == "transcription_session.updated"
    assert created["session"]["input_audio_format"] == "pcm16"
    assert {name: updated["session"][name] for name in session} == session
    assert "conversation.item.created" in [event["type"] for event in events]
    audio = decode_g711(CODES, "mulaw")
    made = expected(served.server, audio, sample_rate=8000, language="de-DE")
    assert events[-1]["transcript"] == made.text


DEEP = {"x": 1}
for _ in range(400):
    DEEP = {"type": DEEP}
DEEP = {"type": "session.update", "session": transcription(noise_reduction=DEEP)}
WRONG = [
    ("{", "JSON object"),
    ("[]", "JSON object"),
    (b"\0\xff", "JSON object"),
    ({"type": "response.create"}, "input_audio_buffer.append"),
    ({"type": ["x"]}, "input_audio_buffer.append"),
    ({"type": "\ud800"}, "input_audio_buffer.append"),
    ({"type": "session.update", "session": transcription(**{"\ud800": 1})}, "noise_reduction"),
    ({"type": "input_audio_buffer.commit"}, "not committed"),
    ('{"type": "session.update", "session": ' + "[" * 900 + "]" * 900 + "}", "no object"),
    (DEEP, "plain"),
    ({"type": "input_audio_buffer.append"}, "base64"),
    ({"type": "input_audio_buffer.append", "audio": "ü"}, "base64"),
    ({"type": "input_audio_buffer.append", "audio": "!!!!"}, "base64"),
    ({"type": "input_audio_buffer.append", "audio": "AAAA"}, "3 bytes"),
    ({"type": "session.update", "session": {"type": "realtime"}}, "transcription"),
    ({"type": "session.update"}, "transcription"),
    ({"type": "session.update", "session": transcription() | {"x": 1}}, "include"),
    ({"type": "session.update", "session": transcription() | {"audio": []}}, "no object"),
    ({"type": "session.update", "session": transcription() | {"include": ["x"]}}, "logprobs"),
    *[
        ({"type": "session.update", "session": transcription(**settings)}, named)
        for settings, named in [
            ({"turn_detection": {"type": "semantic_vad"}}, "server_vad"),
            ({"turn_detection": vad(silence_duration_ms=0)}, "1 to 10000"),
            ({"turn_detection": vad(silence_duration_ms=True)}, "1 to 10000"),
            ({"turn_detection": vad(prefix_padding_ms=-1)}, "0 to 10000"),
            ({"turn_detection": vad(eagerness="low")}, "threshold"),
            ({"format": {"type": "audio/mp3"}}, "audio/pcmu"),
            ({"format": {"type": "audio/pcm", "rate": 1}}, "24000"),
            ({"format": "pcm16"}, "no object"),
            ({"volume": 1}, "noise_reduction"),
            ({"transcription": {"language": "tlh"}}, "de-DE"),
            ({"transcription": {"language": 3}}, "no text"),
            ({"transcription": {"languages": [3]}}, "list"),
            ({"transcription": {"delay": "long"}}, "minimal"),
            ({"transcription": {"model": "gpt-4"}}, "whisper-1"),
            ({"transcription": {"sample_rate": 8000}}, "sample_rate"),
            ({"transcription": {"latency_ms": 81}}, "1120"),
            ({"transcription": {"colour": "red"}}, "max_utterance_ms"),
        ]
    ],
]


def test_errors_leave_the_session_alive(gateway, served):
    with gateway.socket("/v1/realtime") as socket:
        assert json.loads(socket.recv())["type"] == "session.created"
        for i, (event, named) in enumerate(WRONG):
            if isinstance(event, dict):
                event = json.dumps(event | {"event_id": f"mine_{i}"})
            socket.send(event)
            answer = json.loads(socket.recv())
            assert answer["type"] == "error", event
            assert named in answer["error"]["message"]
            if "mine" in str(event):
                assert answer["error"]["event_id"] == f"mine_{i}"
        audio = json.dumps({"type": "input_audio_buffer.append", "audio": b64(AUDIO)})
        for keywords in (["c"], None):  # this model cannot write a c, which the server says
            session = transcription(transcription={"keywords": keywords})
            socket.send(json.dumps({"type": "session.update", "session": session}))
            assert json.loads(socket.recv())["type"] == "session.updated"
            socket.send(audio)
            if keywords:
                assert "vocabulary" in json.loads(socket.recv())["error"]["message"]
        socket.send('{"type": "input_audio_buffer.commit"}')
        events = [json.loads(socket.recv())]
        while events[-1]["type"] != COMPLETED:
            events.append(json.loads(socket.recv()))
    assert events[-1]["transcript"] == expected(served.server, AUDIO).text


def test_who_may_not_come_in_and_what_ends_a_session(served, tmp_path):
    keys = tmp_path / "keys.json"
    key = add_key(keys, "one", max_sessions=1, requests_per_minute=None)
    gateway = start_gateway(served.server, "--keys", str(keys), "--idle-timeout-s", "2")
    try:
        for path, headers, status in (
            ("?intent=transcription", {}, 401),
            ("?intent=conversation", {"Authorization": f"Bearer {key}"}, 400),
            ("?model=gpt-4", {"Authorization": f"Bearer {key}"}, 404),
            ("", {"Authorization": f"Bearer {key}", "Origin": "https://evil.example"}, 403),
        ):
            with pytest.raises(InvalidStatus) as refused:
                gateway.socket(f"/v1/realtime{path}", additional_headers=headers)
            assert refused.value.response.status_code == status
            assert json.loads(refused.value.response.body)["error"]["message"]
        protocols = ["realtime", f"openai-insecure-api-key.{key}"]
        with gateway.socket("/v1/realtime", subprotocols=protocols, max_size=None) as socket:
            assert socket.subprotocol == "realtime"
            socket.recv()
            socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": b64(AUDIO)}))
            with gateway.socket("/v1/realtime", subprotocols=protocols) as second:
                assert json.loads(second.recv())["error"]["code"] == "RESOURCE_EXHAUSTED"
                with pytest.raises(ConnectionClosed):
                    second.recv()
            *_, last = messages_of(socket)
            assert "2 s" in json.loads(last)["error"]["message"]
        with gateway.socket("/v1/realtime", subprotocols=protocols, max_size=None) as socket:
            socket.recv()
            with pytest.raises(ConnectionClosed):  # while it is sent, or then
                send_and_wait(socket, "x" * (5 << 20))
    finally:
        stop(gateway)


def messages_of(socket):
    """Messages up to the end of the session, however it ends."""
    with suppress(ConnectionClosed):
        yield from socket


def send_and_wait(socket, message: str) -> None:
    socket.send(message)
    socket.recv()


class Lost:
    """A gateway whose first stream breaks after some text, with a client that goes on."""

    settings = GatewaySettings()

    def __init__(self, events: list[dict]):
        self.events, self.said, self.opened = events, [], []

    @asynccontextmanager
    async def live(self, door, caller, /, **options):
        self.opened.append(options)
        self._finalized = asyncio.Event()
        yield SimpleNamespace(stream=self, results=self._results)

    async def _results(self):
        yield Result("a b", segments=(Segment(0, "a b"),), audio_processed_ms=400)
        await self._finalized.wait()
        if len(self.opened) == 1:
            raise ServerUnavailable("UNAVAILABLE: gone")
        yield Result("", audio_processed_ms=500, finalized=True)
        await asyncio.Event().wait()

    async def next(self):
        await asyncio.sleep(0.02)
        if not self.events:
            raise WebSocketDisconnect(1006)
        return json.dumps(self.events.pop(0))

    async def watch(self, _is_behind):
        await asyncio.Event().wait()

    async def send(self, what):
        if isinstance(what, dict):
            self.said.append(what)

    async def finalize(self):
        self._finalized.set()


def test_a_stream_that_is_lost_fails_its_items_and_the_next_is_heard():
    audio = {"type": "input_audio_buffer.append", "audio": b64(AUDIO)}
    commit = {"type": "input_audio_buffer.commit"}
    lost = Lost([audio, commit, audio, commit])
    session = Session(lost, None, lost, lost, is_beta=False)
    with pytest.raises(WebSocketDisconnect):
        asyncio.run(session.run())
    kinds = [event["type"].rpartition(".")[2] for event in lost.said]
    item = ["delta", "committed", "added", "done"]
    assert kinds == [
        "created", "speech_started", *item, "failed", "speech_started", *item, "completed",
    ]  # fmt: skip
    failed = next(event for event in lost.said if event["type"].endswith("failed"))
    assert failed["error"]["code"] == "UNAVAILABLE"
    assert lost.said[-1]["usage"]["seconds"] == 0.5
    assert len({event.get("item_id") for event in lost.said} - {None}) == 2


def test_rates_of_openai_are_exceptions_of_its_client(served, tmp_path):
    keys = tmp_path / "keys.json"
    add_key(keys, "one", None, None)
    gateway = start_gateway(served.server, "--keys", str(keys))

    async def talk():
        async with connect(gateway, key="wrong") as connection:
            await connection.recv()

    try:
        with pytest.raises((openai.OpenAIError, InvalidStatus)) as refused:
            asyncio.run(talk())
        assert "401" in str(refused.value)
    finally:
        stop(gateway)
