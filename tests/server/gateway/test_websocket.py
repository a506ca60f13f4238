"""The plain WebSocket: the library's text, whatever the packets; refusals; slots that come back."""

from __future__ import annotations

import json
import random
import threading
from socket import SHUT_RDWR

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from asr_client import LiveStream
from asr_gateway.access import add_key
from nemotron_asr.pcm import decode_g711
from server.conftest import pcm
from server.gateway.conftest import RunningGateway, start_gateway, stop, wait_for
from server.test_metrics import total

pytestmark = pytest.mark.server


def talk(gateway: RunningGateway, packets, path: str = "/v1/stream", options: dict | None = None):
    """A session.  Returns its results and its last message."""
    with gateway.socket(path) as socket:
        if options is not None:
            socket.send(json.dumps(options))
        ready = json.loads(socket.recv())
        if ready["type"] == "error":
            return [], ready

        def speak() -> None:
            for packet in packets:
                socket.send(packet)
            socket.send('{"type": "end"}')

        speaking = threading.Thread(target=speak)
        speaking.start()
        messages = [json.loads(message) for message in socket]
        speaking.join()
    return messages[:-1], messages[-1]


def ragged(audio: np.ndarray, seed: int = 0):
    rng, at = random.Random(seed), 0
    while at < len(audio):
        size = rng.choice([1, 160, 320, 1777, 9000])
        yield audio[at : at + size].tobytes()
        at += size


def test_what_is_sent_after_the_end_is_passed_over(gateway, served):
    audio = pcm(16_000 * 3, seed=4)
    late = [
        '{"type": "keep_alive"}',
        audio[:999].tobytes(),
        '{"type": "end"}',
        '{"type": "finalize"}',
    ]
    results, last = talk(
        gateway, [audio.tobytes(), '{"type": "end"}', *late], "/v1/stream?language=auto"
    )
    assert "".join(one.get("text", "") for one in results) == served.expected(audio).text
    assert last == {"type": "end", "audio_processed_ms": 3000}
    assert all(one["segment"] == 0 for one in results)  # also where it is 0


@pytest.mark.parametrize("latency_ms", [80, 320, 1120])
def test_text_and_words_are_the_librarys(gateway, served, latency_ms):
    audio = pcm(16_000 * 5 + 123, seed=latency_ms)
    options = {"language": "de-DE", "latency_ms": latency_ms}
    results, last = talk(gateway, ragged(audio), options=options)
    expected = served.expected(audio, "de-DE", latency_ms)
    assert "".join(r["text"] for r in results if "text" in r) == expected.text
    words = [word for r in results for word in r.get("words", ())]
    assert [(w["text"], w["start_ms"]) for w in words] == [w[:2] for w in expected.words]
    assert last == {"type": "end", "audio_processed_ms": len(audio) // 16}


def test_options_may_be_a_query(gateway, served):
    audio = pcm(30_000, seed=4)
    results, _ = talk(gateway, [audio.tobytes()], "/v1/stream?language=de-DE&latency_ms=80")
    text = "".join(r["text"] for r in results if "text" in r)
    assert text == served.expected(audio, "de-DE", 80).text


def test_telephone_audio_and_utterances(gateway, served):
    codes = np.random.default_rng(0).integers(0, 256, 8000 * 3).astype(np.uint8).tobytes()
    options = {"encoding": "mulaw", "sample_rate": 8000, "endpoint_ms": 400}
    results, last = talk(gateway, [codes[:7777], codes[7777:]], options=options)
    with LiveStream(served.server.grpc_address, sample_rate=8000, endpoint_ms=400) as stream:
        stream.send(decode_g711(codes, "mulaw"))
        expected = stream.finish()
    assert "".join(r["text"] for r in results if "text" in r) == expected.text
    assert last["type"] == "end"


def test_opus_packets(gateway, served):
    av = pytest.importorskip("av")
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 48_000, "mono", "s16"
    audio = np.repeat(pcm(32_000, seed=6), 3)  # 48 kHz
    packets = []
    for at in range(0, len(audio), 960):
        frame = av.AudioFrame.from_ndarray(audio[None, at : at + 960], "s16", "mono")
        frame.sample_rate = 48_000
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    packets += [bytes(packet) for packet in encoder.encode(None)]
    results, last = talk(gateway, packets, options={"encoding": "opus"})
    decoder = av.CodecContext.create("opus", "r")
    decoder.extradata = b"OpusHead\x01\x01\0\0" + (48_000).to_bytes(4, "little") + bytes(3)
    heard = [f.to_ndarray()[0] for p in packets for f in decoder.decode(av.Packet(p))]
    heard = np.concatenate(heard)
    if heard.dtype != np.int16:
        heard = np.clip(np.round(heard * 32768), -32768, 32767).astype(np.int16)
    with LiveStream(served.server.grpc_address, sample_rate=48_000) as stream:
        stream.send(heard)
        expected = stream.finish()
    assert "".join(r["text"] for r in results if "text" in r) == expected.text
    assert len(expected.text) > 20
    assert last["type"] == "end"


def test_finalize_and_another_language(gateway, served):
    first, second = pcm(40_000, seed=1), pcm(30_000, seed=2)
    with gateway.socket("/v1/stream") as socket:
        socket.send('{"language": "en-US"}')
        socket.send(first.tobytes())
        socket.send('{"type": "finalize"}')
        pieces = []
        while not pieces or not pieces[-1].get("finalized"):
            pieces.append(json.loads(socket.recv()))
        assert "".join(p.get("text", "") for p in pieces) == served.expected(first, "en-US").text
        socket.send('{"type": "keep_alive"}')
        socket.send('{"type": "language", "language": "de-DE"}')
        socket.send(second.tobytes())
        socket.send('{"type": "end"}')
        rest = "".join(json.loads(message).get("text", "") for message in socket)
    assert rest.strip() == served.expected(second, "de-DE").text


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"latency_ms": 333}, "80, 160, 320, 560, 1120"),
        ({"language": "xx-XX"}, "de-DE"),
        ({"colour": "red"}, "endpoint_ms"),
        ({"words": True}, "endpoint_ms"),
        ({"encoding": "flac"}, "mulaw"),
        ({"encoding": "opus", "channels": 3}, "1, 2"),
        ({"encoding": "opus", "channels": "x"}, "1, 2"),
        ({"endpoint_ms": "9" * 5000}, "0 to 10000"),
        ({"phrases": "[" * 3000}, "JSON"),
    ],
)
def test_bad_options_name_the_valid_ones(gateway, options, named):
    _, last = talk(gateway, [], options=options)
    assert (last["type"], last["code"]) == ("error", "INVALID_ARGUMENT")
    assert named in last["message"]


@pytest.mark.parametrize(
    "message",
    [
        "{",
        "[]",
        "[" * 9000,
        '{"a": ' + "[" * 4000,
        '{"type": "sing"}',
        '{"type": "finalize", "x": 1}',
        b"odd",
        '{"type": "language"}',
    ],
)
def test_bad_messages_end_the_session_alone(gateway, message):
    with gateway.socket("/v1/stream") as neighbour, gateway.socket("/v1/stream") as socket:
        for one in (neighbour, socket):
            one.send("{}")
            assert json.loads(one.recv())["type"] == "ready"
        socket.send(message)
        assert json.loads(socket.recv())["code"] == "INVALID_ARGUMENT"
        with pytest.raises(ConnectionClosed):
            socket.recv()
        assert socket.close_code in (4400, 1009)
        neighbour.send('{"type": "end"}')
        assert "end" in [json.loads(m)["type"] for m in neighbour]


def test_a_client_that_is_gone_frees_its_slot(gateway, served):
    def active() -> float:
        return total(served.server, "asr_active_streams")

    wait_for(lambda: active() == 0)
    sockets = [gateway.socket("/v1/stream") for _ in range(5)]
    for socket in sockets:
        socket.send("{}")
        socket.recv()
        socket.send(pcm(8000, seed=1).tobytes())
    wait_for(lambda: active() == 5)
    before = gateway.metric(
        "asr_gateway_sessions_ended_total", door="websocket", reason="abandoned"
    )
    expired = total(served.server, "asr_streams_ended_total", reason="idle")
    for socket in sockets:
        socket.socket.shutdown(SHUT_RDWR)  # without a word of goodbye
    wait_for(lambda: active() == 0)
    assert total(served.server, "asr_streams_ended_total", reason="idle") == expired
    assert gateway.metric("asr_gateway_sessions", door="websocket") == 0
    after = gateway.metric("asr_gateway_sessions_ended_total", door="websocket", reason="abandoned")
    assert after - before == 5


def test_keys_limits_and_origins(served, tmp_path):
    keys = tmp_path / "keys.json"
    key = add_key(keys, "one", max_sessions=1, requests_per_minute=None)
    assert key not in keys.read_text()
    gateway = start_gateway(served.server, "--keys", str(keys), "--idle-timeout-s", "1")
    try:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            with pytest.raises(InvalidStatus) as refused:
                gateway.socket("/v1/stream", additional_headers=headers)
            assert refused.value.response.status_code == 401
        good = {"Authorization": f"Bearer {key}"}
        with pytest.raises(InvalidStatus) as refused:
            gateway.socket("/v1/stream", additional_headers=good, origin="http://evil.example")
        assert refused.value.response.status_code == 403
        with gateway.socket("/v1/stream", additional_headers=good) as socket:
            socket.send("{}")
            socket.recv()
            protocols = ["asr", f"openai-insecure-api-key.{key}"]
            with gateway.socket("/v1/stream", subprotocols=protocols, origin=gateway.url) as second:
                assert second.subprotocol == "asr"
                assert json.loads(second.recv())["code"] == "RESOURCE_EXHAUSTED"
            idle = json.loads(socket.recv())
            assert (idle["code"], "1 s" in idle["message"]) == ("NOT_FOUND", True)
        assert {line["caller"] for line in gateway.logged("session")} == {"one"}
    finally:
        stop(gateway)


def test_sessions_may_end_when_the_gateway_is_told_to_stop(served):
    gateway = start_gateway(served.server)
    audio = pcm(40_000, seed=9)
    with gateway.socket("/v1/stream") as socket:
        socket.send("{}")
        socket.recv()
        socket.send(audio[:20_000].tobytes())
        gateway.process.terminate()
        wait_for(lambda: httpx.get(f"{gateway.url}/ready").status_code == 503)
        assert httpx.get(f"{gateway.url}/health").headers["connection"] == "close"
        with gateway.socket("/v1/stream") as late:
            assert json.loads(late.recv())["code"] == "UNAVAILABLE"
        socket.send(audio[20_000:].tobytes())
        socket.send('{"type": "end"}')
        text = "".join(json.loads(message).get("text", "") for message in socket)
    assert text == served.expected(audio).text
    assert gateway.process.wait(60) == 0


@pytest.mark.parametrize("path", ["/v1/stream", "/v1/realtime"])
def test_without_an_upgrade_it_is_said_what_lives_there(gateway, path):
    answer = httpx.get(gateway.url + path)
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
    assert "is a WebSocket" in answer.json()["error"]["message"]


def test_a_file_is_no_samples(gateway, sample):
    with gateway.socket("/v1/stream?language=auto") as socket:
        assert json.loads(socket.recv())["type"] == "ready"
        socket.send(sample.read_bytes())
        said = json.loads(socket.recv())
    assert said["code"] == "INVALID_ARGUMENT"
    assert "this is a FLAC file" in said["message"]


def test_a_path_that_is_none(gateway):
    for answer in (
        httpx.post(f"{gateway.url}/audio/transcriptions"),  # base_url without /v1
        httpx.post(f"{gateway.url}/v1/audio/translations"),
    ):
        assert answer.status_code == 404
        message = answer.json()["error"]["message"]
        assert message.startswith(f"there is no {answer.request.url.path}; OpenAI's base_url ends")
