"""OpenAI's own client, unchanged: every format has the library's text; errors, uploads, limits."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
import soundfile
from openai import AsyncOpenAI, OpenAI

from asr_client.formats import to_srt, to_text, to_vtt
from asr_client.results import Transcript, Word
from asr_gateway.access import add_key
from server.conftest import pcm, wav
from server.gateway.conftest import RunningGateway, start_gateway, stop, wait_for

pytestmark = pytest.mark.server
AUDIO = pcm(16_000 * 7 + 321, seed=11)
MODEL = "whisper-1"


def client_of(gateway: RunningGateway, key: str = "none", kind=OpenAI, **kwargs):
    return kind(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0, **kwargs)


@pytest.fixture
def client(gateway):
    return client_of(gateway)


@pytest.fixture
def create(client):
    """`audio.transcriptions.create` of AUDIO."""

    def call(audio=AUDIO, model=MODEL, **kwargs):
        file = ("a.wav", wav(audio) if isinstance(audio, np.ndarray) else audio)
        return client.audio.transcriptions.create(file=file, model=model, **kwargs)

    return call


def transcript_of(expected) -> Transcript:
    return Transcript(expected.text, tuple(Word(*word) for word in expected.words))


@pytest.mark.parametrize(
    ("response_format", "shown"), [("text", to_text), ("srt", to_srt), ("vtt", to_vtt)]
)
def test_texts_are_the_librarys(create, served, response_format, shown):
    expected = served.expected(AUDIO, latency_ms=1120)
    made = create(response_format=response_format)
    assert made == shown(transcript_of(expected))
    assert len(made) > 20


def test_json_is_the_librarys(create, served):
    expected = served.expected(AUDIO, "de-DE", 1120)
    made = create(language="de", prompt="a b, c; d", temperature=0.3)
    assert made.text == expected.text
    assert (made.usage.type, made.usage.seconds) == ("duration", len(AUDIO) // 16 / 1000)


def test_words_and_segments(gateway, served):
    expected = served.recognizer.transcribe([AUDIO], "de-DE", 1120, endpoint_ms=700)[0]

    async def ask(*granularities):
        async with client_of(gateway, kind=AsyncOpenAI) as client:
            return await client.audio.transcriptions.create(
                file=("a.wav", wav(AUDIO)), model=MODEL, language="de_de",
                response_format="verbose_json", timestamp_granularities=list(granularities),
            )  # fmt: skip

    both = asyncio.run(ask("word", "segment"))
    assert (both.text, both.language) == (expected.text, "german")
    assert both.duration == len(AUDIO) // 16 / 1000
    words = [(w.word, round(w.start * 1000), round(w.end * 1000)) for w in both.words]
    assert words == [w[:3] for w in expected.words]
    assert [s.text for s in both.segments] == [u.text for u in expected.utterances]
    assert [round(s.end * 1000) for s in both.segments] == [
        u.words[-1].end_ms for u in expected.utterances
    ]
    assert both.segments[0].no_speech_prob is None
    assert both.segments[0].avg_logprob < 0 < both.segments[0].compression_ratio
    assert asyncio.run(ask("word")).segments is None
    assert asyncio.run(ask()).words is None
    assert asyncio.run(ask("segment")).segments == both.segments


@pytest.mark.parametrize("latency_ms", [80, 1120])
def test_deltas_are_the_text(gateway, served, latency_ms):
    expected = served.expected(AUDIO, "de-DE", latency_ms)
    asked = {
        "file": ("a.wav", wav(AUDIO)), "model": "gpt-4o-transcribe", "language": "de",
        "stream": True, "extra_body": {"latency_ms": latency_ms},
    }  # fmt: skip

    async def ask():
        async with client_of(gateway, kind=AsyncOpenAI) as client:
            return [event async for event in await client.audio.transcriptions.create(**asked)]

    at_once = client_of(gateway).audio.transcriptions.create(**asked)
    for events in (asyncio.run(ask()), list(at_once)):
        *deltas, done = events
        assert {event.type for event in deltas} == {"transcript.text.delta"}
        assert len(deltas) > 2
        assert "".join(event.delta for event in deltas) == done.text == expected.text
        assert done.type == "transcript.text.done"
    assert {line["reason"] for line in gateway.logged("session")[-2:]} == {"end"}


def test_a_long_file_is_not_cut_when_it_is_streamed(create, served):
    """Live streams that may be restored are cut after some minutes."""
    audio = np.tile(AUDIO, 45)  # 5.3 minutes
    *_, done = create(audio, stream=True)
    assert done.text == create(audio).text
    assert len(done.text) > 1000


def test_our_own_options_go_as_further_fields(create, served):
    expected = served.expected(AUDIO, "de-DE", 320).text
    options = {"latency_ms": 320, "punctuation": False, "capitals": False, "phrases": ["ab", "cd"]}
    made = create(language="de-DE", extra_body={**options, "boost": 0})
    plain = {c for c in made.text if not c.isspace()}
    assert len(made.text) > 20
    assert plain <= {c for c in expected.lower() if c.isalnum()}
    *_, done = create(language="de-DE", stream=True, extra_body={**options, "boost": 0})
    assert done.text == made.text


def test_keywords_and_languages_of_newer_clients(create, served):
    favoured = served.recognizer.transcribe(
        [AUDIO], "auto", 1120, languages=["de-DE"], phrases=["bobo", "mumu"], boost=5
    )[0]
    made = create(languages=["de"], keywords=["bobo", "mumu"], extra_body={"boost": 5})
    assert made.text == favoured.text


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"language": "tlh"}, "de-DE"),
        ({"languages": ["de", "tlh"]}, "de-DE"),
        ({"response_format": "diarized_json"}, "verbose_json"),
        ({"response_format": "srt", "stream": True}, "json, text"),
        ({"timestamp_granularities": ["word"]}, "verbose_json"),
        ({"include": ["logprobs"]}, "no logprobs"),
        ({"temperature": 2}, "0 to 1"),
        ({"extra_body": {"latency_ms": 81}}, "1120"),
        ({"extra_body": {"sample_rate": 8000}}, "endpoint_ms"),
        ({"extra_body": {"data": 1, "door": 2}}, "endpoint_ms"),
        ({"extra_body": {"latency_ms": [80, 160]}}, "one"),
        ({"extra_body": {"phrases": "x" * 300_000}}, "256KB"),
        ({"audio": b"no audio"}, "WAV"),
        ({"audio": b"no audio", "stream": True}, "WAV"),
        ({"audio": b""}, "empty"),
        ({"audio": b"", "stream": True}, "empty"),
        ({"extra_body": {"channel": 3}}, "mix"),
        ({"extra_body": {"channel": 3}, "stream": True}, "mix"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(create, wrong, named):
    with pytest.raises(openai.BadRequestError, match=named) as refused:
        create(**wrong)
    assert refused.value.code == "INVALID_ARGUMENT"
    assert refused.value.type == "invalid_request_error"


def test_what_goes_wrong_later_is_an_event(create, gateway):
    samples = np.zeros(1_100_000, np.float32)
    samples[-1] = np.nan
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV", subtype="FLOAT")
    with pytest.raises(openai.APIError, match="not a finite number"):
        list(create(file.getvalue(), stream=True))
    wait_for(lambda: gateway.metric("asr_gateway_sessions", door="openai") == 0)


def test_models(client, create, served):
    ours, *aliases = [model.id for model in client.models.list()]
    assert ours == served.recognizer.name
    assert MODEL in aliases
    assert client.models.retrieve(ours).id == ours
    for call in (client.models.retrieve, lambda model: create(model=model)):
        with pytest.raises(openai.NotFoundError, match=ours) as refused:
            call("gpt-4")
        assert refused.value.code == "model_not_found"
    assert create(model=ours).text == create().text


def test_keys_rates_and_origins(served, tmp_path):
    keys = tmp_path / "keys.json"
    key = add_key(keys, "one", max_sessions=None, requests_per_minute=6)
    gateway = start_gateway(served.server, "--keys", str(keys), "--origin", "https://good.example")
    try:
        for call in (
            client_of(gateway, "wrong").models.list,
            lambda: transcribe(client_of(gateway, "wrong")),
        ):
            with pytest.raises(openai.AuthenticationError):
                call()
        client = client_of(gateway, key)
        evil = client_of(gateway, key, default_headers={"Origin": "https://evil.example"})
        with pytest.raises(openai.PermissionDeniedError):
            transcribe(evil)
        client.models.list()
        transcribe(client)
        with pytest.raises(openai.RateLimitError) as refused:
            transcribe(client)
        assert int(refused.value.response.headers["retry-after"]) > 1
        good = {"Origin": "https://good.example", "Access-Control-Request-Method": "POST"}
        asked = httpx.options(f"{gateway.url}/v1/audio/transcriptions", headers=good)
        assert asked.headers["access-control-allow-origin"] == good["Origin"]
        assert {line["caller"] for line in gateway.logged("file")} == {"one"}
    finally:
        stop(gateway)


def transcribe(client: OpenAI):
    return client.audio.transcriptions.create(file=("a.wav", wav(AUDIO)), model=MODEL)


def form(file: bytes, *others: bytes, end: bytes = b"--b--\r\n") -> bytes:
    """A body of a form whose boundary is b."""
    parts = [b'name="file"; filename="a.wav"\r\n\r\n' + file, *others]
    return b"".join(b"--b\r\nContent-Disposition: form-data; %b\r\n" % part for part in parts) + end


@pytest.mark.parametrize(
    "body",
    [
        form(wav(AUDIO), end=b""),
        form(wav(AUDIO))[:5000],
        form(b"x", b'name="file"; filename="b.wav"\r\n\r\ny'),
        form(b"x", b'name="x"\r\nX: ' + b"y" * 20_000 + b"\r\n\r\ny"),
        form(b"x", *[b'name="f%d"\r\n\r\ny' % i for i in range(100)]),
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nx\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n',
        b"--b\r\n\r\n\r\n--b--\r\n",
        b"\0" * 100_000,
        b"",
    ],
)
@pytest.mark.parametrize("kind", ["; boundary=b", "; boundary=b; charset=idna", "", "; boundary="])
def test_hostile_forms_are_refused(gateway, body, kind):
    headers = {"Content-Type": f"multipart/form-data{kind}"}
    url = f"{gateway.url}/v1/audio/transcriptions"
    answer = httpx.post(url, content=body, headers=headers, timeout=30)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]


def test_uploads_too_large_are_refused_as_they_come(served, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    gateway = start_gateway(served.server, "--max-file-mb", "1", "--idle-timeout-s", "1")
    try:
        assert transcribe(client_of(gateway)).text
        client = client_of(gateway)
        for size in ((1 << 20) + 1, 30 << 20):
            with pytest.raises(openai.APIStatusError) as refused:
                client.audio.transcriptions.create(file=("a.wav", bytes(size)), model=MODEL)
            assert refused.value.status_code == 413
        on_disk = []

        def chunks():
            yield form(b"")[:-9]
            for _ in range(100):
                on_disk.append(spooled_bytes(gateway.process.pid, tmp_path))
                yield bytes(1 << 18)

        assert post(gateway, chunks()).status_code == 413
        assert max(on_disk) <= 3 << 20
        assert b" 408 " in stalled(gateway)
        assert b" 408 " in dripping(gateway)
        assert list(tmp_path.iterdir()) == []
    finally:
        stop(gateway)


def spooled_bytes(pid: int, folder: Path) -> int:
    """What a process has in temporary files, which have no name."""
    total = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            if str(folder) in os.readlink(link):
                total += link.stat().st_size
    return total


def post(gateway: RunningGateway, content) -> httpx.Response:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    url = f"{gateway.url}/v1/audio/transcriptions"
    return httpx.post(url, content=content, headers=headers, timeout=30)


def begin_upload(gateway: RunningGateway, first: int = 400_000) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", gateway.port))
    connection.sendall(
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + form(bytes(first))[:-9]
    )
    return connection


def stalled(gateway: RunningGateway) -> bytes:
    with begin_upload(gateway) as connection:
        connection.settimeout(30)
        return connection.recv(1000)


def dripping(gateway: RunningGateway) -> bytes:
    """The answer to an upload that never stops, and never gets far."""
    answers = []
    with begin_upload(gateway, first=100) as connection:
        listening = threading.Thread(target=lambda: answers.append(connection.recv(1000)))
        listening.start()
        while not answers:
            connection.sendall(b"x" * 100)
            listening.join(0.2)
    return answers[0]


def test_a_client_that_leaves_is_given_up(gateway, served):
    with begin_upload(gateway):
        time.sleep(0.3)
    long = np.tile(AUDIO, 50)
    before = gateway.metric("asr_gateway_files_total", door="openai", code="CANCELLED")
    impatient = client_of(gateway, timeout=1)
    with pytest.raises(openai.APITimeoutError):
        impatient.audio.transcriptions.create(file=("a.wav", wav(long)), model=MODEL)
    wait_for(lambda: gateway.metric("asr_gateway_files_total", code="CANCELLED") == before + 1)
    events = client_of(gateway).audio.transcriptions.create(
        file=("a.wav", wav(long)), model=MODEL, stream=True
    )
    assert next(iter(events)).delta
    assert gateway.metric("asr_gateway_sessions", door="openai") == 1
    events.close()
    wait_for(lambda: gateway.metric("asr_gateway_sessions", door="openai") == 0)
    assert gateway.logged("session")[-1]["reason"] == "abandoned"
    assert transcribe(client_of(gateway)).text == served.expected(AUDIO, latency_ms=1120).text


def test_the_description_names_every_door(gateway):
    described = httpx.get(f"{gateway.url}/openapi.json").json()
    assert set(described["paths"]) == {
        "/health", "/ready", "/metrics", "/openapi.json", "/v1/offer", "/v1/models",
        "/v1/models/{model}", "/v1/audio/transcriptions",
    }  # fmt: skip
    for path, methods in described["paths"].items():
        if "get" in methods and "{" not in path:
            assert httpx.get(gateway.url + path, timeout=30).status_code == 200
    assert httpx.get(f"{gateway.url}/v1/audio/transcriptions").status_code == 405
    assert json.loads(httpx.get(f"{gateway.url}/v1/nothing").text)["error"]["message"]
