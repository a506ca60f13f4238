"""A multipart form with a file in it, held to its limits while it is received."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from asr_client.errors import ServerUnavailable

from .errors import TooLarge, invalid
from .settings import MIB, GatewaySettings

FILE_FIELD = "file"
MAX_FIELDS = 64
MAX_FIELD_BYTES = MIB // 4  # a thousand phrases of 80 characters, and what is written around them
_BESIDE_BYTES = MIB  # of a form beside its file
_REQUEST_TIMEOUT = 408
MIN_BYTES_PER_S = 64 * 1024  # of an upload, all in all: it holds a place


@dataclass(frozen=True)
class Form:
    """file: its bytes.  fields: by name; a list where the name had brackets or came again."""

    file: bytes
    fields: dict[str, str | list[str]]


async def read_form(request: Request, settings: GatewaySettings) -> Form:
    """The form of a request, of which no more reaches the disk than may be sent.

    Raises InvalidArgument (what is wrong with it), TooLarge, HTTPException 408 where the client
    stops sending, ClientDisconnect, ServerUnavailable where the disk is full.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise invalid("the body is no multipart/form-data with a file in it")
    limit = settings.max_file_bytes + _BESIDE_BYTES
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > limit:
        raise _too_large(settings)
    parser = _Parser(
        request.headers, _received(request, settings, limit),
        max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES,
    )  # fmt: skip
    try:
        form = await parser.parse()
    except (MultiPartException, UnicodeError) as error:  # of an odd charset
        reason = getattr(error, "message", None) or str(error)
        raise invalid(f"the form cannot be read: {reason}") from None
    except OSError as error:
        reason = f"the upload cannot be stored: {error.strerror}"
        raise ServerUnavailable(f"UNAVAILABLE: {reason}") from None
    try:
        if not parser.is_whole:
            raise invalid("the form ends early: its last boundary is missing")
        return await _checked(form, settings)
    finally:
        await form.close()


class _Parser(MultiPartParser):
    """Tells whether the form was whole."""

    is_whole = False

    def on_end(self) -> None:
        self.is_whole = True


async def _received(
    request: Request, settings: GatewaySettings, limit: int
) -> AsyncIterator[bytes]:
    num_bytes, more = 0, True
    until_s = time.monotonic() + settings.idle_timeout_s
    while more:
        left_s = until_s + num_bytes / MIN_BYTES_PER_S - time.monotonic()
        try:
            message = await asyncio.wait_for(
                request.receive(), max(0, min(left_s, settings.idle_timeout_s))
            )
        except asyncio.TimeoutError:
            raise HTTPException(
                _REQUEST_TIMEOUT,
                f"nothing of the body came for {settings.idle_timeout_s:g} s, "
                f"or less than {MIN_BYTES_PER_S >> 10} KiB/s in all",
            ) from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body, more = message.get("body", b""), message.get("more_body", False)
        num_bytes += len(body)
        if num_bytes > limit:
            raise _too_large(settings)
        yield body


async def _checked(form: FormData, settings: GatewaySettings) -> Form:
    fields: dict[str, str | list[str]] = {}
    file = None
    for key, value in form.multi_items():
        name, bracket, _ = key.partition(
            "["
        )  # include[]=a, include[0]=a, chunking_strategy[type]=a
        if isinstance(value, UploadFile):
            if key != FILE_FIELD:
                raise invalid(f"the field {key!r} is a file; valid: {FILE_FIELD}")
            file = value
        elif key == FILE_FIELD:
            raise invalid("the field 'file' is no file: it has no filename")
        elif bracket or name in fields:
            before = fields.get(name, [])
            fields[name] = [*([before] if isinstance(before, str) else before), value]
        else:
            fields[name] = value
    if file is None:
        raise invalid("the form has no file; it belongs into the field 'file'")
    if (file.size or 0) > settings.max_file_bytes:
        raise _too_large(settings)
    return Form(await file.read(), fields)


def _too_large(settings: GatewaySettings) -> TooLarge:
    return TooLarge(
        f"INVALID_ARGUMENT: the file is over {settings.max_file_bytes} bytes, the limit"
    )
