"""Utterances of a stream: where one ends, and the next begins afresh. No clock.

A segment is decoded by an encoder and a decoder that have heard nothing before it, so what it says
depends on its own audio alone: no state, punctuation or error outlives it, and its audio sent
again, as the start of another stream, gives the same text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..chunks import first_sample_needed
from ..config import SAMPLE_RATE, TOKEN_FRAME_MS, TOKEN_FRAME_SAMPLES
from ..decoding import Token
from ..options import Options
from ..text import Fixed, TextAssembler

SHORTEST_PAUSE = 2  # frames without a token at which an utterance that is too long is cut
PATIENCE = 1.25  # times the longest utterance, after which it is cut without a pause
SILENCE_FRAMES, ONSET_FRAMES = 250, 12  # without a token: begin afresh every 20 s, 1 s back

# Why a segment ended.
ENDPOINT, FINALIZE, MAX_LENGTH = "endpoint", "finalize", "max_length"
LANGUAGE, SILENCE, END = "language", "silence", "end"


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
    index: int = 0  # those before it that have text
    start: int = 0  # its first sample in the stream
    frames: int = 0  # encoder frames decoded
    spoken: int = 0  # frames up to the last token; 0 where there is none
    has_text: bool = False

    def push(self, tokens: list[Token], num_frames: int) -> Fixed:
        """Take in the tokens of the next frames.

        Words come with the times of the stream, the text with a space before it where there was
        some before.
        """
        self.frames += num_frames
        if tokens:
            self.spoken = tokens[-1].frame + 1
        return self._placed(self.assembler.push(tokens))

    def finish(self) -> Fixed:
        """What remains at its end."""
        return self._placed(self.assembler.finish())

    def _placed(self, fixed: Fixed) -> Fixed:
        text, words = fixed
        if text and not self.has_text:
            self.has_text = True
            text = " " + text if self.index else text
        if self.start and words:
            ms = milliseconds(self.start)
            words = [w._replace(start_ms=w.start_ms + ms, end_ms=w.end_ms + ms) for w in words]
        return Fixed(text, words)

    def endpoint(self, options: Options) -> Cut | None:
        """Where to end this segment, if what is said in it is over."""
        if not options.segments:
            return None
        longest = options.max_utterance_ms // TOKEN_FRAME_MS
        too_long = longest and self.frames >= longest
        pause = -(-options.endpoint_ms // TOKEN_FRAME_MS) or self.frames + 1
        if too_long:
            pause = min(pause, SHORTEST_PAUSE)
        if not self.spoken and self.frames >= SILENCE_FRAMES:
            reason = SILENCE
        elif self.spoken and self.frames - self.spoken >= pause:
            reason = MAX_LENGTH if too_long else ENDPOINT
        else:
            return None
        return Cut(self.start + self._pause() * TOKEN_FRAME_SAMPLES, reason)

    def must_end(self, options: Options) -> bool:
        """Whether it is far longer than it may be."""
        longest = options.max_utterance_ms // TOKEN_FRAME_MS
        return bool(longest) and self.frames >= PATIENCE * longest

    def keep_from(self, options: Options) -> int:
        """The first sample of the stream that is still needed, by it or by what follows it."""
        frame = self.frames
        if options.segments:
            frame = min(frame, self._pause())
        return self.start + first_sample_needed(frame)

    def _pause(self) -> int:
        """The frame where a next segment would begin.

        In the middle of the silence behind the last token: that may come before its sound is over,
        and the next word's sound begins before its token.
        """
        if not self.spoken:
            return max(0, self.frames - ONSET_FRAMES)
        return self.spoken + (self.frames - self.spoken) // 2


def milliseconds(sample: int) -> int:
    return sample * 1000 // SAMPLE_RATE
