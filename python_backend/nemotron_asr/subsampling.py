"""Causal subsampling: mel frames to encoder frames, eight to one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .config import EncoderConfig


class Subsampling(nn.Module):
    """Three causal convolutions of stride 2, then a projection: 8 mel frames to one of width D."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        channels = config.subsampling_conv_channels
        self.conv_in = nn.Conv2d(1, channels, 3, stride=2)
        self.layers = nn.ModuleList(DepthwiseSeparable(channels) for _ in range(2))
        self.linear = nn.Linear(channels * config.subsampled_bins[-1], config.hidden_size)

    def forward(
        self,
        mel: torch.Tensor,
        num_mel: torch.Tensor,
        frames: torch.Tensor,
        *past: torch.Tensor,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """mel: (B, 8 E, M) float32.  num_mel: (B,) int64 valid mel frames of the whole stream.

        frames: (B,) int64 encoder frames so far.  past: the last frame of each stage's input,
        (B, 1, M), (B, Ch, 1, F1) and (B, Ch, 1, F2).
        Returns (B, E, D) and those three frames for the next call.
        """
        x = torch.cat([past[0], mel], dim=1)[:, None].to(self.conv_in.weight.dtype)
        x = self.conv_in(F.pad(x, (2, 1)))  # (B, Ch, 4E, F1)
        length = num_mel // 2 + 1
        first = frames * 4 - 3
        x = F.relu(_zero_outside(x, first, length))
        carry = [mel[:, -1:]]
        for stage, cache in zip(self.layers, past[1:], strict=True):
            carry.append(x[:, :, -1:])
            x = stage(torch.cat([cache, x], dim=2))  # (B, Ch, 2E, F2), (B, Ch, E, F3)
            length = length // 2 + 1
            first = torch.div(first, 2, rounding_mode="floor") + 1  # 4t-3 -> 2t-1 -> t
            x = F.relu(_zero_outside(x, first, length))
        x = self.linear(x.transpose(1, 2).flatten(2))  # (B, E, Ch F3) -> (B, E, D)
        return x, tuple(carry)


class DepthwiseSeparable(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.depthwise_conv = nn.Conv2d(channels, channels, 3, stride=2, groups=channels)
        self.pointwise_conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pointwise_conv(self.depthwise_conv(F.pad(x, (2, 1))))


def _zero_outside(x: torch.Tensor, first: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """Zero the frames of x (B, Ch, T, F) whose index, from first (B,), is not in [0, length)."""
    index = first[:, None] + torch.arange(x.shape[2], device=x.device)  # (B, T)
    outside = (index < 0) | (index >= length[:, None])
    return x.masked_fill(outside[:, None, :, None], 0.0)
