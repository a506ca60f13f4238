"""One live stream without its connection: packets in, requests out, answers in, the transcript.

No I/O, no locks, no clock: a client of threads and one of asyncio can both drive it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from tritonclient.grpc import service_pb2

from nemotron_asr.config import SAMPLE_RATE
from nemotron_asr.errors import AsrError
from nemotron_asr.options import option_table

from . import wire
from .audio import MODEL_FORMAT, AudioFormat
from .errors import InvalidArgument
from .replay import AUDIO, END, SILENCE, START, Overlap, Packet, Tape
from .results import Result, Segment, Transcript, Word, words_from_json

_DEFAULT_IDLE_TIMEOUT_S = 60  # where the server does not say
_MERGE_BEHIND = 2  # packets in flight; of those that answer at once none waits
_MERGED_MS = 1200  # no packet that waits grows beyond; the longest chunk is 1120 ms
_UNDER_WAY_S = 30  # of audio at a time; more than half of what the server lets wait is never


@dataclass
class _Given:
    """What the caller was given of the running segment."""

    text: str = ""
    words: list[Word] = field(default_factory=list)


class StreamSession:
    """The state of one stream, over as many connections as it takes.

    options: the stream's request parameters.  details: ask for RESULT with every packet.
    progress: keep a Result for every packet, not only where text, words or the end came.
    replay: keep what `restart` needs.  format: of the samples.
    merge: send fewer packets: audio waits until it completes a chunk, as far as the server tells
    what one lacks, or until no more than one packet waits for its answer.
    keep: what was said, for `transcript`; without, memory does not grow with the stream.
    """

    def __init__(
        self,
        options: Mapping[str, str | int | bool],
        *,
        details: bool,
        progress: bool,
        replay: bool = False,
        merge: bool = False,
        keep: bool = True,
        format: AudioFormat = MODEL_FORMAT,
    ):
        self.server: dict = {}  # what the server offers, from the answer to START
        self.results: deque[Result] = deque()  # not yet read
        self.in_flight: deque[Packet] = deque()  # sent on this connection, not answered
        self.started = self.ending = self.done = False  # START answered, END put in, END answered
        self.tape = Tape(options)
        self._language = options.get("language")  # of the audio that is put in now
        self._details = details
        self._progress = progress
        self._replay = replay
        self._merge = merge
        self._keep_all = keep
        self._format = format
        self._part = SILENCE  # of a frame whose other channels are still to come
        self._waiting: deque[Packet] = deque()  # not sent on this connection
        self._finished: list[Segment] = []
        self._num_finished = 0
        self._given = _Given()
        self._texts: list[str] = []
        self._all_words: list[Word] = []
        self._last_language: str | None = None
        self._processed_ms: int | None = None
        self.restart()

    @property
    def idle_timeout_s(self) -> float:
        """How long the server keeps a stream that sends nothing, in seconds."""
        return self.server.get("idle_timeout_s", _DEFAULT_IDLE_TIMEOUT_S)

    @property
    def language(self) -> str | None:
        """The language that was asked for, for the audio that is put in now."""
        return self._language

    @property
    def unanswered(self) -> int:
        """Packets that wait for their answers, or to be sent; not one that waits for more audio."""
        grows = self._merge and self._waiting and self._may_grow(self._waiting[-1])
        return len(self.in_flight) + len(self._waiting) - bool(grows)

    def restart(self) -> None:
        """Begin on a new connection, as a new stream of the server, from the running segment on."""
        self.started = False
        self._sequence_id = wire.new_sequence_id()
        self._begin = self.tape.begin  # samples of the stream before this connection's
        self._has_text = False  # this connection
        self.in_flight.clear()
        self._under_way = 0  # samples in flight
        self._missing: int | None = None  # samples that a chunk lacks beside those sent, if known
        self._counted_from = 0, self._begin  # a sample of the server's, and the same one here
        self._waiting = deque(self.tape)
        given = self._given
        self._overlap = Overlap(given.text, given.words) if given.text else None

    def whole_frames(self, pcm: np.ndarray) -> np.ndarray:
        """The samples up to a whole frame of channels; the rest waits for those that follow."""
        channels = self._format.channels
        if channels == 1:
            return pcm
        pcm = np.concatenate([self._part, pcm])
        whole = len(pcm) - len(pcm) % channels
        self._part = pcm[whole:]
        return pcm[:whole]

    def read_language(self, language: str) -> str:
        """A language as the server writes it.  Raises InvalidArgument naming the valid ones."""
        table = option_table(self.server.get("languages", ()), ())
        try:
            return table["language"].read(language)
        except AsrError as error:
            raise InvalidArgument(str(error)) from error

    def put(self, kind: str, pcm: np.ndarray = SILENCE, **options: str | bool) -> None:
        """The next packet.  pcm: (n,) int16, n >= 0.  options: `finalize` or `language`."""
        self.ending = kind == END
        self._language = options.get("language", self._language)
        last = self._waiting[-1] if self._waiting else None
        plain = kind == AUDIO and len(pcm) and not options
        if self._merge and plain and last is not None and self._may_grow(last):
            self.tape.extend(last, pcm)
        else:
            self._waiting.append(self.tape.add(kind, pcm, options))

    def _may_grow(self, packet: Packet) -> bool:
        """Whether audio may be added to a packet that waits to be sent."""
        short = 0 < len(packet.pcm) < self._format.num_samples(_MERGED_MS)
        return packet.is_plain and short and not packet.answered

    def requests(self) -> Iterator[service_pb2.ModelInferRequest]:
        """What is to be sent now: the START alone until it is answered, then what has room."""
        while self._waiting and self._may_go(self._waiting[0]):
            packet = self._waiting.popleft()
            packet.under_way = len(packet.pcm)
            self._missing = self._missing_after(packet.under_way)
            self._under_way += packet.under_way
            self.in_flight.append(packet)
            yield self._request(packet)

    def _may_go(self, packet: Packet) -> bool:
        if not self.started:
            return packet.kind == START
        if self._merge and not self._is_worth_it(packet):
            return False
        limit_s = min(_UNDER_WAY_S, self.server.get("max_queued_s", _UNDER_WAY_S * 2) / 2)
        limit = self._format.num_samples(int(limit_s * 1000))
        return not self.in_flight or self._under_way + len(packet.pcm) <= limit

    def _is_worth_it(self, packet: Packet) -> bool:
        """Whether a packet completes a chunk, or something behind it does not wait."""
        if len(self.in_flight) >= _MERGE_BEHIND:
            return False
        is_last = len(self._waiting) == 1 and self._may_grow(packet)
        return not is_last or len(packet.pcm) >= (self._missing or 0)

    def _missing_after(self, sent: int) -> int | None:
        """What a chunk lacks when so many more samples are sent.

        Of audio that is resampled that is not certain: then nothing waits until the server tells.
        """
        if self._missing is None or self._missing > sent:
            return self._missing and self._missing - sent
        if self._format.sample_rate != SAMPLE_RATE:
            return None
        chunk = self._format.num_samples(self.tape.options["latency_ms"])
        return chunk - (sent - self._missing) % chunk

    def end_request(self) -> service_pb2.ModelInferRequest:
        """An END beside the packets: the server may forget what is on this connection."""
        return wire.build_request(self._sequence_id, SILENCE, end=True)

    def _request(self, packet: Packet) -> service_pb2.ModelInferRequest:
        return wire.build_request(
            self._sequence_id,
            packet.pcm,
            start=packet.kind == START,
            end=packet.kind == END,
            options=packet.options,
            with_result=self._details or packet.kind != AUDIO or bool(packet.options),
        )

    def accept(self, response: service_pb2.ModelStreamInferResponse) -> bool:
        """Take the next answer; raises the error it is.

        Returns whether the stream got on: False for what is only answered again.
        """
        packet = self.in_flight.popleft()
        self._under_way -= packet.under_way
        answer = wire.parse_response(response)
        again = packet.answered
        result = answer.result or {}
        if not self.in_flight and "missing_samples" in result:  # else more was sent since
            self._missing = result["missing_samples"] * self._format.channels
        if packet.kind == START:
            self.server = result.get("server", {})
            self.started = True
        else:
            self.tape.answered(packet)
            self.done = packet.kind == END
            self._drop(packet, result.get("segment_start_sample", 0))
        pieces = tuple(self._pieces(answer, self._base_ms()))
        self._keep(packet, result, pieces, again)
        return packet.kind != START and not again

    def _drop(self, packet: Packet, segment_start: int) -> None:
        """What is no longer needed.  segment_start: in samples of 16 kHz, of this connection.

        Where a packet's options ended a segment the resampler ended too, and rounded: the segment
        begins at that packet, and what follows is counted from there.
        """
        from_server, start = self._counted_from
        ratio = self._format.sample_rate / SAMPLE_RATE
        start += round((segment_start - from_server) * ratio) * self._format.channels
        rounding = (1 + ratio) * self._format.channels
        if packet.options and abs(start - packet.end) <= rounding:
            start = packet.end
            self._counted_from = segment_start, start
        self.tape.drop_before(start if self._replay else self.tape.answered_until)

    def _base_ms(self) -> int:
        """Where in the stream this connection's time 0 is."""
        frames = self._begin // self._format.channels
        return frames * 1000 // self._format.sample_rate

    def _pieces(self, answer: wire.Answer, base_ms: int) -> Iterator[Segment]:
        """What an answer adds to each segment, without what was given before."""
        whole = answer.result or {"text": answer.text}
        for piece in whole.get("segments", [{**whole, "is_final": False}]):
            text = piece["text"]
            words = words_from_json(piece.get("words") if self._details else (), base_ms)
            if text and not self._has_text:  # the server knows of none before it
                self._has_text = True
                text = " " + text if self._num_finished else text
            ends = piece["is_final"]
            if self._overlap is not None:
                text, words = self._without_overlap(text, words, ends, piece, base_ms)
            self._given.text += text
            self._given.words += words
            times = {}
            if ends:
                times = {name: piece[name] + base_ms for name in ("start_ms", "end_ms")}
                times["reason"] = piece["reason"]
            new = Segment(self._num_finished, text, words, piece.get("language"), ends, **times)
            if text or words or (ends and self._given.text):
                yield new
            if ends:
                self._finish(new)

    def _without_overlap(self, text: str, words, ends: bool, piece: dict, base_ms: int):
        overlap = self._overlap
        begun = bool(self._num_finished or self._given.text)
        text, words = overlap.new(text, words, ends, begun)
        if overlap.over or (ends and overlap.past(piece["end_ms"] + base_ms)):
            self._overlap = None
        return text, words

    def _finish(self, last: Segment) -> None:
        """A segment ends with this piece: keep it whole."""
        given, self._given = self._given, _Given()
        if not given.text:
            return
        self._num_finished += 1
        if self._keep_all:
            whole = replace(last, text=given.text.strip(), words=tuple(given.words))
            self._finished.append(whole)

    def _keep(self, packet: Packet, result: dict, pieces: tuple[Segment, ...], again: bool) -> None:
        """Make the Result of an answer, where somebody wants to read it."""
        if result:
            self._last_language = result.get("language") or self._last_language
            processed_ms = result.get("audio_processed_ms", 0) + self._base_ms()
            self._processed_ms = max(processed_ms, self._processed_ms or 0)
        text = "".join(piece.text for piece in pieces)
        words = sum((piece.words for piece in pieces), ())
        if self._keep_all:
            self._texts.append(text)
            self._all_words += words
        finalized = "finalize" in packet.options and not again
        progress = self._progress and packet.kind == AUDIO and not again
        if not (pieces or self.done or finalized or progress):
            return
        ended = self.done and pieces
        self.results.append(
            Result(
                text=text,
                words=words,
                language=self._last_language if result else None,
                is_final=self.done,
                audio_processed_ms=self._processed_ms if result else None,
                segment=pieces[-1].segment if ended else self._num_finished,
                segments=pieces,
                finalized=finalized,
            )
        )

    def transcript(self) -> Transcript:
        """Everything so far."""
        return Transcript(
            "".join(self._texts),
            tuple(self._all_words),
            self._last_language,
            self._processed_ms,
            tuple(self._finished),
        )
