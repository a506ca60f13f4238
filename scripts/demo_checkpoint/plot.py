"""Draw a run's log: losses and word error rates by hours of speech heard.  Needs matplotlib.

python plot.py build/speech_run scripts/demo_checkpoint/training.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LOSSES = ("frame", "ctc", "rnnt")
SETS = ("text", "voices", "voices 80 ms", "flite", "people")


def points(log: list[dict], section: str | None, name: str) -> tuple[list[float], list[float]]:
    """Hours and values of one curve."""
    pairs = []
    for entry in log:
        values = entry.get(section, {}) if section else entry
        if name in values:
            pairs.append((entry["hours"], values[name]))
    return [x for x, _ in pairs], [y for _, y in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?", default=Path("build/speech_run"))
    parser.add_argument("out", type=Path, nargs="?", default=Path("training.png"))
    args = parser.parse_args()
    log = [json.loads(line) for line in (args.run / "log.jsonl").read_text().splitlines()]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), dpi=80, layout="constrained")
    for name in LOSSES:
        left.plot(*points(log, None, name), label=name, linewidth=0.8)
    for name in SETS:
        right.plot(*points(log, "wer", name), label=name, marker=".", linewidth=0.8)
    left.set(ylabel="loss per token or frame", ylim=(0, 8))
    right.set(ylabel="word error rate, %", ylim=(0, 100))
    for axes in (left, right):
        axes.set(xlabel="hours of speech heard")
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    figure.savefig(args.out)


if __name__ == "__main__":
    main()
