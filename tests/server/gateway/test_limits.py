"""What waits takes nobody's place, and what is answered is sent before the process ends."""

from __future__ import annotations

import asyncio
import errno
import os
import struct
import threading
from tempfile import SpooledTemporaryFile
from types import SimpleNamespace

import grpc
import httpx
import pytest
from riva.client.proto.riva_asr_pb2 import RecognitionConfig, RecognizeRequest

from asr_client.errors import InvalidArgument, ServerUnavailable
from asr_gateway import riva_audio
from asr_gateway.access import Access, Caller, add_key
from asr_gateway.app import make_app
from asr_gateway.errors import TooMuch
from asr_gateway.gateway import Gateway
from asr_gateway.metrics import Metrics
from asr_gateway.places import Places
from asr_gateway.riva import RivaServer
from asr_gateway.riva_requests import receive_recording
from asr_gateway.settings import GatewaySettings
from server.gateway.conftest import start_gateway, stop, wait_for
from server.gateway.slow_triton import SlowTriton
from server.gateway.test_riva import DIRECT
from server.gateway.test_riva_refusals import RECOGNIZE

pytestmark = pytest.mark.server


def test_silent_calls_take_no_place_of_a_file():
    ended = threading.Event()

    def silence():
        ended.wait(60)
        yield from ()

    with SlowTriton() as triton:
        gateway = start_gateway(triton, "--max-files", "2")
        try:
            with grpc.insecure_channel(gateway.riva, DIRECT) as channel:
                recognize = channel.stream_unary(RECOGNIZE)
                calls = [recognize.future(silence()) for _ in range(3)]
                wait_for(lambda: any(call.done() for call in calls))
                (refused,) = [call for call in calls if call.done()]
                assert "2 recordings arrive" in refused.details()
                files = {"file": ("a.wav", b"RIFF")}
                answer = httpx.post(f"{gateway.url}/v1/audio/transcriptions", files=files)
                assert answer.status_code == 503  # of who has no server for files behind it
                for call in calls:
                    call.cancel()
                invalid = grpc.StatusCode.INVALID_ARGUMENT
                wait_for(lambda: code_of_no_message(recognize) == invalid)
        finally:
            ended.set()
            assert stop(gateway) == 0


def code_of_no_message(method: grpc.StreamUnaryMultiCallable) -> grpc.StatusCode:
    return method.future(iter([b"\xff"])).code()


class Call:
    """The context of a call whose message comes when it is told to."""

    def __init__(self):
        self.message: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def read(self) -> bytes:
        return await self.message


def test_the_oldest_recording_that_does_not_come_gives_up(monkeypatch):
    some = Places(GatewaySettings(max_files=2), Access(None), Metrics())
    caller = Caller("anybody")

    async def arrive() -> None:
        calls = [Call() for _ in range(4)]
        tasks = []
        for call in calls[:3]:
            tasks.append(asyncio.create_task(receive_recording(call, some, "riva", caller)))
            await asyncio.sleep(0)
        with pytest.raises(TooMuch, match="2 recordings arrive"):  # none had its time
            await tasks[2]
        monkeypatch.setattr("asr_gateway.places.PATIENCE_S", 0)
        last = asyncio.create_task(receive_recording(calls[3], some, "riva", caller))
        with pytest.raises(TooMuch, match="not here"):
            await tasks[0]
        for call in calls:
            call.message.cancel() if call.message.done() else call.message.set_result(b"\x12\x01a")
        assert await tasks[1] == await last == RecognizeRequest(audio=b"a")
        assert not some._arriving

    asyncio.run(arrive())


def test_one_of_several_keys_leaves_room_to_arrive_to_others(tmp_path):
    path = tmp_path / "keys.json"
    for name in ("greedy", "modest"):
        add_key(path, name, None, None)
    some = Places(GatewaySettings(max_files=4), Access(path), Metrics())
    greedy, modest = Caller("greedy"), Caller("modest")
    with some.arriving("riva", greedy, object()), some.arriving("riva", greedy, object()):
        with pytest.raises(TooMuch), some.arriving("riva", greedy, object()):
            pass
        with some.arriving("riva", modest, object()):
            assert len(some._arriving) == 3
    assert not some._arriving


def test_a_header_that_does_not_end_is_read_once(monkeypatch):
    chunks = []

    def unpack_from(*args):
        chunks.append(args)
        return struct.unpack_from(*args)

    counting = SimpleNamespace(unpack_from=unpack_from, pack=struct.pack)
    monkeypatch.setattr(riva_audio, "struct", counting)
    live = riva_audio.LiveBytes(RecognitionConfig())
    live.push(b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 8000)
    assert len(chunks) == 8000
    for _ in range(1022):
        live.push(b"")
    with pytest.raises(InvalidArgument, match="1024 messages"):
        live.push(b"")
    assert len(chunks) == 8000


def test_an_upload_for_which_the_disk_has_no_room(monkeypatch):
    class Full(SpooledTemporaryFile):
        def write(self, _data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("starlette.formparsers.SpooledTemporaryFile", Full)
    transport = httpx.ASGITransport(make_app(GatewaySettings(riva_port=None)))

    async def upload() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            file = {"file": ("a.wav", bytes(100))}
            return await client.post("/v1/audio/transcriptions", files=file)

    answer = asyncio.run(upload())
    assert answer.status_code == 503
    assert "No space left" in answer.json()["error"]["message"]


def test_a_file_that_is_here_is_heard_also_in_a_drain():
    places = Places(GatewaySettings(), Access(None), Metrics())
    caller = Caller("one")
    with places.file("openai", caller):
        places.drain()
        with places.session("openai", caller, of_file=True):
            assert caller.sessions == 1
        with pytest.raises(ServerUnavailable, match="draining"), places.session("riva", caller):
            pass


def test_errors_are_counted_from_0():
    """An alert looks for growth, which a number that is new has not."""
    page = Metrics().page().decode()
    for door in ("openai", "realtime", "websocket", "riva"):
        for code in ("INTERNAL", "UNAVAILABLE"):
            assert f'sessions_ended_total{{door="{door}",reason="{code}"}} 0.0' in page


def test_an_answer_that_is_not_sent_yet_keeps_the_process():
    app = make_app(GatewaySettings(riva_port=None))
    places = app.state.gateway.places
    scope = {"type": "http", "method": "GET", "path": "/health", "headers": [], "query_string": b""}

    async def ask() -> None:
        sent = []

        async def send(message) -> None:
            assert places.is_busy
            await asyncio.sleep(0)
            sent.append(message)

        await app(scope, asyncio.Event().wait, send)
        assert [message.get("body") for message in sent] == [None, b"ok\n", b""]
        assert [message.get("more_body", False) for message in sent] == [False, True, False]

    asyncio.run(ask())
    assert not places.is_busy


def test_a_call_of_rivas_keeps_the_process_until_its_status_is_sent():
    async def call() -> None:
        gateway, ends = Gateway(GatewaySettings()), []
        context = SimpleNamespace(add_done_callback=ends.append)
        RivaServer(gateway)._answer_until_over(context)
        assert gateway.places.is_busy
        ends[0](context)
        assert not gateway.places.is_busy

    asyncio.run(call())
