"""Live transcription over gRPC: audio goes in while results come out.

    with LiveStream(language="en-US", endpoint_ms=800) as stream:
        stream.feed(chunks)  # or stream.send(samples) ... and stream.end(), in any thread
        for result in stream.results():
            print(result.text, end="", flush=True)
        print(stream.finish().segments)

A stream has its own connection, so that its answers never queue behind those of another stream. It
outlives that connection and the server: what may be lost is kept, and sent again to the next.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import NoReturn

from .address import grpc_target
from .audio import Samples, to_pcm16
from .errors import ClientError, StreamClosed
from .link import Link
from .patience import RELEASE_S
from .replay import AUDIO, END, SILENCE
from .results import Result, Transcript
from .stream_options import MAX_PACKET_S, StreamOptions

DEFAULT_URL = "127.0.0.1:8001"


class LiveStream:
    """One live stream. Sending and reading may happen in different threads.

    url: host:port of the server's gRPC endpoint.  language: a code such as "en-US", or "auto".
    latency_ms: how far the model looks ahead, one of `server["latencies_ms"]`.
    sample_rate: Hz, of the samples that will be sent, one of `server["sample_rates"]`.
    channels: how many, interleaved; they are mixed.  encoding: "pcm16", or G.711's "mulaw", "alaw".
    punctuation, capitals: False for a text without.  profanity: "mask" for a letter and asterisks.
    languages: with language auto, those that alone may be detected.
    phrases: words and phrases to expect, a list or "Quilter; Rocky Ithaca^2", the second counting
    twice.  boost: how much they are favoured.
    endpoint_ms: silence that ends an utterance.  endpoint_by: what tells silence, the "model", or
    "vad", a voice detector, where the server has one.
    max_utterance_ms: what is longer ends at the next pause.  recover_ms: speech without text after
    which the model begins afresh.  0: none of it.
    words: whether results carry words with times. They do anyway where utterances may end by
    themselves or reconnect_s is not 0: text alone, which is cheaper, needs none of it.
    progress: whether `results` also yields the answers that fixed no text, one for every packet;
    else short packets go together, as one for each chunk that they complete.
    max_in_flight: packets that may wait for their answers before `send` waits for the server.
    timeout_s: the longest that the server may take for an answer.
    reconnect_s: how long a stream that is lost (the connection, the server or its model died, it
    shut down, gave no answer, or forgot the stream in a pause) is tried to be restored before its
    error is raised; 0: not at all.
    max_replay_s: seconds of audio that are kept for that, at most 750: those of the running
    utterance. So one that is longer ends at a pause, after 4/5 of it at the earliest.

    The constructor opens the stream and waits for the server's consent.  It raises InvalidArgument
    (an option), AtCapacity or ServerUnavailable.  Later errors come out of whichever of `send`,
    `results` and `finish` is called next; after an error the stream is over.

    A restored stream goes on as if nothing had happened: the utterance that was running is sent
    again, and decoded again by a model that has heard nothing, as it was the first time; what of it
    was given is not given twice. At rates other than 16 kHz, or where rounding depends on the
    neighbours in a batch (bfloat16, int8), the second decoding may differ from the first: then the
    text stays as it was given and goes on with the first word behind it. A server that is full is
    asked again until reconnect_s is over. The time is counted from the loss until the server
    answers a packet for the first time, so that audio that kills a server is not sent for ever.
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
        languages: Sequence[str] | str = "",
        phrases: Sequence[str] | str = "",
        boost: float = 1.0,
        endpoint_ms: int = 0,
        endpoint_by: str = "model",
        max_utterance_ms: int = 0,
        recover_ms: int = 0,
        words: bool = False,
        progress: bool = False,
        max_in_flight: int = 64,
        timeout_s: float = 30.0,
        reconnect_s: float = 120.0,
        max_replay_s: float = 300.0,
    ):
        self.url = grpc_target(url)
        options = StreamOptions(
            language=language, latency_ms=latency_ms, sample_rate=sample_rate, channels=channels,
            encoding=encoding, punctuation=punctuation, capitals=capitals, profanity=profanity,
            languages=languages, phrases=phrases, boost=boost, endpoint_ms=endpoint_ms,
            endpoint_by=endpoint_by, max_utterance_ms=max_utterance_ms, recover_ms=recover_ms,
            words=words, progress=progress, max_in_flight=max_in_flight, timeout_s=timeout_s,
            reconnect_s=reconnect_s, max_replay_s=max_replay_s,
        )  # fmt: skip
        self._format = options.format()
        self._max_packet_samples = self._format.num_samples(MAX_PACKET_S * 1000)
        self._session = options.session()
        self._patience = options.patience(self.url, self._session)
        self._link = Link(self.url, self._session, self._patience)
        self._changed = self._link.changed  # guards everything below, and the session
        self._error_seen = False  # by the caller, not only by the feeding thread
        self._feeder: threading.Thread | None = None
        self._feed_error: Exception | None = None
        self._link.open()

    @property
    def server(self) -> dict:
        """What the server offers: model, latencies_ms, languages, sample_rates, slots, ..."""
        return self._session.server

    def send(self, samples: Samples) -> None:
        """Send audio: (n,) int16, (n,) float32 in [-1, 1], or bytes in the stream's encoding.

        Of several channels (n, channels), or interleaved; bytes may end within a frame of them.

        Returns at once, unless max_in_flight packets wait for their answers. While a lost stream is
        restored, and until that is made up for, it returns at once until max_replay_s of audio, or
        6000 packets, wait, and then waits, no longer than reconnect_s for a server that does not
        come back.
        Raises InvalidArgument (the samples; the stream goes on), StreamClosed, the stream's error.
        """
        pcm = to_pcm16(samples, self._format)
        with self._changed:
            pcm = self._session.whole_frames(pcm)  # (n,) int16
        for begin in range(0, max(len(pcm), 1), self._max_packet_samples):
            with self._changed:
                self._put(pcm[begin : begin + self._max_packet_samples])

    def feed(self, chunks: Iterable[Samples]) -> None:
        """Send chunks from a thread of its own as they come, then `end`.

        What `chunks` raises comes out of `results` or `finish`, after the text of what was sent.
        """
        self._feeder = threading.Thread(target=self._feed, args=(chunks,), daemon=True)
        self._feeder.start()

    def finalize(self) -> None:
        """End the utterance here, at once, and go on: for when something else knows of its end.

        Returns as `send` does. The answer, with the text of all audio sent so far, comes in
        `results`: `finalized` is true, and the segment's `reason` "finalize" if it has text at all.
        Raises StreamClosed, the stream's error.
        """
        with self._changed:
            self._put(finalize=True)

    def set_language(self, language: str) -> None:
        """Audio sent from now on is in this language; what was sent before keeps its own.

        It begins another segment.  Returns as `send` does.  Raises InvalidArgument, which names the
        valid languages (the stream goes on), StreamClosed, the stream's error.
        """
        language = self._session.read_language(language)
        with self._changed:
            if language != self._session.language:
                self._put(language=language)

    def keep_alive(self) -> None:
        """Send an empty packet: the server drops a stream that sends nothing for idle_timeout_s.

        Needed in pauses where there is no reconnect_s; else it spares the way back.
        """
        self.send(SILENCE)

    def end(self) -> None:
        """Say that no more audio comes, without waiting: what remains is in `results`."""
        with self._changed:
            if not self._session.ending:
                self._session.put(END)
                self._link.flush()

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
        with self._changed:
            self._link.fail(StreamClosed("the stream was closed"))
        self._link.close()
        if self._feeder not in (None, threading.current_thread()):
            self._feeder.join(RELEASE_S)

    def __enter__(self) -> LiveStream:
        return self

    def __exit__(self, exc_type, *_exc) -> None:
        try:
            if exc_type is None and not self._error_seen:
                self.end()  # a feed that goes on, such as a microphone, is cut here
                self.finish()
        finally:
            self.close()

    def _put(self, pcm=SILENCE, **options: str | bool) -> None:
        """Put a packet in, holding the lock, as soon as there is room."""
        self._wait(lambda: self._session.ending or self._patience.has_room())
        if self._link.error is not None:
            self._raise_error()
        if self._session.ending:
            raise StreamClosed("the stream has ended and takes no more audio")
        self._session.put(AUDIO, pcm, **options)
        self._link.flush()

    def _wait(self, ready) -> None:
        """Wait, holding the lock, until ready().  Raises the stream's error."""
        try:
            self._link.wait(ready)
        except ClientError:
            self._raise_error()

    def _is_complete(self) -> bool:
        return self._session.done and self._link.error is None

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

    def _raise_error(self) -> NoReturn:
        if threading.current_thread() is not self._feeder:
            self._error_seen = True
        raise self._link.error

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
