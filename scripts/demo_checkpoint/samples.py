"""Write the recordings of `samples/`: sentences never trained on, the first of each voice's list.

Of the lists only sentences whose source may be passed on under any licence. The person's recording
is LibriVox's, as `pocketsphinx-testdata` has it.

python samples.py build/speech samples
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import soundfile

from nemotron_asr.config import SAMPLE_RATE

PAUSE_S = 0.5
SAMPLES = [  # name, evaluation table, voice, sentences
    ("person_librivox", "people", "pocketsphinx librivox", 5),
    ("pico_us", "eval_text", "en-US", 2),
    ("pico_gb_long", "eval_text", "en-GB", 4),
    ("flite_slt", "eval_flite", "slt", 3),
    ("kokoro_heart_unheard_voice", "eval_voices", "af_heart", 3),
    ("kokoro_george_unheard_voice", "eval_voices", "bm_george", 3),
]
SOURCES = {"pocketsphinx", "grammar", "sotu", "wordnet"}


def sentences(table: Path, voice: str, count: int) -> list[tuple[str, np.ndarray]]:
    """The first `count` texts of a voice, each with its (num_samples,) int16."""
    rows = [json.loads(line) for line in table.with_suffix(".jsonl").read_text().splitlines()]
    audio = np.memmap(table.with_suffix(".pcm"), "<i2", "r")
    own = [row for row in rows if row["voice"] == voice and row["source"] in SOURCES]
    return [(r["text"], audio[r["start"] : r["start"] + r["num_samples"]]) for r in own[:count]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=Path("build/speech"))
    parser.add_argument("out", type=Path, nargs="?", default=Path("samples"))
    args = parser.parse_args()
    pause = np.zeros(int(PAUSE_S * SAMPLE_RATE), np.int16)
    for name, table, voice, count in SAMPLES:
        said = sentences(args.data / table, voice, count)
        samples = np.concatenate([pause, *(x for _, audio in said for x in (audio, pause))])
        soundfile.write(args.out / f"{name}.flac", samples, SAMPLE_RATE, subtype="PCM_16")
        text = " ".join(text for text, _ in said)
        (args.out / f"{name}.txt").write_text(text + "\n")
        print(f"{name} {len(samples) / SAMPLE_RATE:.1f} s  {text}")


if __name__ == "__main__":
    main()
