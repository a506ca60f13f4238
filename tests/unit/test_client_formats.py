"""Transcripts as text, JSON, SRT and WebVTT."""

from __future__ import annotations

import itertools
import json
import random
import re

import pytest

from asr_client.formats import (
    MAX_CUE_MS,
    MAX_LINE_CHARS,
    MAX_LINES,
    cues,
    to_json,
    to_srt,
    to_text,
    to_vtt,
)
from asr_client.results import Transcript, Word

HOUR_MS = 3_600_000


def words(*items: tuple[str, int, int]) -> tuple[Word, ...]:
    return tuple(Word(*item) for item in items)


def spoken(text: str, start_ms: int = 0, word_ms: int = 300) -> tuple[Word, ...]:
    return tuple(
        Word(word, start_ms + i * word_ms, start_ms + (i + 1) * word_ms)
        for i, word in enumerate(text.split())
    )


def test_srt_is_exactly_this():
    transcript = Transcript("Hi there. <Go> on", words(("Hi", 80, 240), ("there.", 240, 560)))
    assert to_srt(transcript) == "1\n00:00:00,080 --> 00:00:00,560\nHi there.\n"


def test_vtt_is_exactly_this():
    transcript = Transcript("", words(("Hi.", 80, 240), ("a<b>&c", HOUR_MS, HOUR_MS + 400)))
    assert to_vtt(transcript) == (
        "WEBVTT\n\n00:00:00.080 --> 00:00:00.240\nHi.\n"
        "\n01:00:00.000 --> 01:00:00.400\na&lt;b&gt;&amp;c\n"
    )


def test_srt_separates_cues_by_one_empty_line_and_counts_them():
    srt = to_srt(Transcript("", words(("One.", 0, 400), ("Two.", 400, 800))))
    assert srt.split("\n\n")[1] == "2\n00:00:00,400 --> 00:00:00,800\nTwo.\n"


def test_without_words_files_are_empty_and_valid():
    assert to_srt(Transcript("")) == ""
    assert to_vtt(Transcript("")) == "WEBVTT\n"
    assert to_text(Transcript("")) == "\n"
    assert json.loads(to_json(Transcript(""))) == {
        "text": "",
        "words": [],
        "language": None,
        "audio_processed_ms": None,
        "segments": [],
    }


def test_json_keeps_words_and_letters():
    transcript = Transcript("schön", (Word("schön", 0, 80, 0.5),), "de-DE", 80)
    assert "schön" in to_json(transcript)
    assert json.loads(to_json(transcript))["words"] == [
        {"text": "schön", "start_ms": 0, "end_ms": 80, "confidence": 0.5}
    ]


def test_hundred_hours_do_not_wrap():
    late = to_srt(Transcript("", words(("x", 100 * HOUR_MS + 61_001, 100 * HOUR_MS + 61_100))))
    assert "100:01:01,001 --> 100:01:01,100" in late


@pytest.mark.parametrize(
    ("gap_ms", "num_cues"), [(0, 1), (699, 1), (700, 2)], ids=["none", "short", "pause"]
)
def test_a_pause_starts_a_cue(gap_ms, num_cues):
    assert len(cues(words(("a", 0, 100), ("b", 100 + gap_ms, 300 + gap_ms)))) == num_cues


@pytest.mark.parametrize("end", [".", "?", "!", '."', "。", "…"])
def test_the_end_of_a_sentence_ends_a_cue(end):
    assert [cue.lines for cue in cues(spoken(f"yes{end} no"))] == [(f"yes{end}",), ("no",)]


def test_a_decimal_point_ends_nothing():
    assert len(cues(spoken("it costs 3.5 euros"))) == 1


def test_a_long_word_is_cut_and_its_time_shared():
    shown = cues(words(("x" * 100, 0, 1000)))
    assert [len(line) for cue in shown for line in cue.lines] == [42, 42, 16]
    assert shown[-1].end_ms == 1000


def test_a_word_longer_than_a_cue_may_be_is_cut_short():
    assert cues(words(("hmm", 0, 20_000)))[0].end_ms == MAX_CUE_MS


@pytest.mark.parametrize("seed", range(20))
def test_cues_hold_their_limits_lose_no_word_and_never_overlap(seed):
    rng = random.Random(seed)
    now_ms, spoken_words = 0, []
    for _ in range(300):
        now_ms += rng.choice([0, 0, 0, 80, 160, 2000])
        end_ms = now_ms + rng.choice([0, 80, 240, 800, 6000])
        text = "".join(rng.choices("abcdé", k=rng.randint(1, 18))) + rng.choice(["", "", "."])
        spoken_words.append(Word(text, now_ms, end_ms))
        now_ms = max(now_ms, end_ms - rng.choice([0, 0, 40]))
    shown = cues(tuple(spoken_words))
    assert " ".join(" ".join(cue.lines) for cue in shown) == " ".join(w.text for w in spoken_words)
    for cue in shown:
        assert 1 <= len(cue.lines) <= MAX_LINES
        assert all(0 < len(line) <= MAX_LINE_CHARS for line in cue.lines)
        assert 0 < cue.end_ms - cue.start_ms <= MAX_CUE_MS
    for before, after in itertools.pairwise(shown):
        assert before.end_ms <= after.start_ms


def test_vtt_escapes_what_would_be_a_tag_or_an_arrow():
    vtt = to_vtt(Transcript("", words(("-->", 0, 80), ("<v", 80, 160), ("&amp;", 160, 240))))
    body = vtt.splitlines()[-1]
    assert body == "--&gt; &lt;v &amp;amp;"
    assert not re.search("[<>]", body)
