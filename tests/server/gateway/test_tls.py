"""Every door over TLS, with a certificate that only these tests trust."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl

import httpx
import openai
import pytest
from websockets.asyncio.client import connect

from server.conftest import pcm, wav
from server.gateway.conftest import start_gateway, stop
from server.gateway.test_hostile import is_closed
from server.gateway.test_riva import PUNCTUATED, live, live_config, results_of, service, text_of

pytestmark = pytest.mark.server
AUDIO = pcm(40_000, seed=41)


@pytest.fixture(scope="module")
def secure(served, authority):
    _, cert, key = authority
    gateway = start_gateway(served.server, "--tls-cert", str(cert), "--tls-key", str(key))
    yield gateway
    assert stop(gateway) == 0


@pytest.fixture
def trusting(authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority[0])


def test_https(secure, trusting, served):
    url = secure.url.replace("http:", "https:")
    with httpx.Client(verify=trusting) as http:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", http_client=http)
        made = client.audio.transcriptions.create(file=("a.wav", wav(AUDIO)), model="whisper-1")
    assert made.text == served.expected(AUDIO, latency_ms=1120).text
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{url}/health")


def test_a_websocket(secure, trusting, served):
    url = f"wss://127.0.0.1:{secure.port}/v1/stream?language=auto"

    async def said() -> str:
        # Not the client of `websockets.sync`: over TLS it reads and writes one SSL object from two
        # threads, which OpenSSL forbids, and one connection in fifty hangs.
        async with connect(url, ssl=trusting) as session:
            await session.send(AUDIO.tobytes())
            await session.send('{"type": "end"}')
            return "".join([json.loads(message).get("text", "") async for message in session])

    assert asyncio.run(said()) == served.expected(AUDIO).text


def test_riva(secure, authority, served):
    asr = service(secure, ssl_root_cert=authority[0], use_ssl=True)
    config = live_config(language_code="en-US", **PUNCTUATED)
    said = results_of(asr.streaming_response_generator([AUDIO.tobytes()], config))
    assert text_of(said) == live(served, AUDIO, language="en-US").text


@pytest.mark.parametrize("begin", [b"", b"\x16\x03\x01\x02", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"])
@pytest.mark.parametrize("door", ["port", "riva_port"])
def test_who_does_not_agree_on_tls_is_left(secure, begin, door):
    with socket.create_connection(("127.0.0.1", getattr(secure, door)), timeout=100) as connection:
        connection.sendall(begin)
        assert is_closed(connection)
