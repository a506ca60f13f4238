"""Connections that streams of asyncio share: servers that are away, connections that are dead."""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import asynccontextmanager

import pytest

from asr_client import ServerUnavailable
from asr_client.aio import AsyncLiveStream, open_channel

from .conftest import PCM, expected

pytestmark = pytest.mark.server
AWAY_S = 5.0
TIMEOUT_S = 2.0


class Proxy:
    """A way to a server that can be cut."""

    def __init__(self, address: str):
        self.accepted = 0
        self.hangs_up = False  # on everybody who connects
        self.dead: set[int] = set()  # connections whose bytes go nowhere; nobody is told
        self.left: list[int] = []  # connections that the client closed
        self._host, _, self._port = address.rpartition(":")

    @asynccontextmanager
    async def open(self):
        """Yields its address."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader, writer) -> None:
        number, self.accepted = self.accepted, self.accepted + 1
        if not self.hangs_up:
            there, back = await asyncio.open_connection(self._host, int(self._port))
            answers = asyncio.create_task(self._pass_on(number, there, writer))
            await self._pass_on(number, reader, back)
            self.left.append(number)
            answers.cancel()
            back.close()
        writer.close()

    async def _pass_on(self, number: int, reader, writer) -> None:
        while data := await reader.read(1 << 16):
            if number not in self.dead:
                writer.write(data)


async def until(condition, limit_s: float = 10.0) -> None:
    give_up_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < give_up_s
        await asyncio.sleep(0.02)


def test_a_server_that_was_away_is_looked_for_every_second(url):
    async def talk():
        proxy = Proxy(url)
        async with proxy.open() as way:
            channel = open_channel(way)
            proxy.hangs_up, back_s = True, time.monotonic() + AWAY_S
            while time.monotonic() < back_s:
                with pytest.raises(ServerUnavailable):
                    await AsyncLiveStream(way, channel=channel).open()
                await asyncio.sleep(0.1)
            assert proxy.accepted >= 6
            proxy.hangs_up = False
            await asyncio.sleep(2)
            async with AsyncLiveStream(way, channel=channel) as stream:
                await stream.send(PCM)
            await channel.close()

    asyncio.run(talk())


def test_a_connection_that_is_dead_without_a_word_is_not_used_again(url):
    """Its streams move as they notice; new ones do not meet it; the last one closes it."""

    async def talk():
        proxy = Proxy(url)
        async with proxy.open() as way:
            channel = open_channel(way)
            options = {"channel": channel, "timeout_s": TIMEOUT_S, "reconnect_s": 10}
            streams = [await AsyncLiveStream(way, **options).open() for _ in range(2)]
            for stream in streams:
                await stream.send(PCM[:12_000])
            await until(lambda: not any(s._session.unanswered for s in streams))
            proxy.dead.add(0)
            first, second = streams
            await first.send(PCM[12_000:])
            assert (await first.finish()).text == expected(PCM)
            async with AsyncLiveStream(way, **options | {"reconnect_s": 0}) as new:
                await new.send(PCM)
                assert (await new.finish()).text == expected(PCM)
            gc.collect()  # gRPC's calls are cycles, and a connection is open until its last is gone
            assert (proxy.accepted, proxy.left) == (2, [])
            await second.send(PCM[12_000:])
            assert (await second.finish()).text == expected(PCM)
            gc.collect()
            await until(lambda: proxy.left == [0])
            assert proxy.accepted == 2
            await channel.close()

    asyncio.run(talk())
