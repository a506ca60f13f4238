"""Phrases that decoding is to favour: how a caller writes them. No torch here."""

from __future__ import annotations

import json
import math
import unicodedata
from typing import NamedTuple

MAX_PHRASES = 1000
MAX_CHARS = 80  # of a phrase
MAX_WEIGHT = 10.0
SYNTAX = (
    f"at most {MAX_PHRASES} words or phrases of at most {MAX_CHARS} characters, as in "
    f"'Quilter; Rocky Ithaca^2' or a JSON list; weights over 0, up to {MAX_WEIGHT:g}"
)
_NEVER = set(";<>\u2581")  # what parts phrases, and what the vocabulary uses


class Phrase(NamedTuple):
    text: str  # no spaces at its ends, one between words
    weight: float = 1.0


def read_phrases(value: object) -> str:
    """Phrases as they came to one way of writing them: a JSON list in ASCII, "" for none.

    value: "Quilter; Rocky Ithaca^2", or a list, as JSON or not.
    Raises ValueError naming the phrase that is not valid.
    """
    phrases = [_phrase(item) for item in listed(value, ";")]
    if len(phrases) > MAX_PHRASES:
        raise ValueError(f"{len(phrases)} phrases are too many")
    spelled = [p.text if p.weight == 1.0 else f"{p.text}^{p.weight:g}" for p in phrases]
    return json.dumps(spelled) if spelled else ""


def parse_phrases(text: str) -> list[Phrase]:
    """What `read_phrases` returned, as phrases."""
    return [_phrase(item) for item in json.loads(text or "[]")]


def listed(value: object, separator: str) -> list[str]:
    """The items of a list: one of Python, one in JSON, or text with a separator between them.

    Empty items are left out. Raises ValueError for anything else.
    """
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not a JSON list: {error}") from error
    items = value.split(separator) if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        raise ValueError(f"{value!r} is neither text nor a list of texts")
    return [item.strip() for item in items if item.strip()]


def _phrase(item: str) -> Phrase:
    text, caret, weight = item.partition("^")
    text = " ".join(unicodedata.normalize("NFKC", text).split())
    if not any(is_word_char(char) for char in text):
        raise ValueError(f"{item!r} has no letter or digit")
    if len(text) > MAX_CHARS:
        raise ValueError(f"{item[:MAX_CHARS]!r}... has {len(text)} characters, too many")
    if not text.isprintable() or not _NEVER.isdisjoint(text):
        raise ValueError(f"{item!r} has characters that no phrase may have")
    if not caret:
        return Phrase(text)
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not 0 < number <= MAX_WEIGHT:
        raise ValueError(f"{item!r} has no valid weight")
    return Phrase(text, number)


def is_word_char(char: str) -> bool:
    """Letters, their marks and digits of any script."""
    return unicodedata.category(char)[0] in "LMN"
