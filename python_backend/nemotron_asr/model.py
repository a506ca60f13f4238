"""The network: encoder, language prompt, prediction network and joint."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from .config import ModelConfig
from .encoder import Encoder, num_encoder_frames
from .layers import compute_dtype, fastest, fastest_linear


class PromptProjector(nn.Module):
    """Tells the encoder's output which language was asked for: a one-hot prompt joined to it.

    Float32 in every model dtype: what the prompt adds is 0.1 to 1 % of the sum's magnitude.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.width = config.encoder.hidden_size
        inner = config.prompt_intermediate_size
        self.linear_1 = nn.Linear(self.width + config.num_prompts, inner)
        self.linear_2 = nn.Linear(inner, self.width)

    def forward(self, enc: torch.Tensor, prompt_ids: torch.Tensor) -> torch.Tensor:
        """enc: (B, E, D).  prompt_ids: (B,) int64.  Returns (B, E, D) float32."""
        weight = self.linear_1.weight
        # A one-hot input picks a column of the weight.
        prompt = weight[:, self.width :].T[prompt_ids] + self.linear_1.bias  # (B, inner)
        x = F.linear(enc.float(), weight[:, : self.width]) + prompt[:, None]
        return self.linear_2(F.relu(x))


class PredictionState(NamedTuple):
    """The prediction network after a stream's last token."""

    g: torch.Tensor  # (B, J): its projected output
    h: torch.Tensor  # (B, layers, J): the LSTM's hidden state
    c: torch.Tensor  # (B, layers, J) float32: the LSTM's cell state


class PredictionNetwork(nn.Module):
    """An LSTM over the emitted pieces. `forward` is for training, `step` for inference."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        width = config.decoder_hidden_size
        self.blank = config.blank_token_id
        self.embedding = nn.Embedding(config.vocab_size, width)
        self.lstm = nn.LSTM(width, width, config.num_decoder_layers, batch_first=True)
        self.decoder_projector = nn.Linear(width, width)
        self.cells: list[Callable] = []  # the gates of each LSTM layer, from its input and its h

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """ids: (B, U) int64, blank first.  Returns the projected outputs (B, U, J)."""
        return self.decoder_projector(self.lstm(self.embedding(ids))[0])

    def prepare(self, dtype: str) -> None:
        """Take the fastest layers, for inference."""
        for i in range(self.lstm.num_layers):
            of_input, of_state, *biases = self.lstm.all_weights[i]
            weight = torch.cat([of_input, of_state], dim=1).detach()  # (4 J, 2 J)
            self.cells.append(fastest(weight, sum(biases).detach(), dtype))
        del self.lstm
        self.embedding.to(compute_dtype(dtype))
        projector = fastest_linear([self.decoder_projector], dtype)
        del self.decoder_projector
        self.decoder_projector = projector

    def step(self, ids: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> PredictionState:
        """One piece further.  ids: (B,) int64.  h, c: (B, layers, J), as in `PredictionState`."""
        x, hs, cs = self.embedding(ids), [], []
        for i, cell in enumerate(self.cells):
            gates = cell(torch.cat([x, h[:, i]], dim=-1)).float()
            enter, forget, new, out = gates.chunk(4, dim=-1)  # torch's order
            state = forget.sigmoid() * c[:, i] + enter.sigmoid() * new.tanh()
            x = (out.sigmoid() * state.tanh()).to(h.dtype)
            hs.append(x)
            cs.append(state)
        return PredictionState(
            self.decoder_projector(x), torch.stack(hs, dim=1), torch.stack(cs, dim=1)
        )

    def fresh(self, batch: int) -> PredictionState:
        """The state of new streams: blank has gone through the LSTM once, from zeros."""
        weight = self.embedding.weight
        ids = torch.full((1,), self.blank, device=weight.device)
        h = torch.zeros(1, len(self.cells), weight.shape[1], device=weight.device)
        state = self.step(ids, h.to(weight.dtype), h)
        return PredictionState(*(x.expand(batch, *x.shape[1:]).clone() for x in state))


class Joint(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.head = nn.Linear(config.decoder_hidden_size, config.vocab_size)
        self.dtype: torch.dtype | None = None  # of the head's input, once prepared

    def prepare(self, dtype: str) -> None:
        """Take the fastest layer, for inference."""
        head = fastest_linear([self.head], dtype)
        del self.head
        self.head = head
        self.dtype = compute_dtype(dtype)

    def forward(self, f: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        """f, g: (..., J), broadcast against each other.  Returns logits (..., V)."""
        x = F.relu(f + g)
        return self.head(x if self.dtype is None else x.to(self.dtype))


class NemotronAsr(nn.Module):
    """Parameter names are those of the Hugging Face checkpoint."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.prompt_projector = PromptProjector(config)
        self.encoder_projector = nn.Linear(config.encoder.hidden_size, config.decoder_hidden_size)
        self.decoder = PredictionNetwork(config)
        self.joint = Joint(config)

    def project(self, enc: torch.Tensor, prompt_ids: torch.Tensor) -> torch.Tensor:
        """enc: (B, E, D).  prompt_ids: (B,) int64.  Returns the joint's input (B, E, J) float32."""
        return self.encoder_projector(self.prompt_projector(enc, prompt_ids))

    def encode(
        self,
        mel: torch.Tensor,
        num_mel: torch.Tensor,
        prompt_ids: torch.Tensor,
        lookahead: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Whole recordings at once, with gradients: for training.

        mel: (B, T, M) float32 with frame 0 first, 0.0 from num_mel on.  num_mel: (B,) int64.
        Returns (B, E, J) and the valid frames of each row (B,).
        """
        E = num_encoder_frames(mel.shape[1])
        mel = F.pad(mel, (0, 0, 7, 8 * E - 7 - mel.shape[1]))
        enc = self.encoder(mel, num_mel, lookahead)
        lens = torch.tensor([num_encoder_frames(int(n)) for n in num_mel], device=mel.device)
        return self.project(enc, prompt_ids), lens

    def prediction(self, ids: torch.Tensor) -> torch.Tensor:
        """ids: (B, U) int64, blank first.  Returns (B, U, J)."""
        return self.decoder(ids)

    def prepare(self, dtype: str) -> NemotronAsr:
        """Take the fastest layers for inference in float32, bfloat16, float16 or int8.

        The prompt and encoder projections stay float32. Parts without weights are left alone.
        """
        if not self.joint.head.weight.is_meta:
            self.decoder.prepare(dtype)
            self.joint.prepare(dtype)
        if not self.encoder_projector.weight.is_meta:
            self.encoder.prepare(dtype)
            self.prompt_projector.float()
            self.encoder_projector.float()
        return self.eval().requires_grad_(False)
