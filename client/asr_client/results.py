"""What comes back: words, results of a live stream, whole transcripts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Word:
    """A word with its place in the audio and how sure the model is of it (0 to 1, or None)."""

    text: str
    start_ms: int
    end_ms: int
    confidence: float | None = None


@dataclass(frozen=True)
class Result:
    """What one packet of a live stream newly fixed. Texts are appended and never revised."""

    text: str
    words: tuple[Word, ...] = ()  # completed by this packet; empty unless words were asked for
    language: str | None = None  # detected so far
    is_final: bool = False  # the answer to the end of the stream
    audio_processed_ms: int | None = None  # known when words were asked for, and at the end
    segment: int = 0

    def to_dict(self) -> dict:
        """A dictionary that `json.dumps` takes."""
        return asdict(self)


@dataclass(frozen=True)
class Transcript:
    """The whole text of a stream or a file."""

    text: str
    words: tuple[Word, ...] = ()
    language: str | None = None
    audio_processed_ms: int | None = None

    def to_dict(self) -> dict:
        """A dictionary that `json.dumps` takes."""
        return asdict(self)


def words_from_json(words: Iterable[Mapping] | None) -> tuple[Word, ...]:
    """Words of a RESULT; fields that this version does not know are ignored."""
    return tuple(
        Word(word["text"], word["start_ms"], word["end_ms"], word.get("confidence"))
        for word in words or ()
    )


def result_from_json(result: Mapping) -> Result:
    """A live RESULT, parsed from JSON."""
    return Result(
        text=result["text"],
        words=words_from_json(result.get("words")),
        language=result.get("language"),
        is_final=bool(result.get("is_final", False)),
        audio_processed_ms=result.get("audio_processed_ms"),
        segment=result.get("segment", 0),
    )


def transcript_from_json(result: Mapping) -> Transcript:
    """An offline RESULT, parsed from JSON."""
    return Transcript(
        text=result["text"],
        words=words_from_json(result.get("words")),
        language=result.get("language"),
        audio_processed_ms=result.get("audio_processed_ms"),
    )
