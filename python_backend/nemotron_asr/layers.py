"""Layers for training, and what does the same fastest on a device for inference.

On a CPU oneDNN lays the weights out once, as its kernels read them: in bfloat16 half the time of a
plain layer on a few rows. Packed for one row, a bfloat16 layer's result does not depend on how many
rows there are, so a stream's neighbours do not change it by a bit.

What `fastest` returns are plain callables: a module's bookkeeping costs as much as a small layer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

INT8_MAX = 127
VNNI = ("avx512_vnni", "avx_vnni")  # of a CPU: products of 8 bits summed in 32
UINT8_ZERO = 128  # what stands for 0 in unsigned inputs
MIN_PACKED = 1 << 18  # elements of a float32 weight for which oneDNN is worth its own overhead
# Rows that a layout is chosen for. Float32 weights laid out for one row take up to four times as
# long for two to eight of them; laid out for some they are as fast for one, and for hundreds.
PACKED_ROWS = 16


ACTIVATIONS = {"silu": F.silu, "relu": F.relu}
ONEDNN = {"": "none", "silu": "swish", "relu": "relu"}  # oneDNN's names


class Linear(nn.Module):
    """`nn.Linear` with what often follows it: y = residual + scale * activation?(x W^T + b).

    kernel_dims: trailing dimensions of size one that the checkpoint's weight has where it is a
    convolution of kernel 1.
    """

    def __init__(self, width_in: int, width_out: int, bias=True, scale=1.0, kernel_dims: int = 0):
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(width_out, width_in, *[1] * kernel_dims))
        self.bias = nn.Parameter(torch.empty(width_out)) if bias else None
        bound = width_in**-0.5  # as nn.Linear
        nn.init.uniform_(self.weight, -bound, bound)
        if bias:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(
        self, x: torch.Tensor, residual: torch.Tensor | None = None, activation: str = ""
    ) -> torch.Tensor:
        """x: (..., K).  residual: (..., N); not together with an activation, of `ACTIVATIONS`.

        Returns (..., N).
        """
        y = F.linear(x, self.weight.flatten(1), self.bias)
        if activation:
            return ACTIVATIONS[activation](y)
        return y if residual is None else torch.add(residual, y, alpha=self.scale)


class PlainLinear:
    """`Linear` for inference on any device."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None):
        self.weight, self.bias = weight, bias

    def __call__(self, x, residual=None, activation="") -> torch.Tensor:
        y = F.linear(x, self.weight, self.bias)
        if activation:
            return ACTIVATIONS[activation](y, inplace=True)
        return y if residual is None else residual + y


class PackedLinear:
    """`Linear` for inference in bfloat16 or float32 on a CPU, by oneDNN."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None):
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_ROWS)
        self.bias = bias
        self._alone = torch.ops.mkldnn._linear_pointwise.default
        self._added = torch.ops.mkldnn._linear_pointwise.binary

    def __call__(self, x, residual=None, activation="") -> torch.Tensor:
        if residual is None:
            return self._alone(x, self.weight, self.bias, ONEDNN[activation], [], "")
        return self._added(x, residual, self.weight, self.bias, "add")


class Int8Linear:
    """`Linear` for inference in float32 with int8 weights and inputs, on a CPU by oneDNN.

    Weights have a scale for each output, inputs one for each row. The sums are exact integers, so
    that a row's result does not depend on the others. Inputs are unsigned, 128 for zero: with
    signed ones oneDNN takes 400 times as long where a CPU has VNNI but not AMX.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None):
        scales = weight.abs().amax(1).clamp_min(1e-12) / INT8_MAX  # (N,)
        quantised = (weight / scales[:, None]).round().to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(quantised, None)
        self.scales = scales / INT8_MAX  # inputs are divided by their largest magnitude
        self.zeros = torch.zeros(len(scales), dtype=torch.int32)
        self.bias = bias
        self._multiply = torch.ops.onednn.qlinear_pointwise.default

    @staticmethod
    def is_supported() -> bool:
        """Without VNNI oneDNN's sums of 8-bit products overflow."""
        can = torch.cpu.get_capabilities()
        return torch.backends.mkldnn.is_available() and any(map(can.get, VNNI))

    def __call__(self, x, residual=None, activation="") -> torch.Tensor:
        largest = x.abs().amax(-1, keepdim=True).clamp_min_(1e-12)
        quantised = (x * (INT8_MAX / largest)).round_().to(torch.int8)
        unsigned = quantised.view(torch.uint8).bitwise_xor_(UINT8_ZERO)  # the sign turned: + 128
        y = self._multiply(
            unsigned, 1.0, UINT8_ZERO, self.weight, self.scales, self.zeros, None, 1.0, 0,
            torch.float32, "none", [], "",
        )  # fmt: skip
        if self.bias is None and residual is not None:
            return torch.addcmul(residual, y, largest)
        y = y.mul_(largest) if self.bias is None else torch.addcmul(self.bias, y, largest)
        if activation:
            return ACTIVATIONS[activation](y, inplace=True)
        return y if residual is None else residual + y


class DepthwiseConv:
    """A depthwise convolution over time for inference, (B, T, D) to (B, T - K + 1, D)."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None):
        """weight: (D, 1, K)."""
        self.weight, self.bias = weight[:, :, None], bias
        self.packed = None
        if packs(weight):
            self.packed = torch._C._nn.mkldnn_reorder_conv2d_weight(
                self.weight.to_mkldnn(), [0, 0], [1, 1], [1, 1], len(weight)
            )
            self._convolve = torch.ops.mkldnn._convolution_pointwise.default

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        # Two-dimensional, as it then takes channels last without transposing.
        x, groups = x.transpose(1, 2).unsqueeze(2), len(self.weight)
        if self.packed is None:
            y = F.conv2d(x, self.weight, self.bias, groups=groups)
        else:
            y = self._convolve(
                x, self.packed, self.bias, [0, 0], [1, 1], [1, 1], groups, "none", [], ""
            )
        return y.squeeze(2).transpose(1, 2)


class Norm:
    """`nn.LayerNorm` for inference."""

    def __init__(self, norm: nn.LayerNorm):
        self.shape, self.eps = norm.normalized_shape, norm.eps
        self.weight, self.bias = norm.weight.detach(), norm.bias.detach()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.layer_norm(x, self.shape, self.weight, self.bias, self.eps)


def fastest_linear(layers: list[Linear | nn.Linear], dtype: str) -> Callable:
    """One layer for inference that computes what these do on one input, side by side.

    dtype: float32, bfloat16, float16 or int8. The layers' weights may be of any float dtype.
    """
    weight = torch.cat([layer.weight.detach().flatten(1) for layer in layers])
    biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
    scale = getattr(layers[0], "scale", 1.0)
    return fastest(weight * scale, torch.cat(biases) * scale if biases else None, dtype)


def fastest(weight: torch.Tensor, bias: torch.Tensor | None, dtype: str) -> Callable:
    """The fastest layer for a weight (N, K) and a bias (N,) on their device."""
    kind = compute_dtype(dtype)
    weight, bias = weight.to(kind).contiguous(), None if bias is None else bias.to(kind)
    if dtype == "int8":
        return Int8Linear(weight, bias)
    if packs(weight) and (kind == torch.bfloat16 or weight.numel() >= MIN_PACKED):
        return PackedLinear(weight, bias)
    return PlainLinear(weight, bias)


def packs(weight: torch.Tensor) -> bool:
    """Whether oneDNN lays out weights of this kind on this machine."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32


def replace_layers(part: nn.Module, dtype: str) -> None:
    """Replace the linear layers and norms that a module holds itself by their fastest kind."""
    for name, layer in list(part.named_children()):
        if isinstance(layer, Linear):
            fast = fastest_linear([layer], dtype)
        elif isinstance(layer, nn.LayerNorm):
            fast = Norm(layer)
        else:
            continue
        delattr(part, name)
        setattr(part, name, fast)


def compute_dtype(dtype: str) -> torch.dtype:
    """What flows between layers, and what caches hold: int8 is for weights alone."""
    return torch.float32 if dtype == "int8" else getattr(torch, dtype)
