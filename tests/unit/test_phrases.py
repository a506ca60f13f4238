"""Phrases: how they are written; which pieces go on with one, against a search without a trie."""

from __future__ import annotations

import json
import random
import re

import pytest

from nemotron_asr.phrase_trie import INSIDE, PhraseTrie, PieceTrie, fold, parts_words
from nemotron_asr.phrases import (
    MAX_CHARS,
    MAX_PHRASES,
    Phrase,
    is_word_char,
    parse_phrases,
    read_phrases,
)


@pytest.mark.parametrize(
    ("value", "phrases"),
    [
        ("", []),
        (" ; ;", []),
        ([], []),
        ("[]", []),
        ("Quilter", [("Quilter", 1)]),
        (" Quilter ;Rocky \t Ithaca^2.5;; ", [("Quilter", 1), ("Rocky Ithaca", 2.5)]),
        ("AT&T^0.5", [("AT&T", 0.5)]),
        (["Quilter", "Rocky Ithaca^2"], [("Quilter", 1), ("Rocky Ithaca", 2)]),
        (' ["M\\u00fcller, M."] ', [("M\u00fcller, M.", 1)]),
        ("\u6771\u4eac;\uff21\uff22", [("\u6771\u4eac", 1), ("AB", 1)]),
    ],
)  # fmt: skip
def test_lists_as_they_are_written(value, phrases):
    read = read_phrases(value)
    assert read.isascii(), "it fits into an HTTP header"
    assert read_phrases(read) == read
    assert parse_phrases(read) == phrases


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "3 is neither text nor a list"),
        (None, "None is neither"),
        (["ab", 3], "['ab', 3] is neither"),
        ("[3]", "[3] is neither"),
        ('["ab"', "not a JSON list"),
        ("ab; ...", "'...' has no letter or digit"),
        ("ab^0", "'ab^0' has no valid weight"),
        ("ab^10.1", "'ab^10.1'"),
        ("ab^", "'ab^'"),
        ("ab^nan", "'ab^nan'"),
        ("a^b^2", "'a^b^2'"),
        (["a;b"], "'a;b' has characters"),
        ("<en-US>", "'<en-US>' has characters"),
        ("a\u2581b", "has characters"),
        ("a\x00b", "has characters"),
        ("x" * (MAX_CHARS + 1), "has 81 characters, too many"),
        (";".join(["ab"] * (MAX_PHRASES + 1)), "1001 phrases are too many"),
    ],
)
def test_what_is_no_list_is_named(value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_phrases(value)


def test_the_most_is_valid():
    assert len(parse_phrases(read_phrases(["x" * MAX_CHARS] * MAX_PHRASES))) == MAX_PHRASES


def expected_fits(pieces: list[str], phrases: list[Phrase], said: str) -> dict[int, float]:
    """By trying every phrase at every place.  said: the text so far, as it is compared."""
    fits = {}
    for id_, piece in enumerate(pieces):
        text = said + fold(piece.replace("\u2581", " "))
        worths = [0.0]
        for first in range(len(text)):
            if first and not parts_words(text[first - 1]):
                continue
            if any(is_word_char(char) for char in text[len(said) : first]):
                continue
            for phrase, weight in phrases:
                chars = fold(phrase)
                goes_on = chars.startswith(text[first:])
                end = first + len(chars)
                ends = text.startswith(chars, first) and len(said) < end < len(text)
                if goes_on or (ends and parts_words(text[end])):
                    worths.append(weight * (INSIDE if first < len(said) else 1.0))
        if max(worths) and not piece.startswith("<"):
            fits[id_] = max(worths)
    return fits


LETTERS = "abcAB'.,-\u2019\u6771\u4eac\u00e4"


def some_text(rng: random.Random, most: int, letters: str = LETTERS) -> str:
    return "".join(rng.choice(letters) for _ in range(rng.randint(1, most)))


@pytest.mark.parametrize("seed", range(16))
def test_fits_are_those_of_a_search_without_a_trie(seed):
    rng = random.Random(seed)
    pieces = ["<unk>", "<en-US>", "\u2581", "'"]
    pieces += sorted({rng.choice(["\u2581", ""]) + some_text(rng, 4) for _ in range(30)})
    texts = [" ".join(some_text(rng, 5) for _ in range(rng.randint(1, 3))) for _ in range(4)]
    texts += ["".join(rng.choices(pieces[2:], k=3)).replace("\u2581", " ").strip() for _ in "1234"]
    phrases = [Phrase(" ".join(text.split()), rng.choice([1, 2, 3])) for text in texts]
    trie = PhraseTrie(PieceTrie(pieces), phrases)
    state, said, num_inside = trie.START, "", 0
    for _ in range(30):
        fits = trie.fits(state)
        assert fits == expected_fits(pieces, phrases, said), said
        id_ = rng.randrange(len(pieces))
        if fits and rng.random() < 0.7:  # along a phrase
            id_ = max(sorted(fits), key=lambda id_: (fits[id_], rng.random()))
            num_inside += fits[id_] in (4, 6)
        piece = pieces[id_]
        said += fold(" " if piece.startswith("<") else piece.replace("\u2581", " "))
        said = said[-40:]  # more than any phrase has
        state = trie.step(state, id_)
    assert num_inside, "no walk went along a phrase"


def test_a_long_list_costs_where_it_is_made_and_not_at_each_state(monkeypatch):
    """Behind a piece the search goes along what the piece has begun, not along all the list."""
    rng = random.Random(0)
    words = sorted({some_text(rng, 8, "abcde") for _ in range(500)})
    pieces = PieceTrie(["\u2581", *(m + w[:4] for m in ("\u2581", "") for w in words)])
    trie = PhraseTrie(pieces, [Phrase(f"q{word} {word}") for word in words])
    seen, children = [], PieceTrie.children
    monkeypatch.setattr(PieceTrie, "children", lambda *at: seen.append(at) or children(*at))
    first = trie.fits(trie.step(trie.START, 0))
    assert not seen
    assert first == trie.fits(trie.START)
    trie.fits(frozenset([trie.add(f"q{words[-1]} ")]))
    assert 0 < len(seen) < 30


def fitting(phrases: str, *said: str) -> dict[str, float]:
    """Pieces that fit behind others."""
    trie = PhraseTrie(PieceTrie(PIECES), parse_phrases(read_phrases(phrases)))
    state = trie.START
    for piece in said:
        state = trie.step(state, PIECES.index(piece))
    return {PIECES[id_]: worth for id_, worth in trie.fits(state).items()}


PIECES = [
    "<unk>", "<en-US>", "\u2581", "\u2581Q", "\u2581qu", "Qu", "il", "ilter", "ter",
    "ter's", "ters", "l", "\u2581New", "\u2581York", "York", "\u2581Yorker", ".", "-", "'s",
]  # fmt: skip


def test_any_way_to_cut_a_phrase_fits_in_any_capitals():
    begin = {"\u2581Q": 1, "\u2581qu": 1}
    assert fitting("quilter") == {**begin, "Qu": 1}
    assert fitting("QUILTER", "\u2581") == {**begin, "Qu": 1}
    assert fitting("Quilter", "\u2581qu") == {**begin, "il": INSIDE, "ilter": INSIDE}
    assert fitting("Quilter", "\u2581", "Qu", "il") == {**begin, "ter": INSIDE, "ter's": INSIDE}


def test_a_phrase_begins_with_a_word_and_not_inside_one():
    assert "Qu" not in fitting("Quilter", "l")
    assert "Qu" not in fitting("Quilter", "\u2581New", "l")
    for before in ("\u2581", "-", ".", "<en-US>"):
        assert fitting("Quilter", "l", before)["Qu"] == 1


def test_a_phrase_ends_with_a_word():
    fits = fitting("Quilter; New York", "\u2581qu", "il")
    assert fits["ter's"] == INSIDE
    assert "ters" not in fits
    fits = fitting("New York", "\u2581New")
    assert fits["\u2581York"] == fits["\u2581"] == INSIDE
    assert "\u2581Yorker" not in fits
    assert fitting("New York", "\u2581New", "\u2581York") == {"\u2581New": 1}


def test_what_is_begun_in_error_is_over_at_once():
    assert "ilter" not in fitting("Quilter", "\u2581qu", "l")
    assert fitting("New York", "\u2581New", "il", "\u2581York") == {"\u2581New": 1}


def test_the_weight_is_that_of_the_best_phrase():
    assert fitting("New York^3; new")["\u2581New"] == 3
    fits = fitting("New York; York^3", "\u2581New")
    assert fits["\u2581York"] == 3, "as a phrase that begins, worth more than one that goes on"


def test_the_list_is_ascii_json():
    assert json.loads(read_phrases("\u00c5sa^2")) == ["\u00c5sa^2"]
