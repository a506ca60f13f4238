"""Where a CTC head hears each token: the most likely alignment, to prune the RNN-T loss by."""

from __future__ import annotations

import torch

IMPOSSIBLE = -1e30


@torch.no_grad()
def spoken_before(
    log_probs: torch.Tensor, targets: torch.Tensor, lens: torch.Tensor, num_targets: torch.Tensor
) -> torch.Tensor:
    """How many tokens the best CTC alignment has begun at the end of each frame.

    log_probs: (B, T, V) with blank last.  targets: (B, U) int64.  lens, num_targets: (B,) int64.
    Returns (B, T) int64, growing by at most one a frame; meaningless where CTC has no alignment.
    """
    B, T, V = log_probs.shape
    U = targets.shape[1]
    labels = torch.full((B, 2 * U + 1), V - 1, device=targets.device)  # blank, a, blank, b, ...
    labels[:, 1::2] = targets
    scores = log_probs.gather(2, labels[:, None].expand(B, T, -1))  # (B, T, 2U+1)
    skip = torch.full(labels.shape, IMPOSSIBLE, device=labels.device)
    skip[:, 3::2] = torch.where(targets[:, 1:] != targets[:, :-1], 0.0, IMPOSSIBLE)
    best = torch.full(labels.shape, IMPOSSIBLE, device=labels.device)
    best[:, :2] = scores[:, 0, :2]
    choices = []
    for t in range(1, T):
        back1 = torch.nn.functional.pad(best, (1, -1), value=IMPOSSIBLE)
        back2 = torch.nn.functional.pad(best, (2, -2), value=IMPOSSIBLE) + skip
        value, choice = torch.stack([best, back1, back2]).max(0)
        alive = (t < lens)[:, None]
        best = torch.where(alive, value + scores[:, t], best)
        choices.append(choice * alive)  # behind the end: stay
    return _trace_back(best, choices, num_targets)


def _trace_back(best: torch.Tensor, choices: list, num_targets: torch.Tensor) -> torch.Tensor:
    """best: (B, 2U+1), the scores after the last frame.  choices: states stepped by, per frame."""
    ends = torch.stack([2 * num_targets, (2 * num_targets - 1).clamp_min(0)], dim=1)
    state = ends.gather(1, best.gather(1, ends).argmax(1, keepdim=True))  # (B, 1)
    states = [state]
    for choice in reversed(choices):
        state = state - choice.gather(1, state)
        states.append(state)
    return (torch.cat(states[::-1], dim=1) + 1) // 2


def first_symbols(
    spoken: torch.Tensor, num_targets: torch.Tensor, num_symbols: int
) -> torch.Tensor:
    """The fewest tokens to look at in each frame, (B, T): the counts around `spoken` (B, T).

    A window of `num_symbols` counts begins at none and ends with all of them.
    """
    last = (num_targets + 1 - num_symbols).clamp_min(0)
    return torch.minimum((spoken - num_symbols // 2).clamp_min(0), last[:, None])
