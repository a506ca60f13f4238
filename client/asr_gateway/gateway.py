"""What the doors share: the way to Triton, limits, counts, a line in the log for each session."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from asr_client.aio import AsyncLiveStream, open_channel
from asr_client.aio_channel import SharedChannel
from asr_client.aio_offline import AsyncOfflineClient
from asr_client.errors import AtCapacity, ClientError, ServerUnavailable
from asr_client.results import Result, Transcript
from nemotron_asr.config import SAMPLE_RATE

from .access import Access, Caller
from .metrics import Metrics
from .options import FILE, LIVE, read_options
from .places import Places
from .settings import MIB, GatewaySettings
from .tracing import make_tracing

NUM_CHANNELS = 4  # connections that live streams share
READY_FOR_S = 1.0  # how long an answer of `is_ready` holds
TICK_S = 0.25  # of looking how late the event loop is
MAX_KEPT_BYTES = 16 * MIB  # of a session's audio, in case it must be sent to Triton again
MAX_KEPT_S = 300.0
LARGE_TEXT = 10_000  # characters, whose words take some 30 ms to render
MAX_AHEAD_S = 30.0  # of audio that waits for answers; then the client waits

log = logging.getLogger(__name__)


class Gateway:
    """One process' state. `open` and `close` in the event loop that it serves in."""

    def __init__(self, settings: GatewaySettings):
        """Raises ValueError for a file of keys that cannot be read, or without what traces need."""
        self.settings = settings
        self.access = Access(settings.keys, settings.origins)
        self.metrics = Metrics()
        self.places = Places(settings, self.access, self.metrics)
        self.tracing = make_tracing()
        self.offer: dict = {}  # what the server offers, as soon as it was asked
        self._looking = asyncio.Lock()
        self._looked_at_s, self._was_ready = float("-inf"), False
        self._ids = itertools.count(1)
        self._channels: list[SharedChannel] = []
        self._turns = itertools.count()

    async def open(self) -> None:
        url = self.settings.grpc_url
        self._channels = [open_channel(url) for _ in range(NUM_CHANNELS)]
        self._offline = AsyncOfflineClient(self.settings.http_url)
        self._ticking = asyncio.create_task(self._tick())

    async def close(self) -> None:
        self._ticking.cancel()
        await self._offline.close()
        for channel in self._channels:
            await channel.close()
        self.tracing.close()

    async def is_ready(self) -> bool:
        """Whether live streams are served: a real one is opened. Also learns what is on offer.

        A server whose slots are all taken is ready: it refuses at once what it has no room for.
        """
        async with self._looking:
            if time.monotonic() - self._looked_at_s > READY_FOR_S:
                self._was_ready = await self._try_a_stream()
                self._looked_at_s = time.monotonic()
        return self._was_ready and not self.places.draining

    async def _try_a_stream(self) -> bool:
        stream = AsyncLiveStream(
            self.settings.grpc_url, channel=self._channels[0], reconnect_s=0, timeout_s=5
        )
        try:
            await stream.open()
            self.offer = stream.server
            await stream.finish()
        except AtCapacity:
            pass
        except ClientError:
            return False
        return await self._offline.is_ready()

    async def offered(self) -> dict:
        """What the server offers, asked where it was not yet.  Raises ServerUnavailable."""
        if not self.offer:
            await self.is_ready()
        if not self.offer:
            raise ServerUnavailable("UNAVAILABLE: the server takes no live streams now")
        return self.offer

    def let_in(self, headers: Mapping[str, str]) -> Caller:
        """Whose request it is.  headers: names in lower case.  Raises Forbidden, Unauthorized."""
        self.access.check_origin(headers)
        return self.access.caller(headers)

    @asynccontextmanager
    async def live(
        self, door: str, caller: Caller, of_file: bool = False, /, **options
    ) -> AsyncIterator[LiveSession]:
        """A live stream, counted and logged. Within `places.session`.

        options: of a stream, as they came, see `read_options`.  of_file: it is heard whole, has a
        transcript, and is not restored: for that long utterances would be cut.
        Raises its errors, those of `LiveStream`, and TooMuch.
        """
        try:
            read = read_options(options, LIVE)
        except ClientError as error:
            self.metrics.refused.labels(door, error.code).inc()
            raise
        reconnect_s = 0 if of_file else self.settings.reconnect_s
        read |= {"keep_transcript": of_file, "reconnect_s": reconnect_s}
        with (
            self.places.stream(door, caller, of_file),
            self.tracing.span("live session", door=door) as at_end,
        ):
            async with self._opened(door, caller, read) as session:
                try:
                    yield session
                finally:
                    at_end |= {"session": session.id, "audio_s": session.audio_s}

    @asynccontextmanager
    async def _opened(self, door: str, caller: Caller, options: dict):
        channel = self._channels[next(self._turns) % NUM_CHANNELS]
        began, reason = time.monotonic(), "abandoned"
        try:
            stream = AsyncLiveStream(
                self.settings.grpc_url,
                channel=channel,
                words=True,
                headers=self.tracing.headers(),
                **_memory_of(options),
                **options,
            )
            await stream.open()
        except ClientError as error:
            self.metrics.refused.labels(door, error.code).inc()
            raise
        self.offer = stream.server
        self.metrics.started.labels(door).inc()
        self.metrics.sessions.labels(door).inc()
        session = LiveSession(f"{next(self._ids):x}", stream)
        try:
            yield session
            reason = "end" if session.is_over else "closed"
        except ClientError as error:
            reason = error.code
            raise
        finally:
            closing = asyncio.ensure_future(stream.close())
            self.metrics.sessions.labels(door).dec()
            self.metrics.ended.labels(door, reason).inc()
            self.metrics.audio_seconds.labels(door).inc(session.audio_s)
            log.info(
                "session",
                extra={
                    "door": door, "caller": caller.name, "session": session.id, "reason": reason,
                    "audio_s": round(session.audio_s, 2),
                    "lasted_s": round(time.monotonic() - began, 2),
                },
            )  # fmt: skip
            await asyncio.shield(closing)

    async def transcribe(self, door: str, caller: Caller, data: bytes, /, **options) -> Transcript:
        """A file's transcript, counted and logged. Within `places.file`, which limits how many.

        options: of a file, as they came, see `read_options`.  Raises its errors, those of
        `OfflineClient`.
        """
        began, code, seconds = time.monotonic(), "INTERNAL", 0.0
        try:
            options = read_options(options, FILE)
            with self.tracing.span("file", door=door, bytes=len(data)) as at_end:
                headers = self.tracing.headers()
                transcript = await self._offline.transcribe(data, headers=headers, **options)
                seconds = at_end["audio_s"] = (transcript.audio_processed_ms or 0) / 1000
            code = "OK"
            return transcript
        except ClientError as error:
            code = error.code
            raise
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        finally:
            lasted_s = time.monotonic() - began
            self.metrics.files.labels(door, code).inc()
            self.metrics.file_seconds.labels(door).observe(lasted_s)
            self.metrics.audio_seconds.labels(door).inc(seconds)
            log.info(
                "file",
                extra={
                    "door": door, "caller": caller.name, "code": code, "bytes": len(data),
                    "audio_s": round(seconds, 2), "lasted_s": round(lasted_s, 2),
                },
            )  # fmt: skip

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TICK_S
            await asyncio.sleep(TICK_S)
            self.metrics.loop_lag.observe(max(0.0, loop.time() - due))


async def render(transcript: Transcript, work: Callable, *args):
    """What work(*args) makes of a transcript; in a thread where that takes long."""
    if len(transcript.text) < LARGE_TEXT:
        return work(*args)
    return await asyncio.to_thread(work, *args)


def _memory_of(options: dict) -> dict[str, float]:
    """What a stream with these options may keep, in seconds: the same memory at any rate."""
    bytes_per_s = 2 * options.get("sample_rate", SAMPLE_RATE) * options.get("channels", 1)
    kept_s = min(MAX_KEPT_S, MAX_KEPT_BYTES / bytes_per_s)
    return {"max_replay_s": kept_s, "max_ahead_s": min(MAX_AHEAD_S, kept_s)}


class LiveSession:
    """A door's live stream: an AsyncLiveStream with a name, and how much it heard."""

    def __init__(self, id: str, stream: AsyncLiveStream):
        self.id = id
        self.stream = stream
        self.is_over = False
        self.audio_s = 0.0

    async def results(self) -> AsyncIterator[Result]:
        async for result in self.stream.results():
            if result.audio_processed_ms is not None:
                self.audio_s = result.audio_processed_ms / 1000
            self.is_over = result.is_final
            yield result
