"""Riva's gRPC: what NVIDIA's clients and the plugins of voice agents speak, unchanged.

Methods are given the bytes of requests, so that who calls is known before a message is read, and
one that is no message ends its own call alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import grpc
from riva.client.proto.health_pb2 import HealthCheckRequest, HealthCheckResponse
from riva.client.proto.riva_asr_pb2 import (
    RecognizeRequest,
    RivaSpeechRecognitionConfigRequest,
    RivaSpeechRecognitionConfigResponse,
    StreamingRecognizeResponse,
)

from asr_client.errors import ClientError, StreamNotFound
from nemotron_asr.config import SAMPLE_RATE
from nemotron_asr.options import AUTO
from nemotron_asr.pcm import MAX_CHANNELS

from .access import Caller
from .errors import TooLarge, TooMuch, grpc_status, invalid, message_of
from .gateway import Gateway, LiveSession, render
from .options import FILE, LIVE
from .riva_audio import LiveBytes, as_file
from .riva_config import read_config
from .riva_requests import LiveRequests, Packet, receive, receive_recording
from .riva_results import LiveResponses, file_response
from .settings import MIB, GatewaySettings
from .sockets import together

DOOR = "riva"
ASR = "nvidia.riva.asr.RivaSpeechRecognition"
HEALTH = "grpc.health.v1.Health"
STOP_S = 5.0  # what calls get that are about to end
_MAX_DETAILS = 600  # characters of a message; HTTP/2 headers hold 8 kB, a character up to 12 bytes
_KEEPALIVE_MS = 20_000  # a client whose machine is gone is noticed after twice that
_HANDSHAKE_MS = 10_000  # TLS and HTTP/2's settings
_CONNECTION_IDLE_MS = 120_000  # without a call; clients connect again by themselves
_WINDOW_BYTES = 256 * 1024  # of a call that arrive before somebody reads, so before a key is known
_SMALL_S = 10.0  # for a message that is a name or so


class RivaServer:
    """The gRPC server of one gateway, in its event loop."""

    def __init__(self, gateway: Gateway):
        self._gateway = gateway
        self._reads_check = False
        settings = gateway.settings
        self._server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", int(settings.processes > 1)),
                # One limit for all methods. It is the memory that a call may fill once it is read.
                ("grpc.max_receive_message_length", settings.max_riva_bytes + MIB),
                ("grpc.http2.lookahead_bytes", _WINDOW_BYTES),
                ("grpc.http2.bdp_probe", 0),  # else the window grows to 16 MiB
                ("grpc.compression_enabled_algorithms_bitset", 1),  # none: inflating can be a bomb
                ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
                ("grpc.keepalive_timeout_ms", _KEEPALIVE_MS),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", _KEEPALIVE_MS // 4),
                ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
                ("grpc.max_connection_idle_ms", _CONNECTION_IDLE_MS),
            ],
            maximum_concurrent_rpcs=settings.max_requests,
        )
        unary = grpc.stream_unary_rpc_method_handler  # of one message: read when it is wanted
        asr = {
            "Recognize": unary(self._recognize, None, None),
            "GetRivaSpeechRecognitionConfig": unary(
                self._list, None, RivaSpeechRecognitionConfigResponse.SerializeToString
            ),
            "StreamingRecognize": grpc.stream_stream_rpc_method_handler(
                self._stream, None, StreamingRecognizeResponse.SerializeToString
            ),
        }
        health = {"Check": unary(self._check, None, HealthCheckResponse.SerializeToString)}
        for service, methods in ((ASR, asr), (HEALTH, health)):
            handler = grpc.method_handlers_generic_handler(service, methods)
            self._server.add_generic_rpc_handlers([handler])

    async def start(self) -> None:
        """Listen.  Raises OSError where the port or the certificate cannot be had."""
        settings = self._gateway.settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"{host}:{settings.riva_port}"
        try:
            if settings.tls_cert is None:
                self._server.add_insecure_port(address)
            else:
                self._server.add_secure_port(address, _credentials(settings))
        except RuntimeError:
            raise OSError(f"cannot listen at {address} for Riva's clients") from None
        await self._server.start()

    async def drain(self) -> None:
        """When the process is to stop, tell clients to call elsewhere and let their calls end.

        A connection that lives on would bring its next calls here, where they are refused.
        """
        await self._gateway.places.until_draining()
        await self._server.stop(self._gateway.settings.drain_timeout_s)

    async def stop(self) -> None:
        """Take no more calls; those that are about to end do, all others are ended."""
        await self._server.stop(STOP_S)

    # Methods

    async def _stream(self, _messages, context: grpc.aio.ServicerContext) -> None:
        """The configuration, then audio; half-closing ends the stream."""
        async with self._answering(context):
            caller = self._caller(context)
            with self._gateway.places.session(DOOR, caller):
                await self._converse(context, caller)

    async def _converse(self, context: grpc.aio.ServicerContext, caller: Caller) -> None:
        requests = LiveRequests(context, self._gateway.settings)
        first = await requests.first()
        config = first.streaming_config.config
        audio = requests.audio = LiveBytes(config)
        options = read_config(config, LIVE)
        await self._check_model(config.model)
        packet = await requests.next()
        while packet is not None and audio.format is None:
            packet = await requests.next()
        packet = packet or Packet(audio.finish())
        form = audio.format
        self._answer_until_over(context)
        options |= {"encoding": form.encoding, "sample_rate": form.sample_rate}
        options["channels"] = form.channels
        async with self._gateway.live(DOOR, caller, **options) as session:
            responses = LiveResponses(first)
            await together(
                self._tell(context, session, responses), _hear(requests, session, packet)
            )

    async def _tell(
        self, context: grpc.aio.ServicerContext, session: LiveSession, responses: LiveResponses
    ) -> None:
        slow_reader_s = self._gateway.settings.slow_reader_s
        async for result in session.results():
            for response in responses.of(result):
                try:
                    await asyncio.wait_for(context.write(response), slow_reader_s)
                except asyncio.TimeoutError:
                    raise TooMuch(
                        f"RESOURCE_EXHAUSTED: nothing was read for {slow_reader_s:g} s"
                    ) from None

    async def _recognize(self, _messages, context: grpc.aio.ServicerContext) -> bytes:
        """A recording, as a file or as samples.  Returns a RecognizeResponse."""
        async with self._answering(context):
            caller, places = self._caller(context), self._gateway.places
            self._answer_until_over(context)
            request = await receive_recording(context, places, DOOR, caller)
            with places.file(DOOR, caller, has_arrived=True):
                return await self._recognized(request, caller)

    async def _recognized(self, request: RecognizeRequest, caller: Caller) -> bytes:
        config, max_bytes = request.config, self._gateway.settings.max_riva_bytes
        if len(request.audio) > max_bytes:
            raise TooLarge(
                f"INVALID_ARGUMENT: a recording of {len(request.audio)} bytes; "
                f"valid: up to {max_bytes}"
            )
        options = read_config(config, FILE)
        await self._check_model(config.model)
        file = as_file(request.audio, config)
        channels = [options]
        if config.enable_separate_recognition_per_channel and config.audio_channel_count > 1:
            if config.audio_channel_count > MAX_CHANNELS:
                raise invalid(
                    f"audio_channel_count {config.audio_channel_count}; valid: up to {MAX_CHANNELS}"
                )
            channels = [{**options, "channel": i} for i in range(config.audio_channel_count)]
        transcripts = [
            await self._gateway.transcribe(DOOR, caller, file, **one) for one in channels
        ]

        def respond() -> bytes:
            return file_response(request, transcripts).SerializeToString()

        return await render(transcripts[0], respond)

    async def _list(
        self, _messages, context: grpc.aio.ServicerContext
    ) -> RivaSpeechRecognitionConfigResponse:
        """The model, which is there live and offline."""
        async with self._answering(context):
            self._caller(context)
            request = await receive(RivaSpeechRecognitionConfigRequest, context, _SMALL_S)
            await self._check_model(request.model_name)
            offer = await self._gateway.offered()
            response = RivaSpeechRecognitionConfigResponse()
            for kind in ("online", "offline"):
                parameters = {
                    "type": kind,
                    "streaming": str(kind == "online"),
                    "language_code": ",".join(n for n in offer["languages"] if n != AUTO),
                    "sample_rate": str(SAMPLE_RATE),
                    "latency_ms": ",".join(map(str, offer["latencies_ms"])),
                }
                response.model_config.add(model_name=offer["model"], parameters=parameters)
            return response

    async def _check(self, _messages, context: grpc.aio.ServicerContext) -> HealthCheckResponse:
        """gRPC's own health check, without a key: whether a stream can be opened now."""
        async with self._answering(context):
            service = await self._asked(context)
            if service not in ("", ASR):
                raise StreamNotFound(f"NOT_FOUND: no service {service!r}; valid: {ASR}")
            is_ready = await self._gateway.is_ready()
            status = HealthCheckResponse.SERVING if is_ready else HealthCheckResponse.NOT_SERVING
            return HealthCheckResponse(status=status)

    async def _asked(self, context: grpc.aio.ServicerContext) -> str:
        """The service that a check asks for; "", all of it, while another is read.

        Checks have no key, and their messages may be as large as any.
        """
        if self._reads_check:
            return ""
        self._reads_check = True
        try:
            return (await receive(HealthCheckRequest, context, _SMALL_S)).service
        finally:
            self._reads_check = False

    # What they share

    @asynccontextmanager
    async def _answering(self, context: grpc.aio.ServicerContext) -> AsyncIterator[None]:
        """A call: part of the trace that it tells of; what goes wrong in it becomes its status."""
        with self._gateway.tracing.within(_headers(context)):
            try:
                yield
            except ClientError as error:
                await context.abort(grpc_status(error), message_of(error)[:_MAX_DETAILS])

    def _answer_until_over(self, context: grpc.aio.ServicerContext) -> None:
        """The process does not end before this call, whose status is sent behind its method."""
        held = ExitStack()
        held.enter_context(self._gateway.places.answer())
        context.add_done_callback(lambda _context: held.close())

    def _caller(self, context: grpc.aio.ServicerContext) -> Caller:
        return self._gateway.access.caller(_headers(context))

    async def _check_model(self, name: str) -> None:
        if name and name != (model := (await self._gateway.offered())["model"]):
            raise invalid(f"model {name!r} is unknown; valid: {model}, or none")


async def _hear(requests: LiveRequests, session: LiveSession, packet: Packet | None) -> None:
    """Pass on what comes, from this packet on."""
    stream = session.stream
    while packet is not None:
        await stream.send(packet.samples)
        if packet.ends_utterance:
            await stream.finalize()
        packet = await requests.next()
    stream.end()


def _headers(context: grpc.aio.ServicerContext) -> dict[str, str]:
    metadata = context.invocation_metadata() or ()
    return {name: value for name, value in metadata if isinstance(value, str)}


def _credentials(settings: GatewaySettings) -> grpc.ServerCredentials:
    pair = settings.tls_key.read_bytes(), settings.tls_cert.read_bytes()
    return grpc.ssl_server_credentials([pair])
