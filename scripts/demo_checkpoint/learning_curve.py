"""What more speech would bring: the checkpoint taught one engine with ever more hours of it.

Each point begins at the same weights, takes the same number of steps and hears as many hours; only
how many of them are different ones changes. Writes `curve.json` and `curve.png`, goes on where it
was stopped.

python learning_curve.py build/speech build/curve ../../checkpoints/demo pico_en:1,3,8
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import torch
from data import Sentence, read_table
from evaluate import sample, transcribe, word_error_rate
from tokenizer import load_tokenizer
from train import CTC_STEPS, LOOKAHEAD, WARM_UP
from trainee import Trainee, demo_config

from nemotron_asr.config import SAMPLE_RATE

matplotlib.use("Agg")
import matplotlib.pyplot as plt

APART = "slt"  # the voice of flite that is left out
DECODED = 200


def rows_of(table: Path) -> list[dict]:
    return [json.loads(line) for line in table.read_text().splitlines()]


def write_table(folder: Path, name: str, rows: list[dict], pcm: Path) -> Path:
    """A table of some rows of another one."""
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / f"{name}.jsonl"
    table.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    table.with_suffix(".pcm").unlink(missing_ok=True)
    table.with_suffix(".pcm").symlink_to(pcm.resolve())
    return table


def first_hours(rows: list[dict], hours: float) -> list[dict]:
    seconds, taken = 0.0, []
    for row in rows:
        if seconds >= 3600 * hours:
            break
        taken.append(row)
        seconds += row["num_samples"] / SAMPLE_RATE
    return taken


class Curve:
    """One engine in one language."""

    def __init__(self, speech: Path, out: Path, name: str, least: float):
        """least: hours that every point hears."""
        self.folder = out / name
        engine, language = name.split("_")
        table = speech / f"{name}.jsonl"
        self.pcm = table.with_suffix(".pcm")
        # Training leaves flite out by its name.
        rows = [{**r, "engine": f"{engine}_here"} for r in rows_of(table)]
        self.rows = [r for r in rows if r["voice"] != APART]
        test = f"text_{language}".removesuffix("_en") if engine != "flite" else engine
        test = speech / f"eval_{test}.jsonl"
        held_out = [r for r in rows_of(test) if r["engine"] == engine]
        tests = {
            "trained on": (first_hours(self.rows, least), self.pcm),
            "unheard text": ([r for r in held_out if r["voice"] != APART], test),
            "unheard text and voice": ([r for r in held_out if r["voice"] == APART], test),
        }
        self.tests = {
            kind: write_table(self.folder, f"eval_{i}", rows, pcm.with_suffix(".pcm"))
            for i, (kind, (rows, pcm)) in enumerate(tests.items())
            if rows
        }

    def rates(self, model: Trainee, tokenizer) -> dict[str, float]:
        def heard(sentences: list[Sentence]) -> float:
            return word_error_rate(
                transcribe(model, sample(sentences, DECODED), LOOKAHEAD, tokenizer)
            )

        return {name: heard(read_table(t, tokenizer)) for name, t in self.tests.items()}


def train(data: Path, run: Path, *options: object) -> None:
    command = [sys.executable, "train.py", data, run, "--eval-minutes", "999", *options]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("speech", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("sets", nargs="+", help="SET:HOURS,HOURS,...")
    parser.add_argument("--steps", type=int, default=800, help="of each point")
    parser.add_argument("--lr", type=float, default=1e-3, help="falls to zero over the steps")
    args = parser.parse_args()
    heads, found_in = args.out / "heads", args.out / "curve.json"
    train(args.speech, heads, "--start", args.checkpoint, "--steps", CTC_STEPS + 1 + WARM_UP)
    tokenizer = load_tokenizer(heads)
    found = json.loads(found_in.read_text()) if found_in.exists() else {}
    for item in args.sets:
        name, hours = item.split(":")
        hours = [float(h) for h in hours.split(",")]
        curve = Curve(args.speech, args.out, name, min(hours))
        points = found.setdefault(name, {})
        for h in [0.0, *hours]:
            if str(h) in points:
                continue
            model = Trainee(demo_config())
            if h == 0.0:
                model.take_over(args.checkpoint)
            else:
                data, run = curve.folder / f"{h}", curve.folder / f"{h}_run"
                write_table(data, name, first_hours(curve.rows, h), curve.pcm)
                if not run.exists():
                    shutil.copytree(heads, run)
                train(data, run, "--cooldown", args.steps, "--lr", args.lr)
                model.load_state_dict(torch.load(run / "cooled.pt")["model"])
            points[str(h)] = curve.rates(model, tokenizer)
            found_in.write_text(json.dumps(found, indent=2) + "\n")
            print(name, h, points[str(h)], flush=True)
    plot(found, args.out / "curve.png")


def plot(found: dict, out: Path) -> None:
    """A panel a set, a line a kind of sentence."""
    figure, panels = plt.subplots(
        1, len(found), figsize=(3 * len(found), 3), dpi=80, layout="constrained", squeeze=False
    )
    for axes, (name, points) in zip(panels[0], found.items(), strict=True):
        trained = {float(h): rates for h, rates in points.items() if float(h)}
        for kind in next(iter(trained.values())):
            axes.plot(list(trained), [r[kind] for r in trained.values()], ".-", label=kind)
        axes.set(title=name, xlabel="hours of different speech", ylabel="word error rate, %")
        axes.set(xscale="log", ylim=(0, None))
        axes.set_xticks(list(trained), [f"{h:g}" for h in trained])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(out)


if __name__ == "__main__":
    main()
