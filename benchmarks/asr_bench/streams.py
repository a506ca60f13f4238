"""Live streams inside one process, in steady state: of the encoder alone, and of an engine."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from nemotron_asr import Recognizer, StreamingEngine
from nemotron_asr.chunks import Chunk, first_sample_needed, samples_needed
from nemotron_asr.config import SAMPLE_RATE, TOKEN_FRAME_MS, TOKEN_FRAME_SAMPLES
from nemotron_asr.engine import Request

from .speech import speech, speech_pcm

CACHED_FRAMES = 56  # at least as many are heard before anything is measured
OFFSET_S = 3.7  # between the places of the recordings where streams begin


class OurStream:
    """Our encoder in steady state: chunk after chunk, caches in an arena as the engine's."""

    def __init__(self, recognizer: Recognizer, lookahead: int, batch: int, prompt_id: int):
        longest = max(recognizer.latencies_ms) // TOKEN_FRAME_MS
        self._recognizer = recognizer
        self._state = recognizer.fresh_encoder(batch, longest)
        self._lookahead = lookahead
        self._slots = list(range(batch))
        self._prompts = [prompt_id] * batch

    def step(self, mel: torch.Tensor) -> torch.Tensor:
        """mel: (B, 8 E, M).  Returns (B, E, J)."""
        ends = [None] * len(mel)
        return self._recognizer.encode(
            mel, ends, self._prompts, self._lookahead, self._state, self._slots
        )


class EngineRound:
    """A packet of one chunk for every stream, submitted and answered, by an engine of its own."""

    def __init__(self, recognizer: Recognizer, lookahead: int, batch: int):
        self._engine = StreamingEngine(recognizer, num_slots=batch)
        self._lookahead = lookahead
        size = TOKEN_FRAME_SAMPLES * (lookahead + 1)
        pcm = [speech_pcm(60.0, OFFSET_S * row) for row in range(batch)]
        self._packets = [itertools.cycle(_packets(own, size)) for own in pcm]
        self._answered = 0
        latency_ms = TOKEN_FRAME_MS * (lookahead + 1)
        # What comes first also holds the samples that the model hears beyond a chunk's end, so that
        # every later packet completes a chunk of its own.
        head = samples_needed(lookahead + 1)
        for row, own in enumerate(pcm):
            self._submit(row, own[:head], start=True, parameters={"latency_ms": latency_ms})
        self._work()

    def __call__(self) -> None:
        for row, packets in enumerate(self._packets):
            self._submit(row, next(packets))
        self._work()

    def _submit(self, row: int, audio: np.ndarray, start=False, parameters=None) -> None:
        request = Request(row, audio, start, False, parameters or {}, self._reply)
        self._engine.submit(request)

    def _reply(self, update) -> None:
        if update.error is not None:
            raise update.error
        self._answered += 1

    def _work(self) -> None:
        self._answered = 0
        while self._engine.step(0.0):
            pass
        if self._answered != len(self._packets):
            raise RuntimeError(f"{self._answered} of {len(self._packets)} packets were answered")


def _packets(pcm: np.ndarray, size: int) -> list[np.ndarray]:
    return [pcm[i : i + size] for i in range(0, len(pcm) - size + 1, size)]


def fill_rounds(lookahead: int) -> int:
    """Chunks that fill the left context."""
    return CACHED_FRAMES // (lookahead + 1)


def steady_chunks(lookahead: int, batch: int, prompt_id: int) -> list[Chunk]:
    frames = lookahead + 1
    first = fill_rounds(lookahead) * frames
    return [speech_chunk(row, first, frames, prompt_id) for row in range(batch)]


def speech_chunk(row: int, first_frame: int, frames: int, prompt_id: int) -> Chunk:
    """Of the stream that begins at another place of the recordings for every row."""
    start = max(0, first_sample_needed(first_frame))
    stop = samples_needed(first_frame + frames)
    offset_s = OFFSET_S * row + start / SAMPLE_RATE
    samples = speech((stop - start) / SAMPLE_RATE, offset_s)
    return Chunk(samples, start, first_frame, None, prompt_id)
