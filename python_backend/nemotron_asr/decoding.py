"""Greedy RNN-T decoding of a batch of streams, in two ways that find the same.

`greedy_decode` asks the device after each symbol which rows emitted, and steps the LSTM for those
alone: best on a CPU. `looping_decode` (label looping, arXiv 2406.06220) steps it for all rows and
leaves every decision on the device, so that the host waits once in many symbols: best on a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from .model import NemotronAsr, PredictionState

if TYPE_CHECKING:
    from .biasing import Bias

JOINT_ROWS = 16  # frames evaluated at once: a wider batch of rows looks fewer frames ahead
LOOPING_JOINT_ROWS = 512  # the same on a GPU, where so few take hardly longer than one
MIN_WINDOW = 4  # frames; a token comes every four frames or so


class Token(NamedTuple):
    """An emitted piece."""

    id: int
    frame: int  # encoder frame of the stream, 80 ms each
    confidence: float  # the joint's own posterior of this piece, in [0, 1]


def greedy_decode(
    net: NemotronAsr,
    f: torch.Tensor,
    num_frames: list[int],
    first_frame: list[int],
    state: PredictionState,
    slots: list[int] | None = None,
    biases: list[Bias | None] | None = None,
) -> list[list[Token]]:
    """Decode the next frames of each row.

    f: (B, E, J) projected encoder output.  num_frames: valid frames of each row, at most E.
    first_frame: index of each row's first frame in its stream.
    state: the streams' prediction states, which this call moves on.
    slots: the row of `state` that each stream has; the first B where not given.
    biases: what the streams that have phrases or languages are drawn to, which this call moves on.
    Returns the tokens of each row. Blank leaves the state alone, so the joint looks at a window of
    frames at once for the first that is not blank; only rows that emitted step the LSTM. After
    `max_symbols_per_step` symbols on one frame the next one follows.
    """
    max_symbols = net.config.max_symbols_per_step
    tokens: list[list[Token]] = [[] for _ in num_frames]
    at = [0] * len(num_frames)  # the frame each row looks at
    symbols = [0] * len(num_frames)  # symbols emitted on that frame
    slots = list(range(len(num_frames))) if slots is None else slots
    rows = [b for b, n in enumerate(num_frames) if n > 0]
    while rows:
        remaining = max(num_frames[b] - at[b] for b in rows)
        window = min(remaining, max(MIN_WINDOW, JOINT_ROWS // len(rows)))
        row, start, stop = (
            _index(x, f) for x in (rows, [at[b] for b in rows], [num_frames[b] for b in rows])
        )
        g = state.g[_index([slots[b] for b in rows], f)]
        biased = {r: biases[b] for r, b in enumerate(rows) if biases[b]} if biases else {}
        found = _next_symbols(net, f, g, row, start, stop, window, biased)
        emitted = {}
        for b, is_hit, skipped, id_, confidence in zip(
            rows, *(x.tolist() for x in found), strict=True
        ):
            if skipped:
                at[b] += skipped
                symbols[b] = 0
            if not is_hit:
                continue
            tokens[b].append(Token(id_, first_frame[b] + at[b], confidence))
            emitted[slots[b]] = id_
            if biases and biases[b]:
                biases[b].push(id_)
            symbols[b] += 1
            if symbols[b] == max_symbols:
                at[b] += 1
                symbols[b] = 0
        if emitted:
            index = _index(list(emitted), f)
            ids = _index(list(emitted.values()), f)
            for x, new in zip(
                state, net.decoder.step(ids, state.h[index], state.c[index]), strict=True
            ):
                x[index] = new
        rows = [b for b in rows if at[b] < num_frames[b]]
    return tokens


class Progress(NamedTuple):
    """How far the rows of a call are, on the device; moved on by `look_on`."""

    stop: torch.Tensor  # (B,) int64: valid frames of each row
    at: torch.Tensor  # (B,) int64: the frame that it looks at
    symbols: torch.Tensor  # (B,) int64: symbols emitted on that frame

    @classmethod
    def start(cls, stop: torch.Tensor) -> Progress:
        return cls(stop, torch.zeros_like(stop), torch.zeros_like(stop))


def looping_decode(
    net: NemotronAsr,
    f: torch.Tensor,
    num_frames: list[int],
    first_frame: list[int],
    state: PredictionState,
    slots: list[int] | None = None,
) -> list[list[Token]]:
    """As `greedy_decode`, but waits for the device once in `num_looks` symbols."""
    progress = Progress.start(_index(num_frames, f))
    rows = _index(list(range(len(num_frames))) if slots is None else slots, f)
    tokens: list[list[Token]] = [[] for _ in num_frames]
    while collect(look_on(net, f, progress, state, rows), first_frame, tokens):
        pass
    return tokens


def num_looks(num_frames: int) -> int:
    """Looks in one call of `look_on`: one a token, and one for four or more frames without any.

    Enough for nearly every chunk of speech, which has some three tokens a second; others take
    another call.
    """
    return 3 + min(num_frames, 14) // 2


def look_on(
    net: NemotronAsr,
    f: torch.Tensor,
    progress: Progress,
    state: PredictionState,
    slots: torch.Tensor,
) -> torch.Tensor:
    """Let each row look for its next symbol, `num_looks` times, without waiting for the device.

    f: (B, E, J).  slots: (B,) int64, the row of `state` that each has; rows without a frame left
    may share one. Moves `progress` and `state` on.
    Returns what was found, for `collect`: (3 K + 1, B) float32 of K looks. The ids, -1 for none;
    the frames in f; the posteriors; and whether the row has frames left.
    """
    B, E, _ = f.shape
    row = torch.arange(B, device=f.device)
    window = min(E, max(MIN_WINDOW, LOOPING_JOINT_ROWS // B))
    stop, at, symbols = progress
    own = PredictionState(*(x.index_select(0, slots) for x in state))
    ids, frames, posteriors = [], [], []
    for _ in range(num_looks(E)):
        hit, skipped, id_, posterior = _next_symbols(net, f, own.g, row, at, stop, window)
        at = torch.minimum(at + skipped, stop)
        symbols = symbols.masked_fill(skipped > 0, 0) + hit
        ids.append(id_.masked_fill(~hit, -1))
        frames.append(at)
        posteriors.append(posterior)
        full = symbols == net.config.max_symbols_per_step
        at, symbols = at + full, symbols.masked_fill(full, 0)
        own = _where(hit, net.decoder.step(id_, own.h, own.c), own)
    progress.at.copy_(at)
    progress.symbols.copy_(symbols)
    for x, new in zip(state, own, strict=True):
        x.index_copy_(0, slots, new)
    # One tensor, so that one copy brings it to the host: float32 is exact for integers to 2^24.
    left = (at < stop)[None].float()
    return torch.cat(
        [torch.stack(ids).float(), torch.stack(frames).float(), torch.stack(posteriors), left]
    )


def collect(found: torch.Tensor, first_frame: list[int], tokens: list[list[Token]]) -> bool:
    """Add what `look_on` found to each row's tokens; whether any row has frames left.

    Waits for the device.  first_frame, tokens: as in `greedy_decode`; rows behind theirs have
    none.
    """
    host = found.cpu().numpy()
    ids, frames, posteriors = np.split(host[:-1], 3)  # (K, B)
    for look, b in zip(*np.nonzero(ids >= 0), strict=True):
        frame = first_frame[b] + int(frames[look, b])
        tokens[b].append(Token(int(ids[look, b]), frame, float(posteriors[look, b])))
    return bool(host[-1].any())


def _index(values: list[int], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64, device=like.device)


def _where(mask: torch.Tensor, new: PredictionState, old: PredictionState) -> PredictionState:
    """new in the rows of mask (B,), else old."""
    return PredictionState(
        *(
            torch.where(mask.view(-1, *[1] * (x.dim() - 1)), x, y)
            for x, y in zip(new, old, strict=True)
        )
    )


def _next_symbols(
    net: NemotronAsr,
    f: torch.Tensor,
    g: torch.Tensor,
    row: torch.Tensor,
    start: torch.Tensor,
    stop: torch.Tensor,
    window: int,
    biased: dict[int, Bias] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each row the first symbol that is not blank within `window` frames from its start.

    f: (B, E, J).  row, start, stop: (R,) int64 rows of f, their next frame and where they end.
    g: (R, J).  biased: those that have a bias, by row of g.
    Returns, each (R,): whether there is one, bool; the frames before it, `window` where there is
    none, int64; its id, int64, and its posterior, float32, anything where there is none.
    """
    frame = start[:, None] + torch.arange(window, device=f.device)  # (R, W)
    near = f[row[:, None], frame.clamp_max(f.shape[1] - 1)]  # (R, W, J)
    logits = net.joint(near, g[:, None])  # (R, W, V)
    blank = net.config.blank_token_id
    spoken = _beats_blank(logits, blank)  # (R, W)
    if biased:
        biased_rows = _index(list(biased), f)
        said = _choose(logits[biased_rows].float(), list(biased.values()), blank)
        spoken[biased_rows] = said != blank
    hit, offset = (spoken & (frame < stop[:, None])).max(dim=1)  # the first that is not blank
    best = logits[torch.arange(len(row), device=f.device), offset].float()  # (R, V)
    log_posteriors = best.log_softmax(-1)
    log_posterior, ids = log_posteriors.max(-1)
    if biased:
        ids[biased_rows] = said.gather(1, offset[biased_rows, None])[:, 0]
        log_posterior = log_posteriors.gather(1, ids[:, None])[:, 0]
    return hit, offset.masked_fill(~hit, window), ids, log_posterior.exp()


def _beats_blank(scores: torch.Tensor, blank: int) -> torch.Tensor:
    """Whether argmax is not blank, which is the last id.  scores: (..., V).  Returns (...) bool.

    In bfloat16 on a CPU argmax itself takes ten times as long.
    """
    return scores[..., :blank].amax(-1) >= scores[..., blank]  # of equal ones the first is best


def _choose(scores: torch.Tensor, biases: list[Bias], blank: int) -> torch.Tensor:
    """What rows with a bias say.  scores: (R, W, V) float32 logits, changed in place.

    Where blank is best it stays: phrases decide what is said, not when. Raised over blank, a piece
    would come before its sound, or several times on the same frame.
    Returns (R, W) int64 ids.
    """
    for row, bias in zip(scores, biases, strict=True):
        if bias.tags is not None:
            _move_tags(row, *bias.tags)
    silent = ~_beats_blank(scores, blank)
    for row, bias in zip(scores, biases, strict=True):
        if (bonus := bias.bonus()) is not None:
            row[:, bonus[0]] += bonus[1]
    scores[:, :, blank] = float("-inf")
    return scores.argmax(-1).masked_fill(silent, blank)


def _move_tags(scores: torch.Tensor, allowed: torch.Tensor, others: torch.Tensor) -> None:
    """Let the best allowed tag stand for the best of all.  scores: (W, V), changed in place.

    Masked alone, a tag would leave its place to some piece of text that the model did not hear.
    allowed, others: (n,) int64 ids, others at least one.
    """
    if len(allowed):
        lead = scores[:, others].amax(-1) - scores[:, allowed].amax(-1)  # (W,)
        scores[:, allowed] += lead.clamp_min(0.0)[:, None]
    scores[:, others] = float("-inf")
