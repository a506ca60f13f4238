"""The network: encoder, language prompt, prediction network and joint."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from .config import ModelConfig
from .encoder import Encoder, num_encoder_frames


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
    c: torch.Tensor  # (B, layers, J): the LSTM's cell state

    def first(self, batch: int) -> PredictionState:
        """The states of the first rows."""
        return PredictionState(*(x[:batch] for x in self))


class PredictionNetwork(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        width = config.decoder_hidden_size
        self.blank = config.blank_token_id
        self.embedding = nn.Embedding(config.vocab_size, width)
        self.lstm = nn.LSTM(width, width, config.num_decoder_layers, batch_first=True)
        self.decoder_projector = nn.Linear(width, width)

    def forward(
        self, ids: torch.Tensor, state: PredictionState | None = None
    ) -> tuple[torch.Tensor, PredictionState]:
        """ids: (B, U) int64.  Returns the projected outputs (B, U, J) and the state after them."""
        past = None
        if state is not None:
            past = (state.h.transpose(0, 1).contiguous(), state.c.transpose(0, 1).contiguous())
        out, (h, c) = self.lstm(self.embedding(ids), past)
        g = self.decoder_projector(out)
        return g, PredictionState(g[:, -1], h.transpose(0, 1), c.transpose(0, 1))

    def fresh(self, batch: int) -> PredictionState:
        """The state of new streams: blank has gone through the LSTM once, from zeros."""
        ids = torch.full((1, 1), self.blank, device=self.embedding.weight.device)
        _, state = self(ids)
        return PredictionState(*(x.expand(batch, *x.shape[1:]).contiguous() for x in state))


class Joint(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.head = nn.Linear(config.decoder_hidden_size, config.vocab_size)

    def forward(self, f: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        """f, g: (..., J), broadcast against each other.  Returns logits (..., V)."""
        return self.head(F.relu(f + g).to(self.head.weight.dtype))


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
        enc, _ = self.encoder(mel, num_mel, lookahead)
        lens = torch.tensor([num_encoder_frames(int(n)) for n in num_mel], device=mel.device)
        return self.project(enc, prompt_ids), lens

    def prediction(self, ids: torch.Tensor) -> torch.Tensor:
        """ids: (B, U) int64, blank first.  Returns (B, U, J)."""
        return self.decoder(ids)[0]

    def cast(self, dtype: torch.dtype) -> NemotronAsr:
        """Convert the weights for inference; the prompt and encoder projections stay float32."""
        for part in (self.encoder, self.decoder, self.joint):
            part.to(dtype)
        for part in (self.prompt_projector, self.encoder_projector):
            part.float()
        return self.eval().requires_grad_(False)
