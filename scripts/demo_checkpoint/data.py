"""Batches for training, made on the fly: sentences drawn, joined to clips, varied, and as log-mel.

Batch i of a seed is always the same for the same tables, whatever was made before.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from augment import Backgrounds, mask, transform
from grammar import is_held_out
from texts import HELD_OUT_SOURCES
from tokenizer import fine_tokenizer
from tokenizers import Tokenizer
from torch.utils.data import Dataset
from voices import HELD_OUT_VOICES

from nemotron_asr.config import HOP, LOOKAHEADS, SAMPLE_RATE, FeatureConfig
from nemotron_asr.config import TOKEN_FRAME_SAMPLES as FRAME
from nemotron_asr.encoder import num_encoder_frames
from nemotron_asr.features import LogMel, first_sample_of, span_of

AUTO = 101
PROMPTS = {  # the published ids of what is trained, by tag
    "en-US": 0, "en-GB": 1, "es-ES": 2, "es-US": 3, "fr-FR": 8, "de-DE": 9, "ru-RU": 11,
    "it-IT": 15, "nl-NL": 16, "cs-CZ": 22,
}  # fmt: skip
CLIP_SECONDS = (3.2, 5.6, 8.0, 11.2)  # few lengths, so that few shapes are compiled
CLIP_SHARES = (0.2, 0.35, 0.3, 0.15)
LEARNED = ("en", "es", "fr", "de", "it")  # a model of this size is left too little for more
ENGLISH_SHARE = 0.75
CLEAN_SHARE = 0.5  # of the clips behind the first steps; else the rest takes too long
ENGINE_BOOST = {"kokoro": 3.0, "human": 2.0, "pico": 1.5}  # the most natural, and the rarest
CLEAR_VOICE = ("pico", "en-US")  # what the first steps hear
PAUSE = int(0.3 * SAMPLE_RATE)  # of evaluation, on both sides
SPEEDS = (0.80, 1.12)  # synthesisers speak faster than people


@dataclass(frozen=True)
class Sentence:
    engine: str
    voice: str
    language: str  # the tag without its brackets
    text: str
    samples: np.ndarray  # (num_samples,) int16
    ids: list[int]  # the pieces and the language tag
    fine: list[int]  # finer pieces, without a tag
    piece_lengths: list[int]  # how long each piece may take, in letters

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE

    def wave(self) -> np.ndarray:
        return self.samples.astype(np.float32) / 32768

    def padded(self) -> np.ndarray:
        """With silence around it, as all evaluation hears it."""
        return np.pad(self.wave(), PAUSE)


@dataclass(frozen=True)
class Batch:
    mel: torch.Tensor  # (B, T, M) float32, 0.0 from num_mel on
    num_mel: torch.Tensor  # (B,) int64
    prompt_ids: torch.Tensor  # (B,) int64
    targets: torch.Tensor  # (B, U) int64, 0 behind num_targets
    num_targets: torch.Tensor  # (B,) int64
    fine: torch.Tensor  # (B, U') int64, 0 behind num_fine
    num_fine: torch.Tensor  # (B,) int64
    lookahead: int = 6
    frames: torch.Tensor | None = None  # (B, E) int64 guessed id of each frame, -1 in silence

    def to(self, device: torch.device) -> Batch:
        moved = {
            f.name: x.to(device, non_blocking=True)
            for f in fields(self)
            if isinstance(x := getattr(self, f.name), torch.Tensor)
        }
        return replace(self, **moved)

    def pin_memory(self) -> Batch:
        moved = {
            f.name: x.pin_memory()
            for f in fields(self)
            if isinstance(x := getattr(self, f.name), torch.Tensor)
        }
        return replace(self, **moved)


def read_table(table: Path, tokenizer: Tokenizer) -> list[Sentence]:
    """The sentences of one table, their samples left in the file until they are used."""
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    audio = np.asarray(np.memmap(table.with_suffix(".pcm"), "<i2", "r")) if rows else None
    rows = [r for r in rows if 0 < r["num_samples"] <= len(audio) - r["start"]]
    encoded = tokenizer.encode_batch([f"{r['text']}<{r['language']}>" for r in rows])
    fine = fine_tokenizer(tokenizer).encode_batch([r["text"] for r in rows])
    return [
        Sentence(
            r["engine"].split("_")[0], r["voice"], r["language"], r["text"],
            audio[r["start"] : r["start"] + r["num_samples"]], tokens.ids, finer.ids,
            [len(piece.strip("▁.,?!'-")) for piece in tokens.tokens],
        )
        for r, tokens, finer in zip(rows, encoded, fine, strict=True)
        if is_evaluation(table) or is_trainable(r)
    ]  # fmt: skip


def is_evaluation(table: Path) -> bool:
    return table.stem.startswith("eval_") or table.stem == "people"


def is_trainable(row: dict) -> bool:
    """Whether a row holds nothing that is held out; its makers see to that, so this is a guard."""
    held_out = is_held_out(row["text"]) or row["source"] in HELD_OUT_SOURCES
    return not (held_out or row["voice"] in HELD_OUT_VOICES or row["engine"] == "flite")


def load_training(folder: Path, tokenizer: Tokenizer) -> list[Sentence]:
    tables = [t for t in sorted(folder.glob("*.jsonl")) if not is_evaluation(t)]
    return [s for table in tables for s in read_learned(table, tokenizer)]


def load_evaluation(folder: Path, tokenizer: Tokenizer) -> dict[str, list[Sentence]]:
    tables = [t for t in sorted(folder.glob("*.jsonl")) if is_evaluation(t)]
    sets = {t.stem.removeprefix("eval_"): read_learned(t, tokenizer) for t in tables}
    return {name: sentences for name, sentences in sets.items() if sentences}


def read_learned(table: Path, tokenizer: Tokenizer) -> list[Sentence]:
    return [s for s in read_table(table, tokenizer) if s.language[:2] in LEARNED]


class Pool:
    """Training sentences by language and engine, drawn so that no engine dominates."""

    def __init__(self, sentences: list[Sentence]):
        groups: dict[tuple[str, str], list[Sentence]] = defaultdict(list)
        voices: dict[str, list[Sentence]] = defaultdict(list)
        for s in sentences:
            groups[s.language[:2], s.engine].append(s)
            voices[f"{s.engine} {s.voice} {s.language}"].append(s)
        self.groups = list(groups.values())
        self.voices = {
            name: sorted(own, key=lambda s: len(s.samples)) for name, own in voices.items()
        }
        self.lengths = {name: [len(s.samples) for s in own] for name, own in self.voices.items()}
        languages = {language for language, _ in groups}
        weights = {
            key: (sum(s.seconds for s in own) / 3600) ** 0.6 * ENGINE_BOOST.get(key[1], 1.0)
            for key, own in groups.items()
        }
        shares = []
        for key in groups:
            others = len(languages) - ("en" in languages)
            share = ENGLISH_SHARE if key[0] == "en" else (1 - ENGLISH_SHARE) / max(1, others)
            total = sum(w for other, w in weights.items() if other[0] == key[0])
            shares.append(share * weights[key] / total)
        self.shares = np.asarray(shares) / sum(shares)
        self.names = [f"{language} {engine}" for language, engine in groups]

    def any(self, rng: np.random.Generator) -> Sentence:
        group = self.groups[rng.choice(len(self.groups), p=self.shares)]
        return group[rng.integers(len(group))]

    def like(self, other: Sentence, room: float, rng: np.random.Generator) -> Sentence | None:
        """A sentence by the same voice of at most `room` samples."""
        name = f"{other.engine} {other.voice} {other.language}"
        fitting = bisect_right(self.lengths[name], room)
        return self.voices[name][rng.integers(fitting)] if fitting else None

    def said(self, room: float, rng: np.random.Generator) -> Iterator[tuple[Sentence, int]]:
        """Sentences and the silence behind each, of at most `room` samples in all."""
        for _ in range(20):
            last = self.like(self.any(rng), room, rng)
            if last is not None:
                break
        while last is not None:
            pause = int(rng.uniform(0.12, 0.8) * SAMPLE_RATE)
            yield last, pause
            room -= len(last.samples) + pause
            other = self.any(rng) if rng.random() < 0.05 else last
            last = self.like(other, room, rng)


class Batches(Dataset):
    """Batch i by index; for a DataLoader with workers and `batch_size=None`."""

    def __init__(
        self,
        sentences: list[Sentence],
        features: FeatureConfig,
        batch_seconds: float,
        easy_steps: int,
        seed: int = 0,
    ):
        """easy_steps: so many first batches are clean, with `frames`; half of them of one voice."""
        self.pool, self.front_end = Pool(sentences), LogMel(features)
        self.clear = Pool([s for s in sentences if (s.engine, s.voice) == CLEAR_VOICE])
        self.batch_seconds, self.easy_steps, self.seed = batch_seconds, easy_steps, seed
        self.backgrounds = Backgrounds(np.random.default_rng(seed))

    @torch.no_grad()
    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng([self.seed, index])
        if index < self.easy_steps // 2:
            return self.easy_batch(self.clear, rng)
        return self.easy_batch(self.pool, rng) if index < self.easy_steps else self.batch(rng)

    def batch(self, rng: np.random.Generator) -> Batch:
        """Clips of the same length, each in its own surroundings."""
        seconds = rng.choice(CLIP_SECONDS, p=CLIP_SHARES)
        clips, texts, clean = [], [], []
        for _ in range(round(self.batch_seconds / seconds)):
            speed = rng.uniform(*SPEEDS) if rng.random() < 0.85 else 1.0
            x, said, _ = clip(self.pool, seconds * speed, rng)
            clean.append(rng.random() < CLEAN_SHARE)
            x = transform(x, speed, rng, clean=clean[-1])
            clips.append(x[: int(seconds * SAMPLE_RATE)])
            texts.append(said)
        loud = []
        for x, is_clean in zip(clips, clean, strict=True):
            others = [clips[i] for i in rng.integers(len(clips), size=rng.integers(3, 7))]
            loud.append(x if is_clean else self.backgrounds.add(x, others, rng))
        mel, num_mel = log_mel(self.front_end, loud, seconds)
        for row, n in zip(mel, num_mel.tolist(), strict=True):
            mask(row[:n].numpy(), rng)
        return replace(collate(mel, num_mel, texts, rng), lookahead=int(rng.choice(LOOKAHEADS)))

    def easy_batch(self, pool: Pool, rng: np.random.Generator) -> Batch:
        """Clean clips with `frames`, and a lookahead of half a second or more."""
        seconds = rng.choice(CLIP_SECONDS[:3])
        rows = [clip(pool, seconds, rng) for _ in range(round(self.batch_seconds / seconds))]
        mel, num_mel = log_mel(self.front_end, [x for x, _, _ in rows], seconds)
        batch = collate(mel, num_mel, [said for _, said, _ in rows], rng)
        frames = torch.full((len(rows), num_encoder_frames(mel.shape[1])), -1)
        for labels, (_, said, starts) in zip(frames, rows, strict=True):
            for sentence, start in zip(said, starts, strict=True):
                index, ids = flat_frames(sentence, start, len(labels))
                labels[index] = torch.from_numpy(ids)
        return replace(batch, frames=frames, lookahead=int(rng.choice(LOOKAHEADS[-2:])))


def clip(
    pool: Pool, seconds: float, rng: np.random.Generator
) -> tuple[np.ndarray, list[Sentence], list[int]]:
    """Sentences with silence around them, at most `seconds` long; some clips have none.

    Returns samples (num_samples,) float32, the sentences, and the sample where each begins.
    """
    lead = int(rng.uniform(0.05, 1.5 if rng.random() < 0.1 else 0.5) * SAMPLE_RATE)
    drawn = list(pool.said(seconds * SAMPLE_RATE - lead, rng)) if rng.random() > 0.01 else []
    parts, starts, length = [np.zeros(lead, np.float32)], [], lead
    for sentence, pause in drawn:
        starts.append(length)
        parts += [sentence.wave(), np.zeros(pause, np.float32)]
        length += len(sentence.samples) + pause
    if not drawn:
        parts.append(np.zeros(SAMPLE_RATE, np.float32))
    x = np.concatenate(parts)[: int(seconds * SAMPLE_RATE)]
    return x, [sentence for sentence, _ in drawn], starts


def flat_frames(sentence: Sentence, start: int, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """A guess of what is said when: letters laid evenly over the frames with sound.

    start: sample where the sentence begins.  Returns encoder frames and the ids spoken there.  The
    tag gets two frames behind the last word.
    """
    first = -(-start // FRAME)
    frames = np.arange(first, (start + len(sentence.samples)) // FRAME)
    begin = frames * FRAME - start
    level = [np.abs(sentence.samples[b : b + FRAME]).mean(dtype=np.float32) for b in begin]
    sound = np.asarray(level) > 0.05 * max(level)
    share = (np.cumsum(sound) - 0.5) / sound.sum()  # (frames,) in (0, 1)
    lengths = sentence.piece_lengths[:-1]
    ends = np.cumsum(lengths) / sum(lengths)
    ids = np.asarray(sentence.ids)[np.minimum(np.searchsorted(ends, share), len(ends) - 1)]
    frames, ids = frames[sound], ids[sound]
    tag = frames[-1] + np.arange(1, 3)
    frames, ids = np.concatenate([frames, tag]), np.concatenate([ids, [sentence.ids[-1]] * 2])
    return frames[frames < num_frames], ids[frames < num_frames]


def log_mel(
    front_end: LogMel, clips: list[np.ndarray], seconds: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-mel of whole clips: (B, T, M) and valid frames (B,); T as of `seconds` where given."""
    lens = torch.tensor([len(x) for x in clips])
    start = first_sample_of(0)
    T = int(lens.max()) // HOP if seconds is None else round(seconds * SAMPLE_RATE) // HOP
    samples = torch.zeros(len(clips), span_of(T))
    for row, x in zip(samples, clips, strict=True):
        x = x[: samples.shape[1] + start]
        row[-start : -start + len(x)] = torch.from_numpy(x)
    return front_end(samples, torch.zeros_like(lens), lens), lens // HOP


def collate(
    mel: torch.Tensor, num_mel: torch.Tensor, said: list[list[Sentence]], rng: np.random.Generator
) -> Batch:
    """Targets and prompts: `auto` for half of the rows and where languages change."""
    prompts, targets = [], []
    for row in said:
        tags = {s.language for s in row}
        known = len(tags) == 1 and rng.random() < 0.5
        prompts.append(PROMPTS[tags.pop()] if known else AUTO)
        targets.append(torch.tensor([i for s in row for i in s.ids], dtype=torch.int64))
    fine = [torch.tensor([i for s in row for i in s.fine], dtype=torch.int64) for row in said]
    return Batch(
        mel=mel,
        num_mel=num_mel,
        prompt_ids=torch.tensor(prompts),
        targets=torch.nn.utils.rnn.pad_sequence(targets, batch_first=True),
        num_targets=torch.tensor([len(row) for row in targets]),
        fine=torch.nn.utils.rnn.pad_sequence(fine, batch_first=True),
        num_fine=torch.tensor([len(row) for row in fine]),
    )


def plain_batch(front_end: LogMel, sentences: list[Sentence], auto: bool = True) -> Batch:
    """Sentences as they are, one a row: for evaluation."""
    mel, num_mel = log_mel(front_end, [s.padded() for s in sentences])
    batch = collate(mel, num_mel, [[s] for s in sentences], np.random.default_rng(0))
    prompts = [AUTO if auto else PROMPTS[s.language] for s in sentences]
    return replace(batch, prompt_ids=torch.tensor(prompts))
