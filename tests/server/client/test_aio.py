"""Streams of asyncio: what the streams of threads say, over one connection for all."""

from __future__ import annotations

import asyncio
import random
import time

import numpy as np
import pytest

from asr_client import AtCapacity, InvalidArgument, LiveStream, ServerUnavailable, StreamClosed
from asr_client.aio import AsyncLiveStream, open_channel
from server.client.conftest import PCM, SLOTS, cut, expected
from server.conftest import pcm, settings_for
from server.test_replay import LIMIT_S, Supervised

pytestmark = pytest.mark.server


async def spoken(url: str, packets, pause_s: float = 0.0, **options) -> tuple[str, object]:
    """What came in results, and the transcript."""
    async with AsyncLiveStream(url, **options) as stream:

        async def read() -> str:
            return "".join([result.text async for result in stream.results()])

        reading = asyncio.create_task(read())
        for packet in packets:
            await stream.send(packet)
            await asyncio.sleep(pause_s)
        transcript = await stream.finish()
        return await reading, transcript


def in_time(segment) -> tuple:
    """A segment without confidences, whose last digits depend on the neighbours."""
    words = [(w.text, w.start_ms, w.end_ms) for w in segment.words]
    return segment.text, words, segment.start_ms, segment.end_ms, segment.reason


@pytest.mark.parametrize("size", [97, 1600, 5120, len(PCM)])
@pytest.mark.parametrize("reconnect_s", [0, 10])
def test_packets_of_any_size_give_the_whole_text(url, size, reconnect_s):
    heard, transcript = asyncio.run(spoken(url, cut(PCM, size), reconnect_s=reconnect_s))
    assert heard == transcript.text == expected(PCM)


def test_many_streams_share_a_connection(served):
    """Ragged packets, some slower, utterances that end, other rates and languages."""

    def options(i: int) -> dict:
        return {
            "latency_ms": (80, 320, 1120)[i % 3],
            "language": ("de-DE", "auto")[i % 2],
            "endpoint_ms": (0, 400)[i // 2 % 2],
            "sample_rate": (16_000, 8_000)[i // 4 % 2],
            "words": True,
        }

    def packets(i: int) -> list:
        rng, audio = random.Random(i), pcm(16_000 * 4 + 77 * i, seed=i)
        edges = np.cumsum([rng.choice([37, 320, 1600, 9000]) for _ in range(2000)])
        return np.split(audio, edges[edges < len(audio)])

    async def together() -> list:
        channel = open_channel(served.server.grpc_address)
        try:
            return await asyncio.gather(
                *(
                    spoken(
                        served.server.grpc_address, packets(i), 0.01 * (i % 2), channel=channel,
                        **options(i),
                    )
                    for i in range(12)
                )
            )  # fmt: skip
        finally:
            await channel.close()

    for i, (heard, transcript) in enumerate(asyncio.run(together())):
        with LiveStream(served.server.grpc_address, **options(i)) as stream:
            for packet in packets(i):
                stream.send(packet)
            alone = stream.finish()
        assert heard == transcript.text == alone.text, i
        assert [in_time(s) for s in transcript.segments] == [in_time(s) for s in alone.segments]


def test_audio_that_brings_no_text_yet_is_not_sent(url, served):
    """Six chunks in 20 ms packets: a request for each chunk, not for each packet."""

    async def talk() -> tuple[str, int]:
        stream = AsyncLiveStream(served.server.grpc_address, latency_ms=320)
        requests = []
        plain = stream._session.requests

        def counted():
            for request in plain():
                requests.append(request)
                yield request

        stream._session.requests = counted
        async with stream:
            for packet in cut(audio, 320):
                await stream.send(packet)
                await asyncio.sleep(0.02)
            transcript = await stream.finish()
        return transcript.text, len(requests)

    audio = pcm(6 * 5120, seed=5)
    text, num_requests = asyncio.run(talk())
    assert text == served.expected(audio).text
    assert num_requests <= 2 * 6 + 2  # of 98; a busy machine delays answers


def test_finalize_and_another_language(served):
    first, second = pcm(40_000, seed=1), pcm(30_000, seed=2)

    async def talk():
        async with AsyncLiveStream(served.server.grpc_address, language="en-US") as stream:
            await stream.send(first)
            await stream.finalize()
            async for result in stream.results():
                if result.finalized:
                    break
            with pytest.raises(InvalidArgument, match=r"xx-XX.*de-DE"):
                await stream.set_language("xx-XX")
            await stream.set_language("de-DE")
            await stream.send(second)
            return await stream.finish()

    segments = asyncio.run(talk()).segments
    assert [s.text for s in segments] == [
        served.expected(first, "en-US").text,
        served.expected(second, "de-DE").text,
    ]
    assert [s.reason for s in segments] == ["finalize", "end"]


def test_refusals_and_a_stream_that_is_closed(url):
    async def talk():
        with pytest.raises(InvalidArgument, match="latency_ms"):
            await AsyncLiveStream(url, latency_ms=333).open()
        streams = [await AsyncLiveStream(url).open() for _ in range(SLOTS)]
        with pytest.raises(AtCapacity) as full:
            await AsyncLiveStream(url).open()
        assert (full.value.running, full.value.slots) == (SLOTS, SLOTS)
        for stream in streams:
            with pytest.raises(InvalidArgument):
                await stream.send(np.zeros((2, 4), np.int16))
            await stream.send(PCM)
        began = time.monotonic()
        await asyncio.gather(*(stream.close() for stream in streams))
        assert time.monotonic() - began < LIMIT_S
        with pytest.raises(StreamClosed):
            await streams[0].send(PCM)
        with pytest.raises(StreamClosed):
            await streams[0].finish()
        async with AsyncLiveStream(url) as stream:  # their slots are free
            await stream.send(PCM)
        return stream

    asyncio.run(talk())


def test_nobody_is_there():
    async def talk():
        await AsyncLiveStream("127.0.0.1:1").open()

    with pytest.raises(ServerUnavailable, match="cannot connect"):
        asyncio.run(talk())


def test_no_answer_in_time_is_an_error(url):
    async def talk():
        async with AsyncLiveStream(url, language="slow", timeout_s=0.3, reconnect_s=0) as stream:
            await stream.send(PCM[:100])  # the stand-in keeps it for a second
            await stream.finish()

    with pytest.raises(ServerUnavailable, match=r"no answer .* 0\.3 s"):
        asyncio.run(talk())


def test_streams_go_on_when_the_server_dies(pausing_checkpoint, live_repository):
    settings = settings_for(pausing_checkpoint, model_repository=live_repository, slots=8)
    running = Supervised(settings)
    audio = pcm(16_000 * 10, seed=3)
    options = {"endpoint_ms": 400, "reconnect_s": LIMIT_S}

    async def talk(victim: str | None):
        async with AsyncLiveStream(running.url, **options) as stream:
            for at in range(0, len(audio), 1600):
                if victim and at == 16_000 * 6:
                    running.kill(victim)
                await stream.send(audio[at : at + 1600])
                await asyncio.sleep(0.005)
            return await stream.finish()

    try:
        whole = asyncio.run(talk(None))
        for times, victim in enumerate(("stub", "server"), start=2):
            got = asyncio.run(talk(victim))
            running.wait_until_ready(times)
            assert [s.text for s in got.segments] == [s.text for s in whole.segments]
            assert got.text == whole.text
    finally:
        running.stop()
