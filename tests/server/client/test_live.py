"""Live streams of the client, against the real server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from asr_client import (
    LiveStream,
    transcribe_live,
)

from .conftest import PCM, SLOTS, cut, expected

pytestmark = pytest.mark.server


@pytest.mark.parametrize("size", [97, 1600, 5120, len(PCM)])
@pytest.mark.parametrize("words", [False, True])
def test_packets_of_any_size_give_the_whole_text(url, size, words):
    with LiveStream(url, words=words) as stream:
        for packet in cut(PCM, size):
            stream.send(packet)
        transcript = stream.finish()
        results = list(stream.results())
    assert transcript.text == expected(PCM) == "".join(r.text for r in results)
    assert transcript.language == "en-US"
    assert [r.is_final for r in results] == [False] * (len(results) - 1) + [True]
    if words:
        assert " ".join(w.text for w in transcript.words) == transcript.text
        assert transcript.words == sum((r.words for r in results), ())


def test_bytes_and_floats_are_the_same_audio(url):
    for chunks in (cut(PCM / 32768, 1000), [p.tobytes() for p in cut(PCM, 1000)]):
        assert "".join(r.text for r in transcribe_live(chunks, url=url)) == expected(PCM)


def test_more_than_a_packet_may_hold_is_cut(url):
    long = np.tile(PCM, 12)  # 24 s, sent at once
    with LiveStream(url, progress=True) as stream:
        stream.send(long)
        assert stream.finish().text == expected(long)
        assert len(list(stream.results())) == 6  # four times 5 s, the rest, the end


def test_the_server_says_what_it_offers(url):
    with LiveStream(url) as stream:
        assert stream.server["slots"] == SLOTS
        assert stream.server["latencies_ms"] == [80, 160, 320, 560, 1120]


def test_text_arrives_while_audio_is_still_going_in(url):
    with LiveStream(url) as stream:
        results = stream.results()
        stream.send(PCM[:5120])
        assert next(results).text == expected(PCM[:5120])
        stream.send(PCM[5120:10_240])
        assert next(results).text == " " + expected(PCM[5120:10_240])
        stream.end()
        assert next(results).is_final
        assert list(results) == []


def test_leaving_the_context_drains(url):
    with LiveStream(url) as stream:
        stream.send(PCM)
    assert "".join(r.text for r in stream.results()) == expected(PCM)
    assert stream.finish().text == expected(PCM)


def test_a_stream_of_nothing(url):
    assert [r.text for r in transcribe_live([], url=url)] == [""]


def test_streams_side_by_side_keep_their_own_text_and_options(url):
    def run(index: int) -> bool:
        pcm, latency_ms = np.roll(PCM, index * 999), (80, 320, 560, 1120)[index % 4]
        chunks = cut(pcm, 400 + 300 * index)
        text = "".join(r.text for r in transcribe_live(chunks, url=url, latency_ms=latency_ms))
        return text == expected(pcm, latency_ms)

    with ThreadPoolExecutor(SLOTS) as pool:
        assert all(pool.map(run, range(SLOTS)))
