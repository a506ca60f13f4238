"""Phrases and languages on the real server: parameters, headers, streams and files."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from asr_client import LiveStream, OfflineClient
from asr_client.errors import InvalidArgument
from server.conftest import pcm, wav

pytestmark = pytest.mark.server

PHRASES = ["ba be bi", "fade", "Lale^2", "mo"]
BIASED = {"phrases": PHRASES, "boost": 4.0, "languages": ["de-DE", "fr-FR"]}


def live_text(served, audio, **options) -> str:
    with LiveStream(served.server.grpc_address, **options) as stream:
        for at in range(0, len(audio), 3000):
            stream.send(audio[at : at + 3000])
        return stream.finish().text


def curl(served, audio, options: dict[str, str]) -> bytes:
    """A file with its options as HTTP headers."""
    response = httpx.post(
        f"{served.server.http_url}/v2/models/asr_offline/infer",
        content=wav(audio),
        headers={
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": "0",
            **options,
        },
        timeout=60,
    )
    return response.content


def expected(served, audio, **options) -> str:
    return served.recognizer.transcribe([audio], latency_ms=320, **options)[0].text


def test_streams_and_files_say_what_the_library_says(served):
    """Side by side with others that have none."""
    jobs = [(pcm(60_000, seed=i), BIASED if i % 2 else {}) for i in range(8)]

    def say(job) -> tuple[str, str]:
        audio, options = job
        with OfflineClient(served.server.http_url) as client:
            file = client.transcribe(wav(audio), latency_ms=320, **options)
        return live_text(served, audio, **options), file.text

    with ThreadPoolExecutor(8) as pool:
        for (audio, options), (live, file) in zip(jobs, pool.map(say, jobs), strict=True):
            assert live == file == expected(served, audio, **options)
            assert not options or live != expected(served, audio)


@pytest.mark.parametrize("written", ["; ".join(PHRASES), json.dumps(PHRASES)])
def test_phrases_come_in_headers_too(served, written):
    audio = pcm(60_000, seed=1)
    headers = {"phrases": written, "boost": "4", "languages": "de-DE,fr-FR", "latency_ms": "320"}
    assert expected(served, audio, **BIASED).encode() in curl(served, audio, headers)


def test_the_longest_list_fits(served):
    rng = random.Random(0)
    syllables = [consonant + vowel for consonant in "bdfg" for vowel in "aeiou"]
    many = [" ".join(rng.choices(syllables, k=7)) for _ in range(1000)]  # of 20 characters
    audio = pcm(40_000, seed=2)
    options = {"phrases": many, "boost": 4.0}
    text = expected(served, audio, **options)
    with OfflineClient(served.server.http_url) as client:
        assert client.transcribe(wav(audio), latency_ms=320, **options).text == text
    assert live_text(served, audio, **options) == text
    longest = {"phrases": ";".join(many[:340]), "boost": "4", "latency_ms": "320"}  # of a header
    few = {"phrases": many[:340], "boost": 4.0}
    assert expected(served, audio, **few).encode() in curl(served, audio, longest)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phrases": "ba^0"}, "phrases: 'ba^0' has no valid weight; valid: "),
        ({"phrases": ["\u0142"]}, "phrases: '\u0142' has '\u0142', which no piece of this model's"),
        ({"phrases": "ba", "boost": 21.0}, "boost: '21.0' is not supported; valid: 0 to 20"),
        ({"languages": "de-DE,xx"}, "languages: 'xx' is not supported; valid: some of de-DE, en"),
    ],
)
def test_bad_values_are_named(served, options, message):
    with OfflineClient(served.server.http_url) as client, pytest.raises(InvalidArgument) as caught:
        client.transcribe(wav(pcm(1000, 0)), **options)
    assert message in str(caught.value)
    with pytest.raises(InvalidArgument) as caught:
        live_text(served, pcm(1000, 0), **options)
    assert message in str(caught.value)
