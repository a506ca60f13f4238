"""Sets of recordings with their texts, and the normaliser that texts are compared under."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nemotron_asr.audio import decode_audio
from nemotron_asr.config import SAMPLE_RATE

DEFAULT_LANGUAGE = "en-US"
NORMALISER = (
    "Unicode NFKC, case folded, language tags removed, everything but letters, digits, marks and "
    "apostrophes within words replaced by a space; spelling and numbers are left as they are"
)
_TAG = re.compile(r"<[a-z]{2,3}-[A-Za-z]{2}>")
_LOOSE_APOSTROPHE = re.compile(r"(?<!\w)'|'(?!\w)")


@dataclass(frozen=True)
class Utterance:
    """A recording of a set."""

    set_name: str
    text: str
    language: str
    path: Path  # an audio file, or PCM16 of many recordings
    start: int | None = None  # samples into PCM16
    num_samples: int | None = None

    def samples(self) -> np.ndarray:
        """(n,) int16 or float32 at 16 kHz."""
        if self.start is None:
            return decode_audio(self.path.read_bytes())
        count, offset = self.num_samples, 2 * self.start
        return np.fromfile(self.path, "<i2", count, offset=offset).astype(np.int16)

    def duration_s(self) -> float:
        count = self.num_samples if self.start is not None else len(self.samples())
        return count / SAMPLE_RATE


def read_manifest(path: Path, limit: int | None = None) -> list[Utterance]:
    """A manifest: JSON lines with `text`, `language` (default en-US), and the audio.

    `audio`: a file, relative to the manifest; or `start` and `num_samples` of the PCM16 in the file
    of the manifest's name with the suffix .pcm.  The set's name is the manifest's.
    limit: at most so many, spread evenly over the set.
    """
    if path.is_dir():
        rows = list(_folder(path))
    else:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [_utterance(path, json.loads(line)) for line in lines if line.strip()]
    rows = [row for row in rows if normalise(row.text)]
    if not rows:
        raise ValueError(f"{path}: no recordings with text")
    if limit is not None and limit < len(rows):
        rows = [rows[i * len(rows) // limit] for i in range(limit)]
    return rows


def _folder(path: Path) -> Iterator[Utterance]:
    """A folder of recordings, each with its text beside it, in English."""
    for text in sorted(path.glob("*.txt")):
        for audio in sorted(path.glob(f"{text.stem}.*")):
            if audio != text:
                yield Utterance(path.name, text.read_text().strip(), DEFAULT_LANGUAGE, audio)


def _utterance(manifest: Path, row: dict) -> Utterance:
    language = row.get("language", DEFAULT_LANGUAGE)
    if "audio" in row:
        audio = manifest.parent / row["audio"]
        return Utterance(manifest.stem, row["text"], language, audio)
    audio, where = manifest.with_suffix(".pcm"), (row["start"], row["num_samples"])
    return Utterance(manifest.stem, row["text"], language, audio, *where)


def normalise(text: str) -> str:
    """What is compared; see NORMALISER."""
    text = _TAG.sub(" ", unicodedata.normalize("NFKC", text)).casefold().replace("\u2019", "'")
    text = "".join(c if unicodedata.category(c)[0] in "LNM" or c == "'" else " " for c in text)
    return " ".join(_LOOSE_APOSTROPHE.sub(" ", text).split())
