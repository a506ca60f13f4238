"""Train the demo checkpoint: frames, then CTC, then CTC and RNN-T. Stops and resumes at any step.

python train.py build/speech build/speech_run
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import torch
from data import Batch, Batches, load_evaluation, load_training
from evaluate import by_language, language_rate, sample, transcribe, word_error_rate
from tokenizer import load_tokenizer, make_tokenizer, save_tokenizer
from torch import nn
from torch.utils.data import DataLoader
from trainee import Trainee, demo_config

SEED = 1
CTC_WEIGHT, FINE_WEIGHT = 0.3, 0.3
CTC_STEPS = 7000  # before RNN-T
WARM_UP = 300  # steps; with --start the heads that a checkpoint lacks learn alone in so many more
EMA_DECAY = 0.9995
SAVE_S, LOG_STEPS, DECODED = 240, 25, 100
LOOKAHEAD = 6  # of evaluation: 560 ms
COUNTERS = ("step", "first_step", "seconds", "audio_s", "cooling_from")


def keep_memory() -> None:
    """Let glibc keep what it freed: to fault pages in anew takes longer than the arithmetic."""
    libc = ctypes.CDLL("libc.so.6")
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, 2**31 - 1)
    libc.mallopt(m_top_pad, 2**28)


class Run:
    """A folder with the tokenizer, `last.pt` and `log.jsonl`, and what they hold."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.device = args, torch.device(args.device)
        torch.manual_seed(SEED)
        args.run.mkdir(parents=True, exist_ok=True)
        if not (args.run / "tokenizer.json").exists():
            known = load_tokenizer(args.start) if args.start else make_tokenizer(args.data)
            save_tokenizer(known, args.run)
        self.tokenizer = load_tokenizer(args.run)
        self.model = Trainee(demo_config()).to(self.device)
        self.model.use(torch.bfloat16, compiled=args.compile)
        self.average = deepcopy(self.model).requires_grad_(False)
        self.average.use(torch.float32, compiled=False)
        self.optimizer = make_optimizer(self.model, self.device)
        self.step, self.seconds, self.audio_s, self.cooling_from = 0, 0.0, 0.0, None
        self.first_step = 0
        self.saved_at, self.stop, self.totals = time.monotonic(), False, []
        self.load()

    @property
    def file(self) -> Path:
        return self.args.run / ("cooled.pt" if self.args.cooldown else "last.pt")

    def load(self) -> None:
        """Go on from the last save; a cool-down begins from `last.pt`, which it leaves alone.

        Without a save begin anew, or behind the first phases from a checkpoint.
        """
        file = self.file if self.file.exists() else self.args.run / "last.pt"
        if file.exists():
            saved = torch.load(file, map_location=self.device)
            self.model.load_state_dict(saved["model"])
            self.average.load_state_dict(saved["average"])
            self.optimizer.load_state_dict(saved["optimizer"])
            for name in COUNTERS:
                setattr(self, name, saved[name])
        elif self.args.start:
            self.model.take_over(self.args.start)
            self.average.load_state_dict(self.model.state_dict())
            self.step = self.first_step = self.args.ctc_steps + 1
        if self.args.cooldown and self.cooling_from is None:
            self.cooling_from = self.step

    def save(self) -> None:
        """Write the file whole or not at all."""
        state = {name: getattr(self, name) for name in ("model", "average", "optimizer")}
        state = {name: part.state_dict() for name, part in state.items()}
        for name in COUNTERS:
            state[name] = getattr(self, name)
        beside = self.file.with_suffix(".tmp")
        torch.save(state, beside)
        os.replace(beside, self.file)
        self.saved_at = time.monotonic()

    def log(self, **entry) -> None:
        entry = {"step": self.step, "seconds": round(self.seconds),
                 "hours": round(self.audio_s / 3600, 2), **entry}  # fmt: skip
        with (self.args.run / "log.jsonl").open("a") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        print(json.dumps(entry, ensure_ascii=False), flush=True)

    @property
    def end(self) -> int:
        return self.cooling_from + self.args.cooldown if self.args.cooldown else self.args.steps

    @property
    def whole_steps(self) -> int:
        """Steps of the whole model; negative while the heads learn alone."""
        return self.step - self.first_step - (WARM_UP if self.first_step else 0)

    def learning_rate(self) -> float:
        """Warm-up, then constant; a cool-down falls to zero as one minus a square root."""
        rate = self.args.lr
        if self.whole_steps >= 0:
            rate *= min(1.0, (self.whole_steps + 1) / WARM_UP)
        if self.args.cooldown:
            rate *= 1 - ((self.step - self.cooling_from) / self.args.cooldown) ** 0.5
        return rate

    def batches(self) -> Iterator[Batch]:
        """The batches from this step on, out of the tables as they are now."""
        args = self.args
        sentences = load_training(args.data, self.tokenizer)
        features = self.model.net.config.features
        dataset = Batches(sentences, features, args.batch_seconds, args.easy_steps, SEED)
        hours = defaultdict(float)
        for name, group in zip(dataset.pool.names, dataset.pool.groups, strict=True):
            hours[name] = round(sum(s.seconds for s in group) / 3600, 2)
        self.log(tables=hours, total=round(sum(hours.values()), 2))
        return iter(
            DataLoader(
                dataset,
                batch_size=None,
                sampler=range(self.step, self.end),
                num_workers=args.workers,
                prefetch_factor=4,
                pin_memory=self.device.type == "cuda",
            )
        )

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One update of the weights and of their average."""
        batch = batch.to(self.device)
        found = self.model.losses(batch, self.step >= self.args.ctc_steps)
        main = found.get("rnnt", found.get("frame"))
        loss = found["ctc"] if main is None else main + CTC_WEIGHT * found["ctc"]
        loss = loss + FINE_WEIGHT * found["fine"]
        self.optimizer.zero_grad()
        loss.backward()
        if self.whole_steps < 0:
            self.model.net.zero_grad()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        if norm.isfinite():
            self.optimizer.step()
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            average = list(self.average.parameters())
            torch._foreach_lerp_(average, list(self.model.parameters()), 1 - decay)
        return {name: x.item() for name, x in {**found, "norm": norm}.items()}

    def evaluate(self) -> None:
        """Log the word error rates of the averaged weights, and two transcripts."""
        ctc = self.step < self.args.ctc_steps
        sets = by_language(load_evaluation(self.args.data, self.tokenizer))
        rates, examples, spoken = {}, [], []
        for name, sentences in sets.items():
            part = sample(sentences, DECODED)
            heard = transcribe(self.average, part, LOOKAHEAD, self.tokenizer, ctc)
            rates[name] = word_error_rate(heard)
            if name in ("voices", "people"):
                examples += [(h.reference, h.text) for h in heard[5:7]]
            if name.startswith("language"):
                spoken += heard
        if not ctc and "voices" in sets:
            part = sample(sets["voices"], DECODED)
            for lookahead in (0, 13):
                heard = transcribe(self.average, part, lookahead, self.tokenizer)
                rates[f"voices {80 * (lookahead + 1)} ms"] = word_error_rate(heard)
        tags = language_rate(spoken) if spoken else None
        self.log(wer=rates, tags=tags, by="ctc" if ctc else "rnnt", examples=examples)

    def go(self) -> None:
        """Train to the end or until told to stop, evaluating now and then."""
        if self.step == 0:
            first = next(iter(self.batches()))
            self.model.cpu().scale_stages(first)
            self.model.to(self.device)
            self.average.load_state_dict(self.model.state_dict())
        while self.step < self.end and not self.stop:
            self.clock = time.monotonic()
            evaluate_at = self.clock + 60 * self.args.eval_minutes
            for batch in self.batches():
                self.advance(batch)
                if self.stop or time.monotonic() > evaluate_at:
                    break
            if not self.stop:
                self.save()
                self.evaluate()
        self.save()

    def advance(self, batch: Batch) -> None:
        """A step with its bookkeeping."""
        if self.step == self.args.ctc_steps:
            self.model.start_rnnt()
            self.average.start_rnnt()
        losses = self.train_step(batch)
        self.totals.append(losses)
        self.step += 1
        self.audio_s += float(batch.num_mel.sum()) / 100
        begin, self.clock = self.clock, time.monotonic()
        self.seconds += self.clock - begin
        if self.step % LOG_STEPS == 0:
            means = {
                name: round(sum(x[name] for x in self.totals) / len(self.totals), 4)
                for name in self.totals[-1]
                if all(name in x for x in self.totals)
            }
            self.totals.clear()
            self.log(lr=self.learning_rate(), **means)
        if time.monotonic() - self.saved_at > SAVE_S:
            self.save()


def make_optimizer(model: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    decay = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=Path("build/speech"))
    parser.add_argument("run", type=Path, nargs="?", default=Path("build/speech_run"))
    parser.add_argument("--start", type=Path, help="a checkpoint made by export.py to begin from")
    parser.add_argument("--steps", type=int, default=60_000)
    parser.add_argument("--easy-steps", type=int, default=3000, help="steps on clean sentences")
    parser.add_argument("--ctc-steps", type=int, default=CTC_STEPS, help="steps before RNN-T")
    parser.add_argument("--cooldown", type=int, default=0, help="end in so many steps, apart")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch-seconds", type=float, default=100.0)
    parser.add_argument("--eval-minutes", type=float, default=15.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    args = parser.parse_args()
    if args.device == "cpu":
        keep_memory()
    run = Run(args)
    signal.signal(signal.SIGTERM, lambda *_: setattr(run, "stop", True))
    run.go()


if __name__ == "__main__":
    main()
