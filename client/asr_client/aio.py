"""Live transcription over gRPC for asyncio: what a server of many streams needs.

    async with AsyncLiveStream("127.0.0.1:8001", language="en-US") as stream:
        await stream.send(samples)  # ... and stream.end(), in any task
        async for result in stream.results():
            print(result.text, end="", flush=True)

The same options, results, errors and way back as `LiveStream`. Streams share a connection where a
channel is given: each is a call of its own, so that no answer queues behind those of another.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping

from .address import grpc_target
from .aio_call import AsyncCall
from .aio_channel import SharedChannel
from .audio import Samples, to_pcm16
from .errors import ClientError, ServerError, StreamClosed
from .patience import FIRST_WAIT_S, LONGEST_WAIT_S
from .replay import AUDIO, END, SILENCE
from .results import Result, Transcript
from .stream_options import MAX_PACKET_S, StreamOptions

_LOOKS = 10  # at an answer that is due, in the time that it may take

log = logging.getLogger(__name__)


def open_channel(url: str) -> SharedChannel:
    """A connection for streams to share.  url: host:port of the server's gRPC endpoint.

    Where a stream gets no answer in time those that follow, and whoever is lost, get another one.
    """
    return SharedChannel(grpc_target(url))


class AsyncLiveStream:
    """One live stream, to be used in one event loop; sending and reading may be in two tasks.

    options: the keyword arguments of `LiveStream`.  channel: of `open_channel`, which stays open;
    without one the stream has a connection of its own.  headers: sent with every call, as gRPC's
    metadata.  max_ahead_s: of audio that may wait for answers; None: as many packets as may.
    keep_transcript: without, `transcript` and `finish` have none, and memory does not grow.
    """

    def __init__(
        self,
        url: str,
        *,
        channel: SharedChannel | None = None,
        headers: Mapping[str, str] | None = None,
        max_ahead_s: float | None = None,
        keep_transcript: bool = True,
        **options,
    ):
        self.url = grpc_target(url)
        read = StreamOptions(**options)
        self._format = read.format()
        self._max_packet_samples = self._format.num_samples(MAX_PACKET_S * 1000)
        self._session = read.session(keep_transcript)
        self._patience = read.patience(self.url, self._session, max_ahead_s)
        self._own_channel = channel is None
        self._channel = channel or open_channel(url)
        self._metadata = tuple((headers or {}).items())
        self._error: ClientError | None = None  # what the stream ended of
        self._waiters: set[asyncio.Future] = set()
        self._call: AsyncCall | None = None  # None: lost
        self._task: asyncio.Task | None = None  # over all calls of the stream

    @property
    def server(self) -> dict:
        """What the server offers: model, latencies_ms, languages, sample_rates, slots, ..."""
        return self._session.server

    @property
    def error(self) -> ClientError | None:
        """What the stream ended of, None while it lives and after its end."""
        return self._error

    @property
    def is_ending(self) -> bool:
        """Whether `end` was called."""
        return self._session.ending

    @property
    def is_behind(self) -> bool:
        """Whether the server has something to answer, or is away for now."""
        return self._error is None and (self._call is None or bool(self._session.in_flight))

    async def open(self) -> AsyncLiveStream:
        """Wait for the server's consent.

        Raises InvalidArgument (an option), AtCapacity or ServerUnavailable.
        """
        self._task = asyncio.create_task(self._keep_up())
        try:
            await self._wait(lambda: self._session.started)
        except BaseException:
            await self.close()
            raise
        return self

    async def send(self, samples: Samples) -> None:
        """Send audio, as `LiveStream.send` takes it; waits while too much has no answer.

        Raises InvalidArgument (the samples; the stream goes on), StreamClosed, the stream's error.
        """
        pcm = self._session.whole_frames(to_pcm16(samples, self._format))  # (n,) int16
        for begin in range(0, max(len(pcm), 1), self._max_packet_samples):
            await self._put(pcm[begin : begin + self._max_packet_samples])

    async def finalize(self) -> None:
        """End the utterance here and go on; see `LiveStream.finalize`.  Waits as `send` does."""
        await self._put(finalize=True)

    async def set_language(self, language: str) -> None:
        """Audio sent from now on is in this language.  Waits as `send` does.

        Raises InvalidArgument; StreamClosed.
        """
        language = self._session.read_language(language)
        if language != self._session.language:
            await self._put(language=language)

    async def keep_alive(self) -> None:
        """Send an empty packet; see `LiveStream.keep_alive`."""
        await self.send(SILENCE)

    def end(self) -> None:
        """Say that no more audio comes: what remains is in `results`."""
        if not self._session.ending and self._error is None:
            self._session.put(END)
            self._flush()

    async def results(self) -> AsyncIterator[Result]:
        """Results as they arrive, up to and including the final one.  Raises the stream's error."""
        session = self._session
        while True:
            while session.results:
                yield session.results.popleft()
            if session.done:
                return
            await self._wait(lambda: session.results or session.done)

    def transcript(self) -> Transcript:
        """Everything so far."""
        return self._session.transcript()

    async def finish(self) -> Transcript:
        """End the stream, wait for the remaining results and return the whole transcript.

        Results that nobody has read yet stay readable.  Raises the stream's error.
        """
        self.end()
        await self._wait(lambda: self._session.done)
        await self.close()
        return self._session.transcript()

    async def close(self) -> None:
        """Give the stream up: audio without an answer is lost. Does nothing after the end.

        The server is told and given a moment to free the slot.
        """
        self._fail(StreamClosed("the stream was closed"))
        if self._task is not None and not self._task.done():
            if self._call is None:  # between two calls
                self._task.cancel()
            else:
                self._call.leave(None if self._session.done else self._session.end_request())
            await asyncio.wait([self._task])
        if self._own_channel:
            await self._channel.close()

    async def __aenter__(self) -> AsyncLiveStream:
        return await self.open()

    async def __aexit__(self, exc_type, *_exc) -> None:
        try:
            if exc_type is None and self._error is None:
                await self.finish()
        finally:
            await self.close()

    async def _put(self, pcm=SILENCE, **options: str | bool) -> None:
        """Put a packet in as soon as there is room."""
        await self._wait(lambda: self._session.ending or self._patience.has_room())
        if self._error is not None:
            raise self._error
        if self._session.ending:
            raise StreamClosed("the stream has ended and takes no more audio")
        self._session.put(AUDIO, pcm, **options)
        self._flush()

    def _flush(self) -> None:
        """Send what may be sent now."""
        if self._call is not None:
            self._patience.on_send(time.monotonic())
            for request in self._session.requests():
                self._call.send(request)

    async def _wait(self, ready: Callable[[], object]) -> None:
        """Wait until ready().  Raises the stream's error."""
        while not ready():
            if self._error is not None:
                raise self._error
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)

    def _notify(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _fail(self, error: ClientError) -> None:
        """End the stream with this error, unless it is over."""
        if self._error is None and not self._session.done:
            self._error = error
            self._notify()

    async def _keep_up(self) -> None:
        """One call after another, until the stream is over or cannot be mended."""
        wait_s, on_the_way_back = FIRST_WAIT_S, False
        while self._error is None:
            try:
                await self._talk()
                return
            except ClientError as error:
                loss = error.with_traceback(None)  # whose frames would keep a connection open
            except Exception as bad:  # an answer that this client cannot read
                loss = ServerError(f"INTERNAL: bad answer from {self.url}: {bad!r}")
            if self._error is not None:  # it was closed
                return
            if self._session.started:  # it had come back
                wait_s, on_the_way_back = FIRST_WAIT_S, False
            if not self._patience.is_mendable(loss, on_the_way_back):
                self._fail(loss)
                return
            now = time.monotonic()
            self._patience.on_loss(now)
            if self._patience.left_s(now) <= 0:
                self._fail(loss)
                return
            if not on_the_way_back:
                log.warning("%s; reconnecting for up to %g s", loss, self._patience.reconnect_s)
            await asyncio.sleep(wait_s * random.uniform(0.5, 1))
            wait_s, on_the_way_back = min(2 * wait_s, LONGEST_WAIT_S), True
            self._session.restart()

    async def _talk(self) -> None:
        """Over one call to the end of the stream.  Raises the ClientError that it broke of."""
        session, patience = self._session, self._patience
        patience.on_connect(time.monotonic())
        async with self._channel.used() as connection:
            self._call = call = AsyncCall(
                connection.stub.ModelStreamInfer(metadata=self._metadata), self.url
            )
            watch = asyncio.create_task(self._watch(call))
            try:
                self._flush()
                while not session.done:
                    response = await call.read()
                    if self._error is None:
                        got_on = session.accept(response)
                        patience.on_answer(got_on, time.monotonic())
                        self._flush()
                        self._notify()
            finally:
                self._call = None
                watch.cancel()
                if call.given_up is not None:
                    self._channel.give_up(connection)  # it may be dead
                call.leave(None if session.done else session.end_request())
                await call.gone()

    async def _watch(self, call: AsyncCall) -> None:
        """End a call that takes too long to answer."""
        while True:
            timeout_s = self._patience.timeout_s
            remaining_s = self._patience.remaining_s(time.monotonic())
            if remaining_s is not None and remaining_s <= 0:
                call.give_up(self._patience.timeout_error())
                return
            left_s = timeout_s if remaining_s is None else remaining_s
            await asyncio.sleep(min(left_s, timeout_s / _LOOKS))
