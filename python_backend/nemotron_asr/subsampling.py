"""Causal subsampling: mel frames to encoder frames, eight to one.

Channels come last throughout, as linear layers want them: (B, T, F, Ch).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .config import EncoderConfig
from .layers import Linear

KERNEL, STRIDE = 3, 2  # of every stage, over time and over frequency


class Subsampling(nn.Module):
    """Three causal convolutions of stride 2, then a projection: 8 mel frames to one of width D."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        channels = config.subsampling_conv_channels
        self.conv_in = FirstConv(channels)
        self.layers = nn.ModuleList(DepthwiseSeparable(channels) for _ in range(2))
        self.linear = Linear(channels * config.subsampled_bins[-1], config.hidden_size)

    def forward(
        self,
        mel: torch.Tensor,
        num_mel: torch.Tensor,
        frames: torch.Tensor,
        *past: torch.Tensor,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """mel: (B, 8 E, M) float32.  num_mel: (B,) int64 valid mel frames of the whole stream.

        frames: (B,) int64 encoder frames so far.  past: the last frame of each stage's input,
        (B, 1, M), (B, 1, F1, Ch) and (B, 1, F2, Ch).
        Returns (B, E, D) and those three frames for the next call.
        """
        x = torch.cat([past[0], mel], dim=1).to(self.conv_in.weight.dtype)
        x = F.relu(self.conv_in(F.pad(x, (2, 1))), inplace=True)  # (B, 4E, F1, Ch)
        length = num_mel // 2 + 1
        first = frames * 4 - 3
        x = _zero_outside(x, first, length)
        carry = [mel[:, -1:]]
        for stage, cache in zip(self.layers, past[1:], strict=True):
            carry.append(x[:, -1:])
            x = stage(torch.cat([cache, x], dim=1))  # (B, 2E, F2, Ch), (B, E, F3, Ch)
            length = length // 2 + 1
            first = torch.div(first, 2, rounding_mode="floor") + 1  # 4t-3 -> 2t-1 -> t
            x = _zero_outside(x, first, length)
        x = self.linear(x.transpose(2, 3).flatten(2))  # (B, E, Ch F3) -> (B, E, D)
        return x, tuple(carry)


class FirstConv(nn.Conv2d):
    """From one channel to many, as a linear layer on patches: twenty times faster on a CPU."""

    def __init__(self, channels: int):
        super().__init__(1, channels, KERNEL, STRIDE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (B, T, F), padded.  Returns (B, T', F', Ch)."""
        return self.convolve(x, self.weight, self.bias)

    @staticmethod
    def convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        patches = x.unfold(1, KERNEL, STRIDE).unfold(2, KERNEL, STRIDE).flatten(3)
        return F.linear(patches, weight.flatten(1), bias)


class DepthwiseSeparable(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.depthwise_conv = nn.Conv2d(channels, channels, KERNEL, STRIDE, (0, 2), groups=channels)
        self.pointwise_conv = Linear(channels, channels, kernel_dims=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (B, T, F, Ch).  Returns (B, T', F', Ch), behind a ReLU.

        Bins are padded by 2 and 1. The convolution pads by 2 and 2, which may make one bin more.
        """
        bins = x.shape[2] // STRIDE + 1
        y = self.depthwise_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)[:, :, :bins]
        return self.pointwise_conv(y, activation="relu")


def _zero_outside(x: torch.Tensor, first: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """Zero the frames of x (B, T, F, Ch) whose index, from first (B,), is not in [0, length)."""
    index = first[:, None] + torch.arange(x.shape[1], device=x.device)  # (B, T)
    outside = (index < 0) | (index >= length[:, None])
    if x.device.type == "cpu" and not outside.any():  # a GPU would wait for the answer
        return x
    return x.masked_fill(outside[:, :, None, None], 0.0)
