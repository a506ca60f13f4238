"""The plain WebSocket, `/v1/stream`: options, then packets of audio in; results as JSON out."""

from __future__ import annotations

from dataclasses import asdict

from starlette.websockets import WebSocket

from asr_client.audio import FILE_KINDS
from asr_client.errors import ClientError
from asr_client.results import Result

from .access import Caller
from .errors import error_response, invalid, message_of
from .gateway import Gateway, LiveSession
from .options import LIVE, read_options
from .opus import OPUS, OpusPackets
from .sockets import Inbox, Outbox, json_object, telling_errors, together

DOOR = "websocket"
SUBPROTOCOL = "asr"  # for browsers, which send a key as another subprotocol beside it
MESSAGES = {  # what a client may say, and the fields of it
    "finalize": (),
    "language": ("language",),
    "keep_alive": (),
    "end": (),
}


async def stream(websocket: WebSocket) -> None:
    """One session.

    Options are query parameters, or the first message, a JSON object. Then binary messages are
    audio, and JSON objects with a `type` are what there is to say. The last answer is of type
    "end", or "error" where the session ends of one.
    """
    gateway: Gateway = websocket.app.state.gateway
    try:
        caller = gateway.let_in(websocket.headers)
    except ClientError as error:
        await websocket.send_denial_response(error_response(error))
        return
    offered = websocket.scope.get("subprotocols", ())
    await websocket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
    inbox = Inbox(websocket, gateway.settings)
    out = Outbox(websocket, gateway.settings.slow_reader_s)
    async with telling_errors(out, _as_message):
        with gateway.places.session(DOOR, caller):
            await _converse(gateway, caller, inbox, out, dict(websocket.query_params))
        await out.close(1000)


async def _converse(
    gateway: Gateway, caller: Caller, inbox: Inbox, out: Outbox, query: dict[str, str]
) -> None:
    options = query or json_object(await inbox.first())
    decoder = None
    if options.get("encoding") == OPUS:
        wanted = read_options({"channels": options.get("channels", 1)}, LIVE)
        decoder = OpusPackets(wanted["channels"])
        options |= {"encoding": "pcm16", "sample_rate": decoder.sample_rate}
    async with gateway.live(DOOR, caller, **options) as session:
        await out.send({"type": "ready", "session": session.id, "server": gateway.offer})
        watch = inbox.watch(lambda: session.stream.is_behind)
        await together(_tell(out, session), _hear(inbox, session, decoder), watch)


async def _hear(inbox: Inbox, session: LiveSession, decoder: OpusPackets | None) -> None:
    """What comes after the end is passed over: a timer's keep_alive, a microphone's last packet."""
    stream, heard = session.stream, False
    while True:
        message = await inbox.next()
        if stream.is_ending:
            continue
        if isinstance(message, bytes):
            if not heard and decoder is None:
                _check_no_file(message)
            heard = True
            await stream.send(decoder.decode(message) if decoder else message)
            continue
        said = _said(message)
        if said["type"] == "finalize":
            await stream.finalize()
        elif said["type"] == "language":
            await stream.set_language(said["language"])
        elif said["type"] == "keep_alive":
            await stream.keep_alive()
        else:
            stream.end()


async def _tell(out: Outbox, session: LiveSession) -> None:
    async for result in session.results():
        await out.send({"type": "result", **_as_json(result)})
    await out.send({"type": "end", "audio_processed_ms": round(session.audio_s * 1000)})


def _check_no_file(message: bytes) -> None:
    """Samples hardly begin so; a file's do not make sense.  Raises InvalidArgument."""
    for magic, kind in FILE_KINDS.items():
        if message.startswith(magic):
            raise invalid(
                f"this is a {kind} file; valid: samples, or the file to /v1/audio/transcriptions"
            )


def _as_json(result: Result) -> dict:
    """A result without what it has not; 0 is something."""
    return {
        name: value
        for name, value in asdict(result).items()
        if not (value is None or value is False or value == ())
    }


def _as_message(error: ClientError) -> dict:
    return {"type": "error", "code": error.code, "message": message_of(error)}


def _said(text: str) -> dict:
    """A message of a client.  Raises InvalidArgument naming what may be said."""
    said = json_object(text)
    kind = said.pop("type", None)
    if kind not in MESSAGES:
        valid = ", ".join(MESSAGES)
        raise invalid(f"type {str(kind)[:80]!r} is unknown; valid: {valid}")
    if set(said) != set(MESSAGES[kind]):
        fields = ", ".join(MESSAGES[kind]) or "none"
        raise invalid(f"fields {sorted(said)[:9]} of {kind!r}; it has: {fields}")
    return {"type": kind, **said}
