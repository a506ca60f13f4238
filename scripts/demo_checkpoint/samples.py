"""Write the recordings of `samples/`: sentences never trained on, the first of each voice's list.

python samples.py build/speech build/speech_run samples
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soundfile
from data import load_evaluation
from tokenizer import load_tokenizer

from nemotron_asr.config import SAMPLE_RATE

PAUSE_S = 0.5
SAMPLES = [  # name, evaluation set, voice, sentences
    ("pico_us", "text", "en-US", 2),
    ("pico_gb_long", "text", "en-GB", 4),
    ("flite_slt", "flite", "slt", 2),
    ("kokoro_heart_unheard_voice", "voices", "af_heart", 2),
    ("kokoro_george_unheard_voice", "voices", "bm_george", 2),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=Path("build/speech"))
    parser.add_argument("run", type=Path, nargs="?", default=Path("build/speech_run"))
    parser.add_argument("out", type=Path, nargs="?", default=Path("samples"))
    args = parser.parse_args()
    sets = load_evaluation(args.data, load_tokenizer(args.run))
    pause = np.zeros(int(PAUSE_S * SAMPLE_RATE), np.int16)
    for name, part, voice, count in SAMPLES:
        said = [s for s in sets[part] if s.voice == voice][:count]
        audio = [pause, *(x for s in said for x in (s.samples, pause))]
        samples = np.concatenate(audio)
        soundfile.write(args.out / f"{name}.flac", samples, SAMPLE_RATE, subtype="PCM_16")
        text = " ".join(s.text for s in said)
        (args.out / f"{name}.txt").write_text(text + "\n")
        print(f"{name} {len(samples) / SAMPLE_RATE:.1f} s  {text}")


if __name__ == "__main__":
    main()
