"""Punctuation, capitals and profanity: words stay whole, in any portions, of many scripts."""

# ruff: noqa: RUF001  (marks of many scripts)

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotron_asr.decoding import Token
from nemotron_asr.options import Options
from nemotron_asr.text import Char, TextAssembler
from nemotron_asr.text_rules import Masked, NoPunctuation, WordList, read_words, text_rules

WORDS = WordList.of(["darn", "darned", "heck"])


def spoken(text: str, portion: int = 1, **options) -> tuple[str, list]:
    """The text through an assembler, one piece a character, `portion` pieces at a time."""
    pieces = sorted(set(text))
    rules = text_rules(Options(320, **options), WORDS)
    assembler = TextAssembler([piece.replace(" ", "\u2581") for piece in pieces], rules)
    tokens = [Token(pieces.index(char), frame, 0.9) for frame, char in enumerate(text)]
    fixed = [assembler.push(tokens[at : at + portion]) for at in range(0, len(tokens), portion)]
    fixed.append(assembler.finish())
    return "".join(f.text for f in fixed), [word for f in fixed for word in f.words]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Hello, world. How are you?", "Hello world How are you"),
        ("Don't! It's the dogs' e-mail.", "Don't It's the dogs e-mail"),
        ("He paid $3.50, or 1,000.5, i.e. 50%.", "He paid $3.50 or 1,000.5 i.e. 50%"),
        ("At 3:30 p.m. in the U.S. it was -5 or .5.", "At 3:30 p.m. in the U.S. it was -5 or .5"),
        ("Version 3. 5 left, 1, 2,3", "Version 3 5 left 1 2,3"),
        ("Yes,no—well…maybe", "Yes no well maybe"),
        ('He said: "Go (now)!" – and left...', "He said Go now and left"),
        ("Visit example.com/a_b & call #5 @home", "Visit example.com/a_b & call #5 @home"),
        ("2010–2020 – ten years", "2010–2020 ten years"),
        ("¿Qué tal? ¡Bien!", "Qué tal Bien"),
        ("Bonjour\u00a0! L’eau, «\u00a0vive\u00a0»", "Bonjour L’eau vive"),
        ("„Ja“, sagte er; gut", "Ja sagte er gut"),
        ("la col·lecció.", "la col·lecció"),
        ("Привет, мир!", "Привет мир"),
        ("مرحبا، كيف حالك؟", "مرحبا كيف حالك"),
        ("٣٫٥٪،", "٣٫٥٪"),
        ("नमस्ते। डॉ॰", "नमस्ते डॉ॰"),
        ("צה״ל, צה\"ל.", "צה״ל צה\"ל"),
        ("你好，世界！」！再见。", "你好世界再见"),
        ("ジョン・ドウ、はい。", "ジョン・ドウはい"),
        ("กรุงเทพฯ", "กรุงเทพฯ"),
        ("안녕, 세상.", "안녕 세상"),
        (". , !", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_punctuation_goes_and_words_stay(text, plain):
    assert spoken(text, punctuation=False)[0] == plain


@pytest.mark.parametrize(
    ("text", "language", "small"),
    [
        ("Don't STOP, Émile!", "auto", "don't stop, émile!"),
        ("\u0130stanbul ISPARTA", "tr-TR", "istanbul ısparta"),
        ("\u0130", "auto", "i\u0307"),
        ("МИР ΝΑΙ", "auto", "мир ναι"),
    ],
)
def test_capitals_go(text, language, small):
    assert spoken(text, capitals=False, language=language)[0] == small


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Darn it, what the HECK!", "D*** it, what the H***!"),
        ("darned darner undarned hecks dar", "d***** darner undarned hecks dar"),
        ("Heck's heck-of-a heck2 “heck”", "H***'s h***-of-a heck2 “h***”"),
        ("what the heck", "what the h***"),
        ("你heck好", "你h***好"),
    ],
)
def test_profanity_is_masked_where_it_stands_whole(text, masked):
    assert spoken(text, profanity="mask")[0] == masked


def test_all_together():
    options = {"punctuation": False, "capitals": False, "profanity": "mask"}
    assert spoken("Oh, DARN! U.S. e-mail.", **options)[0] == "oh d*** u.s. e-mail"


def test_by_default_nothing_changes():
    text = "Darn, it's 3.5 % of U.S. GDP!"
    assert text_rules(Options(320)) == []
    assert spoken(text)[0] == text


def test_words_carry_their_own_times_and_confidence():
    _, words = spoken("Oh , darn. It", punctuation=False, profanity="mask")
    assert [(w.text, w.start_ms, w.end_ms) for w in words] == [
        ("Oh", 0, 160),
        ("d***", 400, 720),
        ("It", 880, 1040),
    ]


def test_what_cannot_change_any_more_does_not_wait():
    """A live stream's text comes at once, unless it may be the beginning of a word of the list."""

    def settled(rule, text):
        return "".join(c.char for c in rule.push([Char(c, Token(0, 0, 1.0)) for c in text]))

    masked = Masked(WORDS)
    assert settled(masked, "dare") == "dare"
    assert settled(masked, " darn") == " "
    assert settled(masked, "s it") == "darns it"
    plain = NoPunctuation()
    assert settled(plain, "3") == "3"
    assert settled(plain, ".") == ""
    assert settled(plain, "5") == ".5"


ALPHABET = "aD darneck HECK35.,'-!?’—:你。ก\u0130ß%\"("


@given(
    text=st.text(ALPHABET, max_size=40),
    portion=st.integers(1, 41),
    punctuation=st.booleans(),
    capitals=st.booleans(),
    profanity=st.sampled_from(["keep", "mask"]),
)
def test_any_portions_give_the_same_and_words_are_the_text(text, portion, **options):
    whole, words = spoken(text, 100, **options)
    assert spoken(text, portion, **options) == (whole, words)
    assert "".join(w.text for w in words) == whole.replace(" ", "")
    assert whole == " ".join(whole.split())
    assert [w.start_ms for w in words] == sorted(w.start_ms for w in words)


@given(text=st.text(ALPHABET, max_size=40), mask=st.booleans())
def test_letters_and_digits_are_never_lost(text, mask):
    profanity = "mask" if mask else "keep"
    plain, _ = spoken(text, punctuation=False, profanity=profanity)
    assert sum(c.isalnum() or c == "*" for c in plain) == sum(map(str.isalnum, text))


def test_the_bundled_list():
    words = read_words()
    assert {"fuck", "bullshit"} <= words.words
    everyday = "class assassin Scunthorpe cockpit Dick's pussycat niggle chunky hello"
    rules = text_rules(Options(320, profanity="mask"))
    assembler = TextAssembler(["\u2581" + word for word in everyday.split()], rules)
    fixed = assembler.push([Token(i, i, 1.0) for i in range(9)])
    assert fixed.text + assembler.finish().text == everyday


def test_a_list_of_ones_own(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("# mine\n\n Scheiße \nCAFÉ\nfullｗidth\n", encoding="utf-8")
    assert read_words(path).words == {"scheisse", "café", "fullwidth"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"good\nbad word\n", "line 2: 'bad word' is no word"),
        ("你好\n".encode(), "line 1: '你好' is no word"),
        (b"caf\xe9\n", "codec can't decode"),
        (None, "No such file"),
    ],
)
def test_a_list_that_cannot_be_used_is_named(tmp_path, content, reason):
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"words\.txt") as caught:
        read_words(path)
    assert reason in str(caught.value)
