"""Whole recordings through a recognizer: in batches of like length, many chunks a call.

`to_tokens` takes every stretch from audio to tokens at once, so that the longest recording needs
no more memory than a stretch. `features`, `encode` and `decode` are the same in three steps, for an
ensemble that runs them apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from .chunks import Chunk, first_sample_needed, samples_needed, total_frames
from .config import SUBSAMPLING
from .decoding import Token
from .features import num_mel_frames
from .options import Options

if TYPE_CHECKING:
    from .biasing import Bias
    from .recognizer import Recognizer

FRAMES_PER_CALL = 224  # most encoder frames of a recording in one call: a multiple of every chunk
ROWS_PER_CALL = 16  # most recordings in one call
ALL_FRAMES_PER_CALL = 896  # of all its recordings together: what bounds a call's memory
MEL_BYTES = 1 << 24  # that a recording's mel may have before its memory grows


def to_tokens(
    recognizer: Recognizer, audio: Sequence[np.ndarray], options: Options
) -> list[list[Token]]:
    """audio: (n,) int16 or float32 each.  Returns the tokens of each."""
    tokens: dict[int, list[Token]] = {i: [] for i in range(len(audio))}
    prompt, lookahead = recognizer.prompt_id(options.language), options.lookahead
    biases = [recognizer.bias(options, prompt) for _ in audio]
    for group in _groups([len(samples) for samples in audio]):
        encoder = recognizer.fresh_encoder(len(group), _most_frames(len(group)))
        prediction = recognizer.fresh_prediction(len(group))
        totals = [total_frames(len(audio[i])) for i in group]
        for done, num_frames, live in _stretches(totals, lookahead):
            rows = [
                Chunk(audio[i], 0, done, len(audio[i]), prompt, biases[i]) for i in group[:live]
            ]
            new = recognizer.step(rows, num_frames, lookahead, encoder, prediction)
            for i, more in zip(group, new, strict=False):
                tokens[i] += more
    return [tokens[i] for i in range(len(audio))]


def features(recognizer: Recognizer, samples: np.ndarray) -> torch.Tensor:
    """Mel frames from -7 on that a recording's E encoder frames want, (8 E, M) float32."""
    return features_of_blocks(recognizer, [samples])[0]


def features_of_blocks(
    recognizer: Recognizer, blocks: Iterable[np.ndarray]
) -> tuple[torch.Tensor, int]:
    """The same of a recording that comes in blocks, (8 E, M) float32, and its number of samples.

    Keeps no more of the samples than a block. The mel is in the machine's memory, not the device's:
    there it grows in place, in pages of its own, and is never there twice.
    """
    memory, used = mmap(-1, MEL_BYTES, MAP_PRIVATE | MAP_ANONYMOUS), 0

    def append(num_frames: int, num_samples: int | None) -> None:
        nonlocal used
        row = Chunk(kept, start, done, num_samples, prompt_id=0)
        more = recognizer.features([row], num_frames)[0].numpy(force=True).tobytes()
        if used + len(more) > len(memory):
            memory.resize(2 * len(memory))  # moves no page, and takes none that is not written
        memory[used : used + len(more)] = more
        used += len(more)

    kept, start, done = np.zeros(0, np.int16), 0, 0  # samples kept, from where; frames done
    for block in blocks:
        kept = np.concatenate([kept, block])
        while samples_needed(done + FRAMES_PER_CALL) <= start + len(kept):
            append(FRAMES_PER_CALL, None)
            done += FRAMES_PER_CALL
        gone = max(0, first_sample_needed(done) - start)
        kept, start = kept[gone:], start + gone
    num_samples = start + len(kept)
    while (left := total_frames(num_samples) - done) > 0:
        append(min(left, FRAMES_PER_CALL), num_samples)
        done += FRAMES_PER_CALL
    mel = torch.from_numpy(np.frombuffer(memory, np.float32, used // 4))
    return mel.view(-1, recognizer.config.features.feature_size), num_samples


def encode(
    recognizer: Recognizer,
    mels: Sequence[torch.Tensor],
    num_samples: Sequence[int],
    prompt_ids: Sequence[int],
    lookahead: int,
) -> list[torch.Tensor]:
    """mels: (8 E, M) each, from `features`.  Returns the joint's input of each, (E, J) float32."""
    width = recognizer.config.decoder_hidden_size
    encoded = [
        torch.empty(total_frames(n), width, device=recognizer.device) for n in num_samples
    ]  # written in place: parts that are joined at the end would be there twice
    for group in _groups(num_samples):
        state = recognizer.fresh_encoder(len(group), _most_frames(len(group)))
        totals = [total_frames(num_samples[i]) for i in group]
        for done, num_frames, live in _stretches(totals, lookahead):
            rows = group[:live]
            mel = _stack([mels[i] for i in rows], SUBSAMPLING * done, SUBSAMPLING * num_frames)
            num_mel = [num_mel_frames(num_samples[i]) for i in rows]
            prompts = [prompt_ids[i] for i in rows]
            f = recognizer.encode(mel.to(recognizer.device), num_mel, prompts, lookahead, state)
            for i, row, total in zip(rows, f, totals, strict=False):
                encoded[i][done : done + num_frames] = row[: total - done]
    return encoded


def decode(
    recognizer: Recognizer,
    encoded: Sequence[torch.Tensor],
    biases: Sequence[Bias | None] | None = None,
) -> list[list[Token]]:
    """encoded: (E, J) each, from `encode`.  biases: from `Recognizer.bias`, one each.

    Returns the tokens of each.
    """
    biases = biases or [None] * len(encoded)
    tokens: dict[int, list[Token]] = {i: [] for i in range(len(encoded))}
    for group in _groups([len(f) for f in encoded]):
        state = recognizer.fresh_prediction(len(group))
        totals = [len(encoded[i]) for i in group]
        for done, num_frames, live in _stretches(totals, 0):
            rows = group[:live]
            f = _stack([encoded[i] for i in rows], done, num_frames).to(recognizer.device)
            valid = [min(num_frames, total - done) for total in totals[:live]]
            first_frame, own = [done] * live, [biases[i] for i in rows]
            new = recognizer.decode(f, valid, first_frame, state, biases=own)
            for i, more in zip(rows, new, strict=True):
                tokens[i] += more
    return [tokens[i] for i in range(len(encoded))]


def _groups(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices in groups of at most ROWS_PER_CALL of like length, longest first."""
    longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for start in range(0, len(lengths), ROWS_PER_CALL):
        yield longest_first[start : start + ROWS_PER_CALL]


def _most_frames(num_rows: int) -> int:
    """Encoder frames of each of so many recordings in one call."""
    return min(FRAMES_PER_CALL, ALL_FRAMES_PER_CALL // num_rows)


def _stretches(totals: Sequence[int], lookahead: int) -> Iterator[tuple[int, int, int]]:
    """Walk recordings of falling length together: (frames done, frames of this call, rows left).

    Calls take whole chunks. A recording that has ended leaves, so rows are always the first ones.
    """
    size = lookahead + 1
    per_call = _most_frames(len(totals)) // size * size
    done = 0
    while live := sum(total > done for total in totals):
        num_frames = min(per_call, math.ceil((totals[0] - done) / size) * size)
        yield done, num_frames, live
        done += num_frames


def _stack(tensors: Sequence[torch.Tensor], start: int, length: int) -> torch.Tensor:
    """Rows [start, start + length) of each, zeros behind their ends: (B, length, ...)."""
    parts = [x[start : start + length] for x in tensors]
    return torch.stack([F.pad(x, (0, 0, 0, length - len(x))) for x in parts])
