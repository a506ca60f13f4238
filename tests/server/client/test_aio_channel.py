"""Connections that streams of asyncio share: servers that are away."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from asr_client import ServerUnavailable
from asr_client.aio import AsyncLiveStream, open_channel

from .conftest import PCM

pytestmark = pytest.mark.server
AWAY_S = 5.0


class Proxy:
    """A way to a server that can be cut."""

    def __init__(self, address: str):
        self.accepted = 0
        self.hangs_up = False  # on everybody who connects
        self._host, _, self._port = address.rpartition(":")

    @asynccontextmanager
    async def open(self):
        """Yields its address."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader, writer) -> None:
        self.accepted += 1
        if not self.hangs_up:
            there, back = await asyncio.open_connection(self._host, int(self._port))
            answers = asyncio.create_task(self._pass_on(there, writer))
            await self._pass_on(reader, back)
            answers.cancel()
            back.close()
        writer.close()

    async def _pass_on(self, reader, writer) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)


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
