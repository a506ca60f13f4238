"""Synthesise sentences with several engines into sets, `DIR/<set>.{pcm,jsonl}`.

The .pcm file is raw int16 mono at 16 kHz, silence trimmed; a .jsonl line describes one sentence:
{"engine", "voice", "language", "text", "source", "index", "start", "num_samples"} with start
counted in samples. Sentence i of a set depends on i alone, so a run that was stopped goes on where
it ended. Needs the environment of requirements.txt and the Debian packages of README.md.

A set is named by what is in it: `<engine>_<language>` speaks prose, `<engine>_<language>_talk`
sentences of the grammar; another suffix gives a further set of other sentences, so that several
processes can work at once. Names that begin with `eval_` are for evaluation, all others for
training.

    python synthesize.py build/speech espeak_en:4 espeak_en_talk:1 kokoro_en_a:3 eval_voices:0.4
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import random
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import soxr
from grammar import is_held_out, random_sentence
from texts import HELD_OUT_SOURCES
from voices import (
    HELD_OUT_VOICES,
    KOKORO_LANGUAGES,
    PICO_VOICES,
    TAGS,
    Speak,
    Spoken,
    espeak,
    festival,
    flite,
    kokoro,
    pico,
)

__all__ = ["HELD_OUT_VOICES", "SAMPLE_RATE"]
SAMPLE_RATE = 16000
LONG_SECONDS = 3.0  # the least for a clip that a language is to be told by


@cache
def make_engine(name: str, folder: Path) -> Speak:
    """An engine by name; `_unheard` behind it: with the held-out voices only."""
    makers = {
        "pico": pico,
        "flite": flite,
        "festival": festival,
        "espeak": espeak,
        "espeak_unheard": lambda: espeak(unheard=True),
        "kokoro": lambda: kokoro(folder / "kokoro"),
        "kokoro_unheard": lambda: kokoro(folder / "kokoro", unheard=True),
    }
    return makers[name]()


@cache
def prose(folder: Path, language: str, name: str) -> list[tuple[str, str]]:
    """(source, text) rows of a language in an order of this set's own."""
    rows = [
        line.split("\t") for line in (folder / f"texts/{language}.tsv").read_text().splitlines()
    ]
    return sorted(rows, key=lambda row: hashlib.sha1((name + row[1]).encode()).digest())


def for_training(folder: Path, name: str) -> Iterator[tuple[str, str, str]]:
    """(language, source, text) of the sentences of a training set, without end for a grammar."""
    language, *rest = name.split("_")[1:]
    if "talk" in rest:
        for i in itertools.count():
            yield language, "grammar", random_sentence(language, random.Random(f"{name} text {i}"))
    for source, text in prose(folder, language, name):
        yield language, source, text


def for_evaluation(folder: Path, name: str) -> Iterator[tuple[str, str, str]]:
    """Held-out sentences; `eval_voices` and `eval_flite` take half from a source held out whole."""
    languages = list(TAGS) if name == "eval_language" else [name.split("_")[2:] or ["en"]][0]
    pools = {}
    for language in languages:
        rows = prose(folder, language, name)
        known = [r for r in rows if r[0] not in HELD_OUT_SOURCES and is_held_out(r[1])]
        unknown = [r for r in rows if r[0] in HELD_OUT_SOURCES]
        pools[language] = [known, unknown if name in ("eval_voices", "eval_flite") else known]
    for i in itertools.count():
        language = languages[i % len(languages)]
        rng = random.Random(f"{name} text {i}")
        if name.startswith("eval_text") and i % 4 == 3:
            texts = (random_sentence(language, rng) for _ in itertools.count())
            yield language, "grammar", next(text for text in texts if is_held_out(text))
        else:
            pool = pools[language][i % 2]
            yield language, *pool[i // len(languages) % len(pool)]


def engine_of(name: str, language: str, rng: random.Random) -> str:
    """The engine that speaks a sentence of a set."""
    if not name.startswith("eval_"):
        return name.split("_")[0]
    if name == "eval_flite":
        return "flite"
    can_kokoro, can_pico = language in KOKORO_LANGUAGES, language in PICO_VOICES
    if name in ("eval_voices", "eval_language"):
        return rng.choice(
            ["espeak_unheard", "kokoro_unheard"] if can_kokoro else ["espeak_unheard"]
        )
    espeaks = ["espeak" if language == "en" else "espeak_unheard"]
    return rng.choice(["kokoro"] * 2 * can_kokoro + ["pico"] * can_pico + espeaks)


def trim(samples: np.ndarray, margin: int = 480) -> np.ndarray:
    """Cut leading and trailing silence but 30 ms and scale the peak to a half."""
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    samples = samples[max(0, loud[0] - margin) : loud[-1] + margin]
    return samples * (0.5 / np.abs(samples).max())


def is_allowed(name: str, source: str, text: str) -> bool:
    """Whether a set may hold a sentence: training sets hold nothing that is held out."""
    return name.startswith("eval_") or not (is_held_out(text) or source in HELD_OUT_SOURCES)


def fits(name: str, spoken: Spoken) -> bool:
    """Whether the audio is of a length that can be speech, and for a language of enough of it."""
    _, _, samples, rate = spoken
    least = LONG_SECONDS if name == "eval_language" else 0.25
    return len(samples) > least * rate and np.abs(samples).max() > 0.01


def synthesize(folder: Path, name: str, hours: float) -> None:
    """Bring `folder/<name>` up to `hours`."""
    pcm, table = folder / f"{name}.pcm", folder / f"{name}.jsonl"
    lines = table.read_text().splitlines() if table.exists() else []
    last = json.loads(lines[-1]) if lines else {"index": -1, "start": 0, "num_samples": 0}
    start, begin, num_lines = last["start"] + last["num_samples"], time.time(), len(lines)
    texts = (for_evaluation if name.startswith("eval_") else for_training)(folder, name)
    pcm.touch()
    with pcm.open("r+b") as audio, table.open("a") as rows:
        audio.truncate(2 * start)
        audio.seek(2 * start)
        for index, (language, source, text) in enumerate(texts):
            if start >= hours * 3600 * SAMPLE_RATE:
                break
            if index <= last["index"] or not is_allowed(name, source, text):
                continue
            rng = random.Random(f"{name} {index}")
            engine = engine_of(name, language, rng)
            spoken = make_engine(engine, folder)(text, language, rng)
            if not fits(name, spoken):
                continue
            voice, tag, samples, rate = spoken
            samples = trim(soxr.resample(samples, rate, SAMPLE_RATE))
            audio.write((samples * 32767).astype("<i2").tobytes())
            audio.flush()
            row = {"engine": engine, "voice": voice, "language": tag, "text": text,
                   "source": source, "index": index, "start": start,
                   "num_samples": len(samples)}  # fmt: skip
            rows.write(json.dumps(row, ensure_ascii=False) + "\n")
            rows.flush()
            start, num_lines = start + len(samples), num_lines + 1
            if num_lines % 200 == 0:
                done = start / SAMPLE_RATE / 3600
                print(f"{name} {num_lines} {done:.2f} h {time.time() - begin:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("sets", nargs="+", help="NAME:HOURS")
    args = parser.parse_args()
    for item in args.sets:
        name, hours = item.split(":")
        synthesize(args.folder, name, float(hours))


if __name__ == "__main__":
    main()
