"""Whether words' confidences mean what they say; and the two numbers that make them do so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np

from nemotron_asr import load_checkpoint
from nemotron_asr.confidence import FILE_NAME, RAW, Calibration, logit
from nemotron_asr.options import AUTO
from nemotron_asr.text import Word

from .manifests import NORMALISER, Utterance, normalise, read_manifest
from .report import TextTable, make_report, say
from .wer import transcribe

METHOD = f"""Every word that comes out is right or wrong by jiwer's alignment with the reference
({NORMALISER}). Its raw confidence is the lowest posterior among its pieces. Platt's scaling,
sigmoid(slope * logit(posterior) + intercept), is fitted by maximum likelihood on the words of every
other utterance and judged on the rest. ECE: the mean difference between confidence and share of
right words over {{bins}} bins of as many words each. NCE: normalised cross entropy, 1 for certainty
that is right, 0 for what always saying the share of right words gives. AUC: how often a right word
has the higher confidence of a right and a wrong one; scaling leaves it as it is."""
BINS = 15
NEWTON_STEPS = 50
RIDGE = 1e-3  # pulls towards the posterior as it is, where words are few


@dataclass(frozen=True)
class Judged:
    """Words that came out."""

    posteriors: np.ndarray  # (n,) float64
    right: np.ndarray  # (n,) bool


def run(
    manifests: Sequence[Path],
    checkpoint: Path,
    *,
    latency_ms: int = 560,
    limit: int | None = None,
    write: Path | None = None,
) -> dict:
    """The report. write: a folder that gets the `confidence.json` found, on all words."""
    recognizer = load_checkpoint(checkpoint)
    recognizer.calibration = RAW
    halves: tuple[list, list] = ([], [])
    for path in manifests:
        utterances = read_manifest(path, limit)
        heard = transcribe(recognizer, utterances, AUTO, latency_ms)
        for i, (utterance, result) in enumerate(zip(utterances, heard, strict=True)):
            halves[i % 2].extend(judge(utterance, result.words))
    fitted, judged = (_judged(half) for half in halves)
    found = fit(fitted)
    rows = [
        {"confidence": "posterior", **quality(judged, RAW)},
        {"confidence": "calibrated", **quality(judged, found)},
    ]
    if write is not None:
        everything = fit(_judged(halves[0] + halves[1]))
        save(everything, write, latency_ms, manifests)
    used = {"manifests": manifests, "checkpoint": checkpoint, "latency_ms": latency_ms,
            "slope": round(found.slope, 4), "intercept": round(found.intercept, 4)}  # fmt: skip
    return make_report("confidence", used, rows, METHOD.format(bins=BINS))


def judge(utterance: Utterance, words: Sequence[Word]) -> list[tuple[float, bool]]:
    """(posterior, right) of each word; those without letters or digits are left out."""
    parts = [(i, part) for i, word in enumerate(words) for part in normalise(word.text).split()]
    if not parts:
        return []
    text = " ".join(part for _, part in parts)
    aligned = jiwer.process_words(normalise(utterance.text), text)
    right = np.zeros(len(parts), bool)
    for chunk in aligned.alignments[0]:
        if chunk.type == "equal":
            right[chunk.hyp_start_idx : chunk.hyp_end_idx] = True
    whole: dict[int, bool] = {}
    for (i, _), is_right in zip(parts, right.tolist(), strict=True):
        whole[i] = whole.get(i, True) and is_right
    return [(words[i].confidence, is_right) for i, is_right in whole.items()]


def _judged(words: list[tuple[float, bool]]) -> Judged:
    if not words or len({right for _, right in words}) < 2:
        raise ValueError("right and wrong words are needed, and there are only one kind or none")
    posteriors, right = zip(*words, strict=True)
    return Judged(np.asarray(posteriors), np.asarray(right))


def fit(words: Judged) -> Calibration:
    """The most likely slope and intercept, by Newton's method."""
    x = np.stack([_logits(words.posteriors), np.ones(len(words.right))], axis=1)
    theta, start = np.array([1.0, 0.0]), np.array([1.0, 0.0])
    for _ in range(NEWTON_STEPS):
        p = 1 / (1 + np.exp(-x @ theta))
        gradient = x.T @ (p - words.right) + RIDGE * (theta - start)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + RIDGE * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        theta = theta - step * min(1.0, 2.0 / np.abs(step).max(initial=1e-9))
    return Calibration(*theta.tolist())


def _logits(posteriors: np.ndarray) -> np.ndarray:
    return np.asarray([logit(p) for p in posteriors.tolist()])


def quality(words: Judged, calibration: Calibration) -> dict:
    """How good confidences are, and the curve: mean confidence and share right of each bin."""
    confidence = np.asarray([calibration(p) for p in words.posteriors.tolist()])
    right = words.right.astype(float)
    order = np.argsort(confidence, kind="stable")
    bins = [part for part in np.array_split(order, BINS) if len(part)]
    curve = [(confidence[part].mean(), right[part].mean(), len(part)) for part in bins]
    ece = sum(n * abs(mean - share) for mean, share, n in curve) / len(right)
    clipped = confidence.clip(1e-6, 1 - 1e-6)
    entropy = -(right * np.log(clipped) + (1 - right) * np.log(1 - clipped)).mean()
    share = right.mean()
    prior = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    return {
        "words": len(right),
        "right": round(float(share), 4),
        "ece": round(float(ece), 4),
        "nce": round(float(1 - entropy / prior), 4),
        "auc": round(_auc(confidence, words.right), 4),
        "curve": [[round(float(mean), 4), round(float(hit), 4), n] for mean, hit, n in curve],
    }


def _auc(confidence: np.ndarray, right: np.ndarray) -> float:
    """By ranks; ties count half."""
    _values, inverse, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    hits = right.sum()
    return float((ranks[right].sum() - hits * (hits + 1) / 2) / (hits * (len(right) - hits)))


def save(
    calibration: Calibration, folder: Path, latency_ms: int, manifests: Sequence[Path]
) -> None:
    """Write it where `load_checkpoint` finds it."""
    found = {
        "slope": round(calibration.slope, 4),
        "intercept": round(calibration.intercept, 4),
        "fitted_on": [path.stem for path in manifests],
        "latency_ms": latency_ms,
    }
    (folder / FILE_NAME).write_text(json.dumps(found, indent=2) + "\n")
    say(f"written: {folder / FILE_NAME}")


def table(report: dict) -> TextTable:
    columns = ["confidence", "words", "right", "ECE", "NCE", "AUC"]
    keys = ("confidence", "words", "right", "ece", "nce", "auc")
    settings = report["settings"]
    title = f"slope {settings['slope']}, intercept {settings['intercept']}"
    return TextTable(title, columns, [[row[key] for key in keys] for row in report["rows"]])
