"""What the WebSocket doors share: messages in and out with their limits, errors told, tasks."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager, suppress

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from asr_client.errors import ClientError, StreamNotFound

from .errors import TooLarge, close_code, invalid
from .settings import GatewaySettings

SLOW_READER = 1013
LOOK_S = 1.0  # whether a client is still there
CANCEL_S = 0.1  # before a task that goes on is cancelled again
MAX_PARTS = 5000  # of a JSON message, counted by its commas and brackets: to read more takes long


class Inbox:
    """What a client sends, within the limits of a session.

    Whoever sends more than is taken is not idle, but may be gone behind all that: see `watch`.
    """

    def __init__(self, websocket: WebSocket, settings: GatewaySettings):
        self._websocket = websocket
        self._idle_timeout_s = settings.idle_timeout_s
        self._max_bytes = settings.max_message_bytes
        self._is_gone = websocket.state.connection.is_gone
        self._since_s: float | None = None  # the session waits for a message; None: it is busy

    async def next(self) -> str | bytes:
        """The next message.  Raises WebSocketDisconnect, TooLarge."""
        self._since_s = time.monotonic()
        message = await self._websocket.receive()
        self._since_s = None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        data = message.get("bytes")
        data = message["text"] if data is None else data
        if len(data) > self._max_bytes:
            raise TooLarge(
                f"INVALID_ARGUMENT: a message of {len(data)} bytes; valid: up to {self._max_bytes}"
            )
        return data

    async def first(self) -> str:
        """The first message, which must not be audio.  Raises StreamNotFound if none comes."""
        message = None

        async def receive() -> None:
            nonlocal message
            message = await self.next()

        await together(receive(), self.watch())
        if isinstance(message, bytes):
            raise invalid("audio before a JSON object of options")
        return message

    async def watch(self, is_behind: Callable[[], bool] = lambda: False) -> None:
        """Never returns.  is_behind: whether it is the client who waits.

        Raises StreamNotFound once nothing came for idle_timeout_s, WebSocketDisconnect.
        """
        while True:
            left_s = LOOK_S
            if self._since_s is not None:
                if is_behind():
                    self._since_s = time.monotonic()
                left_s = self._since_s + self._idle_timeout_s - time.monotonic()
            elif self._is_gone():
                raise WebSocketDisconnect(1006)
            if left_s <= 0:
                raise StreamNotFound(
                    f"NOT_FOUND: nothing was sent for longer than {self._idle_timeout_s:g} s"
                )
            await asyncio.sleep(min(left_s, LOOK_S))


class Outbox:
    """What goes to a client, who must read it in time."""

    def __init__(self, websocket: WebSocket, slow_reader_s: float):
        self._websocket = websocket
        self._slow_reader_s = slow_reader_s

    async def send(self, message: dict) -> None:
        """Raises asyncio.TimeoutError where the client does not read, WebSocketDisconnect."""
        text = json.dumps(message, ensure_ascii=False)
        text = text.encode(errors="replace").decode()  # half characters, which JSON can escape
        await asyncio.wait_for(self._websocket.send_text(text), self._slow_reader_s)

    async def close(self, code: int, reason: str = "") -> None:
        if self._websocket.application_state is WebSocketState.CONNECTED:
            await asyncio.wait_for(self._websocket.close(code, reason), self._slow_reader_s)


@asynccontextmanager
async def telling_errors(out: Outbox, as_message: Callable[[ClientError], dict]):
    """Tell the client of what goes wrong within, and close: as long as somebody listens."""
    try:
        yield
    except WebSocketDisconnect:
        pass
    except asyncio.TimeoutError:
        with suppress(Exception):
            await out.close(SLOW_READER, "messages were not read")
    except ClientError as error:
        with suppress(WebSocketDisconnect, asyncio.TimeoutError, RuntimeError):
            await out.send(as_message(error))
            await out.close(close_code(error), error.code)


async def together(needed: Coroutine, *others: Coroutine) -> None:
    """Run until `needed` is over or one fails, whose error it raises; the rest is cancelled."""
    first = asyncio.ensure_future(needed)
    tasks = {first, *(asyncio.ensure_future(other) for other in others)}
    running = set(tasks)
    try:
        while not first.done():
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        while left := {task for task in tasks if not task.done()}:
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=CANCEL_S)  # wait_for may swallow one cancellation
        for task in tasks:
            if not task.cancelled():
                task.exception()  # seen


def json_object(text: str | bytes) -> dict:
    """Raises InvalidArgument for anything but a JSON object of at most MAX_PARTS values or so."""
    marks = (",", "[", "{") if isinstance(text, str) else (b",", b"[", b"{")
    if sum(map(text.count, marks)) > MAX_PARTS:
        raise TooLarge(f"INVALID_ARGUMENT: a JSON message of more than {MAX_PARTS} parts")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        shown = text[:80] if isinstance(text, str) else f"{len(text)} bytes"
        raise invalid(f"{shown!r} is no JSON object")
    return found
