"""Cache-aware FastConformer encoder: one forward for a whole recording and for a chunk of a stream.

Parameter names are those of the Hugging Face checkpoint, so that its keys map directly.

Every call takes E encoder frames' worth of mel, 8 E frames that start 7 mel frames before the next
encoder frame 8 t. A stream therefore starts with 7 frames of nothing, and the frames that the
subsampling makes of them are zeroed at each stage, which is just what the causal zero padding of a
whole recording gives. First, middle and last chunks so have one shape, and share batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from .config import SUBSAMPLING, EncoderConfig
from .layers import DepthwiseConv, Linear, compute_dtype, fastest, fastest_linear, replace_layers
from .subsampling import Subsampling

UNKNOWN_LENGTH = 1 << 40  # mel frames of a stream whose end is not known yet


class EncoderState(NamedTuple):
    """What streams' pasts leave behind, N of them; changed by `Encoder.forward` alone.

    `kv` and `conv` are rings over time T: encoder frame t lies in row t modulo their length, so
    that a call writes its own frames only.
    """

    mel: torch.Tensor  # (N, 1, M) float32: the last mel frame
    sub1: torch.Tensor  # (N, 1, F1, Ch): the last frame that entered the second stage
    sub2: torch.Tensor  # (N, 1, F2, Ch): the last frame that entered the third stage
    kv: torch.Tensor  # (L, 2, N, Hkv, T = C + E, Dh): keys and values
    conv: torch.Tensor  # (L, N, T = K - 1 + E, D): inputs of the depthwise convolutions
    frames: torch.Tensor  # (N,) int64: encoder frames so far

    @classmethod
    def fresh(
        cls, config: EncoderConfig, batch: int, frames_per_call: int, device, dtype
    ) -> EncoderState:
        """Streams that have heard nothing.  frames_per_call: the largest E that a call may have."""
        c, (f1, f2, _) = config, config.subsampled_bins
        L, E, channels = c.num_hidden_layers, frames_per_call, c.subsampling_conv_channels
        kv = (L, 2, batch, c.num_key_value_heads, c.left_context + E, c.head_dim)
        conv = (L, batch, c.conv_kernel_size - 1 + E, c.hidden_size)
        shapes = [(batch, 1, c.num_mel_bins), (batch, 1, f1, channels), (batch, 1, f2, channels)]
        dtypes = [torch.float32] + [dtype] * 4
        tensors = [
            torch.zeros(shape, device=device, dtype=kind)
            for shape, kind in zip([*shapes, kv, conv], dtypes, strict=True)
        ]
        return cls(*tensors, torch.zeros(batch, device=device, dtype=torch.int64))

    def reset(self, slot: int) -> None:
        """Make one of them a stream that has heard nothing."""
        for name, x in self._asdict().items():
            x.select({"kv": 2, "conv": 1}.get(name, 0), slot).zero_()


class Positions(NamedTuple):
    """What the layers know of P relative distances, farthest first."""

    keys: list[torch.Tensor]  # L times (H, Dh, P), scaled
    constants: torch.Tensor  # (L, H, 1, P): what bias_v has more than bias_u of them

    def of_fewer(self, frames: int, fewer: int) -> Positions:
        """Those of calls of `fewer` frames, from those of calls of `frames`."""
        first, last = frames - fewer, fewer - frames or None
        return Positions(
            [keys[:, :, first:last] for keys in self.keys], self.constants[..., first:last]
        )


class _Past:
    """How the rows of one call reach their streams' pasts: none, or rows of a state."""

    def __init__(
        self, config: EncoderConfig, state: EncoderState | None, slots: torch.Tensor, E: int
    ):
        self.context = config.left_context if state is not None else 0
        self.kernel = config.conv_kernel_size
        self.slots, self.state = slots, state
        if state is None:
            self.frames = torch.zeros_like(slots)
            return
        self.frames = state.frames.index_select(0, slots)
        _, two, N, heads, T, _ = state.kv.shape
        self.kv = state.kv.flatten(1, 4).unbind()  # L times (2 N Hkv T, Dh)
        pair = torch.arange(two, device=slots.device)[:, None, None] * N + slots[:, None]
        head = pair * heads + torch.arange(heads, device=slots.device)  # (2, B, Hkv)
        rows = head[..., None] * T + self._time(T, -self.context, E)[:, None]
        self.kv_shape, self.kv_rows = rows.shape, rows.flatten()
        self.new_kv_rows = rows[..., self.context :].permute(1, 3, 0, 2).flatten()
        # Of the convolutions' inputs little is needed: read and written for all layers at once.
        self.conv = state.conv.flatten(1, 2)  # (L, N T, D)
        T = state.conv.shape[2]
        rows = slots[:, None] * T + self._time(T, 1 - self.kernel, E)
        seen = self.conv.index_select(1, rows.flatten())
        self.seen = seen.view(len(seen), *rows.shape, -1)  # (L, B, K - 1 + E, D)
        self.new_conv_rows = rows[:, self.kernel - 1 :].flatten()

    def _time(self, length: int, start: int, stop: int) -> torch.Tensor:
        """(B, stop - start): where frames t + start ... t + stop - 1 lie in a ring."""
        time = torch.arange(start, stop, device=self.slots.device)
        return (self.frames[:, None] + time).remainder(length)

    def keys_and_values(self, layer: int, new: torch.Tensor) -> Sequence[torch.Tensor]:
        """new: (B, E, 2, Hkv, Dh).  Returns both (B, Hkv, C + E, Dh), the last of them new."""
        if self.state is None:
            return new.permute(2, 0, 3, 1, 4).unbind()
        ring, width = self.kv[layer], new.shape[-1]
        ring.index_copy_(0, self.new_kv_rows, new.reshape(-1, width))
        return ring.index_select(0, self.kv_rows).view(*self.kv_shape, width).unbind()

    def conv_inputs(self, layer: int, new: torch.Tensor) -> torch.Tensor:
        """new: (B, E, 2 D), before the GLU.  Returns (B, K - 1 + E, D), the last of them new."""
        if self.state is None:
            return F.pad(F.glu(new, dim=-1), (0, 0, self.kernel - 1, 0))
        seen = self.seen[layer]
        torch.ops.aten.glu.out(new, -1, out=seen[:, self.kernel - 1 :])
        return seen

    def move_on(self, num_frames: int) -> None:
        """Behind the last layer: the streams are so many frames further."""
        if self.state is None:
            return
        new = self.seen[:, :, self.kernel - 1 :].flatten(1, 2)  # (L, B E, D)
        self.conv.index_copy_(1, self.new_conv_rows, new)
        self.state.frames.index_add_(0, self.slots, torch.full_like(self.slots, num_frames))


def position_embedding(farthest: int, num_frames: int, width: int, device) -> torch.Tensor:
    """Sines and cosines of the distances `farthest` ... 1 - num_frames, (P, width) float32."""
    distance = torch.arange(farthest, -num_frames, -1, device=device).float()
    even = torch.arange(0, width, 2, device=device).float()
    angle = distance[:, None] / 10000.0 ** (even / width)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def num_encoder_frames(num_mel: int) -> int:
    """Encoder frames of a finished stream: ceil((N - 1) / 8) + 1, and none for none."""
    return (num_mel + SUBSAMPLING - 2) // SUBSAMPLING + 1 if num_mel > 0 else 0


class FeedForward(nn.Module):
    def __init__(self, config: EncoderConfig):
        super().__init__()
        bias = config.attention_bias  # the published key governs these biases too
        self.linear1 = Linear(config.hidden_size, config.intermediate_size, bias)
        self.linear2 = Linear(config.intermediate_size, config.hidden_size, bias, scale=0.5)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self.linear2(self.linear1(x, activation="silu"), residual)


class Attention(nn.Module):
    """Multi-head attention with Transformer-XL relative positions (arXiv 1901.02860)."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.num_kv_heads = config.num_key_value_heads
        self.head_dim = config.head_dim
        self.width, self.kv_width = config.hidden_size, self.num_kv_heads * self.head_dim
        bias = config.attention_bias
        self.q_proj = Linear(self.width, self.width, bias)
        self.k_proj = Linear(self.width, self.kv_width, bias)
        self.v_proj = Linear(self.width, self.kv_width, bias)
        self.o_proj = Linear(self.width, self.width, bias)
        self.relative_k_proj = Linear(self.width, self.width, bias=False)
        self.bias_u = nn.Parameter(torch.zeros(self.num_heads, self.head_dim))
        self.bias_v = nn.Parameter(torch.zeros(self.num_heads, self.head_dim))
        self.qkv: Callable | None = None  # the three projections in one, for inference

    def prepare(self, dtype: str) -> None:
        """Join the projections of queries, keys and values, for inference."""
        parts = (self.q_proj, self.k_proj, self.v_proj)
        weight = torch.cat([part.weight for part in parts]).detach()
        bias = torch.zeros(len(weight), dtype=weight.dtype, device=weight.device)
        if self.q_proj.bias is not None:
            bias += torch.cat([part.bias for part in parts]).detach()
        bias[: self.width] += self.bias_u.detach().flatten()
        self.qkv = fastest(weight, bias, dtype)
        out = fastest_linear([self.o_proj], dtype)
        del self.q_proj, self.k_proj, self.v_proj, self.o_proj
        self.o_proj = out

    def position_keys(self, embedding: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """embedding: (P, D).  Returns what `_position_scores` takes of P relative distances.

        The keys (H, Dh, P), scaled, and what bias_v has more than bias_u of them (H, 1, P).
        """
        p = self.relative_k_proj(embedding.to(self.relative_k_proj.weight.dtype))
        keys = p.view(-1, self.num_heads, self.head_dim).permute(1, 2, 0) * self.head_dim**-0.5
        return keys.contiguous(), (self.bias_v - self.bias_u)[:, None] @ keys

    def forward(
        self,
        x: torch.Tensor,
        residual: torch.Tensor,
        past: _Past,
        layer: int,
        positions: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """x: (B, E, D).  positions: as in `_position_scores`, of P = C + 2E - 1 distances.

        C is 0 for streams without a past. Returns residual + the result, (B, E, D).
        """
        B, E, _ = x.shape
        if self.qkv is None:
            q, kv = self.q_proj(x), torch.cat([self.k_proj(x), self.v_proj(x)], dim=-1)
            q = q + self.bias_u.flatten()
        else:
            q, kv = self.qkv(x).split([self.width, 2 * self.kv_width], dim=-1)
        q = q.view(B, E, self.num_heads, self.head_dim)
        kv = kv.view(B, E, 2, self.num_kv_heads, self.head_dim)
        k, v = past.keys_and_values(layer, kv)  # (B, Hkv, C + E, Dh)
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            k,
            v,
            attn_mask=_position_scores(q, positions, k.shape[2]),
            enable_gqa=self.num_kv_heads != self.num_heads,
        )  # (B, H, E, Dh)
        return self.o_proj(out.transpose(1, 2).reshape(B, E, -1), residual)


def _position_scores(
    q: torch.Tensor,
    positions: Sequence[torch.Tensor],
    num_keys: int,
) -> torch.Tensor:
    """What relative distance adds to the scores of queries (B, E, H, Dh): (B, H, E, num_keys).

    positions: the keys of P distances (H, Dh, P), and what is added to their products
    (H, B E, P): what bias_v has more than bias_u, and -inf where a query must not see a key.

    Column p of the scores by distance stands for the distance P - E - p; query i and key j are
    num_keys - E + i - j apart, which is column E - 1 - i + j. So the scores by key are a view: in
    memory, rows of P - 1 from element E - 1 on.
    """
    B, E, H, Dh = q.shape
    keys, base = positions
    scores = torch.baddbmm(base, q.reshape(B * E, H, Dh).transpose(0, 1), keys)
    P = scores.shape[2]
    return scores.as_strided(
        (B, H, E, num_keys),
        (E * P, B * E * P, P - 1 if E > 1 else P, 1),
        scores.storage_offset() + E - 1,
    )


class Convolution(nn.Module):
    """Pointwise, GLU, causal depthwise, LayerNorm, SiLU, pointwise."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        width, kernel, bias = config.hidden_size, config.conv_kernel_size, config.convolution_bias
        self.pointwise_conv1 = Linear(width, 2 * width, bias, kernel_dims=1)
        self.depthwise_conv = nn.Conv1d(width, width, kernel, groups=width, bias=bias)
        self.depthwise: Callable | None = None  # the same, for inference
        self.norm = nn.LayerNorm(width)
        self.pointwise_conv2 = Linear(width, width, bias, kernel_dims=1)

    def prepare(self) -> None:
        """Take the fastest depthwise convolution, for inference."""
        bias = self.depthwise_conv.bias
        self.depthwise = DepthwiseConv(
            self.depthwise_conv.weight.detach(), None if bias is None else bias.detach()
        )

    def forward(
        self, x: torch.Tensor, residual: torch.Tensor, past: _Past, layer: int
    ) -> torch.Tensor:
        """x: (B, E, D).  Returns residual + the result, (B, E, D)."""
        seen = past.conv_inputs(layer, self.pointwise_conv1(x))
        if self.depthwise is not None:
            x = self.depthwise(seen)
        else:
            x = self.depthwise_conv(seen.transpose(1, 2)).transpose(1, 2)
        return self.pointwise_conv2(F.silu(self.norm(x)), residual)


class ConformerLayer(nn.Module):
    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.feed_forward1 = FeedForward(config)
        self.self_attn = Attention(config)
        self.conv = Convolution(config)
        self.feed_forward2 = FeedForward(config)
        for name in ("feed_forward1", "self_att", "conv", "feed_forward2", "out"):
            self.add_module(f"norm_{name}", nn.LayerNorm(config.hidden_size))

    def forward(
        self,
        x: torch.Tensor,
        past: _Past,
        layer: int,
        positions: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """x: (B, E, D), the others as in `Attention`.  Returns (B, E, D)."""
        x = self.feed_forward1(self.norm_feed_forward1(x), x)
        x = self.self_attn(self.norm_self_att(x), x, past, layer, positions)
        x = self.conv(self.norm_conv(x), x, past, layer)
        x = self.feed_forward2(self.norm_feed_forward2(x), x)
        return self.norm_out(x)

    def prepare(self, dtype: str) -> None:
        """Take the fastest layers, for inference."""
        self.self_attn.prepare(dtype)
        self.conv.prepare()
        for part in (self, self.feed_forward1, self.feed_forward2, self.conv):
            replace_layers(part, dtype)


class Encoder(nn.Module):
    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.subsampling = Subsampling(config)
        self.layers = nn.ModuleList(ConformerLayer(config) for _ in range(config.num_hidden_layers))

    def position_keys(self, num_frames: int, context: int) -> Positions:
        """What the layers take of the distances in calls of E `num_frames` behind C `context`.

        It depends on the weights and the lengths alone, so that a server makes it once.
        """
        C, D = context, self.config.hidden_size
        device = self.layers[0].self_attn.bias_u.device
        embedding = position_embedding(C + num_frames - 1, num_frames, D, device)
        made = [layer.self_attn.position_keys(embedding) for layer in self.layers]
        return Positions([keys for keys, _ in made], torch.stack([c for _, c in made]))

    def prepare(self, dtype: str) -> None:
        """Take the fastest layers that the device has, for inference; see `fastest_linear`."""
        self.to(compute_dtype(dtype))
        for part in (self.subsampling, *self.subsampling.layers):
            replace_layers(part, dtype)
        for layer in self.layers:
            layer.prepare(dtype)

    def forward(
        self,
        mel: torch.Tensor,
        num_mel: torch.Tensor,
        lookahead: int,
        state: EncoderState | None = None,
        slots: torch.Tensor | None = None,
        positions: Positions | None = None,
    ) -> torch.Tensor:
        """Encode the next frames of each row's stream.

        mel: (B, 8 E, M) float32, the mel frames from 8 t - 7 on, t encoder frames being done;
            zeros where there are none. E may be many chunks: a multiple of lookahead + 1, but for
            the end of a stream.
        num_mel: (B,) int64 valid mel frames of the whole stream, UNKNOWN_LENGTH while it goes on.
        state: the streams' pasts, which this call moves on; None for new streams that end here.
        slots: (B,) int64 rows of `state` that these streams have; its first B by default.
        positions: `position_keys(E, C)`, computed here where not given.
        Returns (B, E, D), of which frames from num_encoder_frames(num_mel) on mean nothing.
        """
        B, E = len(mel), mel.shape[1] // SUBSAMPLING
        if slots is None:
            slots = torch.arange(B, device=mel.device)
        past = _Past(self.config, state, slots, E)
        x = self._subsample(mel, num_mel, past.frames, state, slots)
        if self.config.scale_input:
            x = x * self.config.hidden_size**0.5
        if positions is None:
            positions = self.position_keys(E, past.context)
        mask = _mask(past, num_mel, E, lookahead, self.config, x.dtype)
        keys, constants = positions
        bases = _bases(constants, mask.flatten(0, 1))
        for i, (layer, *position) in enumerate(zip(self.layers, keys, bases, strict=True)):
            x = layer(x, past, i, position)
        past.move_on(E)
        return x

    def _subsample(
        self,
        mel: torch.Tensor,
        num_mel: torch.Tensor,
        frames: torch.Tensor,
        state: EncoderState | None,
        slots: torch.Tensor,
    ) -> torch.Tensor:
        if state is None:
            dtype = self.subsampling.conv_in.weight.dtype
            fresh = EncoderState.fresh(self.config, len(mel), 0, mel.device, dtype)
            return self.subsampling(mel, num_mel, frames, *fresh[:3])[0]
        caches = state[:3]
        past = (x.index_select(0, slots) for x in caches)
        x, carry = self.subsampling(mel, num_mel, frames, *past)
        for cache, new in zip(caches, carry, strict=True):
            cache.index_copy_(0, slots, new)
        return x


def _bases(constants: torch.Tensor, mask: torch.Tensor) -> Iterable[torch.Tensor]:
    """Each layer's sums of constants (L, H, 1, P) and mask (B E, P): at once where they are few."""
    if len(constants) * constants.shape[1] * mask.numel() <= 1 << 22:
        return (constants + mask).unbind()
    return (constant + mask for constant in constants)


def _mask(
    past: _Past,
    num_mel: torch.Tensor,
    E: int,
    lookahead: int,
    config: EncoderConfig,
    dtype: torch.dtype,
) -> torch.Tensor:
    """(B, E, C + 2E - 1) by distance, as in `_position_scores`.

    -inf for keys of later chunks, too far back, unset or past the end. Calls begin where a chunk
    begins, so that chunks can be counted from there.
    """
    C, size, frames = past.context, lookahead + 1, past.frames
    query = torch.arange(E, device=frames.device)[:, None]
    distance = torch.arange(C + E - 1, -E, -1, device=frames.device)
    key = query - distance  # (E, P), from -C - E + 1 on
    back = query // size - torch.div(key, size, rounding_mode="floor")  # chunks between the two
    out_of_reach = (back < 0) | (back > config.left_context // size)
    index = frames[:, None, None] + key  # (B, E, P) in the stream
    end = (num_mel + SUBSAMPLING - 2) // SUBSAMPLING + 1  # as in num_encoder_frames
    absent = (index < 0) | (index >= end[:, None, None])
    hidden = (out_of_reach | absent) & (distance != 0)  # never an empty row
    zeros = torch.zeros(hidden.shape, dtype=dtype, device=frames.device)
    return zeros.masked_fill(hidden, float("-inf"))
