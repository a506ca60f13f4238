"""What phrases that are expected gain, and cost where they are not said, by their boost."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import jiwer

from nemotron_asr import load_checkpoint

from .manifests import NORMALISER, normalise, read_manifest
from .report import TextTable, make_report, say
from .wer import GIVEN, transcribe

METHOD = f"""Every recording is transcribed with the same list: a given one, or all words of the
set's texts that have a capital within a sentence. spoken: occurrences in the texts. found: the
share of those that came out of the same recording. false: more of them than were spoken, each. WER
of the whole set, and of the recordings in which no phrase is spoken: whatever the boost adds there
is its harm. Boost 0 is without phrases. Normaliser of all texts: {NORMALISER}."""
BOOSTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
_NAME = re.compile(r"(?<![.?!] )(?<!^)\b[^\W\d_]+")


def run(
    manifests: Sequence[Path],
    checkpoint: Path,
    *,
    phrases: Path | None = None,
    boosts: Sequence[float] = (),
    latency_ms: int = 560,
    limit: int | None = None,
    device: str = "cpu",
) -> dict:
    """The report.  phrases: a file with one a line."""
    recognizer = load_checkpoint(checkpoint, device)
    rows = []
    for path in manifests:
        utterances = read_manifest(path, limit)
        listed = names(u.text for u in utterances)
        if phrases is not None:
            listed = [line for line in phrases.read_text(encoding="utf-8").splitlines() if line]
        for boost in boosts or BOOSTS:
            heard = transcribe(
                recognizer, utterances, GIVEN, latency_ms, phrases=listed, boost=boost
            )
            pairs = [
                (normalise(u.text), normalise(h.text))
                for u, h in zip(utterances, heard, strict=True)
            ]
            scores = score(pairs, [normalise(phrase.partition("^")[0]) for phrase in listed])
            rows.append({"set": path.stem, "phrases": len(listed), "boost": boost, **scores})
            say(f"{path.stem}, boost {boost:g}: {rows[-1]}")
    settings = {
        "manifests": manifests,
        "checkpoint": checkpoint,
        "phrases": phrases,
        "latency_ms": latency_ms,
        "limit": limit,
        "device": device,
    }
    return make_report("phrases", settings, rows, METHOD)


def names(texts: Iterable[str]) -> list[str]:
    """Words with a capital within a sentence, sorted; I and its kind are none."""
    words = {word for text in texts for word in _NAME.findall(text)}
    return sorted(word for word in words if word[0].isupper() and len(word) > 1)


def score(pairs: Sequence[tuple[str, str]], phrases: Sequence[str]) -> dict:
    """pairs: text and what was heard of each recording.  All normalised, phrases too."""
    spoken = found = false = 0
    without = []
    for said, heard in pairs:
        there = False
        for phrase in phrases:
            wanted, got = (f" {text} ".count(f" {phrase} ") for text in (said, heard))
            spoken, found = spoken + wanted, found + min(wanted, got)
            false += max(0, got - wanted)
            there = there or bool(wanted)
        if not there:
            without.append((said, heard))
    return {
        "utterances": len(pairs),
        "spoken": spoken,
        "found": round(found / max(1, spoken), 5),
        "false": false,
        "wer": _wer(pairs),
        "utterances_without": len(without),
        "wer_without": _wer(without),
    }


def _wer(pairs: Sequence[tuple[str, str]]) -> float | None:
    if not pairs:
        return None
    said, heard = zip(*pairs, strict=True)
    return round(jiwer.wer(list(said), list(heard)), 5)


def table(report: dict) -> TextTable:
    columns = ["set", "phrases", "boost", "spoken", "found", "false", "WER", "WER where none is"]
    lines = [
        [
            row["set"],
            row["phrases"],
            row["boost"],
            row["spoken"],
            f"{100 * row['found']:.1f} %",
            row["false"],
            f"{100 * row['wer']:.2f} %",
            "" if row["wer_without"] is None else f"{100 * row['wer_without']:.2f} %",
        ]
        for row in report["rows"]
    ]
    return TextTable("phrases", columns, lines)
