"""Cache-aware FastConformer encoder: one forward for a whole recording and for a chunk of a stream.

Parameter names are those of the Hugging Face checkpoint, so that its keys map directly.

Every call takes E encoder frames' worth of mel, 8 E frames that start 7 mel frames before the next
encoder frame 8 t. A stream therefore starts with 7 frames of nothing, and the frames that the
subsampling makes of them are zeroed at each stage, which is just what the causal zero padding of a
whole recording gives. First, middle and last chunks so have one shape, and share batches.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from .config import SUBSAMPLING, EncoderConfig
from .subsampling import Subsampling

UNKNOWN_LENGTH = 1 << 40  # mel frames of a stream whose end is not known yet


class EncoderState(NamedTuple):
    """What a stream's past leaves behind; written by `Encoder.forward` alone."""

    mel: torch.Tensor  # (B, 1, M) float32: the last mel frame
    sub1: torch.Tensor  # (B, Ch, 1, F1): the last frame that entered the second stage
    sub2: torch.Tensor  # (B, Ch, 1, F2): the last frame that entered the third stage
    k: torch.Tensor  # (B, L, Hkv, C, Dh): keys, right-aligned; the first C - frames are unset
    v: torch.Tensor  # (B, L, Hkv, C, Dh)
    conv: torch.Tensor  # (B, L, D, K - 1): inputs of the depthwise convolutions
    frames: torch.Tensor  # (B,) int64: encoder frames so far

    @classmethod
    def fresh(cls, config: EncoderConfig, batch: int, device, dtype) -> EncoderState:
        c, (f1, f2, _) = config, config.subsampled_bins
        kv = (batch, c.num_hidden_layers, c.num_key_value_heads, c.left_context, c.head_dim)
        conv = (batch, c.num_hidden_layers, c.hidden_size, c.conv_kernel_size - 1)
        channels = c.subsampling_conv_channels
        shapes = [(batch, 1, c.num_mel_bins), (batch, channels, 1, f1), (batch, channels, 1, f2)]
        dtypes = [torch.float32] + [dtype] * 5
        tensors = [
            torch.zeros(shape, device=device, dtype=kind)
            for shape, kind in zip([*shapes, kv, kv, conv], dtypes, strict=True)
        ]
        return cls(*tensors, torch.zeros(batch, device=device, dtype=torch.int64))

    def first(self, batch: int) -> EncoderState:
        """The states of the first rows."""
        return EncoderState(*(x[:batch] for x in self))


def num_encoder_frames(num_mel: int) -> int:
    """Encoder frames of a finished stream: ceil((N - 1) / 8) + 1, and none for none."""
    return (num_mel + SUBSAMPLING - 2) // SUBSAMPLING + 1 if num_mel > 0 else 0


class FeedForward(nn.Module):
    def __init__(self, config: EncoderConfig):
        super().__init__()
        bias = config.attention_bias  # the published key governs these biases too
        self.linear1 = nn.Linear(config.hidden_size, config.intermediate_size, bias=bias)
        self.linear2 = nn.Linear(config.intermediate_size, config.hidden_size, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear2(F.silu(self.linear1(x)))


class Attention(nn.Module):
    """Multi-head attention with Transformer-XL relative positions (arXiv 1901.02860)."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.num_kv_heads = config.num_key_value_heads
        self.head_dim = config.head_dim
        width, kv_width = config.hidden_size, self.num_kv_heads * self.head_dim
        self.q_proj = nn.Linear(width, width, bias=config.attention_bias)
        self.k_proj = nn.Linear(width, kv_width, bias=config.attention_bias)
        self.v_proj = nn.Linear(width, kv_width, bias=config.attention_bias)
        self.o_proj = nn.Linear(width, width, bias=config.attention_bias)
        self.relative_k_proj = nn.Linear(width, width, bias=False)
        self.bias_u = nn.Parameter(torch.zeros(self.num_heads, self.head_dim))
        self.bias_v = nn.Parameter(torch.zeros(self.num_heads, self.head_dim))

    def position_keys(self, embedding: torch.Tensor) -> torch.Tensor:
        """embedding: (P, D) -> (H, Dh, P), the keys of P relative distances."""
        p = self.relative_k_proj(embedding.to(self.relative_k_proj.weight.dtype))
        return p.view(-1, self.num_heads, self.head_dim).permute(1, 2, 0)

    def forward(
        self,
        x: torch.Tensor,
        past_k: torch.Tensor,
        past_v: torch.Tensor,
        positions: torch.Tensor,
        hidden: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """x: (B, E, D).  past_k, past_v: (B, Hkv, C, Dh).  positions: (H, Dh, C + 2E - 1).

        hidden: (B, 1, E, C + E) bool, keys that a query must not see.
        Returns (B, E, D) and the keys and values with the new ones behind the C old ones.
        """
        B, E, _ = x.shape
        q = self.q_proj(x).view(B, E, self.num_heads, self.head_dim)
        k = self.k_proj(x).view(B, E, self.num_kv_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(B, E, self.num_kv_heads, self.head_dim).transpose(1, 2)
        k = torch.cat([past_k, k], dim=2)  # (B, Hkv, C + E, Dh)
        v = torch.cat([past_v, v], dim=2)
        by_position = (q + self.bias_v).transpose(1, 2) @ positions  # (B, H, E, C + 2E - 1)
        bias = _relative_shift(by_position, k.shape[2]) * self.head_dim**-0.5
        bias = bias.masked_fill(hidden, float("-inf"))  # (B, H, E, C + E)
        out = F.scaled_dot_product_attention(
            (q + self.bias_u).transpose(1, 2),
            k,
            v,
            attn_mask=bias,
            enable_gqa=self.num_kv_heads != self.num_heads,
        )  # (B, H, E, Dh)
        return self.o_proj(out.transpose(1, 2).reshape(B, E, -1)), k, v


def _relative_shift(by_position: torch.Tensor, num_keys: int) -> torch.Tensor:
    """Scores by distance (B, H, E, P) to scores by key (B, H, E, num_keys), without a copy.

    Column p stands for the distance P - E - p; query i and key j are num_keys - E + i - j apart,
    which is column E - 1 - i + j: in memory, rows of P - 1 from element E - 1 on.
    """
    E, P = by_position.shape[2:]
    if E == 1:
        return by_position
    rows = by_position.flatten(2)[:, :, E - 1 : E - 1 + E * (P - 1)]
    return rows.unflatten(2, (E, P - 1))[..., :num_keys]


class Convolution(nn.Module):
    """Pointwise, GLU, causal depthwise, LayerNorm, SiLU, pointwise."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        width, kernel, bias = config.hidden_size, config.conv_kernel_size, config.convolution_bias
        self.pointwise_conv1 = nn.Conv1d(width, 2 * width, 1, bias=bias)
        self.depthwise_conv = nn.Conv1d(width, width, kernel, groups=width, bias=bias)
        self.norm = nn.LayerNorm(width)
        self.pointwise_conv2 = nn.Conv1d(width, width, 1, bias=bias)

    def forward(self, x: torch.Tensor, past: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x: (B, E, D).  past: (B, D, K - 1).  Returns (B, E, D) and (B, D, K - 1 + E)."""
        x = F.glu(_pointwise(self.pointwise_conv1, x), dim=-1)
        seen = torch.cat([past, x.transpose(1, 2)], dim=2)  # (B, D, K - 1 + E)
        x = self.depthwise_conv(seen).transpose(1, 2)  # (B, E, D)
        return _pointwise(self.pointwise_conv2, F.silu(self.norm(x))), seen


def _pointwise(conv: nn.Conv1d, x: torch.Tensor) -> torch.Tensor:
    """A convolution of kernel 1 on (B, E, D), which is a linear layer."""
    return F.linear(x, conv.weight[:, :, 0], conv.bias)


class ConformerLayer(nn.Module):
    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.feed_forward1 = FeedForward(config)
        self.self_attn = Attention(config)
        self.conv = Convolution(config)
        self.feed_forward2 = FeedForward(config)
        for name in ("feed_forward1", "self_att", "conv", "feed_forward2", "out"):
            self.add_module(f"norm_{name}", nn.LayerNorm(config.hidden_size))

    def forward(self, x, past_k, past_v, past_conv, positions, hidden):
        """Arguments and results as in `Attention` and `Convolution`: x, k, v, seen."""
        x = x + 0.5 * self.feed_forward1(self.norm_feed_forward1(x))
        attended, k, v = self.self_attn(self.norm_self_att(x), past_k, past_v, positions, hidden)
        x = x + attended
        convolved, seen = self.conv(self.norm_conv(x), past_conv)
        x = x + convolved
        x = x + 0.5 * self.feed_forward2(self.norm_feed_forward2(x))
        return self.norm_out(x), k, v, seen


class Encoder(nn.Module):
    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.subsampling = Subsampling(config)
        self.layers = nn.ModuleList(ConformerLayer(config) for _ in range(config.num_hidden_layers))

    def position_keys(self, num_frames: int) -> list[torch.Tensor]:
        """Each layer's keys for calls of `num_frames` frames: L times (H, Dh, C + 2E - 1).

        They depend on the weights and the length alone, so that a server makes them once.
        """
        C, D = self.config.left_context, self.config.hidden_size
        device = self.layers[0].self_attn.bias_u.device
        distance = torch.arange(C + num_frames - 1, -num_frames, -1, device=device).float()
        even = torch.arange(0, D, 2, device=device).float()
        angle = distance[:, None] / 10000.0 ** (even / D)
        embedding = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)  # (P, D)
        return [layer.self_attn.position_keys(embedding) for layer in self.layers]

    def forward(
        self,
        mel: torch.Tensor,
        num_mel: torch.Tensor,
        lookahead: int,
        state: EncoderState | None = None,
        positions: list[torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, EncoderState]:
        """Encode the next frames of each row's stream.

        mel: (B, 8 E, M) float32, the mel frames from 8 t - 7 on, t encoder frames being done;
            zeros where there are none. E may be many chunks: a multiple of lookahead + 1, but for
            the end of a stream.
        num_mel: (B,) int64 valid mel frames of the whole stream, UNKNOWN_LENGTH while it goes on.
        state: what the last call returned; None for new streams.
        positions: `position_keys(E)`, computed here where not given.
        Returns (B, E, D), of which frames from num_encoder_frames(num_mel) on mean nothing, and
        the state for the next call.
        """
        if state is None:
            dtype = self.subsampling.linear.weight.dtype
            state = EncoderState.fresh(self.config, mel.shape[0], mel.device, dtype)
        x, carry = self.subsampling(mel, num_mel, state.frames, state.mel, state.sub1, state.sub2)
        if self.config.scale_input:
            x = x * self.config.hidden_size**0.5
        E, C, K = x.shape[1], self.config.left_context, self.config.conv_kernel_size
        if positions is None:
            positions = self.position_keys(E)
        hidden = _hidden_keys(state.frames, num_mel, E, C, lookahead)
        keys, values, convs = [], [], []
        for i, layer in enumerate(self.layers):
            x, k, v, seen = layer(
                x, state.k[:, i], state.v[:, i], state.conv[:, i], positions[i], hidden
            )
            keys.append(k[:, :, E:])
            values.append(v[:, :, E:])
            convs.append(seen[:, :, seen.shape[2] - K + 1 :])
        stacked = (torch.stack(per_layer, dim=1) for per_layer in (keys, values, convs))
        return x, EncoderState(*carry, *stacked, state.frames + E)


def _hidden_keys(
    frames: torch.Tensor, num_mel: torch.Tensor, E: int, C: int, lookahead: int
) -> torch.Tensor:
    """(B, 1, E, C + E) bool: keys of later chunks, of chunks too far back, unset or past the end.

    Calls begin where a chunk begins, so that chunks can be counted from there.
    """
    size = lookahead + 1
    key = torch.arange(-C, E, device=frames.device)  # (C + E,)
    chunk = torch.div(key, size, rounding_mode="floor")
    back = chunk[C:, None] - chunk  # (E, C + E) chunks between query and key
    out_of_reach = (back < 0) | (back > C // size)
    index = frames[:, None] + key  # (B, C + E) in the stream
    end = (num_mel + SUBSAMPLING - 2) // SUBSAMPLING + 1  # as in num_encoder_frames
    absent = (index < 0) | (index >= end[:, None])
    own = torch.arange(E, device=frames.device)[:, None] + C == key + C  # never an empty row
    return ((out_of_reach | absent[:, None]) & ~own)[:, None]
