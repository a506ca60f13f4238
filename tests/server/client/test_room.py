"""What is said to a stream waits as audio does, while a server answers nothing."""

from __future__ import annotations

import asyncio
import threading

import pytest

from asr_client import LiveStream
from asr_client.aio import AsyncLiveStream
from server.gateway.slow_triton import SlowTriton

from .test_live_errors import wait_for

pytestmark = pytest.mark.server
MANY, MAX_IN_FLIGHT = 400, 16
LANGUAGES = ["de-DE", "fr-FR"]
OPTIONS = {"max_in_flight": MAX_IN_FLIGHT, "timeout_s": 60}
SAYS = {
    "finalize": lambda stream, _: stream.finalize(),
    "language": lambda stream, i: stream.set_language(LANGUAGES[i % 2]),
    "keep_alive": lambda stream, _: stream.keep_alive(),
}


@pytest.fixture
def triton():
    with SlowTriton() as triton:
        yield triton


@pytest.mark.parametrize("what", SAYS)
def test_a_stream_of_threads(triton, what):
    with LiveStream(triton.grpc_address, **OPTIONS) as stream:
        stream.server["languages"] = LANGUAGES
        told = []

        def tell() -> None:
            for i in range(MANY):
                SAYS[what](stream, i)
                told.append(i)

        telling = threading.Thread(target=tell)
        telling.start()
        wait_for(lambda: len(told) >= MAX_IN_FLIGHT)
        telling.join(0.5)
        assert len(told) == MAX_IN_FLIGHT
        triton.answer(1_000_000)
        telling.join()
        assert len(told) == MANY


@pytest.mark.parametrize("what", SAYS)
def test_a_stream_of_asyncio(triton, what):
    async def talk() -> None:
        async with AsyncLiveStream(triton.grpc_address, **OPTIONS) as stream:
            stream.server["languages"] = LANGUAGES
            told = []

            async def tell() -> None:
                for i in range(MANY):
                    await SAYS[what](stream, i)
                    told.append(i)

            telling = asyncio.create_task(tell())
            await asyncio.sleep(0.5)
            assert len(told) == MAX_IN_FLIGHT
            triton.answer(1_000_000)
            await telling

    asyncio.run(talk())
