"""The RNN-T loss (Graves 2012) in plain PyTorch, whole and pruned, one anti-diagonal at a time.

Axes: B rows, T frames, U target tokens, V vocabulary with blank, J joint width, S symbols a frame.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

IMPOSSIBLE = -1e30  # log of zero, finite so that gradients stay finite
CHUNK_ROWS = 1024  # logits made at a time: 1024 x 2048 float32 fit into the cores' caches


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
    log_probs = logits.log_softmax(-1)
    ids = F.pad(targets, (0, 1))[:, None, :, None].expand(*logits.shape[:3], 1)
    emit = log_probs.gather(-1, ids)[..., 0]
    return lattice_loss(log_probs[..., blank], emit, num_frames, num_targets)


def pruned_rnnt_loss(
    f: torch.Tensor,
    g: torch.Tensor,
    head: torch.nn.Linear,
    targets: torch.Tensor,
    num_frames: torch.Tensor,
    num_targets: torch.Tensor,
    first: torch.Tensor,
    num_symbols: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """The loss over alignments that stay near a known one; blank is the last id.

    f: (B, T, J).  g: (B, U + 1, J).  head: the joint's layer, J -> V, which runs in `dtype`.
    first: (B, T) int64, the fewest tokens spoken before frame t; only `num_symbols` counts from
    there are looked at.  The rest as in `rnnt_loss`, which this equals when all are looked at.
    """
    B, T, J = f.shape
    U1, S = g.shape[1], num_symbols
    u = first[:, :, None] + torch.arange(S, device=f.device)  # (B, T, S)
    inside = u < U1
    u = u.clamp_max(U1 - 1)
    ids = F.pad(targets, (0, 1)).gather(1, u.flatten(1))  # (B, T S)
    near = g.gather(1, u.flatten(1)[:, :, None].expand(-1, -1, J)).view(B, T, S, J)
    hidden = F.relu(f[:, :, None] + near).to(dtype)
    picked = BlankAndTarget.apply(hidden.flatten(0, 2), head.weight, head.bias, ids.flatten())
    picked = picked.view(B, T, S, 2).masked_fill(~inside[..., None], IMPOSSIBLE)
    nowhere = torch.full((B, T, U1), IMPOSSIBLE, device=f.device)
    # Clamped copies of the last count must not overwrite it, so take the largest.
    stay, emit = (nowhere.scatter_reduce(2, u, x, "amax") for x in picked.unbind(-1))
    return lattice_loss(stay, emit, num_frames, num_targets)


class BlankAndTarget(torch.autograd.Function):
    """Log-probabilities of blank and of one more id, with the logits never kept."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, ids):
        """hidden: (N, J).  weight: (V, J).  bias: (V,).  ids: (N,) int64.  Returns (N, 2)."""
        weight = weight.to(hidden.dtype)
        picked = torch.empty(len(ids), 2, device=hidden.device)
        norm = torch.empty(len(ids), device=hidden.device)
        for i in range(0, len(ids), CHUNK_ROWS):
            part = slice(i, i + CHUNK_ROWS)
            logits = F.linear(hidden[part], weight).float().add_(bias)
            picked[part, 0] = logits[:, -1]
            picked[part, 1] = logits.gather(1, ids[part, None])[:, 0]
            norm[part] = logits.logsumexp(1)
        ctx.save_for_backward(hidden, weight, bias, ids, norm)
        return picked - norm[:, None]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        hidden, weight, bias, ids, norm = ctx.saved_tensors
        d_hidden = torch.empty_like(hidden)
        d_weight = torch.zeros(weight.shape, device=weight.device)
        d_bias = torch.zeros_like(bias)
        for i in range(0, len(ids), CHUNK_ROWS):
            part = slice(i, i + CHUNK_ROWS)
            logits = F.linear(hidden[part], weight).float().add_(bias - 0.0)
            d = logits.sub_(norm[part, None]).exp_().mul_(-grad[part].sum(1, keepdim=True))
            d[:, -1] += grad[part, 0]
            d.scatter_add_(1, ids[part, None], grad[part, 1:])
            d_bias += d.sum(0)
            d = d.to(hidden.dtype)
            d_hidden[part] = d @ weight
            d_weight += d.T @ hidden[part]
        return d_hidden, d_weight, d_bias, None


def lattice_loss(
    stay: torch.Tensor, emit: torch.Tensor, num_frames: torch.Tensor, num_targets: torch.Tensor
) -> torch.Tensor:
    """Negative log of the sum over all paths from (0, 0) through blank at (T - 1, U) of each row.

    stay, emit: (B, T, U + 1), log-probabilities of (t, u) -> (t + 1, u) and -> (t, u + 1).
    Returns (B,) float32.
    """
    return _Lattice.apply(stay.float(), emit.float(), num_frames, num_targets)


class _Lattice(torch.autograd.Function):
    """Forward and backward variables at once: the gradient is how often each step is taken."""

    @staticmethod
    def forward(ctx, stay, emit, num_frames, num_targets):
        B, T, U1 = stay.shape
        # Skewed: row d holds the nodes with t + u = d, so that a step needs only the last row.
        u = torch.arange(U1, device=stay.device)
        t = torch.arange(T + U1 - 1, device=stay.device)[:, None] - u  # (D, U+1)
        node = (t.clamp(0, T - 1) * U1 + u).flatten()
        frames = num_frames[:, None, None]
        outside = (t < 0) | (t >= frames)  # (B, D, U+1)
        stay, emit = (
            x.flatten(1)[:, node].view(B, *t.shape).masked_fill(outside, IMPOSSIBLE)
            for x in (stay, emit)
        )
        emit = emit.masked_fill(u >= num_targets[:, None, None], IMPOSSIBLE)
        end = (t == frames - 1) & (u == num_targets[:, None, None])
        # Blank on the last frame leads out; elsewhere it would lead to a frame that is not.
        final = stay.masked_fill(~end, IMPOSSIBLE)
        stay = stay.masked_fill(t == frames - 1, IMPOSSIBLE)
        alpha, beta = _alphas(stay, emit), _betas(stay, emit, final)
        total = beta[:, 0, 0]  # (B,)
        after_stay = F.pad(beta, (0, 0, 0, 1), value=IMPOSSIBLE)[:, 1:]
        after_emit = F.pad(after_stay, (0, 1), value=IMPOSSIBLE)[:, :, 1:]
        offset = alpha - total[:, None, None]
        used_stay = (offset + stay + after_stay).exp() + (offset + final).exp()
        used_emit = (offset + emit + after_emit).exp()
        back = ((torch.arange(T, device=u.device)[:, None] + u) * U1 + u).flatten()
        possible = total > IMPOSSIBLE / 2
        grads = (
            (x.flatten(1)[:, back].view(B, T, U1) * -possible.float()[:, None, None])
            for x in (used_stay, used_emit)
        )
        ctx.save_for_backward(*grads)
        return -total * possible

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        d_stay, d_emit = ctx.saved_tensors
        return d_stay * grad[:, None, None], d_emit * grad[:, None, None], None, None


def _alphas(stay: torch.Tensor, emit: torch.Tensor) -> torch.Tensor:
    """Log-probability of reaching each node, skewed (B, D, U + 1)."""
    alpha = torch.full_like(stay[:, 0], IMPOSSIBLE)
    alpha[:, 0] = 0.0
    rows = [alpha]
    for stay_d, emit_d in zip(stay.unbind(1)[:-1], emit.unbind(1)[:-1], strict=True):
        spoke = F.pad(alpha + emit_d, (1, -1), value=IMPOSSIBLE)
        alpha = torch.logaddexp(alpha + stay_d, spoke).clamp_min_(IMPOSSIBLE)
        rows.append(alpha)
    return torch.stack(rows, dim=1)


def _betas(stay: torch.Tensor, emit: torch.Tensor, final: torch.Tensor) -> torch.Tensor:
    """Log-probability of ending from each node, skewed (B, D, U + 1)."""
    beta = torch.full_like(stay[:, 0], IMPOSSIBLE)
    rows = []
    steps = zip(stay.unbind(1), emit.unbind(1), final.unbind(1), strict=True)
    for stay_d, emit_d, final_d in reversed(list(steps)):
        spoken = F.pad(beta, (0, 1), value=IMPOSSIBLE)[:, 1:]
        beta = torch.maximum(torch.logaddexp(beta + stay_d, spoken + emit_d), final_d)
        rows.append(beta)
    return torch.stack(rows[::-1], dim=1)
