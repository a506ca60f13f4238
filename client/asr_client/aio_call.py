"""One gRPC call of a live stream for asyncio: requests out, answers in, an end however it comes."""

from __future__ import annotations

import asyncio

import grpc
from tritonclient.grpc import service_pb2

from .connection import error_of_call
from .errors import ClientError, ServerUnavailable
from .patience import RELEASE_S


class AsyncCall:
    """One gRPC call: requests go out in a task of its own, answers are read."""

    def __init__(self, call: grpc.aio.StreamStreamCall, url: str):
        self.given_up: ClientError | None = None  # what it was ended of, here
        self._call = call
        self._url = url
        self._answers = 0
        self._left = False
        self._outbox: asyncio.Queue = asyncio.Queue()  # requests, then None
        self._writer = asyncio.create_task(self._write())

    def send(self, request: service_pb2.ModelInferRequest) -> None:
        """Send a request; returns at once."""
        self._outbox.put_nowait(request)

    def leave(self, end_request: service_pb2.ModelInferRequest | None) -> None:
        """Send this last, to free the slot; then the server may end the call, within RELEASE_S."""
        if not self._left:
            self._left = True
            if end_request is not None:
                self.send(end_request)
            self._outbox.put_nowait(None)
            asyncio.get_running_loop().call_later(RELEASE_S, self._call.cancel)

    async def read(self) -> service_pb2.ModelStreamInferResponse:
        """The next answer.  Raises the ClientError of a call that is over."""
        try:
            response = await self._call.read()
        except grpc.RpcError as broken:
            raise error_of_call(broken, self._url, self._answers) from None
        except asyncio.CancelledError:  # the call, or whoever waits here
            if not (self._left or self.given_up):
                raise
            response = grpc.aio.EOF
        if response is grpc.aio.EOF:
            raise self.given_up or ServerUnavailable(f"{self._url} closed the stream")
        self._answers += 1
        return response

    def give_up(self, error: ClientError) -> None:
        """End it now: `read` raises this."""
        self.given_up = error
        self._call.cancel()

    async def gone(self) -> None:
        """Wait until a call that was left is over."""
        try:
            while True:
                await self.read()
        except ClientError:
            pass
        finally:
            self._writer.cancel()
            self._call.cancel()

    async def _write(self) -> None:
        try:
            while (request := await self._outbox.get()) is not None:
                await self._call.write(request)
            await self._call.done_writing()
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass  # reading tells what the call broke of
