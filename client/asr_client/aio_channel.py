"""Connections that live streams of asyncio share, each until it is found dead."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from tritonclient.grpc import service_pb2_grpc

from .connection import channel_options


class SharedChannel:
    """A connection for calls to share; another one once it was given up, for calls that follow.

    To be used in one event loop.
    """

    def __init__(self, target: str):
        """target: as gRPC takes it."""
        self._target = target
        self._now: _Connection | None = None  # for the next call; None: made then
        self._all: set[_Connection] = set()

    @asynccontextmanager
    async def used(self) -> AsyncIterator[_Connection]:
        """A connection for one call.  One that was given up is closed behind its last call."""
        if self._now is None:
            self._now = _Connection(self._target)
            self._all.add(self._now)
        connection = self._now
        connection.calls += 1
        try:
            yield connection
        finally:
            connection.calls -= 1
            if not connection.calls and connection is not self._now:
                await self._close(connection)

    def give_up(self, connection: _Connection) -> None:
        """It may be dead without a word: calls that follow get another one."""
        if connection is self._now:
            self._now = None

    async def close(self) -> None:
        """Close every connection, whoever uses it."""
        self._now = None
        for connection in list(self._all):
            await self._close(connection)

    async def _close(self, connection: _Connection) -> None:
        self._all.discard(connection)
        await connection.channel.close()


class _Connection:
    def __init__(self, target: str):
        self.channel = grpc.aio.insecure_channel(target, channel_options(target))
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        self.calls = 0  # that use it
