"""The model in training: its size, how it begins, and its losses."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from alignment import first_symbols, spoken_before
from data import Batch
from fast_encoder import FastEncoder
from rnnt_loss import pruned_rnnt_loss
from safetensors.torch import load_file
from tokenizer import NUM_FINE, NUM_PIECES
from torch import nn

from nemotron_asr.config import EncoderConfig, FeatureConfig, ModelConfig
from nemotron_asr.model import NemotronAsr
from nemotron_asr.subsampling import FirstConv

BLANK = NUM_PIECES
NUM_MEL = 80
MEL_MEAN, MEL_STD = -10.7, 4.0  # over all bands of the augmented training clips
NUM_SYMBOLS = 6  # token counts that the RNN-T loss looks at in a frame: 3 behind CTC, 2 ahead
PREDICTION_DROPOUT = 0.1  # else the prediction network learns the sentences by heart


def demo_config() -> ModelConfig:
    """The published architecture at an eightieth of its size, as float16 just below 16 MB."""
    encoder = EncoderConfig(
        hidden_size=192,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=640,
        num_mel_bins=NUM_MEL,
        subsampling_conv_channels=32,
    )
    return ModelConfig(
        encoder=encoder,
        features=FeatureConfig(feature_size=NUM_MEL),
        vocab_size=NUM_PIECES + 1,
        blank_token_id=BLANK,
        decoder_hidden_size=160,
        num_decoder_layers=1,
        prompt_intermediate_size=256,
    )


class NormalisingConv(FirstConv):
    """A first convolution that learns on (mel - mean) / std, and folds both into its weights.

    Zeros that pad the mel stay zeros of the mel, so that what is exported computes the same.
    """

    mean, std = MEL_MEAN, MEL_STD

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        weight = self.weight / self.std
        return weight, self.bias - self.mean * weight.sum((1, 2, 3))

    @classmethod
    def unfolded(
        cls, weight: torch.Tensor, bias: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The weights of which `folded` makes these."""
        return weight * cls.std, bias + cls.mean * weight.sum((1, 2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolve(x, *self.folded())


class Trainee(nn.Module):
    """The model and two CTC heads that the checkpoint leaves out.

    One hears finer pieces in the middle of the encoder: they are learned sooner.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.net = NemotronAsr(config)
        self.net.encoder.subsampling.conv_in = NormalisingConv(
            config.encoder.subsampling_conv_channels
        )
        self.ctc_head = nn.Linear(config.decoder_hidden_size, config.vocab_size)
        self.fine_head = nn.Linear(config.encoder.hidden_size, NUM_FINE + 1)
        self.use(torch.float32, compiled=False)

    def use(self, dtype: torch.dtype, compiled: bool) -> None:
        """Choose the type of the large matrix products, and whether the encoder is compiled."""
        self.dtype, self.encode = dtype, FastEncoder(self.net.encoder, dtype, compiled)

    @torch.no_grad()
    def scale_stages(self, batch: Batch) -> None:
        """Give what enters the layers and the joint unit variance over time and zero mean.

        Without this the initial encoder hardly varies over time, and CTC stays on a plateau.
        """
        net = self.net
        convs = net.encoder.subsampling
        net.prompt_projector.linear_1.weight *= 3
        pointwise = [stage.pointwise_conv for stage in convs.layers]
        centred = [convs.linear, net.prompt_projector.linear_2, net.encoder_projector]
        for layer in (convs.conv_in, *pointwise, *centred):
            seen = []
            hook = layer.register_forward_hook(lambda *args, seen=seen: seen.append(args[2]))
            net.encode(batch.mel, batch.num_mel, batch.prompt_ids, 3)
            hook.remove()
            std = seen[0].std(1).mean()  # over time
            layer.weight /= std
            layer.bias /= std
            if layer in centred:
                layer.bias -= seen[0].mean((0, 1)) / std

    @torch.no_grad()
    def take_over(self, checkpoint: Path) -> None:
        """Begin with the weights of a folder that export.py wrote; the finer head begins anew."""
        state = load_file(checkpoint / "model.safetensors")
        state = {key: value.float() for key, value in state.items()}
        conv = "encoder.subsampling.conv_in."
        folded = state[conv + "weight"], state[conv + "bias"]
        state[conv + "weight"], state[conv + "bias"] = NormalisingConv.unfolded(*folded)
        self.net.load_state_dict(state)
        self.ctc_head.load_state_dict(self.net.joint.head.state_dict())

    @torch.no_grad()
    def start_rnnt(self) -> None:
        """Let the joint begin as the CTC head, which already hears, with a silent prediction."""
        self.net.joint.head.load_state_dict(self.ctc_head.state_dict())
        nn.init.normal_(self.net.decoder.decoder_projector.weight, std=0.02)
        nn.init.zeros_(self.net.decoder.decoder_projector.bias)

    def joint_input(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B, E, J) float32, the encoder's middle (B, E, D) and the valid frames (B,)."""
        enc, middle, lens = self.encode(batch.mel, batch.num_mel, batch.lookahead)
        return self.net.project(enc, batch.prompt_ids).float(), middle, lens

    def ctc_log_probs(self, f: torch.Tensor) -> torch.Tensor:
        """f: (B, E, J).  Returns (B, E, V) float32."""
        weight, bias = (p.to(self.dtype) for p in self.ctc_head.parameters())
        return F.linear(F.relu(f).to(self.dtype), weight, bias).float().log_softmax(-1)

    def losses(self, batch: Batch, with_rnnt: bool) -> dict[str, torch.Tensor]:
        """`ctc`, `fine` and `rnnt` per target token, `frame` per frame: those the batch is for."""
        f, middle, lens = self.joint_input(batch)
        fine = self.fine_head(middle).log_softmax(-1).transpose(0, 1)
        fine = F.ctc_loss(
            fine, batch.fine, lens, batch.num_fine, NUM_FINE, "sum", zero_infinity=True
        )
        log_probs = self.ctc_log_probs(f)
        num_tokens = batch.num_targets.sum()
        ctc = F.ctc_loss(
            log_probs.transpose(0, 1), batch.targets, lens, batch.num_targets, BLANK, "sum",
            zero_infinity=True,
        )  # fmt: skip
        found = {"ctc": ctc / num_tokens, "fine": fine / batch.num_fine.sum()}
        if batch.frames is not None:
            guess = batch.frames.masked_fill(batch.frames < 0, BLANK)
            found["frame"] = F.nll_loss(log_probs.flatten(0, 1), guess.flatten())
        elif with_rnnt:
            start = torch.full_like(batch.targets[:, :1], BLANK)
            g = self.net.prediction(torch.cat([start, batch.targets], dim=1))
            g = F.dropout(g, PREDICTION_DROPOUT)
            spoken = spoken_before(log_probs.detach(), batch.targets, lens, batch.num_targets)
            first = first_symbols(spoken, batch.num_targets, NUM_SYMBOLS)
            rnnt = pruned_rnnt_loss(
                f, g, self.net.joint.head, batch.targets, lens, batch.num_targets, first,
                NUM_SYMBOLS, self.dtype,
            )  # fmt: skip
            found["rnnt"] = rnnt.sum() / num_tokens
        return found
