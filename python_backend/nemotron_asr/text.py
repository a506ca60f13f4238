"""Tokens to text: pieces joined, language tags read out, words timed; one way for all modes."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from .confidence import RAW, Calibration
from .config import TOKEN_FRAME_MS
from .decoding import Token

WORD_START = "\u2581"  # SentencePiece's mark of a space
# The model ends sentences with the language's tag, as one piece or spelled out in several.
_TAG = re.compile(r"<([A-Za-z]{2,3}-[A-Za-z0-9]{2,4})>")
_TAG_BEGUN = re.compile(r"<(?:[A-Za-z]{0,3}|[A-Za-z]{2,3}-[A-Za-z0-9]{0,4})$")
_TAG_SPELLING = {"sl-SL": "sl-SI"}  # the vocabulary's misspelling of the locale
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
MAX_WORD_CHARS = 64  # what goes on without a space is cut: memory of a stream is bounded
_SILENT = {"<unk>", "<pad>", "<s>", "</s>"}


def tag_language(piece: str) -> str | None:
    """The language of a piece that is a tag."""
    tag = _TAG.fullmatch(piece)
    return _TAG_SPELLING.get(tag[1], tag[1]) if tag else None


class Word(NamedTuple):
    """A word and where its pieces were emitted: in frames of 80 ms, within its audio."""

    text: str
    start_ms: int
    end_ms: int
    confidence: float  # in [0, 1], from the lowest posterior among its pieces

    def until(self, ms: int) -> Word:
        """With times of audio that ends there: the frames that complete it reach behind that."""
        return self._replace(start_ms=min(self.start_ms, ms), end_ms=min(self.end_ms, ms))


class Utterance(NamedTuple):
    """What is said between two pauses of a recording."""

    text: str
    words: list[Word]
    language: str | None = None  # of its last tag, of the next behind it, or of the last before

    def as_dict(self) -> dict:
        """As RESULT has it."""
        words = [word._asdict() for word in self.words]
        return {
            "text": self.text, "words": words,
            "start_ms": self.words[0].start_ms, "end_ms": self.words[-1].end_ms,
            "language": self.language,
        }  # fmt: skip


class Tag(NamedTuple):
    """A language that the model told, and how many words it told before."""

    num_words: int
    language: str


def split_at_pauses(
    text: str, words: Sequence[Word], pause_ms: int, tags: Sequence[Tag] = ()
) -> list[Utterance]:
    """A recording's text in utterances: at least `pause_ms` lie between the words of two.

    tags: in their order.
    """
    starts, at = [], 0  # where each word stands in the text
    for word in words:
        at = text.index(word.text, at)
        starts.append(at)
        at += len(word.text)
    first = [
        i for i in range(len(words))
        if i == 0 or words[i].start_ms - words[i - 1].end_ms >= pause_ms
    ]  # fmt: skip
    ends = [*first[1:], len(words)] if words else []
    starts.append(len(text))
    return [
        Utterance(
            text[starts[i] : starts[end]].rstrip(), list(words[i:end]), _language(tags, i, end)
        )
        for i, end in zip(first, ends, strict=True)
    ]


def _language(tags: Sequence[Tag], first: int, end: int) -> str | None:
    """Of the words from `first` to `end`: the model tells a sentence's language behind it."""
    own = [tag for tag in tags if first < max(1, tag.num_words) <= end]
    behind = [tag for tag in tags if tag.num_words > end]
    tag = (own[-1:] or behind[:1] or tags[-1:] or [None])[0]
    return tag and tag.language


class Fixed(NamedTuple):
    """What became certain: text to append, the words that it completed, and the tags among them."""

    text: str
    words: list[Word]
    tags: list[Tag]


class Char(NamedTuple):
    """A character of the text, and the token that it came from."""

    char: str
    token: Token
    language: str | None = None  # of the tag that this space stands for


class Rule(Protocol):
    """Changes a stream's characters on their way; one may wait for those behind it."""

    def push(self, chars: list[Char]) -> list[Char]: ...

    def finish(self) -> list[Char]:
        """The stream has ended: what still waits."""


class TextAssembler:
    """Turns one stream's tokens into text that is only ever appended to.

    Spaces wait for the word behind them, so that the text never ends in one and none is doubled
    where a tag was taken out; a `<` waits until it is clear that no tag follows.
    rules: what becomes of the characters between, in this order; see text_rules.py.
    """

    def __init__(
        self, pieces: Sequence[str], rules: Sequence[Rule] = (), calibration: Calibration = RAW
    ):
        self._pieces = pieces
        self._calibration = calibration
        self._rules = rules
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
        self._waiting: list[Char] = []  # may belong to a tag
        self._ready: list[Char] = []  # of the text; spaces at the end wait
        self._word: list[Char] = []
        self._started = False
        self._num_words = 0
        self.language: str | None = None  # of the last tag

    def push(self, tokens: Iterable[Token]) -> Fixed:
        for token in tokens:
            self._waiting += [Char(char, token) for char in self._spell(token)]
        chars = self._take_text()
        for rule in self._rules:
            chars = rule.push(chars)
        return self._release(chars)

    def finish(self) -> Fixed:
        """End of the stream: a tag cut off here is dropped, the last word is complete."""
        chars = self._take_text()
        self._waiting.clear()
        for rule in self._rules:
            chars = rule.push(chars) + rule.finish()
        fixed = self._release(chars)
        if self._word:
            fixed.words.append(self._take_word())
        fixed.tags.extend(self._tags(self._ready))
        return fixed

    def _spell(self, token: Token) -> str:
        piece = self._pieces[token.id]
        byte = _BYTE.fullmatch(piece)
        if byte:
            return self._bytes.decode(bytes([int(byte[1], 16)]))
        self._bytes.reset()  # a character cut off is dropped
        return "" if piece in _SILENT else piece.replace(WORD_START, " ")

    def _take_text(self) -> list[Char]:
        """The waiting characters that certainly belong to no tag; tags are read out."""
        tags = list(_TAG.finditer("".join(c.char for c in self._waiting)))
        languages = [_TAG_SPELLING.get(tag[1], tag[1]) for tag in tags]
        self.language = languages[-1] if tags else self.language
        # A tag parts words, also where no space stands beside it.
        for tag, language in zip(reversed(tags), reversed(languages), strict=True):
            space = Char(" ", self._waiting[tag.start()].token, language)
            self._waiting[tag.start() : tag.end()] = [space]
        begun = _TAG_BEGUN.search("".join(c.char for c in self._waiting))
        stop = begun.start() if begun else len(self._waiting)
        taken, self._waiting = self._waiting[:stop], self._waiting[stop:]
        return taken

    def _release(self, chars: list[Char]) -> Fixed:
        """Fix these characters, but for spaces at their end."""
        self._ready += chars
        stop = len("".join(c.char for c in self._ready).rstrip())
        text, words, tags = [], [], []
        space = False
        for c in self._ready[:stop]:
            if c.char.isspace():
                tags += self._tags([c])
                space = True
                continue
            if space and self._started:
                text.append(" ")
            if self._word and (space or self._parts_words(c)):
                words.append(self._take_word())
            space = False
            self._started = True
            self._word.append(c)
            text.append(c.char)
        del self._ready[:stop]
        return Fixed("".join(text), words, tags)

    def _tags(self, spaces: Iterable[Char]) -> list[Tag]:
        num_words = self._num_words + bool(self._word)
        return [Tag(num_words, c.language) for c in spaces if c.language]

    def _parts_words(self, c: Char) -> bool:
        """Whether a word begins here without a space: scripts that use none go by the piece."""
        if len(self._word) >= MAX_WORD_CHARS:
            return True
        return c.token is not self._word[-1].token and is_unspaced(c.char)

    def _take_word(self) -> Word:
        chars, self._word = self._word, []
        self._num_words += 1
        return Word(
            text="".join(c.char for c in chars),
            start_ms=chars[0].token.frame * TOKEN_FRAME_MS,
            end_ms=(chars[-1].token.frame + 1) * TOKEN_FRAME_MS,
            confidence=round(self._calibration(min(c.token.confidence for c in chars)), 4),
        )


def is_unspaced(char: str) -> bool:
    """Letters of a script that is written without spaces: Han, kana, Thai, Lao, Khmer, Burmese."""
    if "\u0e00" <= char <= "\u0eff" or "\u1000" <= char <= "\u109f" or "\u1780" <= char <= "\u17ff":
        return unicodedata.category(char).startswith("L")
    wide = unicodedata.east_asian_width(char) == "W" and not "\uac00" <= char <= "\ud7a3"
    return wide and unicodedata.category(char).startswith("L")
