"""OpenAI's Realtime API, `/v1/realtime?intent=transcription`: audio in base64 in, text out.

A session has a live stream from its first audio on, another one where its settings change what a
stream is told at its start. Errors of a client's events are events; the session goes on.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import secrets
from contextlib import suppress

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from asr_client.aio import AsyncLiveStream
from asr_client.audio import AudioFormat, to_pcm16
from asr_client.errors import ClientError, InvalidArgument, StreamClosed
from asr_client.results import Result
from nemotron_asr.pcm import PCM16

from .access import Caller
from .errors import ModelNotFound, error_response, invalid
from .gateway import Gateway
from .openai_items import CLEAR, COMMIT, Items, as_error
from .openai_models import check_model
from .openai_session import DEFAULTS, as_session, live_options, read_update, updated
from .options import ENCODING
from .sockets import Inbox, Outbox, json_object, telling_errors, together

DOOR = "realtime"
INTENT = "transcription"
SUBPROTOCOL = "realtime"  # for browsers, which send a key as another subprotocol beside it
_BETA_SUBPROTOCOL = "openai-beta.realtime-v1"
_BETA_HEADER = "realtime=v1"
_DEFAULT_LATENCY_MS = 320
_ENDED = (1000, 1001, 1005)  # how a client closes that has no more to say


async def realtime(websocket: WebSocket) -> None:
    """One session."""
    gateway: Gateway = websocket.app.state.gateway
    try:
        caller = gateway.let_in(websocket.headers)
        gateway.places.check_draining()
        await _check_query(gateway, websocket)
    except ClientError as error:
        await websocket.send_denial_response(error_response(error))
        return
    offered = websocket.scope.get("subprotocols", ())
    is_beta = _BETA_SUBPROTOCOL in offered or _BETA_HEADER in websocket.headers.get(
        "openai-beta", ""
    )
    await websocket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
    out = Outbox(websocket, gateway.settings.slow_reader_s)
    session = Session(gateway, caller, Inbox(websocket, gateway.settings), out, is_beta)
    async with telling_errors(out, session.error_event):
        with gateway.places.session(DOOR, caller):
            await session.run()


async def _check_query(gateway: Gateway, websocket: WebSocket) -> None:
    """Raises InvalidArgument, ModelNotFound."""
    intent = websocket.query_params.get("intent", INTENT)
    if intent != INTENT:
        raise invalid(f"intent {intent!r}; valid: {INTENT}")
    if model := websocket.query_params.get("model"):
        await check_model(gateway, model)


class Session:
    """One connection: its settings, its items, and a live stream while there is one."""

    def __init__(self, gateway: Gateway, caller: Caller, inbox: Inbox, out: Outbox, is_beta: bool):
        self._gateway, self._caller, self._inbox, self._out = gateway, caller, inbox, out
        self._is_beta = is_beta
        self._id, self._event_numbers = f"sess_{secrets.token_hex(8)}", itertools.count(1)
        self._settings, self._options = DEFAULTS, live_options(DEFAULTS, ())
        self._items = Items(is_beta)
        self._stream: AsyncLiveStream | None = None
        self._opened: dict = {}  # options of the stream, as they hold now
        self._openings: asyncio.Queue = asyncio.Queue()  # (options, settings, future) of a stream
        self._over = asyncio.Event()  # the stream is
        self._uncommitted = 0  # samples
        self._stream_samples = 0
        self._begin_ms = 0  # of the stream in the session
        self._does = {
            "session.update": self._update,
            "transcription_session.update": self._update,
            "input_audio_buffer.append": self._append,
            "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": self._clear,
        }

    async def run(self) -> None:
        """Until the client leaves.  Raises WebSocketDisconnect, ClientError."""
        await self._tell_session("created", self._is_beta)
        await together(self._hear(), self._tell(), self._inbox.watch(self._is_behind))

    def _is_behind(self) -> bool:
        return self._stream is not None and self._stream.is_behind

    def error_event(self, error: ClientError, event_id: object = None) -> dict:
        """event_id: the client's, of what was wrong."""
        told = {**as_error(error), "event_id": event_id if isinstance(event_id, str) else None}
        return self._numbered({"type": "error", "error": told})

    def _numbered(self, event: dict) -> dict:
        return {"event_id": f"event_{self._id}_{next(self._event_numbers)}", **event}

    async def _say(self, event: dict) -> None:
        await self._out.send(self._numbered(event))

    async def _tell_session(self, what: str, is_beta: bool) -> None:
        kind = f"{'transcription_' if is_beta else ''}session.{what}"
        session = as_session(self._settings, self._id, is_beta)
        await self._say({"type": kind, "session": session})

    # What the client says

    async def _hear(self) -> None:
        while True:
            try:
                message = await self._inbox.next()
            except WebSocketDisconnect as gone:
                if gone.code not in _ENDED:
                    raise
                await self._leave()
                return
            event: dict = {}
            try:
                event = json_object(message)
                kind = event.get("type")
                if not isinstance(kind, str) or kind not in self._does:
                    valid = ", ".join(self._does)
                    raise invalid(f"type {kind!r}; valid: {valid}")
                await self._does[kind](event)
            except (InvalidArgument, ModelNotFound, RecursionError) as error:
                if isinstance(error, RecursionError):
                    error = invalid("the event is nested too deeply")
                await self._out.send(self.error_event(error, event.get("event_id")))

    async def _update(self, event: dict) -> None:
        is_beta = event["type"].startswith("transcription_")
        settings = updated(self._settings, read_update(event.get("session"), is_beta))
        offered = (await self._gateway.offered())["languages"]
        options = live_options(settings, offered)
        if model := settings["transcription"].get("model"):
            await check_model(self._gateway, model)
        self._settings, self._options = settings, options
        if self._stream is not None and self._opened | {"language": options["language"]} == options:
            with suppress(ClientError):  # `_tell` says what a stream ended of
                await self._stream.set_language(options["language"])
                self._opened = options
        await self._tell_session("updated", is_beta)

    async def _append(self, event: dict) -> None:
        pcm = _samples(event.get("audio"), self._options)
        if not len(pcm):
            return
        await self._open_stream()
        if self._stream is not None:  # else it failed at once, which was told
            self._uncommitted += len(pcm)
            self._stream_samples += len(pcm)
            with suppress(ClientError):  # as above
                await self._stream.send(pcm)

    async def _commit(self, _event: dict) -> None:
        if self._stream is None or not self._uncommitted:
            raise invalid("there is no audio that is not committed")
        await self._finalize(COMMIT)

    async def _clear(self, _event: dict) -> None:
        if self._stream is None or not self._uncommitted:
            await self._say({"type": "input_audio_buffer.cleared"})
        else:
            await self._finalize(CLEAR)

    async def _finalize(self, why: str) -> None:
        """The stream begins afresh; the result that says so tells the client."""
        self._uncommitted = 0
        self._items.finalizing(why)
        with suppress(ClientError):
            await self._stream.finalize()

    async def _open_stream(self) -> None:
        """See that there is one with the options that hold now.  Raises ClientError."""
        if self._stream is not None and self._opened != self._options:
            self._stream.end()
            await self._over.wait()
        if self._stream is None:
            opening = asyncio.get_running_loop().create_future()
            self._openings.put_nowait((self._options, self._settings, opening))
            await opening

    async def _leave(self) -> None:
        if self._stream is not None:
            await self._stream.close()
            await self._over.wait()

    # What it is told

    async def _tell(self) -> None:
        """Streams, one after the other, to their ends."""
        while True:
            options, settings, opening = await self._openings.get()
            heard = options | {ENCODING: PCM16}  # of samples as they are sent on
            try:
                async with self._gateway.live(DOOR, self._caller, **heard) as session:
                    self._over.clear()
                    self._stream, self._opened = session.stream, options
                    opening.set_result(None)
                    with suppress(StreamClosed):  # by _leave
                        async for result in session.results():
                            await self._tell_result(result, settings, options)
            except ClientError as error:
                if not opening.done():
                    opening.set_exception(error)
                    continue
                self._end_stream()
                self._uncommitted = 0
                for event in list(self._items.failed(error, self._begin_ms)):
                    await self._say(event)
            else:
                self._end_stream()

    async def _tell_result(self, result: Result, settings: dict, options: dict) -> None:
        latency_ms = options.get("latency_ms", _DEFAULT_LATENCY_MS)
        vad = settings["turn_detection"]
        for event in self._items.of_result(result, self._begin_ms, latency_ms, vad):
            await self._say(event)

    def _end_stream(self) -> None:
        self._begin_ms += self._stream_samples * 1000 // self._opened["sample_rate"]
        self._stream, self._stream_samples = None, 0
        self._items.next_stream()
        self._over.set()


def _samples(audio: object, options: dict) -> np.ndarray:
    """Base64 to (n,) int16.  Raises InvalidArgument."""
    try:
        data = base64.b64decode(audio, validate=True)
    except (TypeError, ValueError) as error:
        raise invalid(f"audio is no base64: {error}") from None
    return to_pcm16(data, AudioFormat(options["sample_rate"], encoding=options[ENCODING]))
