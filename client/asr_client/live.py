"""Live transcription over gRPC: audio goes in while results come out.

    with LiveStream(language="en-US") as stream:
        stream.feed(chunks)  # or stream.send(samples) ... and stream.end(), in any thread
        for result in stream.results():
            print(result.text, end="", flush=True)
        print(stream.finish().language)

A stream has its own connection, so that its answers never queue behind those of another stream.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from .address import grpc_target, is_loopback
from .audio import AudioFormat, Samples, to_pcm16
from .errors import ClientError, ServerUnavailable, StreamClosed, StreamNotFound, error_from_message
from .results import Result, Transcript
from .session import AUDIO, END, SILENCE, START, StreamSession
from .wire import unusual

DEFAULT_URL = "127.0.0.1:8001"
MAX_PACKET_S = 10  # seconds of audio in one request; `send` cuts what is longer
_RELEASE_S = 0.5  # how long a stream that is given up waits for the server to free its slot


class LiveStream:
    """One live stream. Sending and reading may happen in different threads.

    url: host:port of the server's gRPC endpoint.  language: a code such as "en-US", or "auto".
    latency_ms: how far the model looks ahead, one of `server["latencies_ms"]`.
    sample_rate: Hz, of the samples that will be sent, one of `server["sample_rates"]`.
    channels: how many, interleaved; they are mixed.  encoding: "pcm16", or G.711's "mulaw", "alaw".
    punctuation, capitals: False for a text without.  profanity: "mask" for a letter and asterisks.
    endpoint_ms: silence that ends an utterance.  max_utterance_ms: what is longer ends at the next
    pause.  recover_ms: speech without text after which the model begins afresh.  0: none of it.
    words: whether results carry words with times (text alone is cheaper).
    progress: whether `results` also yields the answers that fixed no text, one for every packet.
    max_in_flight: packets that may wait for their answers before `send` waits for the server.
    timeout_s: the longest that the server may take for an answer.

    The constructor opens the stream and waits for the server's consent.  It raises InvalidArgument
    (an option), AtCapacity or ServerUnavailable.  Later errors come out of whichever of `send`,
    `results` and `finish` is called next; after an error the stream is over.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        language: str = "auto",
        latency_ms: int = 320,
        sample_rate: int = 16_000,
        channels: int = 1,
        encoding: str = "pcm16",
        punctuation: bool = True,
        capitals: bool = True,
        profanity: str = "keep",
        endpoint_ms: int = 0,
        max_utterance_ms: int = 0,
        recover_ms: int = 0,
        words: bool = False,
        progress: bool = False,
        max_in_flight: int = 64,
        timeout_s: float = 30.0,
    ):
        self.url = grpc_target(url)
        self._format = AudioFormat(sample_rate, channels, encoding)
        self._max_packet_samples = self._format.num_samples(MAX_PACKET_S * 1000)
        self._max_in_flight = max_in_flight
        self._timeout_s = timeout_s
        self._outbox = queue.SimpleQueue()  # requests, then None

        self._changed = threading.Condition()  # guards everything below
        options = {"language": language, "latency_ms": latency_ms, "sample_rate": sample_rate}
        options |= unusual(
            channels=channels, punctuation=punctuation, capitals=capitals, profanity=profanity,
            endpoint_ms=endpoint_ms, max_utterance_ms=max_utterance_ms, recover_ms=recover_ms,
        )  # fmt: skip
        self._session = StreamSession(options, words=words, progress=progress)
        self._last_progress_s = time.monotonic()  # the latest answer, or a packet after a pause
        self._error: ClientError | None = None
        self._error_seen = False  # by the caller, not only by the feeding thread
        self._feeder: threading.Thread | None = None
        self._feed_error: Exception | None = None
        self._open()

    @property
    def server(self) -> dict:
        """What the server offers: model, latencies_ms, languages, sample_rates, slots, ..."""
        return self._session.server

    def send(self, samples: Samples) -> None:
        """Send audio: (n,) int16, (n,) float32 in [-1, 1], or bytes in the stream's encoding.

        Of several channels (n, channels), or interleaved; bytes may end within a frame of them.

        Returns at once, unless max_in_flight packets wait for their answers.
        Raises InvalidArgument (the samples; the stream goes on), StreamClosed, the stream's error.
        """
        pcm = to_pcm16(samples, self._format)  # (n,) int16
        for begin in range(0, max(len(pcm), 1), self._max_packet_samples):
            with self._changed:
                self._wait(lambda: self._error or self._has_room())
                if self._error is not None:
                    self._raise_error()
                if self._session.ending:
                    raise StreamClosed("the stream has ended and takes no more audio")
                self._enqueue(AUDIO, pcm[begin : begin + self._max_packet_samples])

    def feed(self, chunks: Iterable[Samples]) -> None:
        """Send chunks from a thread of its own as they come, then `end`.

        What `chunks` raises comes out of `results` or `finish`, after the text of what was sent.
        """
        self._feeder = threading.Thread(target=self._feed, args=(chunks,), daemon=True)
        self._feeder.start()

    def keep_alive(self) -> None:
        """Send an empty packet: the server drops a stream that sends nothing for idle_timeout_s."""
        self.send(SILENCE)

    def end(self) -> None:
        """Say that no more audio comes, without waiting: what remains is in `results`."""
        with self._changed:
            if not self._session.ending:
                self._enqueue(END)

    def results(self) -> Iterator[Result]:
        """Results as they arrive, up to and including the final one.  Raises the stream's error."""
        while True:
            with self._changed:
                self._wait(lambda: self._session.results or self._is_complete())
                if not self._session.results:
                    self._raise_feed_error()
                    return
                result = self._session.results.popleft()
            yield result

    def finish(self) -> Transcript:
        """End the stream, wait for the remaining results and return the whole transcript.

        After `feed` the stream ends where the chunks do.  Results that nobody has read yet stay
        readable.  Raises the stream's error.
        """
        if self._feeder is None:
            self.end()
        with self._changed:
            self._wait(self._is_complete)
        self.close()
        self._raise_feed_error()
        return self._session.transcript()

    def close(self) -> None:
        """Give the stream up: audio without an answer is lost. Does nothing after `finish`.

        The server is told and given a moment to free the slot, which it would otherwise hold until
        its idle limit.
        """
        self._fail(StreamClosed("the stream was closed"))
        self.end()
        for thread in (self._reader, self._feeder):
            if thread not in (None, threading.current_thread()):
                thread.join(_RELEASE_S)
        self._call.cancel()
        self._channel.close()

    def __enter__(self) -> LiveStream:
        return self

    def __exit__(self, exc_type, *_exc) -> None:
        try:
            if exc_type is None and not self._error_seen:
                self.end()  # a feed that goes on, such as a microphone, is cut here
                self.finish()
        finally:
            self.close()

    def _open(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
        if is_loopback(self.url):
            options.append(("grpc.enable_http_proxy", 0))
        self._channel = grpc.insecure_channel(self.url, options)
        stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._enqueue(START)
        self._call = stub.ModelStreamInfer(iter(self._outbox.get, None))
        self._reader = threading.Thread(target=self._read, name="asr-live-reader", daemon=True)
        self._reader.start()
        try:
            with self._changed:
                self._wait(lambda: self._session.started)
        except BaseException:
            self.close()
            raise

    def _is_complete(self) -> bool:
        return self._session.done and self._error is None

    def _has_room(self) -> bool:
        return self._session.ending or len(self._session.in_flight) < self._max_in_flight

    def _enqueue(self, kind: str, pcm=SILENCE) -> None:
        if not self._session.in_flight:
            self._last_progress_s = time.monotonic()
        self._outbox.put(self._session.request(kind, pcm))

    def _wait(self, ready: Callable[[], object]) -> None:
        """Wait, holding the lock, until ready().  Raises the stream's error, a timeout included."""
        while not ready():
            if self._error is None and (remaining_s := self._remaining_s()) > 0:
                self._changed.wait(remaining_s)
                continue
            if self._error is None:
                self._fail(self._timeout_error())
            self._raise_error()

    def _remaining_s(self) -> float:
        """Seconds until the server must have answered, or else has dropped a stream so silent."""
        idle_s = 0 if self._session.in_flight else self._session.idle_timeout_s
        return self._last_progress_s + self._timeout_s + idle_s - time.monotonic()

    def _timeout_error(self) -> ClientError:
        if self._session.in_flight:
            return ServerUnavailable(f"no answer from {self.url} for {self._timeout_s:g} s")
        return StreamNotFound(
            f"NOT_FOUND: nothing was sent for longer than {self._session.idle_timeout_s:g} s, "
            "the server's idle limit; call keep_alive() in pauses"
        )

    def _feed(self, chunks: Iterable[Samples]) -> None:
        try:
            for chunk in chunks:
                self.send(chunk)
        except StreamClosed:
            pass  # ended by another thread: no more audio is wanted
        except Exception as error:
            self._feed_error = error
        finally:
            self.end()

    def _read(self) -> None:
        """The reader thread: answers into results, and whatever ends the call into an error."""
        try:
            for response in self._call:
                self._accept(response)
            self._fail(ServerUnavailable(f"{self.url} closed the stream"))
        except grpc.RpcError as error:
            self._fail(self._connection_error(error))
        except Exception as error:  # an answer that this client cannot read
            self._fail(ServerUnavailable(f"bad answer from {self.url}: {error!r}"))
        finally:
            self._outbox.put(None)

    def _accept(self, response: service_pb2.ModelStreamInferResponse) -> None:
        with self._changed:
            self._last_progress_s = time.monotonic()
            try:
                self._session.accept(response)
            except ClientError as error:
                self._fail(error)
                self.end()  # after a refusal too, Triton keeps its entry for this id until END
            if self._session.ending and not self._session.in_flight:
                self._outbox.put(None)  # the client's half of the call is over
            self._changed.notify_all()

    def _connection_error(self, error: grpc.RpcError) -> ClientError:
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            state = "lost the connection to" if self._session.started else "cannot connect to"
            return ServerUnavailable(f"{state} {self.url}: {error.details()}")
        return error_from_message(f"{self.url}: {error.details()}")

    def _fail(self, error: ClientError) -> None:
        with self._changed:
            if self._error is None and not self._session.done:
                self._error = error
                self._changed.notify_all()

    def _raise_error(self) -> NoReturn:
        if threading.current_thread() is not self._feeder:
            self._error_seen = True
        raise self._error

    def _raise_feed_error(self) -> None:
        if self._feed_error is not None and not self._error_seen:
            self._error_seen = True
            raise self._feed_error


def transcribe_live(chunks: Iterable[Samples], **options) -> Iterator[Result]:
    """Send chunks of audio as they come and yield results as they arrive.

    chunks: any iterable of what `LiveStream.send` takes; it is read in a thread of its own.
    options: those of LiveStream.  Raises its errors, and whatever `chunks` raises.
    """
    with LiveStream(**options) as stream:
        stream.feed(chunks)
        yield from stream.results()
