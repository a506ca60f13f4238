"""The messages of Riva's clients: read within the limits of a session."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from riva.client.proto.riva_asr_pb2 import RecognizeRequest, StreamingRecognizeRequest

from asr_client.errors import StreamNotFound

from .access import Caller
from .errors import TooLarge, TooMuch, invalid
from .places import PATIENCE_S, Places
from .riva_audio import LiveBytes
from .settings import GatewaySettings

FORCE_EOU = "force_eou"  # the one key of runtime_config: the utterance ends with this message
UPLOAD_S = 300.0  # a recording that takes longer is given up
AnyMessage = TypeVar("AnyMessage", bound=Message)


class Packet(NamedTuple):
    """What a message of a stream says."""

    samples: bytes
    ends_utterance: bool = False


class LiveRequests:
    """The messages of one stream, within the limits of a session."""

    def __init__(self, context: grpc.aio.ServicerContext, settings: GatewaySettings):
        self.audio: LiveBytes | None = None  # set as soon as the configuration was read
        self._context = context
        self._settings = settings
        self._ended = False

    async def first(self) -> StreamingRecognizeRequest:
        """The configuration.  Raises InvalidArgument for anything else."""
        request = await self._read()
        if request is None or not request.HasField("streaming_config"):
            raise invalid("the first message must be a streaming_config")
        return request

    async def next(self) -> Packet | None:
        """The next message, None once the client has half-closed.

        Raises InvalidArgument for one that cannot be read, StreamNotFound where none comes.
        """
        request = await self._read()
        if request is None:
            return None
        if request.HasField("streaming_config"):
            raise invalid("a second streaming_config; valid: audio_content")
        if unknown := set(request.runtime_config) - {FORCE_EOU}:
            raise invalid(f"runtime_config {unknown.pop()!r} is unknown; valid: {FORCE_EOU}")
        forced = request.runtime_config.get(FORCE_EOU, "").strip().lower() == "true"
        return Packet(self.audio.push(request.audio_content), forced)

    async def _read(self) -> StreamingRecognizeRequest | None:
        data = None if self._ended else await _next(self._context, self._settings.idle_timeout_s)
        if data is None:
            self._ended = True
            return None
        max_bytes = self._settings.max_message_bytes
        if len(data) > max_bytes:
            raise TooLarge(
                f"INVALID_ARGUMENT: a message of {len(data)} bytes; valid: up to {max_bytes}"
            )
        return _parse(StreamingRecognizeRequest, data)


async def receive(
    kind: type[AnyMessage], context: grpc.aio.ServicerContext, timeout_s: float
) -> AnyMessage:
    """The one message of a call.  Raises InvalidArgument, StreamNotFound where none comes."""
    return _parse(kind, await _next(context, timeout_s) or b"")


async def receive_recording(
    context: grpc.aio.ServicerContext, places: Places, door: str, caller: Caller
) -> RecognizeRequest:
    """As `receive`, among the recordings that arrive.  Raises TooMuch too, where it gives up."""
    is_given_up = False

    def give_up() -> None:
        nonlocal is_given_up
        is_given_up = receiving.cancel()

    with places.arriving(door, caller, give_up):
        receiving = asyncio.ensure_future(receive(RecognizeRequest, context, UPLOAD_S))
        try:
            await asyncio.wait([receiving])
        finally:
            receiving.cancel()  # where the call is
        if is_given_up:
            raise TooMuch(f"not here after {PATIENCE_S:g} s, and others want to send a recording")
        return receiving.result()


async def _next(context: grpc.aio.ServicerContext, timeout_s: float) -> bytes | None:
    """The bytes of the next message, None where none follows.  Raises StreamNotFound."""
    try:
        data = await asyncio.wait_for(context.read(), timeout_s)
    except asyncio.TimeoutError:
        raise StreamNotFound(f"NOT_FOUND: nothing came for longer than {timeout_s:g} s") from None
    return None if data is grpc.aio.EOF else data


def _parse(kind: type[AnyMessage], data: bytes) -> AnyMessage:
    try:
        return kind.FromString(data)
    except DecodeError:
        raise invalid(f"{len(data)} bytes are no {kind.DESCRIPTOR.name}") from None
