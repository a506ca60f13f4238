"""The floor of an encoder call: its weight matrices multiplied back to back, and nothing else.

Every matrix that a call multiplies is in it, with as many rows as the call has: the subsampling's
pointwise convolutions and projection, all of the layers' linear ones and pointwise convolutions,
the prompt projection without the columns that a one-hot prompt merely picks, and the projection
into the joint. Not in it: the positional keys, which do not depend on the audio; depthwise
convolutions, attention scores, norms, activations, biases, caches, the first convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F

from nemotron_asr.config import ModelConfig
from nemotron_asr.layers import PACKED_ROWS, packs

_PER_FRAME = (
    "feed_forward1.linear1", "feed_forward1.linear2", "self_attn.q_proj", "self_attn.k_proj",
    "self_attn.v_proj", "self_attn.o_proj", "conv.pointwise_conv1", "conv.pointwise_conv2",
    "feed_forward2.linear1", "feed_forward2.linear2",
)  # fmt: skip
_ONE_HOT = "prompt_projector.linear_1.weight"
_FLOAT32 = ("prompt_projector.", "encoder_projector.")  # in every dtype, as in the model


def matrices(config: ModelConfig, frames: int) -> list[tuple[str, int]]:
    """The matrices of a call of `frames` encoder frames of one stream: (name, rows of each)."""
    bins = config.encoder.subsampled_bins
    subsampling = [
        ("encoder.subsampling.layers.0.pointwise_conv.weight", 2 * frames * bins[1]),
        ("encoder.subsampling.layers.1.pointwise_conv.weight", frames * bins[2]),
        ("encoder.subsampling.linear.weight", frames),
    ]
    layers = [
        (f"encoder.layers.{i}.{name}.weight", frames)
        for i in range(config.encoder.num_hidden_layers)
        for name in _PER_FRAME
    ]
    after = ("prompt_projector.linear_1", "prompt_projector.linear_2", "encoder_projector")
    return subsampling + layers + [(f"{name}.weight", frames) for name in after]


class Floor:
    """The multiplications of one checkpoint in one dtype.

    weights: the checkpoint's tensors in their published layout, in the dtype.  With oneDNN's packed
    layout as a second way on the CPU.
    """

    def __init__(self, config: ModelConfig, weights: Mapping[str, torch.Tensor]):
        self._config = config
        self._plain: dict[str, torch.Tensor] = {}
        self._packed: dict[str, torch.Tensor] = {}
        for name, _ in matrices(config, 1):
            weight = weights[name].flatten(1)  # a pointwise convolution is a matrix
            if name.startswith(_FLOAT32):
                weight = weight.float()
            if name == _ONE_HOT:
                weight = weight[:, : config.encoder.hidden_size].contiguous()
            self._plain[name] = weight
            if packs(weight):
                self._packed[name] = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_ROWS)

    @property
    def num_bytes(self) -> int:
        """Of the matrices: what a call reads at least."""
        return sum(w.numel() * w.element_size() for w in self._plain.values())

    def calls(self, batch: int, frames: int) -> dict[str, Callable[[], None]]:
        """Ways to run it, by name, on random input of so many rows."""
        work = [
            (self._plain[name], self._packed.get(name), self._input(name, batch * rows))
            for name, rows in matrices(self._config, frames)
        ]
        ways = {"floor_plain": lambda: _run_plain(work)}
        if self._packed:
            ways["floor_packed"] = lambda: _run_packed(work)
        return ways

    def _input(self, name: str, rows: int) -> torch.Tensor:
        weight = self._plain[name]
        return torch.randn(rows, weight.shape[1], device=weight.device).to(weight.dtype)


@torch.inference_mode()
def _run_plain(work: list) -> None:
    for plain, _, x in work:
        F.linear(x, plain)


@torch.inference_mode()
def _run_packed(work: list) -> None:
    for plain, packed, x in work:
        if packed is None:
            F.linear(x, plain)
        else:
            torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
