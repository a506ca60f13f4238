"""Clips for training: sentences joined, with silence, speed, gain, noise and band limits varied."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from grammar import is_held_out
from synthesize import HELD_OUT_VOICES, SAMPLE_RATE
from tokenizers import Tokenizer

from nemotron_asr.config import HOP
from nemotron_asr.config import TOKEN_FRAME_SAMPLES as FRAME
from nemotron_asr.encoder import num_encoder_frames
from nemotron_asr.features import LogMel, first_sample_of, span_of

TAG = "<en-US>"
PROMPTS = (0, 101)  # en-US and auto
CLIP_SECONDS = (2.5, 4.0, 6.0, 9.0)
REPEATS = {"kokoro": 5}  # the slowest engine has the fewest sentences and the most voices


@dataclass(frozen=True)
class Sentence:
    engine: str
    voice: str
    text: str
    samples: np.ndarray  # (num_samples,) int16
    ids: list[int]  # the pieces and the language tag
    weights: list[float]  # how long each piece may take, in letters

    def flat_frames(self, start: int, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
        """A guess of what is said when: pieces laid out in proportion to their letters.

        start: sample where the sentence begins.  Returns encoder frames and the ids spoken there.
        The final mark and the tag get a frame each behind the last word.
        """
        frames = np.arange(-(-start // FRAME), (start + len(self.samples)) // FRAME)
        share = (frames * FRAME - start) / len(self.samples)  # (frames,) in [0, 1)
        ends = np.cumsum(self.weights[:-2]) / sum(self.weights[:-2])
        ids = np.asarray(self.ids)[np.minimum(np.searchsorted(ends, share), len(ends) - 1)]
        frames = np.concatenate([frames, frames[-1] + np.arange(1, 3)])
        keep = frames < num_frames
        return frames[keep], np.concatenate([ids, self.ids[-2:]])[keep]


@dataclass(frozen=True)
class Batch:
    mel: torch.Tensor  # (B, T, M) float32, 0.0 from num_mel on
    num_mel: torch.Tensor  # (B,) int64
    prompt_ids: torch.Tensor  # (B,) int64
    targets: torch.Tensor  # (B, U) int64, 0 behind num_targets
    num_targets: torch.Tensor  # (B,) int64
    texts: list[str]
    frames: torch.Tensor | None = None  # (B, E) int64 guessed id of each frame, -1 in silence


def load_sentences(folder: Path, tokenizer: Tokenizer) -> dict[str, list[Sentence]]:
    """All synthesised sentences by part: `train`, `text` and `voice`.

    `text`: text never trained on by known voices.  `voice`: such text by voices never trained on.
    """
    parts: dict[str, list[Sentence]] = {"train": [], "text": [], "voice": []}
    for table in sorted(folder.glob("*.jsonl")):
        audio = np.fromfile(table.with_suffix(".pcm"), "<i2")
        for row in map(json.loads, table.read_text().splitlines()):
            samples = audio[row["start"] : row["start"] + row["num_samples"]]
            held_out_voice = row["voice"] in HELD_OUT_VOICES
            part = "voice" if held_out_voice else "text" if is_held_out(row["text"]) else "train"
            ids = tokenizer.encode(row["text"] + TAG).ids
            weights = [max(1.0, len(tokenizer.id_to_token(i).strip("▁"))) for i in ids]
            sentence = Sentence(row["engine"], row["voice"], row["text"], samples, ids, weights)
            if len(samples) == row["num_samples"] > 0:
                repeats = REPEATS.get(row["engine"], 1) if part == "train" else 1
                parts[part] += [sentence] * repeats
    return parts


class Clips:
    """Makes batches; the same seed gives the same batches."""

    def __init__(self, front_end: LogMel, seed: int):
        self.front_end = front_end
        self.rng = np.random.default_rng(seed)
        self.noises = [self._noise(tilt) for tilt in (0.0, 0.3, 0.6, 0.9, 1.2)]

    def _noise(self, tilt: float) -> np.ndarray:
        """30 s of noise of unit power whose amplitude falls with frequency to the power `tilt`."""
        spectrum = np.fft.rfft(self.rng.standard_normal(30 * SAMPLE_RATE))
        spectrum /= np.maximum(np.arange(len(spectrum)), 1500) ** tilt  # flat below 50 Hz
        noise = np.fft.irfft(spectrum)
        return (noise / noise.std()).astype(np.float32)

    def silence(self, low: float, high: float) -> np.ndarray:
        return np.zeros(int(self.rng.uniform(low, high) * SAMPLE_RATE), np.float32)

    def spoken(self, sentence: Sentence) -> np.ndarray:
        """The sentence at 0.9 to 1.1 times its speed, (num_samples,) float32."""
        samples = sentence.samples.astype(np.float32) / 32768
        at = np.arange(0, len(samples) - 1, self.rng.uniform(0.9, 1.1))
        return np.interp(at, np.arange(len(samples)), samples).astype(np.float32)

    def clip(self, pool: list[Sentence], seconds: float) -> tuple[np.ndarray, list[Sentence]]:
        """As many sentences as fit, at least one, with silence around them."""
        rng, said = self.rng, []
        parts = [self.silence(0.05, 1.5 if rng.random() < 0.1 else 0.7)]
        room = seconds * SAMPLE_RATE - len(parts[0])
        for attempt in range(8):
            sentence = pool[rng.integers(len(pool))]
            if len(sentence.samples) > room and (said or attempt < 4):
                continue
            said.append(sentence)
            parts += [self.spoken(sentence), self.silence(0.15, 0.9)]
            room -= len(parts[-1]) + len(parts[-2])
            if room < SAMPLE_RATE:
                break
        parts[-1] = self.silence(0.05, 0.7) if rng.random() < 0.9 else self.silence(1.5, 2.5)
        return np.concatenate(parts), said

    def augment(self, x: np.ndarray) -> np.ndarray:
        """Band limits or a tilted spectrum for some clips, then noise and gain."""
        rng = self.rng
        if rng.random() < 0.4:
            spectrum = np.fft.rfft(x)
            hz = np.linspace(0, SAMPLE_RATE / 2, len(spectrum), dtype=np.float32)
            if rng.random() < 0.3:
                spectrum *= (hz > 250) & (hz < 3500)  # a telephone
            else:
                knots = rng.uniform(-8, 8, 6)  # dB
                spectrum *= 10 ** (np.interp(hz, np.linspace(0, 8000, 6), knots) / 20)
            x = np.fft.irfft(spectrum, len(x))
        level = np.sqrt(np.mean(np.square(x)))
        if rng.random() < 0.8:
            noise = self.noises[rng.integers(len(self.noises))]
            start = rng.integers(len(noise) - len(x))
            x = x + noise[start : start + len(x)] * level * 10 ** (-rng.uniform(12, 45) / 20)
        return np.float32(x * 10 ** (rng.uniform(-18, 3) / 20)).clip(-1, 1)

    def mel(self, clips: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-mel of whole clips: (B, T, M) and valid frames (B,)."""
        lens = torch.tensor([len(x) for x in clips])
        start = first_sample_of(0)
        samples = torch.zeros(len(clips), span_of(int(lens.max()) // HOP))
        for row, x in zip(samples, clips, strict=True):
            row[-start : -start + len(x)] = torch.from_numpy(x[: samples.shape[1] + start])
        mel = self.front_end(samples, torch.zeros_like(lens), lens)
        return mel, lens // HOP

    def batch(self, pool: list[Sentence], batch_seconds: float, easy: bool = False) -> Batch:
        """A training batch of about `batch_seconds` of audio, of clips of similar length.

        easy: single sentences without augmentation, with a guess of each frame's label.
        """
        seconds = CLIP_SECONDS[0 if easy else self.rng.choice(4, p=[0.35, 0.3, 0.2, 0.15])]
        if easy:
            return self.single(pool, int(batch_seconds / seconds))
        rows = [self.clip(pool, seconds) for _ in range(max(2, int(batch_seconds / seconds)))]
        mel, num_mel = self.mel([self.augment(x) for x, _ in rows])
        mel = self.mask(mel, num_mel)
        return self.collate(mel, num_mel, [said for _, said in rows])

    def single(self, pool: list[Sentence], num_rows: int) -> Batch:
        """One sentence a row, with `frames`."""
        said = [pool[i] for i in self.rng.integers(len(pool), size=num_rows)]
        before = [self.silence(0.05, 0.5) for _ in said]
        clips = [
            np.concatenate([lead, s.samples / np.float32(32768), self.silence(0.2, 0.5)])
            for lead, s in zip(before, said, strict=True)
        ]
        batch = self.collate(*self.mel(clips), [[s] for s in said])
        frames = torch.full((num_rows, num_encoder_frames(batch.mel.shape[1])), -1)
        for row, lead, s in zip(frames, before, said, strict=True):
            index, ids = s.flat_frames(len(lead), len(row))
            row[index] = torch.from_numpy(ids)
        return replace(batch, frames=frames)

    def mask(self, mel: torch.Tensor, num_mel: torch.Tensor) -> torch.Tensor:
        """SpecAugment: up to two bands of a row become its quietest value."""
        bins = mel.shape[2]
        for b, frames in enumerate(num_mel.tolist()):
            low = mel[b, :frames].min()
            for _ in range(self.rng.integers(0, 3)):
                first, width = self.rng.integers(bins), self.rng.integers(1, bins // 8)
                mel[b, :frames, first : first + width] = low
        return mel

    def plain(self, sentences: list[Sentence]) -> Batch:
        """Sentences as they are, one a row, with 0.3 s of silence around each: for evaluation."""
        pause = np.zeros(int(0.3 * SAMPLE_RATE), np.float32)
        clips = [np.concatenate([pause, s.samples / np.float32(32768), pause]) for s in sentences]
        return self.collate(*self.mel(clips), [[s] for s in sentences])

    def collate(self, mel: torch.Tensor, num_mel: torch.Tensor, said: list) -> Batch:
        targets = [torch.tensor([i for s in row for i in s.ids]) for row in said]
        return Batch(
            mel=mel,
            num_mel=num_mel,
            prompt_ids=torch.from_numpy(self.rng.choice(PROMPTS, len(said))),
            targets=torch.nn.utils.rnn.pad_sequence(targets, batch_first=True),
            num_targets=torch.tensor([len(row) for row in targets]),
            texts=[" ".join(s.text for s in row) for row in said],
        )
