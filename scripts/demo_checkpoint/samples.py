"""Write the recordings of `samples/`: sentences never trained on, the first of each voice's list.

python samples.py build/demo_data samples
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soundfile
from data import load_sentences
from synthesize import SAMPLE_RATE
from tokenizer import make_tokenizer

PAUSE_S = 0.5
SAMPLES = [  # name, engine, voice, sentences
    ("pico_us", "pico", "en-US", 3),
    ("pico_gb_long", "pico", "en-GB", 4),
    ("flite_slt", "flite", "slt", 3),
    ("kokoro_heart_unheard_voice", "kokoro_unheard", "af_heart", 3),
    ("kokoro_george_unheard_voice", "kokoro_unheard", "bm_george", 3),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=Path("build/demo_data"))
    parser.add_argument("out", type=Path, nargs="?", default=Path("samples"))
    args = parser.parse_args()
    parts = load_sentences(args.data, make_tokenizer())
    pause = np.zeros(int(PAUSE_S * SAMPLE_RATE), np.int16)
    for name, engine, voice, count in SAMPLES:
        pool = [s for s in parts["text"] + parts["voice"] if (s.engine, s.voice) == (engine, voice)]
        said = pool[:count]
        audio = [pause, *(x for s in said for x in (s.samples, pause))]
        samples = np.concatenate(audio)
        soundfile.write(args.out / f"{name}.flac", samples, SAMPLE_RATE, subtype="PCM_16")
        text = " ".join(s.text for s in said)
        (args.out / f"{name}.txt").write_text(text + "\n")
        print(f"{name} {len(samples) / SAMPLE_RATE:.1f} s  {text}")


if __name__ == "__main__":
    main()
