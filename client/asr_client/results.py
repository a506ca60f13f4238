"""What comes back: words, segments, results of a live stream, whole transcripts."""

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
class Segment:
    """An utterance: whole in a transcript; in a result, what that result adds to it.

    reason: why it ended: endpoint, finalize, max_length, language, recovered or end.
    """

    segment: int  # its number in the stream, from 0
    text: str  # in a result, that of a later segment begins with a space
    words: tuple[Word, ...] = ()  # where words were asked for
    language: str | None = None
    is_final: bool = False  # it ends here; what follows is known only then
    start_ms: int | None = None
    end_ms: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Result:
    """What one packet of a live stream newly fixed. Texts are appended and never revised."""

    text: str
    words: tuple[Word, ...] = ()  # completed by this packet; empty unless words were asked for
    language: str | None = None  # detected so far
    is_final: bool = False  # the answer to the end of the stream
    audio_processed_ms: int | None = None  # known when words were asked for, and at the end
    segment: int = 0  # the one that is running
    segments: tuple[Segment, ...] = ()  # the text by segments; joined, their texts are `text`
    finalized: bool = False  # the answer to `finalize`

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
    segments: tuple[Segment, ...] = ()  # utterances, whole; of a file, where endpoint_ms was given

    def to_dict(self) -> dict:
        """A dictionary that `json.dumps` takes."""
        return asdict(self)


def words_from_json(words: Iterable[Mapping] | None, offset_ms: int = 0) -> tuple[Word, ...]:
    """Words of a RESULT; fields that this version does not know are ignored.

    offset_ms: added to their times.
    """
    return tuple(
        Word(
            word["text"],
            word["start_ms"] + offset_ms,
            word["end_ms"] + offset_ms,
            word.get("confidence"),
        )
        for word in words or ()
    )


def transcript_from_json(result: Mapping) -> Transcript:
    """An offline RESULT, parsed from JSON."""
    return Transcript(
        text=result["text"],
        words=words_from_json(result.get("words")),
        language=result.get("language"),
        audio_processed_ms=result.get("audio_processed_ms"),
        segments=tuple(
            Segment(**{**piece, "words": words_from_json(piece["words"])})
            for piece in result.get("segments", ())
        ),
    )
