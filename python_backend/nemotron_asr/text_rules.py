"""What a caller may want done to the text: no punctuation, no capitals, profanity masked.

Rules see the characters one by one as the model fixes them, and let nothing go that could still
change: text stays append-only, the same for live streams and files, and words are cut out of it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .options import MASK, Options
from .text import Char, Rule, is_unspaced

BUNDLED_WORDS = Path(__file__).with_name("profanity_en.txt")
# Category P, but read aloud or part of an abbreviation: also per mille, section, Arabic percent,
# Thai paiyannoi and Devanagari's abbreviation sign.
_SPOKEN = set("%&@#*/\\\u2030\u00a7\u066a\u0e2f\u0970")
# Kept between two letters or digits: don't, e-mail, U.S, 3.5, 3:30; also curly and Hebrew
# apostrophes, other hyphens, Catalan, Hebrew and Japanese marks within names.
_IN_WORDS = set("'\".:_-\u2019\u2010\u2011\u00b7\u05be\u05f3\u05f4\u30fb")
_IN_NUMBERS = set(",\u066b\u066c\u2013")  # kept between two digits: 1,000; Arabic; years from to
_BEFORE_NUMBERS = set(".-")  # kept where a number begins: .5 and -5
_TURKISH = ("tr-TR", "az-AZ")  # where I is the capital of a dotless i


def text_rules(options: Options, words: WordList | None = None) -> list[Rule]:
    """The rules that a stream or a file wants, for its TextAssembler alone.

    words: what "mask" masks; the bundled list by default.
    """
    rules: list[Rule] = []
    if not options.punctuation:
        rules.append(NoPunctuation())
    if options.profanity == MASK:
        rules.append(Masked(read_words() if words is None else words))
    if not options.capitals:
        rules.append(LowerCase(turkish=options.language in _TURKISH))
    return rules


class NoPunctuation:
    """Takes out marks, of any script; those within words and numbers, such as don't and 3.5, stay.

    A mark waits for the character behind it. In its place comes a space, which the assembler drops
    where there is one already; nothing in scripts that are written without.
    """

    def __init__(self):
        self._mark: Char | None = None
        self._before = "  "  # the last two characters let go

    def push(self, chars: list[Char]) -> list[Char]:
        out: list[Char] = []
        for c in chars:
            out += self._settle(c.char)
            if unicodedata.category(c.char).startswith("P") and c.char not in _SPOKEN:
                self._mark = c
            else:
                out += self._let_go(c)
        return out

    def finish(self) -> list[Char]:
        return self._settle(" ")

    def _let_go(self, c: Char) -> list[Char]:
        self._before = self._before[1] + c.char
        return [c]

    def _settle(self, after: str) -> list[Char]:
        """What becomes of the mark that waits, now that the character behind it is known."""
        if self._mark is None:
            return []
        c, self._mark = self._mark, None
        if self._stays(c.char, after):
            return self._let_go(c)
        if is_unspaced(self._before[1]) or is_unspaced(after):
            return []
        return self._let_go(c._replace(char=" "))

    def _stays(self, mark: str, after: str) -> bool:
        before = self._before[1]
        if _in_word(before) and _in_word(after):
            both_digits = before.isdecimal() and after.isdecimal()
            return mark in _IN_WORDS or (mark in _IN_NUMBERS and both_digits)
        if mark in _BEFORE_NUMBERS and not _in_word(before) and after.isdecimal():
            return True
        return mark == "." and self._before[0] == "." and before.isalpha()  # the last dot of U.S.


@dataclass(frozen=True)
class WordList:
    """Words to mask, and the beginnings of these words, both casefolded."""

    words: frozenset[str]
    beginnings: frozenset[str]

    @classmethod
    def of(cls, words: Iterable[str]) -> WordList:
        words = frozenset(words)
        return cls(words, frozenset(w[:n] for w in words for n in range(1, len(w) + 1)))


@cache
def read_words(path: Path | str = BUNDLED_WORDS) -> WordList:
    """Read a list: UTF-8, one word a line, in any case; empty lines and those with # are skipped.

    Raises ValueError naming the file and the line that is no single word, or why it cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    words = []
    for number, line in enumerate(lines, start=1):
        word = unicodedata.normalize("NFKC", line.strip()).casefold()
        if not word or word.startswith("#"):
            continue
        if not all(_in_word(char) and not is_unspaced(char) for char in word):
            raise ValueError(
                f"{path}, line {number}: {line.strip()!r} is no word; valid: letters and digits "
                "alone, of a script that is written with spaces"
            )
        words.append(word)
    return WordList.of(words)


class Masked:
    """Masks the words of a list, wherever they stand whole: the first letter and asterisks.

    A word is a run of letters and digits, so that a list's word is found before 's and in hyphens.
    One that begins like a word of the list waits until it is another one or ends.
    """

    def __init__(self, words: WordList):
        self._list = words
        self._waiting: list[Char] = []  # the beginning of a word of the list
        self._spelled = ""  # the same, casefolded
        self._harmless = False  # this word is none of the list

    def push(self, chars: list[Char]) -> list[Char]:
        out: list[Char] = []
        for c in chars:
            if not _in_word(c.char) or is_unspaced(c.char):
                out += [*self.finish(), c]
            elif self._harmless:
                out.append(c)
            else:
                self._waiting.append(c)
                self._spelled += c.char.casefold()
                if self._spelled not in self._list.beginnings:
                    self._harmless = True
                    out += self._waiting
                    self._waiting = []
        return out

    def finish(self) -> list[Char]:
        """The word has ended."""
        word, spelled = self._waiting, self._spelled
        self._waiting, self._spelled, self._harmless = [], "", False
        if word and spelled in self._list.words:
            return [word[0], *(c._replace(char="*") for c in word[1:])]
        return word


class LowerCase:
    """Small letters only."""

    def __init__(self, turkish: bool = False):
        self._of = {"I": "\u0131", "\u0130": "i"} if turkish else {}

    def push(self, chars: list[Char]) -> list[Char]:
        return [
            c._replace(char=small) for c in chars for small in self._of.get(c.char, c.char.lower())
        ]

    def finish(self) -> list[Char]:
        return []


def _in_word(char: str) -> bool:
    """Letters, their marks and digits of any script."""
    return unicodedata.category(char)[0] in "LMN"
