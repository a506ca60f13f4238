"""Pieces to text: tags, spaces, bytes, word times; the same in any portions."""

from __future__ import annotations

import random

import pytest

from nemotron_asr.decoding import Token
from nemotron_asr.text import Tag, TextAssembler, Word, split_at_pauses
from nemotron_asr.text_rules import LowerCase, Masked, WordList

PIECES = [
    "<unk>", "<en-US>", "<sl-SL>", "\u2581Mr.", "\u2581Quil", "ter", ".", "\u2581gospel",
    "\u2581", "<", "m", "t", "-", "M", "T", ">", "<0xC3>", "<0xA9>", "caf", "\u2581a", "b",
    "\u4f60", "\u597d", "<de-DE>", "5", "\u2581<",
]  # fmt: skip


def tokens(*pieces: str) -> list[Token]:
    return [Token(PIECES.index(p), frame, 0.9) for frame, p in enumerate(pieces)]


def assemble(tokens, portions=1):
    assembler = TextAssembler(PIECES)
    fixed = [assembler.push(tokens[i : i + portions]) for i in range(0, len(tokens), portions)]
    fixed.append(assembler.finish())
    text = "".join(f.text for f in fixed)
    words = [w for f in fixed for w in f.words]
    return text, words, assembler.language


QUILTER = ["\u2581Mr.", "<en-US>", "\u2581Quil", "ter", ".", "\u2581", "<en-US>", "\u2581gospel"]


@pytest.mark.parametrize(
    ("pieces", "text", "language"),
    [
        (QUILTER, "Mr. Quilter. gospel", "en-US"),
        (["\u2581Mr.", "\u2581", "<", "m", "t", "-", "M", "T", ">"], "Mr.", "mt-MT"),
        (["\u2581Mr.", "\u2581", "<", "m", "t", "-"], "Mr.", None),
        (["\u2581Mr.", "\u2581<"], "Mr.", None),
        (["\u2581Mr.", "<sl-SL>"], "Mr.", "sl-SI"),
        (["\u2581Mr.", "<en-US>", "\u2581a", "<de-DE>"], "Mr. a", "de-DE"),
        (["\u2581Mr.", "<en-US>", "b"], "Mr. b", "en-US"),
        (["\u2581a", "<", "5", "b"], "a<5b", None),
        (["\u2581a", "<", "m", "\u2581a"], "a<m a", None),
        (["\u2581", "\u2581", "\u2581a", "\u2581", "\u2581"], "a", None),
        (["caf", "<0xC3>", "<0xA9>", "\u2581a"], "caf\u00e9 a", None),
        (["caf", "<0xC3>"], "caf", None),
        (["caf", "<0xC3>", "b"], "cafb", None),
        (["\u2581a", "<unk>", "b"], "ab", None),
        (["\u4f60", "\u597d"], "\u4f60\u597d", None),
        ([], "", None),
        (["<en-US>"], "", "en-US"),
    ],
)
def test_text_and_language(pieces, text, language):
    for portions in (1, 2, 100):
        got, words, detected = assemble(tokens(*pieces), portions)
        assert (got, detected) == (text, language)
        assert "".join(w.text for w in words) == text.replace(" ", "")


def test_words_carry_the_frames_of_their_pieces():
    _, words, _ = assemble(tokens("\u2581Mr.", "<en-US>", "\u2581Quil", "ter", ".", "\u2581a"))
    assert [(w.text, w.start_ms, w.end_ms) for w in words] == [
        ("Mr.", 0, 80),
        ("Quilter.", 160, 400),
        ("a", 400, 480),
    ]


def test_scripts_without_spaces_have_words_too():
    _, words, _ = assemble(tokens("\u2581a", "\u4f60", "\u597d", "."))
    assert [(w.text, w.start_ms) for w in words] == [("a", 0), ("\u4f60", 80), ("\u597d.", 160)]


def test_what_goes_on_without_a_space_is_cut():
    _, words, _ = assemble(tokens(*["b"] * 200))
    assert [len(w.text) for w in words] == [64, 64, 64, 8]


def test_a_word_is_as_sure_as_its_least_sure_piece():
    pieces = [Token(PIECES.index("\u2581Quil"), 0, 0.9), Token(PIECES.index("ter"), 1, 0.4)]
    assert assemble(pieces)[1][0].confidence == 0.4


def test_text_never_ends_in_a_space_nor_in_half_a_tag():
    assembler = TextAssembler(PIECES)
    text = ""
    for token in tokens(*QUILTER, "\u2581", "<", "m", "t"):
        text += assembler.push([token]).text
        assert text == text.rstrip()
        assert "<" not in text


def test_any_portions_give_the_same():
    rng = random.Random(1)
    for _ in range(200):
        pieces = rng.choices(PIECES, k=rng.randint(0, 25))
        whole = assemble(tokens(*pieces), 100) if len(set(pieces)) else assemble([])
        for portions in (1, 2, 3):
            assert assemble(tokens(*pieces), portions) == whole


def words_at(*spoken: tuple[str, int, int]) -> list[Word]:
    return [Word(text, start_ms, end_ms, 1.0) for text, start_ms, end_ms in spoken]


def test_a_recording_s_text_is_split_at_its_pauses():
    words = words_at(("Go", 0, 80), ("on.", 80, 240), ("Go", 1040, 1120), ("!", 1120, 1200))
    parts = split_at_pauses("Go on. Go!", words, 800)
    assert [part.text for part in parts] == ["Go on.", "Go!"]
    assert [part.words for part in parts] == [words[:2], words[2:]]
    assert parts[1].as_dict()["start_ms"] == 1040
    assert [part.text for part in split_at_pauses("Go on. Go!", words, 801)] == ["Go on. Go!"]
    assert split_at_pauses("", [], 800) == []


def test_text_without_spaces_is_split_where_its_words_are():
    words = words_at(("\u4f60", 0, 80), ("\u597d", 80, 160), ("\u4f60", 2000, 2080))
    parts = split_at_pauses("\u4f60\u597d\u4f60", words, 500)
    assert [part.text for part in parts] == ["\u4f60\u597d", "\u4f60"]


@pytest.mark.parametrize(
    ("tags", "languages"),
    [
        ([], [None, None, None]),
        ([(1, "en-US"), (3, "de-DE"), (4, "fr-FR")], ["en-US", "de-DE", "fr-FR"]),
        ([(3, "de-DE")], ["de-DE", "de-DE", "de-DE"]),  # the next, or else the last before
        ([(0, "en-US"), (4, "de-DE")], ["en-US", "de-DE", "de-DE"]),
        ([(2, "en-US"), (3, "de-DE"), (3, "fr-FR")], ["en-US", "fr-FR", "fr-FR"]),
    ],
)
def test_an_utterance_has_the_language_that_was_told_behind_its_sentence(tags, languages):
    words = words_at(("a", 0, 80), ("b", 2000, 2080), ("c", 2080, 2160), ("d", 4000, 4080))
    parts = split_at_pauses("a b c d", words, 500, [Tag(*tag) for tag in tags])
    assert [part.as_dict()["language"] for part in parts] == languages


@pytest.mark.parametrize("portions", [1, 2, 100])
def test_tags_are_told_with_the_words_before_them(portions):
    """Also where rules hold characters back, and where the text ends with a tag."""
    pieces = ["<de-DE>", "\u2581Mr.", "<en-US>", "\u2581Quil", "ter", ".", "\u2581", "<", "m", "t",
              "-", "M", "T", ">", "\u2581a", "<sl-SL>", "<en-US>"]  # fmt: skip
    assembler = TextAssembler(PIECES, [Masked(WordList.of(["quilter"])), LowerCase()])
    made, all_tokens = [], tokens(*pieces)
    for i in range(0, len(all_tokens), portions):
        made += assembler.push(all_tokens[i : i + portions]).tags
    made += assembler.finish().tags
    assert made == [(0, "de-DE"), (1, "en-US"), (2, "mt-MT"), (3, "sl-SI"), (3, "en-US")]


def test_a_file_s_utterances_have_their_own_languages(recognizer):
    """As in RESULT, which the ensemble, the gateway and `asr batch` pass on."""
    ids = {piece: id_ for id_, piece in enumerate(recognizer.pieces)}
    word = next(piece for piece in ids if piece.startswith("\u2581") and len(piece) > 1)
    spoken = [(word, 5), ("<en-US>", 8), (word, 60), (word, 62), ("<de-DE>", 66)]
    made = recognizer.finished(
        [Token(ids[piece], frame, 0.9) for piece, frame in spoken],
        100 * 1280,
        recognizer.file_options({"endpoint_ms": 800}),
    ).as_dict()
    assert [s["language"] for s in made["segments"]] == ["en-US", "de-DE"]
    assert made["language"] == "de-DE"
