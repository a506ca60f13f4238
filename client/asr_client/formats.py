"""Transcripts as text, JSON, SRT and WebVTT."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .results import Transcript, Word

MAX_LINE_CHARS = 42  # what subtitle guidelines give a line
MAX_LINES = 2
MAX_CUE_MS = 7_000
PAUSE_MS = 700  # a silence this long starts a new cue
MIN_CUE_MS = 80  # one encoder frame: a cue is never of no length
_SENTENCE_ENDS = (".", "?", "!", "…", "。", "？", "！", "؟", "।")  # noqa: RUF001
_CLOSING = "\"'”’»)]"  # noqa: RUF001


@dataclass(frozen=True)
class Cue:
    """What is on the screen from start_ms to end_ms: one or two lines."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]


def to_text(transcript: Transcript) -> str:
    """The text and a newline."""
    return transcript.text.strip() + "\n"


def to_json(transcript: Transcript) -> str:
    """An object with text, words (text, start_ms, end_ms, confidence), language, ..."""
    return json.dumps(transcript.to_dict(), ensure_ascii=False, indent=2) + "\n"


def to_srt(transcript: Transcript) -> str:
    """SubRip. Empty where there are no words."""
    blocks = (
        f"{number}\n{_time(cue.start_ms, ',')} --> {_time(cue.end_ms, ',')}\n{_join(cue)}\n"
        for number, cue in enumerate(cues(transcript.words), start=1)
    )
    return "\n".join(blocks)


def to_vtt(transcript: Transcript) -> str:
    """WebVTT. The header alone where there are no words."""
    blocks = (
        f"\n{_time(cue.start_ms, '.')} --> {_time(cue.end_ms, '.')}\n{_escape(_join(cue))}\n"
        for cue in cues(transcript.words)
    )
    return "WEBVTT\n" + "".join(blocks)


FORMATS: dict[str, Callable[[Transcript], str]] = {
    "text": to_text,
    "json": to_json,
    "srt": to_srt,
    "vtt": to_vtt,
}
EXTENSIONS = {"text": "txt", "json": "json", "srt": "srt", "vtt": "vtt"}


def cues(words: tuple[Word, ...]) -> list[Cue]:
    """Words -> cues in time order, of at most 2 lines of 42 characters and 7 s, none overlapping.

    A cue ends at a pause, at the end of a sentence, or where it is full.
    """
    groups: list[list[Word]] = []
    for word in _short_words(words):
        if groups and _fits(groups[-1], word):
            groups[-1].append(word)
        else:
            groups.append([word])
    shown: list[Cue] = []
    for group in groups:
        start_ms = max(group[0].start_ms, shown[-1].end_ms if shown else 0)
        end_ms = min(max(group[-1].end_ms, start_ms + MIN_CUE_MS), start_ms + MAX_CUE_MS)
        shown.append(Cue(start_ms, end_ms, tuple(_wrap(group))))
    return shown


def _short_words(words: tuple[Word, ...]) -> Iterator[Word]:
    """Words without spaces around; one that is longer than a line is cut, its time shared out."""
    for word in words:
        text = " ".join(word.text.split())
        pieces = [text[i : i + MAX_LINE_CHARS] for i in range(0, len(text), MAX_LINE_CHARS)]
        step_ms = (word.end_ms - word.start_ms) / max(len(pieces), 1)
        for index, piece in enumerate(pieces):
            start_ms = word.start_ms + round(index * step_ms)
            yield Word(piece, start_ms, word.start_ms + round((index + 1) * step_ms))


def _fits(group: list[Word], word: Word) -> bool:
    return (
        word.start_ms - group[-1].end_ms < PAUSE_MS
        and word.end_ms - group[0].start_ms <= MAX_CUE_MS
        and not group[-1].text.rstrip(_CLOSING).endswith(_SENTENCE_ENDS)
        and len(_wrap([*group, word])) <= MAX_LINES
    )


def _wrap(group: list[Word]) -> list[str]:
    lines = [""]
    for word in group:
        longer = f"{lines[-1]} {word.text}".lstrip()
        if len(longer) <= MAX_LINE_CHARS:
            lines[-1] = longer
        else:
            lines.append(word.text)
    return lines


def _join(cue: Cue) -> str:
    return "\n".join(cue.lines)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _time(time_ms: int, decimal: str) -> str:
    """HH:MM:SS.mmm with the format's decimal sign; hours grow beyond two digits where they must."""
    seconds, ms = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{decimal}{ms:03}"
