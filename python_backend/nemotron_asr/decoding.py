"""Greedy RNN-T decoding of a batch of streams."""

from __future__ import annotations

from typing import NamedTuple

import torch

from .model import NemotronAsr, PredictionState

JOINT_ROWS = 16  # frames evaluated at once: a wider batch of rows looks fewer frames ahead
MIN_WINDOW = 4  # frames; a token comes every four frames or so


class Token(NamedTuple):
    """An emitted piece."""

    id: int
    frame: int  # encoder frame of the stream, 80 ms each
    confidence: float  # the joint's posterior of this piece, in [0, 1]


def greedy_decode(
    net: NemotronAsr,
    f: torch.Tensor,
    num_frames: list[int],
    first_frame: list[int],
    state: PredictionState,
    slots: list[int] | None = None,
) -> list[list[Token]]:
    """Decode the next frames of each row.

    f: (B, E, J) projected encoder output.  num_frames: valid frames of each row, at most E.
    first_frame: index of each row's first frame in its stream.
    state: the streams' prediction states, which this call moves on.
    slots: the row of `state` that each stream has; the first B where not given.
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
        g = state.g[_index([slots[b] for b in rows], f)]
        starts = [at[b] for b in rows]
        stops = [num_frames[b] for b in rows]
        found = _next_symbols(net, f, g, rows, starts, stops, window)
        emitted = {}
        for b, (skipped, id_, confidence) in zip(rows, found, strict=True):
            if skipped:
                at[b] += skipped
                symbols[b] = 0
            if id_ is None:
                continue
            tokens[b].append(Token(id_, first_frame[b] + at[b], confidence))
            emitted[slots[b]] = id_
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


def _index(values: list[int], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, device=like.device)


def _next_symbols(
    net: NemotronAsr,
    f: torch.Tensor,
    g: torch.Tensor,
    rows: list[int],
    starts: list[int],
    stops: list[int],
    window: int,
) -> list[tuple[int, int | None, float]]:
    """For each row the first symbol that is not blank within `window` frames from its start.

    f: (B, E, J).  g: (R, J), of `rows`.  Returns (frames before it, id, posterior), with id None
    and `window` frames where all are blank.
    """
    row, start, stop = (_index(x, f) for x in (rows, starts, stops))
    frame = start[:, None] + torch.arange(window, device=f.device)  # (R, W)
    near = f[row[:, None], frame.clamp_max(f.shape[1] - 1)]  # (R, W, J)
    logits = net.joint(near, g[:, None])  # (R, W, V)
    spoken = (logits.argmax(-1) != net.config.blank_token_id) & (frame < stop[:, None])
    hit, offset = spoken.max(dim=1)  # the first frame that is not blank
    best = logits[torch.arange(len(rows), device=f.device), offset].float()  # (R, V)
    log_posterior, ids = best.log_softmax(-1).max(-1)
    found = zip(
        hit.tolist(), offset.tolist(), ids.tolist(), log_posterior.exp().tolist(), strict=True
    )
    return [
        (skipped, id_, confidence) if is_hit else (window, None, 0.0)
        for is_hit, skipped, id_, confidence in found
    ]
