"""What makes a lost stream whole again: the audio that is kept, and what a replay says twice.

No I/O, no locks, no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np

from .results import Word

START, AUDIO, END = "start", "audio", "end"  # kinds of packets
SILENCE = np.zeros(0, np.int16)
_JOINED = 1 << 14  # samples; no packets with answers are joined beyond


@dataclass(eq=False)
class Packet:
    """One request of a stream. With options it has no audio: they hold between two samples."""

    kind: str
    pcm: np.ndarray = field(default_factory=lambda: SILENCE)  # (n,) int16
    begin: int = 0  # samples of the stream before it
    options: dict = field(default_factory=dict)  # request parameters
    answered: bool = False  # at any time, on any connection
    under_way: int = 0  # samples of it that were sent last

    @property
    def end(self) -> int:
        return self.begin + len(self.pcm)

    @property
    def is_plain(self) -> bool:
        """Whether it is audio alone, of any length: how it is cut does not matter."""
        return self.kind == AUDIO and not self.options


class Tape:
    """The packets of a stream that may have to be sent again, in order.

    Those from the first sample of the running segment on, and whatever has no answer. However short
    packets are, those with answers are few. Counts samples of all channels.
    """

    def __init__(self, options: dict):
        """options: of the START."""
        self.options = dict(options)
        self.end = 0  # samples put on it
        self.answered_until = 0
        self._change: dict = {}  # options that were changed before the first packet kept
        self._answered: deque[Packet] = deque()
        self._unanswered: deque[Packet] = deque()  # behind those

    def __iter__(self) -> Iterator[Packet]:
        """Every packet of a stream that begins with the first one kept."""
        yield Packet(START, begin=self.begin, options=self.options)
        if self._change:
            yield Packet(AUDIO, begin=self.begin, options=self._change, answered=True)
        yield from chain(self._answered, self._unanswered)

    @property
    def begin(self) -> int:
        first = next(chain(self._answered, self._unanswered), None)
        return self.end if first is None else first.begin

    @property
    def backlog(self) -> int:
        """Samples without an answer."""
        return self.end - self.answered_until

    def add(self, kind: str, pcm: np.ndarray, options: dict) -> Packet:
        packet = Packet(kind, pcm, self.end, options)
        self._unanswered.append(packet)
        self.end = packet.end
        return packet

    def extend(self, packet: Packet, pcm: np.ndarray) -> None:
        """More audio for the last packet."""
        packet.pcm = np.concatenate([packet.pcm, pcm])
        self.end = packet.end

    def answered(self, packet: Packet) -> None:
        """Call with every packet that has an answer, in order; again with those sent again."""
        if packet.answered:
            return
        packet.answered = True
        self.answered_until = packet.end
        self._unanswered.popleft()
        last = self._answered[-1] if self._answered else None
        joins = last is not None and last.is_plain and packet.is_plain
        if joins and len(last.pcm) + len(packet.pcm) <= _JOINED:
            last.pcm = np.concatenate([last.pcm, packet.pcm])
        else:
            self._answered.append(packet)

    def drop_before(self, sample: int) -> None:
        """Let go of what lies before `sample`, as far as it is answered."""
        packets = self._answered
        while packets and packets[0].end <= sample:
            gone = packets.popleft()
            if "language" in gone.options:
                self._change = gone.options
        if packets and packets[0].begin < sample:
            first = packets[0]
            first.pcm, first.begin = first.pcm[sample - first.begin :], sample


class Overlap:
    """What a replay says that was given before: it is left out.

    Text is compared character by character. From where the replay differs (another model, or one
    whose rounding depends on its neighbours) it counts by word and time until the segment ends:
    what was given stays, words that begin before the last one given was half over are left out,
    later ones are appended. Of a word that was given in part the rest is appended if it begins so.
    """

    def __init__(self, text: str, words: Iterable[Word]):
        """text, words: what was given of the running segment."""
        words = list(words)
        self._text = text  # that the replay has not said again yet
        self._num_words = len(words)
        self._until_ms = (words[-1].start_ms + words[-1].end_ms) / 2 if words else float("-inf")
        self._part = _behind(words, text)  # of a word that was not complete
        self.differs = False

    @property
    def over(self) -> bool:
        """Whether all that was given has been said again, as it was."""
        return not (self.differs or self._text or self._num_words)

    def new(self, text: str, words: tuple[Word, ...], ends: bool, begun: bool):
        """What of a replayed piece is new.

        ends: whether its segment ends with it.  begun: whether the stream has text before this.
        Returns text and words.
        """
        if not self.differs:
            common = min(len(text), len(self._text))
            rest = self._text[common:]
            if text[:common] == self._text[:common] and not (ends and rest):
                known = min(self._num_words, len(words))
                self._text, self._num_words = rest, self._num_words - known
                return text[common:], words[known:]
            self.differs = True
        return self._by_time(words, begun)

    def _by_time(self, words: tuple[Word, ...], begun: bool) -> tuple[str, tuple[Word, ...]]:
        text, new = "", []
        for word in words:
            if word.start_ms < self._until_ms:
                continue
            if self._part:
                begins_so = word.text.startswith(self._part)
                rest = word.text[len(self._part) :] if begins_so else ""
                text += rest
                word = replace(word, text=self._part + rest)
                self._part = ""
            else:
                text += f" {word.text}" if begun or text else word.text
            new.append(word)
        return text, tuple(new)

    def past(self, end_ms: int) -> bool:
        """Whether a segment of the replay that ends there ends behind all that was given."""
        return end_ms >= self._until_ms


def _behind(words: list[Word], text: str) -> str:
    """What of the text follows the last of its words."""
    at = 0
    for word in words:
        found = text.find(word.text, at)
        at = found + len(word.text) if found >= 0 else at
    return text[at:].strip()
