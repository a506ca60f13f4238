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
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import numpy as np

from ..chunks import Chunk, first_sample_needed, samples_needed, total_frames
from ..config import SAMPLE_RATE, TOKEN_FRAME_SAMPLES
from ..errors import INTERNAL, NOT_FOUND, UNAVAILABLE, AsrError, invalid
from ..options import SAMPLE_RATES
from ..recognizer import Recognizer
from ..text import TextAssembler, Word
from .arena import Arena
from .rounds import rounds_for
from .sessions import Session, SessionTable

MAX_ROWS = 128  # streams that one forward call takes
SWEEP_INTERVAL_S = 0.25  # how long idle streams may outlive their limit

log = logging.getLogger(__name__)


@dataclass
class Update:
    """The answer to one request: what it fixed, or why it was refused."""

    text: str = ""
    words: list[Word] = field(default_factory=list)
    language: str | None = None
    is_final: bool = False  # the answer to END
    segment: int = 0
    audio_processed_ms: int = 0
    server: dict | None = None  # on START: what is on offer
    error: AsrError | None = None

    def as_dict(self) -> dict:
        """RESULT on the wire."""
        result = {
            "text": self.text,
            "is_final": self.is_final,
            "segment": self.segment,
            "words": [word._asdict() for word in self.words],
            "language": self.language,
            "audio_processed_ms": self.audio_processed_ms,
        }
        return result if self.server is None else {**result, "server": self.server}


@dataclass
class Request:
    """One packet of a stream. `reply` is called once, from the engine's thread."""

    id: Hashable
    audio: np.ndarray  # (n,) int16, n >= 0
    start: bool
    end: bool
    parameters: dict
    reply: Callable[[Update], None]
    until: int = 0  # samples of the stream up to this packet's end
    update: Update = field(default_factory=Update)

    def answer(self, update: Update) -> None:
        """Reply. A reply that cannot be delivered, to a client that is gone, harms nobody else."""
        try:
            self.reply(update)
        except Exception:
            log.exception("an answer could not be delivered")


class StreamingEngine:
    """Live streams on one device. Allocates all their memory at once.

    num_slots: streams at a time.  idle_timeout_s: a stream without a packet for longer is ended.
    """

    def __init__(self, recognizer: Recognizer, num_slots: int = 64, idle_timeout_s: float = 30.0):
        self.recognizer = recognizer
        self.table = SessionTable(num_slots, idle_timeout_s)
        self.arena = Arena(recognizer, num_slots)
        self.rounds = rounds_for(recognizer, self.arena, MAX_ROWS)
        self._ready: dict[Session, None] = {}  # those with a chunk to decode, in order
        self._next_sweep = float("-inf")
        self._inbox: deque[Request] = deque()
        self._nothing_new = threading.Lock()  # the engine waits for it: cheaper than a Condition
        self._nothing_new.acquire()
        self._stopping = False
        self._submitting = threading.Lock()
        self._thread: threading.Thread | None = None

    def warm_up(self) -> None:
        """Run every lookahead once, so that the first stream pays for nothing."""
        self.rounds.warm_up()

    def start(self) -> None:
        """Run rounds in a thread of the engine's own until `stop`."""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Every request still unanswered is refused with UNAVAILABLE."""
        with self._submitting:
            self._stopping = True
            self._wake()
        if self._thread is not None:
            self._thread.join()
        refusal = AsrError(UNAVAILABLE, "the server is shutting down")
        for session in self.table:
            self._drop(session, "shutdown", refusal)
        while self._inbox:
            self._inbox.popleft().answer(Update(error=refusal))

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
        batches = defaultdict(list)
        for session in self._ready:
            batches[session.options.lookahead].append(session)
        for lookahead, sessions in sorted(batches.items()):  # short chunks are due soonest
            for first in range(0, len(sessions), MAX_ROWS):
                batch = sessions[first : first + MAX_ROWS]
                self._decode(batch, lookahead)
                for session in batch:
                    self._advance(session, now)
        return bool(self._ready or self._inbox)

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
                session = self._open(request, now)
            elif session is None:
                raise AsrError(
                    NOT_FOUND,
                    f"no stream {request.id}: it never started, has ended, or was idle for more "
                    f"than {self.table.idle_timeout_s:g} s; begin it with the START flag",
                )
            else:
                self._check_unchanged(session, request)
        except Exception as error:
            failure = _as_asr_error(error)
            if request.end and session is not None:  # nothing can follow: Triton forgets the id
                self._drop(session, "error", failure)
            request.answer(Update(error=failure))
            return
        session.audio.append(request.audio)
        session.last_active = now
        request.until = session.audio.stop
        session.requests.append(request)
        if request.end:
            self.table.detach(session)
        if session not in self._ready:
            self._advance(session, now)

    def _open(self, request: Request, now: float) -> Session:
        """Admit a stream."""
        options = self.recognizer.live_options(request.parameters)
        if not self.table.has_room():
            size = self.table.num_slots
            raise AsrError(UNAVAILABLE, f"at capacity ({len(self.table)}/{size})")
        prompt_id = self.recognizer.prompt_id(options.language)
        assembler = TextAssembler(self.recognizer.pieces)
        session = self.table.admit(request.id, options, prompt_id, assembler, now)
        try:
            self.arena.reset(session.slot)
        except Exception:
            self.table.release(session)
            raise
        request.update.server = self.offer()
        return session

    def _check_unchanged(self, session: Session, request: Request) -> None:
        """Options may be sent again on later packets, but not changed."""
        if not request.parameters:
            return
        wanted = self.recognizer.live_options(request.parameters)
        for name in request.parameters:
            if getattr(wanted, name) != getattr(session.options, name):
                raise invalid(
                    f"{name} {request.parameters[name]!r} on a running stream; it began with "
                    f"{getattr(session.options, name)!r}, and options are set on START only"
                )

    def offer(self) -> dict:
        """What a stream may ask for, as told on START."""
        return {
            "model": self.recognizer.name,
            "latencies_ms": list(self.recognizer.latencies_ms),
            "languages": list(self.recognizer.languages),
            "sample_rates": list(SAMPLE_RATES),
            "slots": self.table.num_slots,
            "idle_timeout_s": self.table.idle_timeout_s,
        }

    # Rounds

    def _advance(self, session: Session, now: float) -> None:
        """Answer the requests whose audio is decoded; find out whether the next has a chunk."""
        while session.requests:
            request = session.requests[0]
            chunk_end = session.frames + session.options.lookahead + 1
            if samples_needed(chunk_end) <= request.until or (
                request.end and session.frames < total_frames(request.until)
            ):
                self._ready[session] = None
                return
            session.requests.popleft()
            session.last_active = now
            try:
                self._answer(session, request)
            except Exception as error:
                failure = _as_asr_error(error)
                self._drop(session, "error", failure)
                request.answer(Update(error=failure))
        self._ready.pop(session, None)

    def _answer(self, session: Session, request: Request) -> None:
        update = request.update
        heard = min(session.frames * TOKEN_FRAME_SAMPLES, request.until)
        if request.end:
            fixed = session.assembler.finish()
            update.text += fixed.text
            update.words += fixed.words
            update.is_final = True
            heard = request.until
        update.language = session.assembler.language
        update.audio_processed_ms = heard * 1000 // SAMPLE_RATE
        if request.end:
            self._drop(session, "end")
        request.answer(update)

    def _decode(self, sessions: list[Session], lookahead: int) -> None:
        """One chunk of each session, as one batch."""
        num_frames = lookahead + 1
        slots = [session.slot for session in sessions]
        try:
            rows = [self._chunk(session, num_frames) for session in sessions]
            tokens = self.rounds.step(rows, lookahead, slots)
        except Exception as error:
            failure = _as_asr_error(error)
            for session in sessions:
                self._drop(session, "error", failure)
            return
        for session, new in zip(sessions, tokens, strict=True):
            session.frames += num_frames
            session.audio.drop_before(first_sample_needed(session.frames))
            try:
                fixed = session.assembler.push(new)
            except Exception as error:
                self._drop(session, "error", _as_asr_error(error))
                continue
            update = session.requests[0].update
            update.text += fixed.text
            update.words += fixed.words

    def _chunk(self, session: Session, num_frames: int) -> Chunk:
        request = session.requests[0]
        needed = samples_needed(session.frames + num_frames)
        ends = request.end and request.until < needed
        return Chunk(
            samples=session.audio.window(min(needed, request.until)),
            start_sample=session.audio.start,
            first_frame=session.frames,
            num_samples=request.until if ends else None,
            prompt_id=session.prompt_id,
        )

    def _drop(self, session: Session, reason: str, error: AsrError | None = None) -> None:
        """Free the session's slot; its unanswered requests get the error."""
        self.table.release(session)
        self._ready.pop(session, None)
        log.info(
            "stream ended: reason=%s audio_s=%.1f frames=%d",
            reason,
            session.audio.stop / SAMPLE_RATE,
            session.frames,
        )
        while session.requests:
            session.requests.popleft().answer(Update(error=error))


def _as_asr_error(error: Exception) -> AsrError:
    """An AsrError as it is; anything else is a fault of ours, logged and told by its kind."""
    if isinstance(error, AsrError):
        return error
    log.error("a fault while serving a stream", exc_info=error)
    return AsrError(INTERNAL, f"decoding failed: {type(error).__name__}")
