"""Utterances of a stream: where one ends, and the next begins afresh. No clock.

A segment is decoded by an encoder and a decoder that have heard nothing before it, so what it says
depends on its own audio alone: no state, punctuation or error outlives it, and its audio sent
again, as the start of another stream, gives the same text.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..biasing import Bias
from ..chunks import first_sample_needed, milliseconds, samples_needed
from ..config import SAMPLE_RATE, TOKEN_FRAME_MS, TOKEN_FRAME_SAMPLES
from ..decoding import Token
from ..options import Options
from ..text import Fixed, TextAssembler, Word
from .vad import VoiceActivity

SAMPLES_PER_MS = SAMPLE_RATE // 1000
PAUSE_MS, SHORTEST_PAUSE_MS = 480, 160  # of silence, that cut an utterance that is too long
UNSAID_FRAMES = 2  # without a token, where something else tells silence: the decoder may lag
HASTE, PATIENCE = 1.2, 1.25  # times the longest utterance: then any pause will do, then none
SILENCE_FRAMES, ONSET_FRAMES = 250, 12  # without a token: begin afresh every 20 s, 1 s back

# Why a segment ended.
ENDPOINT, FINALIZE, MAX_LENGTH = "endpoint", "finalize", "max_length"
LANGUAGE, SILENCE, RECOVERED, END = "language", "silence", "recovered", "end"

LOUD_DB, QUIETEST_DB, FLOOR_RISE_DB = 10.0, -55.0, 0.05  # above the floor; of full scale; a frame


class Cut(NamedTuple):
    """A sample of the stream at which the running segment ends, and why."""

    sample: int
    reason: str
    language: str | None = None  # of what follows, where it changes


class Ended(NamedTuple):
    """A segment with text that ended within an answer."""

    segment: int
    cut: Cut
    start: int  # its first sample
    language: str | None
    text_until: int  # characters of the answer's text that are its own or earlier
    words_until: int


@dataclass
class Segment:
    """The stretch of a stream that is being decoded."""

    assembler: TextAssembler
    bias: Bias | None = None
    index: int = 0  # those before it that have text
    start: int = 0  # its first sample in the stream
    frames: int = 0  # encoder frames decoded
    spoken: int = 0  # frames up to the last token; 0 where there is none
    has_text: bool = False
    begun: str | None = None  # why the one before it ended
    waiting: list[Word] = field(default_factory=list)  # may reach behind its end

    def push(self, tokens: list[Token], num_frames: int, known: int) -> Fixed:
        """Take in the tokens of the next frames.

        known: samples of the stream that are there.
        Words come with the times of the stream, the text with a space before it where there was
        some before. A word whose last frame reaches behind the audio that was needed to decode it
        waits: the segment may end there.
        """
        self.frames += num_frames
        if tokens:
            self.spoken = tokens[-1].frame + 1
        text, words, tags = self._placed(self.assembler.push(tokens))
        if words or self.waiting:
            done = self.waiting + words
            heard_ms = milliseconds(min(known, self.start + samples_needed(self.frames)))
            words = [word for word in done if word.end_ms <= heard_ms]
            self.waiting = done[len(words) :]
        return Fixed(text, words, tags)

    def finish(self, stop: int) -> Fixed:
        """What remains at its end.  stop: the sample of the stream where that is."""
        text, words, tags = self._placed(self.assembler.finish())
        words = [word.until(milliseconds(stop)) for word in self.waiting + words]
        self.waiting = []
        return Fixed(text, words, tags)

    def _placed(self, fixed: Fixed) -> Fixed:
        text, words, tags = fixed
        if text and not self.has_text:
            self.has_text = True
            text = " " + text if self.index else text
        if self.start and words:
            ms = milliseconds(self.start)
            words = [w._replace(start_ms=w.start_ms + ms, end_ms=w.end_ms + ms) for w in words]
        return Fixed(text, words, tags)

    def recovery(self, frames_ago: int) -> Cut:
        """To begin afresh where speech began that is not heard, behind the last word that was."""
        frame = max(self.spoken, self.frames - frames_ago)
        return Cut(self.start + frame * TOKEN_FRAME_SAMPLES, RECOVERED)

    def endpoint(self, options: Options, vad: VoiceActivity | None = None) -> Cut | None:
        """Where to end this segment, if what is said in it is over.

        vad: has heard the segment, where it tells silence. The decoder must have said all even so.
        """
        if not options.segments:
            return None
        unsaid = self.frames - self.spoken
        silence_ms, silence_from = unsaid * TOKEN_FRAME_MS, 0
        if vad is not None and not self._is_overdue(options, HASTE):
            silence_ms = vad.silence / SAMPLES_PER_MS if unsaid >= UNSAID_FRAMES else 0
            silence_from = -(-vad.silent_from // TOKEN_FRAME_SAMPLES)
        if not self.spoken and self.frames >= SILENCE_FRAMES:
            reason, silence_from = SILENCE, 0
        elif self.spoken and silence_ms >= self._pause_ms(options, vad is not None):
            reason = MAX_LENGTH if self._is_overdue(options) else ENDPOINT
        else:
            return None
        return Cut(self.start + self._pause(silence_from) * TOKEN_FRAME_SAMPLES, reason)

    def _pause_ms(self, options: Options, by_voice: bool) -> float:
        """Silence that ends it, in milliseconds: the less the longer it is.

        by_voice: a voice detector tells it. The model may say nothing within a long word too.
        """
        pause_ms = options.endpoint_ms or math.inf
        if self._is_overdue(options, 1.0 if by_voice else HASTE):
            return min(pause_ms, SHORTEST_PAUSE_MS)
        return min(pause_ms, PAUSE_MS) if self._is_overdue(options) else pause_ms

    def _is_overdue(self, options: Options, times: float = 1.0) -> bool:
        """Whether it is so many times as long as it may be."""
        longest = options.max_utterance_ms // TOKEN_FRAME_MS
        return bool(longest) and self.frames >= times * longest

    def must_end(self, options: Options) -> bool:
        """Whether it is far longer than it may be."""
        return self._is_overdue(options, PATIENCE)

    def keep_from(self, options: Options, unheard: UnheardSpeech | None) -> int:
        """The first sample of the stream that is still needed, by it or by what follows it."""
        frame = self.frames
        if options.segments:
            frame = min(frame, self._pause())
        if unheard is not None:
            frame = min(frame, max(self.spoken, self.frames - unheard.span))
        return self.start + first_sample_needed(frame)

    def _pause(self, silence_from: int = 0) -> int:
        """The frame where a next segment would begin.

        In the middle of the silence behind the last token: that may come before its sound is over,
        and the next word's sound begins before its token. Of a long silence little is heard again.
        silence_from: where it is known.
        """
        if not self.spoken:
            return max(0, self.frames - ONSET_FRAMES)
        begin = max(self.spoken, silence_from)
        return max(begin + (self.frames - begin) // 2, self.frames - ONSET_FRAMES)


class UnheardSpeech:
    """Notices when somebody seems to speak and the decoder says nothing: it can stick on blank.

    Speech is what is louder than the background: the level that the stream falls back to.
    """

    def __init__(self, needed_ms: int):
        """needed_ms: of loud frames without a token, within twice that time."""
        self._needed = max(1, needed_ms // TOKEN_FRAME_MS)
        self._loud: deque[bool] = deque(maxlen=2 * self._needed)
        self._floor_db = 0.0
        self._patience = 0  # frames to wait: longer after each time that did not help
        self._failures = 0

    @property
    def span(self) -> int:
        """Frames that a next segment may have to begin before the present."""
        return self._loud.maxlen + ONSET_FRAMES + 1  # the last frame is not listened to yet

    def push(self, samples: np.ndarray, spoke: bool) -> int:
        """Take in the next frames.  spoke: whether a token came with them.

        samples: (n,) int16, or float32 in [-1, 1].
        Returns how many frames ago the speech began that the decoder does not hear, or 0.
        """
        scale = 32768.0 if samples.dtype == np.int16 else 1.0
        frames = samples[: len(samples) // TOKEN_FRAME_SAMPLES * TOKEN_FRAME_SAMPLES] / scale
        power = np.square(frames.reshape(-1, TOKEN_FRAME_SAMPLES)).mean(1)
        for level_db in (10 * np.log10(power + 1e-10)).tolist():
            self._floor_db = min(level_db, self._floor_db + FLOOR_RISE_DB)
            self._loud.append(level_db > max(self._floor_db + LOUD_DB, QUIETEST_DB))
            self._patience -= 1
        if spoke:
            self._loud.clear()
            self._failures = self._patience = 0
        if self._patience > 0 or sum(self._loud) < self._needed:
            return 0
        self._failures += 1
        self._patience = self._needed << min(self._failures, 6)
        return self.begin_afresh()

    def begin_afresh(self) -> int:
        """What was loud will be heard again.  Returns how many frames ago that began, or 0."""
        if True not in self._loud:
            return 0
        ago = len(self._loud) - self._loud.index(True) + ONSET_FRAMES
        self._loud.clear()
        return ago
