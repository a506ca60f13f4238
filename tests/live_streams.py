"""Streams that take a chunk a round, without an engine: for tests of rounds on any device."""

from __future__ import annotations

import numpy as np
import torch

from nemotron_asr.chunks import Chunk, total_frames
from nemotron_asr.config import TOKEN_FRAME_SAMPLES
from nemotron_asr.engine.arena import Arena
from reference import speech_like


class Streams:
    """Live streams of one lookahead, a chunk a round, in an arena of their own."""

    def __init__(self, recognizer, make_rounds, num_streams: int, lookahead: int):
        self.arena = Arena(recognizer, num_streams + 2)
        self.rounds = make_rounds(recognizer, self.arena)
        self.lookahead = lookahead
        chunk = TOKEN_FRAME_SAMPLES * (lookahead + 1)
        lengths = [1000 + chunk * (1 + i % 5) for i in range(num_streams)]
        self.audio = [speech_like(n, seed) for seed, n in enumerate(lengths)]
        self.audio[0] = (self.audio[0] * 32767).astype(np.int16)
        self.frames = [0] * num_streams

    def live(self) -> list[int]:
        return [i for i, a in enumerate(self.audio) if self.frames[i] < total_frames(len(a))]

    def slot(self, stream: int) -> int:
        return self.arena.num_slots - 1 - stream  # the first two are nobody's

    def step(self, streams: list[int]) -> list[list]:
        chunks = []
        for i in streams:
            audio, size = self.audio[i], self.lookahead + 1
            ends = self.frames[i] + size >= total_frames(len(audio))
            chunks.append(
                Chunk(audio, 0, self.frames[i], len(audio) if ends else None, (0, 9, 101)[i % 3])
            )
            self.frames[i] += size
        return self.rounds.step(chunks, self.lookahead, [self.slot(i) for i in streams])

    def memory(self) -> list[torch.Tensor]:
        """The state by slot: (N, ...) each."""
        kv, conv = self.arena.encoder.kv, self.arena.encoder.conv
        by_slot = [kv.movedim(2, 0), conv.movedim(1, 0)]
        others = [x for x in self.arena.encoder if x is not kv and x is not conv]
        return [*others, *by_slot, *self.arena.prediction]


def ids_and_frames(tokens) -> list:
    return [[(t.id, t.frame) for t in row] for row in tokens]
