"""How the rows of a round go through the model: as they come on a CPU, in fixed shapes on a GPU.

A GPU needs less time for the model's thousand small kernels than a host needs to launch them. So a
round has one of a few shapes there, filled up with empty rows; the device's work for each shape is
captured at start as a CUDA graph and launched by one call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..chunks import Chunk
from ..config import SUBSAMPLING, TOKEN_FRAME_MS
from ..decoding import Progress, Token, collect, look_on, num_looks
from ..encoder import UNKNOWN_LENGTH
from ..features import first_sample_of, num_mel_frames, span_of
from ..recognizer import Recognizer
from .arena import Arena

WARM_UPS = 2  # runs before a capture, in which libraries set themselves up and tables are made
DENSE_FROM = 32  # rows; from here on filling up to a power of two costs real time

Work = Callable[[], object]


class PlainRounds:
    """Rounds of any shape, by `Recognizer.step`: best on a CPU, where empty rows are not free."""

    def __init__(self, recognizer: Recognizer, arena: Arena):
        self._recognizer, self._arena = recognizer, arena

    def warm_up(self) -> None:
        """Run every lookahead once, so that the first stream pays for nothing."""
        silence = Chunk(np.zeros(0, np.int16), 0, first_frame=0, num_samples=None, prompt_id=0)
        for latency_ms in self._recognizer.latencies_ms:
            self.step([silence], latency_ms // TOKEN_FRAME_MS - 1, [self._arena.scratch])

    def step(
        self, rows: Sequence[Chunk], lookahead: int, slots: Sequence[int]
    ) -> list[list[Token]]:
        """The next lookahead + 1 frames of each row, whose stream has that slot of the arena."""
        state = self._arena.encoder, self._arena.prediction
        return self._recognizer.step(rows, lookahead + 1, lookahead, *state, list(slots))


class ShapedRounds:
    """Rounds in shapes made ahead. On a GPU they are CUDA graphs; a CPU runs the same as it is."""

    def __init__(self, recognizer: Recognizer, arena: Arena, max_rows: int):
        """max_rows: the most that `step` takes."""
        self.sizes = row_steps(min(max_rows, arena.num_slots))
        self._recognizer, self._arena = recognizer, arena
        self._lookaheads = [ms // TOKEN_FRAME_MS - 1 for ms in recognizer.latencies_ms]
        device = recognizer.device
        on_gpu = device.type == "cuda"
        self._capture = _Capture(device) if on_gpu else lambda work: work
        # Input memory is shared by all shapes, as one round runs at a time.
        most = _Inputs.num_bytes(self.sizes[-1], max(self._lookaheads) + 1)
        self._host = torch.zeros(most, dtype=torch.uint8, pin_memory=on_gpu)
        self._inputs = torch.zeros(most, dtype=torch.uint8, device=device)
        self._shapes: dict[tuple[int, int], _Shape] = {}

    def warm_up(self) -> None:
        """Make every shape, the largest first: the others' graphs then fit into its memory."""
        for lookahead in sorted(self._lookaheads, reverse=True):
            for num_rows in reversed(self.sizes):
                self._shape(lookahead, num_rows)

    @torch.inference_mode()
    def step(
        self, rows: Sequence[Chunk], lookahead: int, slots: Sequence[int]
    ) -> list[list[Token]]:
        """As `PlainRounds.step`. Rows with a bias go by themselves, as they come."""
        biased = [i for i, row in enumerate(rows) if row.bias is not None]
        if biased:
            return self._step_apart(rows, lookahead, slots, biased)
        size = next(size for size in self.sizes if size >= len(rows))
        shape = self._shape(lookahead, size)
        shape.load(rows, slots)
        shape.begin()
        tokens: list[list[Token]] = [[] for _ in rows]
        first_frame = [row.first_frame for row in rows]
        while collect(shape.found, first_frame, tokens):
            shape.go_on()
        return tokens

    def _step_apart(
        self, rows: Sequence[Chunk], lookahead: int, slots: Sequence[int], biased: list[int]
    ) -> list[list[Token]]:
        others = [i for i in range(len(rows)) if i not in set(biased)]
        plain = PlainRounds(self._recognizer, self._arena)
        tokens: dict[int, list[Token]] = {}
        for step, indices in ((plain.step, biased), (self.step, others)):
            if indices:
                its_rows, its_slots = ([x[i] for i in indices] for x in (rows, slots))
                tokens |= zip(indices, step(its_rows, lookahead, its_slots), strict=True)
        return [tokens[i] for i in range(len(rows))]

    @torch.inference_mode()
    def _shape(self, lookahead: int, num_rows: int) -> _Shape:
        key = lookahead, num_rows
        if key not in self._shapes:
            host = _Inputs(self._host, num_rows, lookahead + 1)
            inputs = _Inputs(self._inputs, num_rows, lookahead + 1)
            self._shapes[key] = _Shape(
                self._recognizer, self._arena, lookahead, host, inputs, self._capture
            )
        return self._shapes[key]


def rounds_for(recognizer: Recognizer, arena: Arena, max_rows: int) -> PlainRounds | ShapedRounds:
    """What is best on the recognizer's device."""
    if recognizer.device.type == "cuda":
        return ShapedRounds(recognizer, arena, max_rows)
    return PlainRounds(recognizer, arena)


def row_steps(most: int) -> list[int]:
    """Numbers of rows that shapes have: powers of two, from 32 on also half-way between them."""
    steps, size = [], 1
    while size < most:
        steps += [size, size * 3 // 2] if size >= DENSE_FROM else [size]
        size *= 2
    return [size for size in steps if size < most] + [most]


class _Inputs:
    """What the rows of a round bring, in one stretch of memory, so that one copy moves it."""

    FIELDS = 5  # int64, B each

    def __init__(self, memory: torch.Tensor, num_rows: int, num_frames: int):
        """memory: uint8, of which the first `num_bytes` are taken."""
        split = 8 * self.FIELDS * num_rows
        self.memory = memory[: self.num_bytes(num_rows, num_frames)]
        self.numbers = self.memory[:split].view(torch.int64).view(self.FIELDS, num_rows)
        self.slots, self.first_mel, self.num_samples, self.prompts, self.valid = self.numbers
        self.samples = self.memory[split:].view(torch.float32).view(num_rows, -1)  # (B, span)

    @classmethod
    def num_bytes(cls, num_rows: int, num_frames: int) -> int:
        return num_rows * (8 * cls.FIELDS + 4 * span_of(SUBSAMPLING * num_frames))


class _Shape:
    """The work of rounds of one lookahead and number of rows, and the memory that it lives in."""

    def __init__(
        self,
        recognizer: Recognizer,
        arena: Arena,
        lookahead: int,
        host: _Inputs,
        inputs: _Inputs,
        capture: Callable[[Work], Work],
    ):
        self._recognizer, self._arena, self._lookahead = recognizer, arena, lookahead
        self._host, self._inputs = host, inputs
        num_rows, E, device = len(inputs.samples), lookahead + 1, recognizer.device
        width = recognizer.config.decoder_hidden_size
        # What outlives a graph's run must not lie in the memory that the graphs share.
        self._f = torch.zeros(num_rows, E, width, device=device)  # (B, E, J)
        self._progress = Progress.start(inputs.valid)
        self.found = torch.zeros(3 * num_looks(E) + 1, num_rows, device=device)  # for `collect`
        self.load([], [])
        self.begin = capture(self._run)
        self.go_on = capture(self._look_on)

    def load(self, rows: Sequence[Chunk], slots: Sequence[int]) -> None:
        """Take a round's rows; those that are left over hear nothing, in the scratch slot."""
        numbers, samples = self._host.numbers.numpy(), self._host.samples.numpy()
        samples.fill(0.0)
        for out, row in zip(samples, rows, strict=False):
            row.copy_samples(out, first_sample_of(row.first_mel))
        numbers.fill(0)
        numbers[0] = self._arena.scratch
        numbers[:, : len(rows)] = [
            slots,
            [row.first_mel for row in rows],
            [UNKNOWN_LENGTH if row.num_samples is None else row.num_samples for row in rows],
            [row.prompt_id for row in rows],
            [row.valid_frames(self._lookahead + 1) for row in rows],
        ]
        self._inputs.memory.copy_(self._host.memory, non_blocking=True)

    def _run(self) -> None:
        """Audio to the first tokens."""
        x, net, E = self._inputs, self._recognizer.net, self._lookahead + 1
        mel = self._recognizer.mel(x.samples, x.first_mel, x.num_samples)  # (B, 8 E, M)
        num_mel = num_mel_frames(x.num_samples)
        positions = self._recognizer.positions(E)
        encoder = self._arena.encoder
        enc = net.encoder(mel, num_mel, self._lookahead, encoder, x.slots, positions)
        self._f.copy_(net.project(enc, x.prompts))
        self._progress.at.zero_()
        self._progress.symbols.zero_()
        self._look_on()

    def _look_on(self) -> None:
        """More tokens."""
        net, prediction = self._recognizer.net, self._arena.prediction
        self.found.copy_(look_on(net, self._f, self._progress, prediction, self._inputs.slots))


class _Capture:
    """Makes CUDA graphs of work. They share memory, as one of them runs at a time."""

    def __init__(self, device: torch.device):
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        # cuBLAS keeps a workspace for each stream, and graphs keep its address: all of one owner's
        # are captured on one stream, and go together.
        self._stream = torch.cuda.Stream(device)

    def __call__(self, work: Work) -> Work:
        with torch.cuda.device(self._device):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UPS):
                    work()
            graph = torch.cuda.CUDAGraph()
            # What other threads of the process do meanwhile does not spoil the capture.
            with torch.cuda.graph(
                graph, self._pool, self._stream, capture_error_mode="thread_local"
            ):
                work()
        return graph.replay
