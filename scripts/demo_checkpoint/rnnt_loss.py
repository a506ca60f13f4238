"""RNN-T loss (Graves 2012) in plain PyTorch, one anti-diagonal of the lattice at a time."""

from __future__ import annotations

import torch

IMPOSSIBLE = -1e30  # log of zero, finite so that gradients stay finite


def rnnt_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    num_frames: torch.Tensor,
    num_targets: torch.Tensor,
    blank: int,
) -> torch.Tensor:
    """Negative log-likelihood of each row's target, summed over all alignments.

    logits: (B, T, U + 1, V), not normalised.  targets: (B, U) int64, any id past num_targets.
    num_frames: (B,) int64 in [1, T].  num_targets: (B,) int64 in [0, U].
    Returns (B,) float32 with gradients.
    """
    B, T, U1, _ = logits.shape
    norm = logits.logsumexp(-1)  # (B, T, U+1)
    stay = logits[..., blank] - norm  # to (t + 1, u)
    index = targets[:, None, :, None].expand(B, T, U1 - 1, 1)
    emit = logits[:, :, :-1].gather(-1, index)[..., 0] - norm[:, :, :-1]  # to (t, u + 1)
    emit = torch.nn.functional.pad(emit, (0, 1), value=IMPOSSIBLE)  # (B, T, U+1)

    # Skewed copies: row d holds the nodes with t + u = d, so that a step needs only the last row.
    u = torch.arange(U1, device=logits.device)
    t = torch.arange(T + U1 - 1, device=logits.device)[:, None] - u  # (D, U+1)
    outside = ((t < 0) | (t >= T))[None]
    node = (t.clamp(0, T - 1) * U1 + u).flatten()
    stay_d, emit_d = (
        x.flatten(1)[:, node].view(B, *t.shape).masked_fill(outside, IMPOSSIBLE).unbind(1)
        for x in (stay, emit)
    )  # D tensors (B, U+1)

    alpha = torch.full((B, U1), IMPOSSIBLE, device=logits.device)
    alpha[:, 0] = 0.0  # at (0, 0) nothing has happened yet
    rows = [alpha]
    wall = alpha.new_full((B, 1), IMPOSSIBLE)
    for d in range(t.shape[0] - 1):
        waited = alpha + stay_d[d]
        spoke = torch.cat([wall, (alpha + emit_d[d])[:, :-1]], dim=1)
        alpha = torch.logaddexp(waited, spoke).clamp_min(IMPOSSIBLE)
        rows.append(alpha)
    alphas = torch.stack(rows, dim=1)  # (B, D, U+1)
    row = torch.arange(B, device=logits.device)
    last = alphas[row, num_frames - 1 + num_targets, num_targets]
    return -(last + stay[row, num_frames - 1, num_targets])
