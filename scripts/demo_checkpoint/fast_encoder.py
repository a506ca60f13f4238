"""The encoder on whole clips, in the form that trains fast: no caches, few passes over memory.

It computes what `NemotronAsr.encode` computes, with the same parameters (tested). Matrices are
multiplied in bfloat16 where asked; the subsampling runs with channels last, its depthwise stages as
sums of nine shifted products; each function compiles to a few fused loops by `torch.compile`.

Axes as in the package: B batch, T mel frames, M mel bands, E encoder frames, D width, H heads,
and Ch channels of the subsampling, F its frequency bins.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from nemotron_asr.config import SUBSAMPLING
from nemotron_asr.encoder import (
    Attention,
    ConformerLayer,
    Convolution,
    Encoder,
    FeedForward,
    position_embedding,
)
from nemotron_asr.subsampling import DepthwiseSeparable


def subsample(encoder: Encoder, mel: torch.Tensor, num_mel: torch.Tensor, dtype: torch.dtype):
    """mel: (B, T, M) float32, T = 8 E - 7, 0.0 from num_mel (B,) on.  Returns (B, E, D) float32.

    Where `conv_in` has `mean` and `std`, it works on the normalised mel, padding included.
    """
    stages = encoder.subsampling
    conv = stages.conv_in
    x = (F.pad(mel, (2, 1, 2, 1)) - getattr(conv, "mean", 0.0)) / getattr(conv, "std", 1.0)
    patches = x.to(dtype).unfold(1, 3, 2).unfold(2, 3, 2).flatten(3)  # (B, T1, F1, 9)
    x = _linear(patches, conv.weight.flatten(1), conv.bias, dtype)  # (B, T1, F1, Ch)
    length = num_mel // 2 + 1
    x = _masked_relu(x, length)
    for stage in stages.layers:
        x = _conv(x, *_product(stage), dtype)  # half the frames, half the bins
        length = length // 2 + 1
        x = _masked_relu(x, length)
    x = x.transpose(2, 3).flatten(2)  # (B, E, Ch F3)
    return _linear(x, stages.linear.weight, stages.linear.bias, dtype).float()


def _masked_relu(x: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """ReLU of x (B, T, F, Ch), and 0.0 in the frames from length (B,) on."""
    kept = torch.arange(x.shape[1], device=x.device) < length[:, None]
    return (x * kept[:, :, None, None].to(x.dtype)).relu_()  # faster than filling by a mask


def _conv(x: torch.Tensor, weight, bias, dtype: torch.dtype) -> torch.Tensor:
    """Kernel 3, stride 2, causal, of x (B, T, F, Ch) in that memory order."""
    T, bins = x.shape[1] // 2 + 1, x.shape[2] // 2 + 1
    weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
    x = F.conv2d(x.permute(0, 3, 1, 2), weight, bias.to(dtype), stride=2, padding=2)
    return x.permute(0, 2, 3, 1)[:, :T, :bins]  # the padding behind is 1, not 2


def _product(stage: DepthwiseSeparable) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of the one convolution that equals the depthwise and the pointwise one.

    At so few channels one full convolution is faster than a depthwise one, above all backwards.
    """
    depthwise, pointwise = stage.depthwise_conv, stage.pointwise_conv
    weight = pointwise.weight * depthwise.weight.transpose(0, 1)  # (Ch, Ch, 3, 3)
    return weight, pointwise.bias + pointwise.weight[:, :, 0, 0] @ depthwise.bias


def _linear(x: torch.Tensor, weight: torch.Tensor, bias, dtype: torch.dtype) -> torch.Tensor:
    return F.linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))


def _feed_forward(module: FeedForward, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    x = F.silu(_linear(x, module.linear1.weight, module.linear1.bias, dtype))
    return _linear(x, module.linear2.weight, module.linear2.bias, dtype)


def _attention(module: Attention, x, positions, hidden, dtype: torch.dtype) -> torch.Tensor:
    """x: (B, E, D).  positions: (2 E - 1, D).  hidden: (B, 1, E, E), -inf or 0."""
    B, E, D = x.shape
    H, Dh = module.num_heads, module.head_dim
    weights = [module.q_proj.weight, module.k_proj.weight, module.v_proj.weight]
    qkv = _linear(x, torch.cat(weights), None, dtype).view(B, E, 3, H, Dh)
    q, k, v = qkv.unbind(2)  # (B, E, H, Dh)
    p = _linear(positions, module.relative_k_proj.weight, None, dtype).view(-1, H, Dh)
    qu = (q + module.bias_u.to(dtype)).permute(0, 2, 1, 3)  # (B, H, E, Dh)
    qv = (q + module.bias_v.to(dtype)).permute(2, 0, 1, 3).reshape(H, B * E, Dh)
    by_distance = (qv @ p.permute(1, 2, 0)).view(H, B, E, -1).transpose(0, 1)  # (B, H, E, 2E-1)
    scores = qu @ k.permute(0, 2, 3, 1)  # (B, H, E, E)
    scores = (scores.float() + _by_key(by_distance).float()) * Dh**-0.5 + hidden
    weights = scores.softmax(-1).to(dtype)
    out = weights @ v.transpose(1, 2)  # (B, H, E, Dh)
    return _linear(out.transpose(1, 2).reshape(B, E, D), module.o_proj.weight, None, dtype)


def _by_key(by_distance: torch.Tensor) -> torch.Tensor:
    """(B, H, E, 2E - 1), distances falling from E - 1, to (B, H, E, E): i - j is column E-1-i+j."""
    B, H, E, P = by_distance.shape
    rows = by_distance.reshape(B, H, E * P)[:, :, E - 1 : E - 1 + E * (P - 1)]
    return rows.view(B, H, E, P - 1)[..., :E]


def _convolution(module: Convolution, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    x = _linear(x, module.pointwise_conv1.weight[:, :, 0], module.pointwise_conv1.bias, dtype)
    x = F.glu(x, dim=-1)
    weight = module.depthwise_conv.weight.to(dtype)  # (D, 1, K)
    K, E = weight.shape[2], x.shape[1]
    x = F.pad(x, (0, 0, K - 1, 0))
    x = sum(x[:, i : i + E] * weight[:, 0, i] for i in range(K))  # causal
    x = F.silu(_norm(module.norm, x))
    return _linear(x, module.pointwise_conv2.weight[:, :, 0], module.pointwise_conv2.bias, dtype)


def _norm(module: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x.float(), module.normalized_shape, module.weight, module.bias, module.eps)


def conformer_layer(layer: ConformerLayer, x, positions, hidden, dtype: torch.dtype):
    """x: (B, E, D) float32.  Returns the same shape."""
    x = x + 0.5 * _feed_forward(layer.feed_forward1, _norm(layer.norm_feed_forward1, x), dtype)
    attended = _norm(layer.norm_self_att, x)
    x = x + _attention(layer.self_attn, attended, positions, hidden, dtype)
    x = x + _convolution(layer.conv, _norm(layer.norm_conv, x), dtype)
    x = x + 0.5 * _feed_forward(layer.feed_forward2, _norm(layer.norm_feed_forward2, x), dtype)
    return _norm(layer.norm_out, x)


def hidden_keys(lens: torch.Tensor, E: int, left_context: int, lookahead: int) -> torch.Tensor:
    """(B, 1, E, E): -inf for keys of later chunks, of chunks too far back, and past the end."""
    chunk = torch.arange(E, device=lens.device) // (lookahead + 1)
    back = chunk[:, None] - chunk
    out_of_reach = (back < 0) | (back > left_context // (lookahead + 1))
    absent = torch.arange(E, device=lens.device) >= lens[:, None]
    own = torch.eye(E, dtype=torch.bool, device=lens.device)  # never an empty row
    hidden = (out_of_reach | absent[:, None]) & ~own
    return torch.zeros(hidden.shape, device=lens.device).masked_fill(hidden, -torch.inf)[:, None]


def encoder_lens(num_mel: torch.Tensor) -> torch.Tensor:
    """As `num_encoder_frames`, of a tensor."""
    return torch.where(num_mel > 0, (num_mel + SUBSAMPLING - 2) // SUBSAMPLING + 1, 0)


class FastEncoder:
    """Calls the functions above on a model's parameters; compiled where asked."""

    def __init__(self, encoder: Encoder, dtype: torch.dtype, compiled: bool):
        self.encoder, self.dtype = encoder, dtype
        compile_ = torch.compile if compiled else lambda f, **options: f
        self._layer = compile_(conformer_layer, dynamic=False)

    def __call__(
        self, mel: torch.Tensor, num_mel: torch.Tensor, lookahead: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """mel: (B, T, M), 0.0 from num_mel (B,) on.

        Returns the outputs of the last layer and of one in the middle, (B, E, D) float32, and lens
        (B,).
        """
        E = (mel.shape[1] + SUBSAMPLING - 2) // SUBSAMPLING + 1
        mel = F.pad(mel, (0, 0, 0, 8 * E - 7 - mel.shape[1]))
        lens = encoder_lens(num_mel)
        config = self.encoder.config
        hidden = hidden_keys(lens, E, config.left_context, lookahead)
        positions = position_embedding(E - 1, E, config.hidden_size, mel.device)
        x = subsample(self.encoder, mel, num_mel, self.dtype)
        for i, layer in enumerate(self.encoder.layers):
            x = self._layer(layer, x, positions, hidden, self.dtype)
            if i == (len(self.encoder.layers) - 1) // 2:
                middle = x
        return x, middle, lens
