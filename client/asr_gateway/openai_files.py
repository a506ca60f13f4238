"""OpenAI's `POST /v1/audio/transcriptions`: a file in a form; text, JSON, subtitles or events out.

Our own options are further fields of the form. `prompt`, `temperature` and `chunking_strategy` are
taken and have no effect: there is no such context, no sampling, and nothing is cut.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from asr_client.errors import ClientError, InvalidArgument
from asr_client.results import Transcript
from nemotron_asr.audio import file_blocks
from nemotron_asr.config import LOOKAHEAD_BY_LATENCY_MS, SAMPLE_RATE
from nemotron_asr.errors import AsrError
from nemotron_asr.pcm import MIX

from .access import Caller
from .errors import error_response, invalid
from .gateway import Gateway, LiveSession, render
from .openai_answers import RESPONSE_FORMATS, VERBOSE, answer, languages_of
from .openai_form import read_form
from .openai_models import all_like, check_model, language_like
from .options import FILE, one_of, read_options, take_list
from .sockets import together

DOOR = "openai"
STREAMED_FORMATS = ("json", "text")
GRANULARITIES = ("segment", "word")
SEGMENT_PAUSE_MS = 700  # where segments are asked for without `endpoint_ms`
MAX_STREAMED_S = 7200.0  # what the server takes of a file by default
_LATENCY_MS = max(LOOKAHEAD_BY_LATENCY_MS)  # of files: the same text, streamed or not
_WITHOUT_EFFECT = ("prompt", "chunking_strategy")
_CLIENT_IS_GONE = 499  # nobody reads it


async def transcriptions(request: Request) -> Response:
    """One file.  Raises ClientError."""
    gateway: Gateway = request.app.state.gateway
    caller = gateway.let_in(request.headers)
    try:
        with ExitStack() as held:
            held.enter_context(gateway.places.file(DOOR, caller))
            form = await read_form(request, gateway.settings)
            wanted = await _wanted(gateway, form.fields)
            if wanted.stream:
                return FileEvents(gateway, caller, form.file, wanted.options, held.pop_all())
            work = gateway.transcribe(DOOR, caller, form.file, **wanted.options)
            transcript = await _while_listening(request, work)
    except ClientDisconnect:
        return Response(status_code=_CLIENT_IS_GONE)
    language = wanted.options.get("language")
    asked = (transcript, wanted.response_format, wanted.granularities, language)
    return await render(transcript, answer, *asked)


@dataclass(frozen=True)
class Wanted:
    """What a form asks for.  options: of a file, as `Gateway.transcribe` takes them."""

    response_format: str
    granularities: tuple[str, ...]
    stream: bool
    options: dict[str, object]


async def _wanted(gateway: Gateway, fields: dict[str, str | list[str]]) -> Wanted:
    """Raises InvalidArgument naming the field and what is valid, ModelNotFound."""
    fields = dict(fields)
    model = _one(fields, "model")
    stream = one_of(_one(fields, "stream", "false").lower(), "stream", ("true", "false"))
    formats = STREAMED_FORMATS if stream == "true" else RESPONSE_FORMATS
    response_format = one_of(_one(fields, "response_format", "json"), "response_format", formats)
    granularities = take_list(fields, "timestamp_granularities", ",")
    for item in granularities:
        one_of(item, "timestamp_granularities", GRANULARITIES)
    if granularities and response_format != VERBOSE:
        raise invalid(f"timestamp_granularities need response_format {VERBOSE}")
    if include := take_list(fields, "include", ","):
        raise invalid(
            f"include {include[0]!r} is not supported: there are no logprobs of tokens; "
            f"confidences of words are in {VERBOSE}"
        )
    _check_temperature(_one(fields, "temperature", "0"))
    for name in _WITHOUT_EFFECT:
        fields.pop(name, None)
    options = await _options(gateway, fields)
    if response_format == VERBOSE:
        granularities = granularities or ["segment"]
        if "segment" in granularities:
            options.setdefault("endpoint_ms", SEGMENT_PAUSE_MS)
    if model:
        await check_model(gateway, model)
    return Wanted(response_format, tuple(granularities), stream == "true", options)


async def _options(gateway: Gateway, fields: dict[str, str | list[str]]) -> dict[str, object]:
    """The options of a file, OpenAI's names among them.  Raises InvalidArgument."""
    language, languages = _one(fields, "language"), take_list(fields, "languages", ",")
    keywords = take_list(fields, "keywords", ";")
    phrases = take_list(fields, "phrases", ";")
    options = read_options({name: _one(fields, name) for name in list(fields)}, FILE)
    offered = (await gateway.offered())["languages"] if language or languages else ()
    if language:
        options["language"] = language_like(language, offered)
    if languages:
        options["languages"] = all_like(languages, offered)
    if keywords or phrases:
        options |= read_options({"phrases": [*keywords, *phrases]}, FILE)
    return options


def _one(fields: dict[str, str | list[str]], name: str, default: str = "") -> str:
    """Take a field out that may be there once.  Raises InvalidArgument."""
    value = fields.pop(name, default)
    if not isinstance(value, str):
        raise invalid(f"{name} has {len(value)} values; valid: one")
    return value or default


def _check_temperature(text: str) -> None:
    try:
        is_valid = 0 <= float(text) <= 1
    except ValueError:
        is_valid = False
    if not is_valid:
        raise invalid(f"temperature {text!r} is not supported; valid: 0 to 1")


async def _while_listening(request: Request, work: Coroutine) -> Transcript:
    """The result of work, which is given up when the client is.  Raises ClientDisconnect."""
    result = None

    async def run() -> None:
        nonlocal result
        result = await work

    await together(run(), _gone(request.receive))
    return result


async def _gone(receive) -> None:
    """Raises ClientDisconnect once the client is."""
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientDisconnect


class FileEvents(Response):
    """A file through a live stream, faster than it plays: its text as server-sent events.

    What is wrong before the first sample is heard is an answer of its own; later it is an event.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        gateway: Gateway,
        caller: Caller,
        data: bytes,
        options: dict[str, object],
        held: ExitStack,
    ):
        """held: what is let go of at the end."""
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._gateway, self._caller, self._data = gateway, caller, data
        self._options = {"latency_ms": _LATENCY_MS, **options}
        self._channel = self._options.pop("channel", MIX)
        self._held, self._started = held, False

    async def __call__(self, scope, receive, send) -> None:
        self._send = send
        with suppress(ClientDisconnect, asyncio.TimeoutError), self._held:
            try:
                await together(self._answer(), _gone(receive))
            except ClientError as error:
                if not self._started:
                    raise
                await self._say(error_response(error).body.decode())
                await self._write(b"", more_body=False)

    async def _answer(self) -> None:
        blocks = file_blocks(self._data, MAX_STREAMED_S, self._channel)
        first = await _next(blocks)
        with self._gateway.places.session(DOOR, self._caller, of_file=True):
            async with self._gateway.live(DOOR, self._caller, True, **self._options) as session:
                await self._start()
                await together(self._tell(session), _feed(session, first, blocks))
        transcript = session.stream.transcript()  # the session is over: who has this may leave
        done = {"type": "transcript.text.done", "text": transcript.text}
        await self._say_json(done | languages_of(transcript))
        await self._say("[DONE]")
        await self._write(b"", more_body=False)

    async def _tell(self, session: LiveSession) -> None:
        async for result in session.results():
            if result.text:
                await self._say_json({"type": "transcript.text.delta", "delta": result.text})

    async def _start(self) -> None:
        self._started = True
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await self._send(start)

    async def _say_json(self, event: dict) -> None:
        await self._say(json.dumps(event, ensure_ascii=False))

    async def _say(self, data: str) -> None:
        await self._write(f"data: {data}\n\n".encode())

    async def _write(self, body: bytes, more_body: bool = True) -> None:
        message = {"type": "http.response.body", "body": body, "more_body": more_body}
        await asyncio.wait_for(self._send(message), self._gateway.settings.slow_reader_s)


async def _feed(session: LiveSession, block: np.ndarray | None, blocks: Iterator) -> None:
    while block is not None:
        for at in range(0, len(block), SAMPLE_RATE):  # text comes with each packet
            await session.stream.send(block[at : at + SAMPLE_RATE])
        block = await _next(blocks)
    session.stream.end()


async def _next(blocks: Iterator[np.ndarray]) -> np.ndarray | None:
    """The next block, decoded in a thread; None at the end.  Raises InvalidArgument."""
    try:
        return await run_in_threadpool(next, blocks, None)
    except AsrError as error:
        raise InvalidArgument(str(error)) from None
