"""Rounds over all live streams: at most one chunk of each, batched across streams.

Requests come from any thread by `submit`; everything else happens in the thread that calls `step`
(the one that `start` makes, or a test's). What a round costs grows with the streams that have
something to do, not with those that are open.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from ..chunks import Chunk, milliseconds, samples_needed, total_frames
from ..config import SAMPLE_RATE, TOKEN_FRAME_SAMPLES
from ..decoding import Token
from ..errors import INTERNAL, NOT_FOUND, UNAVAILABLE, AsrError, invalid
from ..options import VAD, Options
from ..pcm import MAX_CHANNELS, SAMPLE_RATES, LiveAudio
from ..recognizer import Recognizer
from ..text import Fixed, Word
from .arena import Arena
from .metrics import Metrics
from .rounds import rounds_for
from .segments import (
    END,
    FINALIZE,
    LANGUAGE,
    MAX_LENGTH,
    RECOVERED,
    SILENCE,
    Cut,
    Ended,
    Segment,
    UnheardSpeech,
)
from .sessions import Session, SessionTable
from .vad import VoiceActivity, VoiceDetector

CHANGEABLE = ("language", "finalize")  # parameters of later packets
MAX_WAITING = 20_000  # packets of a stream without an answer, whatever audio they have
MAX_ROWS = 128  # streams that one forward call takes
SWEEP_INTERVAL_S = 0.25  # how long idle streams may outlive their limit
LONG_QUEUE_S = 5.0  # audio waiting: worth asking whether somebody still wants the text

log = logging.getLogger(__name__)


@dataclass
class Update:
    """The answer to one request: what it fixed, or why it was refused."""

    text: str = ""
    words: list[Word] = field(default_factory=list)
    language: str | None = None
    is_final: bool = False  # the answer to END
    segment: int = 0  # the one that is running
    segment_start: int = 0  # its first sample: what a lost stream is to be sent again from
    ended: list[Ended] = field(default_factory=list)  # segments that ended with this answer
    audio_processed_ms: int = 0
    missing: int = 0  # samples of a channel, as they are sent, that the next chunk lacks at least
    server: dict | None = None  # on START: what is on offer
    error: AsrError | None = None

    def add(self, fixed: Fixed) -> None:
        self.text += fixed.text
        self.words += fixed.words

    def as_dict(self) -> dict:
        """RESULT on the wire."""
        result = {
            "text": self.text,
            "is_final": self.is_final,
            "segment": self.segment,
            "segment_start_sample": self.segment_start,
            "words": [word._asdict() for word in self.words],
            "language": self.language,
            "audio_processed_ms": self.audio_processed_ms,
            "missing_samples": self.missing,
        }
        if self.ended:
            result["segments"] = list(self._segments())
        if self.server is not None:
            result["server"] = self.server
        return result

    def _segments(self) -> Iterator[dict]:
        """What this answer adds to each segment that it touches, where one ended with it."""
        text = words = 0
        for ended in self.ended:
            chars, own = slice(text, ended.text_until), slice(words, ended.words_until)
            yield self._piece(ended.segment, ended.language, chars, own) | {
                "is_final": True,
                "start_ms": milliseconds(ended.start),
                "end_ms": milliseconds(ended.cut.sample),
                "reason": ended.cut.reason,
            }
            text, words = ended.text_until, ended.words_until
        if self.text[text:] or self.words[words:]:
            rest = slice(text, None), slice(words, None)
            yield self._piece(self.segment, self.language, *rest) | {"is_final": False}

    def _piece(self, segment: int, language: str | None, chars: slice, words: slice) -> dict:
        return {
            "segment": segment,
            "text": self.text[chars],
            "words": [word._asdict() for word in self.words[words]],
            "language": language,
        }


@dataclass
class Request:
    """One packet of a stream. `reply` is called once, from the engine's thread.

    is_cancelled: whether nobody waits for the reply any more, as far as is known.
    """

    id: Hashable
    audio: np.ndarray  # (n,) int16, n >= 0
    start: bool
    end: bool
    parameters: dict
    reply: Callable[[Update], None]
    is_cancelled: Callable[[], bool] = lambda: False
    until: int = 0  # samples of the stream up to this packet's end
    language: str | None = None  # where it changes with this packet
    finalize: bool = False
    cuts: list[Cut] = field(default_factory=list)  # where segments are to end in it, in order
    update: Update = field(default_factory=Update)
    arrived: float = field(default_factory=time.monotonic)  # seconds, for the metrics alone
    chunks: int = 0  # decoded in it

    @property
    def stop(self) -> int:
        """The sample of the stream up to which the running segment is to be decoded."""
        return self.cuts[0].sample if self.cuts else self.until

    def answer(self, update: Update) -> None:
        """Reply. A reply that cannot be delivered, to a client that is gone, harms nobody else."""
        try:
            self.reply(update)
        except Exception:
            log.exception("an answer could not be delivered")


class StreamingEngine:
    """Live streams on one device. Allocates all their memory at once.

    num_slots: streams at a time.  idle_timeout_s: a stream without a packet for longer is ended.
    max_queued_s: audio of one stream that may wait to be decoded.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        num_slots: int = 64,
        idle_timeout_s: float = 30.0,
        max_queued_s: float = 900.0,
    ):
        self.recognizer = recognizer
        self.max_queued_s = max_queued_s
        self.table = SessionTable(num_slots, idle_timeout_s)
        self.arena = Arena(recognizer, num_slots)
        self.rounds = rounds_for(recognizer, self.arena, MAX_ROWS)
        self.metrics = Metrics()
        self._detector: VoiceDetector | None = None
        self._ready: dict[Session, None] = {}  # those with a chunk to decode, in order
        self._next_sweep = float("-inf")
        self._inbox: deque[Request] = deque()
        self._nothing_new = threading.Lock()  # the engine waits for it: cheaper than a Condition
        self._nothing_new.acquire()
        self._stopping = self._draining = False
        self.is_drained = False
        self._submitting = threading.Lock()
        self._thread: threading.Thread | None = None

    def warm_up(self) -> None:
        """Run every lookahead once, so that the first stream pays for nothing."""
        self.rounds.warm_up()
        self.recognizer.biases.warm_up()

    def start(self) -> None:
        """Run rounds in a thread of the engine's own until `stop`."""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def drain(self) -> None:
        """Refuse new streams from now on; `is_drained` once those that live have ended."""
        self._draining = True

    def stop(self) -> None:
        """End the thread. Every request still unanswered is refused with UNAVAILABLE.

        May be called again.
        """
        with self._submitting:
            self._stopping = True
            self._wake()
        if self._thread is not None:
            self._thread.join()
        refusal = AsrError(UNAVAILABLE, "the server is shutting down")
        for session in self.table:
            self._drop(session, "shutdown", refusal)
        while self._inbox:
            self._refuse(self._inbox.popleft(), refusal)

    def submit(self, *requests: Request) -> None:
        """Hand over packets, which wake the engine once; returns at once, from any thread."""
        with self._submitting:
            if not self._stopping:
                self._inbox.extend(requests)
                self._wake()
                return
        for request in requests:
            request.answer(Update(error=AsrError(UNAVAILABLE, "the server is shutting down")))

    def _wake(self) -> None:
        if self._nothing_new.locked():  # only `_submitting` releases it
            self._nothing_new.release()

    def step(self, now: float) -> bool:
        """Take in what was submitted, run one round, answer what is done.

        now: seconds on any steady clock. Returns whether there is more to do at once.
        """
        while self._inbox:
            self._accept(self._inbox.popleft(), now)
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_INTERVAL_S
            for session in self.table.expired(now):
                self._drop(session, "idle")
            self._drop_cancelled()
        if self._ready:
            began = time.perf_counter()
            self._round(now)
            self.metrics.rounds += 1
            self.metrics.busy_s += time.perf_counter() - began
        # here no START is under way, and none will be taken
        self.is_drained = self._draining and not (len(self.table) or self._inbox)
        return bool(self._ready or self._inbox)

    def _drop_cancelled(self) -> None:
        """End streams whose client has died and left much behind: others wait for the decoder."""
        for session in list(self._ready):
            if _queued_s(session) > LONG_QUEUE_S and session.requests[-1].is_cancelled():
                error = AsrError(UNAVAILABLE, "the request was cancelled, and its stream with it")
                self._drop(session, "cancelled", error)

    def _round(self, now: float) -> None:
        """One chunk of every session that has one."""
        batches = defaultdict(list)
        for session in self._ready:
            batches[session.options.lookahead].append(session)
        for lookahead, sessions in sorted(batches.items()):  # short chunks are due soonest
            for first in range(0, len(sessions), MAX_ROWS):
                batch = sessions[first : first + MAX_ROWS]
                self._decode(batch, lookahead)
                for session in batch:
                    self._advance(session, now)

    def _run(self) -> None:
        more = False
        while not self._stopping:
            if not more:
                self._nothing_new.acquire(timeout=SWEEP_INTERVAL_S)
            try:
                more = self.step(time.monotonic())
            except Exception:  # a fault here must not end every stream
                log.exception("a round failed")
                more = False

    # Taking requests in

    def _accept(self, request: Request, now: float) -> None:
        session = self.table.get(request.id)
        try:
            if request.start:
                if session is not None:  # a START on a live id begins that stream anew
                    error = AsrError(NOT_FOUND, f"stream {request.id} was begun anew by a START")
                    self._drop(session, "restart", error)
                    session = None
                session = self._open(request, now)
                self._check_room(session, request)
            elif session is None:
                raise AsrError(
                    NOT_FOUND,
                    f"no stream {request.id}: it never started, has ended, or was idle for more "
                    f"than {self.table.idle_timeout_s:g} s; begin it with the START flag",
                )
            else:
                self._check_room(session, request)
                self._change(session, request)
            self._hear(session, request)
        except Exception as error:
            failure = _as_asr_error(error)
            if request.start:
                self.metrics.refused[failure.code] += 1
            if session is not None and (request.start or request.end):  # nothing can follow
                self._drop(session, "error", failure)
            self._refuse(request, failure)
            return
        session.last_active = now
        session.requests.append(request)
        if request.end:
            self.table.detach(session)
        if session not in self._ready:
            self._advance(session, now)

    def _open(self, request: Request, now: float) -> Session:
        """Admit a stream."""
        if self._draining:
            raise AsrError(UNAVAILABLE, "draining: the server takes no new streams and stops soon")
        options = self.recognizer.live_options(request.parameters)
        if not self.table.has_room():
            size = self.table.num_slots
            raise AsrError(UNAVAILABLE, f"at capacity ({len(self.table)}/{size})")
        prompt_id = self.recognizer.prompt_id(options.language)
        segment = self._segment(options, prompt_id)
        vad = self._voice(options)
        live = LiveAudio(options.sample_rate, options.channels)
        session = self.table.admit(request.id, options, prompt_id, segment, live, now)
        try:
            self.arena.reset(session.slot)
        except Exception:
            self.table.release(session)
            raise
        if options.recover_ms:
            session.unheard = UnheardSpeech(options.recover_ms)
        session.vad, session.asked_language = vad, options.language
        self.metrics.started += 1
        request.update.server = self.offer()
        request.finalize = options.finalize
        return session

    def _voice(self, options: Options) -> VoiceActivity | None:
        """Of a stream that wants to be heard by the voice detector, which is made on first use."""
        if not options.segments or options.endpoint_by != VAD:
            return None
        if self._detector is None:
            self._detector = VoiceDetector(self.recognizer.device)
        return VoiceActivity()

    def _check_room(self, session: Session, request: Request) -> None:
        """Refuse a packet that would make more wait than may. END comes through: it is the last."""
        options = session.options
        packet_s = len(request.audio) / options.channels / options.sample_rate
        if packet_s > self.max_queued_s:
            raise invalid(
                f"{packet_s:.1f} s of audio in a packet; valid: up to {self.max_queued_s:g} s"
            )
        if request.end:
            return
        again = "it was not heard: send it again once others are answered"
        waiting_s = _queued_s(session)
        if waiting_s + packet_s > self.max_queued_s:
            raise AsrError(
                UNAVAILABLE,
                f"{waiting_s:.1f} s of this stream's audio wait to be decoded, and a packet of "
                f"{packet_s:.1f} s would make it more than {self.max_queued_s:g} s; {again}",
            )
        if len(session.requests) >= MAX_WAITING:
            raise AsrError(UNAVAILABLE, f"{MAX_WAITING} packets of this stream wait; {again}")

    def _change(self, session: Session, request: Request) -> None:
        """Read the parameters of a later packet: `language` may change, others may be repeated."""
        if not request.parameters:
            return
        wanted = self.recognizer.live_options(request.parameters)
        for name in request.parameters:
            if name not in CHANGEABLE and getattr(wanted, name) != getattr(session.options, name):
                raise invalid(
                    f"{name} {request.parameters[name]!r} on a running stream; it began with "
                    f"{getattr(session.options, name)!r}; valid on later packets: "
                    f"{', '.join(CHANGEABLE)}"
                )
        request.finalize = wanted.finalize
        if "language" in request.parameters and wanted.language != session.asked_language:
            session.asked_language = request.language = wanted.language

    def _hear(self, session: Session, request: Request) -> None:
        """Take a packet's audio in. A language holds from its first sample on; what else ends a
        segment is placed behind the last.

        Where a segment ends the resampler ends too: what it held back belongs to that segment.
        """
        audio = session.audio
        heard = audio.stop
        if request.language is not None:
            audio.append(session.live.finish())
            request.cuts.append(Cut(audio.stop, LANGUAGE, request.language))
        audio.append(session.live.push(request.audio))
        if request.end or request.finalize:
            audio.append(session.live.finish())
            request.cuts.append(Cut(audio.stop, END if request.end else FINALIZE))
        request.until = audio.stop
        self.metrics.audio_samples += audio.stop - heard

    def offer(self) -> dict:
        """What a stream may ask for, as told on START."""
        return {
            "model": self.recognizer.name,
            "latencies_ms": list(self.recognizer.latencies_ms),
            "languages": list(self.recognizer.languages),
            "sample_rates": list(SAMPLE_RATES),
            "max_channels": MAX_CHANNELS,
            "slots": self.table.num_slots,
            "idle_timeout_s": self.table.idle_timeout_s,
            "max_queued_s": self.max_queued_s,
        }

    # Rounds

    def _advance(self, session: Session, now: float) -> None:
        """Answer the requests whose audio is decoded; find out whether the next has a chunk."""
        while session.requests:
            request, segment = session.requests[0], session.segment
            heard = request.stop - segment.start
            chunk_end = segment.frames + session.options.lookahead + 1
            if samples_needed(chunk_end) <= heard or (
                request.cuts and segment.frames < total_frames(heard)
            ):
                self._ready[session] = None
                return
            session.last_active = now
            try:
                if request.cuts:
                    self._cut(session, request.cuts.pop(0))
                if not request.cuts:
                    session.requests.popleft()
                    self._answer(session, request)
            except Exception as error:
                failure = _as_asr_error(error)
                self._drop(session, "error", failure)
                self._refuse(request, failure)
        self._ready.pop(session, None)

    def _answer(self, session: Session, request: Request) -> None:
        update, segment = request.update, session.segment
        heard = request.until
        if not request.end:
            heard = min(heard, segment.start + segment.frames * TOKEN_FRAME_SAMPLES)
        update.is_final = request.end
        update.segment = segment.index
        update.segment_start = segment.start
        update.language = segment.assembler.language or session.language
        update.audio_processed_ms = milliseconds(heard)
        chunk_end = segment.frames + session.options.lookahead + 1
        update.missing = session.live.least(
            segment.start + samples_needed(chunk_end) - request.until
        )
        if request.end:
            self._drop(session, "end")
        request.answer(update)
        if request.chunks:
            lag_s = time.monotonic() - request.arrived
            self.metrics.chunk_lag_s.add(lag_s, request.chunks)

    def _decode(self, sessions: list[Session], lookahead: int) -> None:
        """One chunk of each session, as one batch."""
        num_frames = lookahead + 1
        slots = [session.slot for session in sessions]
        try:
            self.metrics.batch_rows.add(len(sessions))
            rows = [self._chunk(session, num_frames) for session in sessions]
            tokens = self.rounds.step(rows, lookahead, slots)
            self._listen(sessions, num_frames)
        except Exception as error:
            failure = _as_asr_error(error)
            for session in sessions:
                self._drop(session, "error", failure)
            return
        for session, new in zip(sessions, tokens, strict=True):
            try:
                self._take(session, new, num_frames)
            except Exception as error:
                self._drop(session, "error", _as_asr_error(error))

    def _take(self, session: Session, tokens: list[Token], num_frames: int) -> None:
        """What a chunk said, and where it ends a segment."""
        request, segment, options = session.requests[0], session.segment, session.options
        request.chunks += 1
        request.update.add(segment.push(tokens, num_frames, request.stop))
        if segment.start + samples_needed(segment.frames) <= request.stop:  # more may follow
            cut = segment.endpoint(options, session.vad)
            if cut is None or cut.reason == SILENCE:
                cut = self._recovery(session, num_frames, bool(tokens), cut is not None) or cut
            if cut is not None:
                self._cut(session, cut)
            elif segment.must_end(options):
                sample = segment.start + samples_needed(segment.frames)
                request.cuts.insert(0, Cut(sample, MAX_LENGTH))
        needed = session.segment.keep_from(options, session.unheard)
        if session.vad is not None:
            needed = min(needed, session.segment.start + session.vad.heard)
        session.audio.drop_before(min(needed, request.stop))  # behind a cut nothing is heard yet

    def _listen(self, sessions: list[Session], num_frames: int) -> None:
        """Let the voice detector hear as much as the decoder has heard."""
        voices, samples = [], []
        for session in sessions:
            if session.vad is not None:
                segment, vad = session.segment, session.vad
                stop = segment.start + samples_needed(segment.frames + num_frames)
                voices.append(vad)
                samples.append(session.audio.window(segment.start + vad.heard, stop))
        if voices:
            self._detector.hear(voices, samples)

    def _recovery(
        self, session: Session, num_frames: int, spoke: bool, in_silence: bool
    ) -> Cut | None:
        """Where to begin afresh, if the decoder does not hear what is said.

        in_silence: it begins afresh in any case, at no loss of what was loud: that is heard twice,
        and no more often.
        """
        if session.unheard is None:
            return None
        segment = session.segment
        last = segment.frames - 1  # up to it the audio is there: the last frame may lack its end
        heard = session.audio.window(
            segment.start + max(0, last - num_frames) * TOKEN_FRAME_SAMPLES,
            segment.start + last * TOKEN_FRAME_SAMPLES,
        )
        ago = session.unheard.push(heard, spoke)
        if in_silence and segment.begun != RECOVERED:
            ago = ago or session.unheard.begin_afresh()
        return segment.recovery(ago + 1) if ago else None

    def _cut(self, session: Session, cut: Cut) -> None:
        """End the running segment; another begins there, unless the stream ends."""
        segment, update = session.segment, session.requests[0].update
        update.add(segment.finish(cut.sample))
        session.language = segment.assembler.language or session.language
        if segment.has_text:
            lengths = len(update.text), len(update.words)
            language = segment.assembler.language
            update.ended.append(Ended(segment.index, cut, segment.start, language, *lengths))
        if cut.reason == END:
            return
        if cut.language is not None:
            session.options = replace(session.options, language=cut.language)
            session.prompt_id = self.recognizer.prompt_id(cut.language)
        index = segment.index + segment.has_text
        session.segment = self._segment(session.options, session.prompt_id, index, cut.sample)
        session.segment.begun = cut.reason
        self.arena.reset(session.slot)
        if session.vad is not None:
            session.vad.reset()

    def _segment(self, options: Options, prompt_id: int, *where: int) -> Segment:
        recognizer = self.recognizer
        return Segment(recognizer.assembler(options), recognizer.bias(options, prompt_id), *where)

    def _chunk(self, session: Session, num_frames: int) -> Chunk:
        request, segment = session.requests[0], session.segment
        needed = segment.start + samples_needed(segment.frames + num_frames)
        ends = bool(request.cuts) and request.stop < needed
        first = max(segment.start, session.audio.start)
        return Chunk(
            samples=session.audio.window(first, min(needed, request.stop)),
            start_sample=first - segment.start,
            first_frame=segment.frames,
            num_samples=request.stop - segment.start if ends else None,
            prompt_id=session.prompt_id,
            bias=segment.bias,
        )

    def _drop(self, session: Session, reason: str, error: AsrError | None = None) -> None:
        """Free the session's slot; its unanswered requests get the error."""
        self.table.release(session)
        self._ready.pop(session, None)
        self.metrics.ended[reason] += 1
        log.info(
            "stream ended: reason=%s audio_s=%.1f segments=%d",
            reason,
            session.audio.stop / SAMPLE_RATE,
            session.segment.index,
        )
        while session.requests:
            self._refuse(session.requests.popleft(), error)

    def _refuse(self, request: Request, error: AsrError) -> None:
        self.metrics.errors[error.code] += 1
        request.answer(Update(error=error))


def _queued_s(session: Session) -> float:
    """Audio of a stream that waits to be decoded, in seconds."""
    decoded = session.segment.start + session.segment.frames * TOKEN_FRAME_SAMPLES
    return max(0, session.audio.stop - decoded) / SAMPLE_RATE


def _as_asr_error(error: Exception) -> AsrError:
    """An AsrError as it is; anything else is a fault of ours, logged and told by its kind."""
    if isinstance(error, AsrError):
        return error
    log.error("a fault while serving a stream", exc_info=error)
    return AsrError(INTERNAL, f"decoding failed: {type(error).__name__}")
