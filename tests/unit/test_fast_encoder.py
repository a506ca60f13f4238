"""The training form of the encoder computes what the model computes, and has gradients."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from nemotron_asr.config import LOOKAHEADS, EncoderConfig, ModelConfig
from nemotron_asr.model import NemotronAsr

sys.path.append(str(Path(__file__).parents[2] / "scripts" / "demo_checkpoint"))
from fast_encoder import FastEncoder

LENS = [180, 97, 1]  # mel frames


@pytest.fixture(scope="module")
def net() -> NemotronAsr:
    torch.manual_seed(0)
    encoder = EncoderConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=48,
        subsampling_conv_channels=6,
    )
    return NemotronAsr(ModelConfig(encoder=encoder, vocab_size=20, blank_token_id=19))


@pytest.fixture
def mel() -> torch.Tensor:
    mel = torch.randn(len(LENS), max(LENS), 128, generator=torch.Generator().manual_seed(1)) - 8
    for row, n in zip(mel, LENS, strict=True):
        row[n:] = 0.0
    return mel


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_equals_the_model(net, mel, lookahead):
    num_mel = torch.tensor(LENS)
    prompts = torch.tensor([0, 101, 9])
    expected, lens = net.encode(mel, num_mel, prompts, lookahead)
    enc, _, fast_lens = FastEncoder(net.encoder, torch.float32, compiled=False)(
        mel, num_mel, lookahead
    )
    got = net.project(enc, prompts)
    assert fast_lens.tolist() == lens.tolist()
    for row, reference, n in zip(got, expected, lens.tolist(), strict=True):
        torch.testing.assert_close(row[:n], reference[:n], atol=1e-5, rtol=1e-4)


def test_gradients_equal_those_of_the_model(net, mel):
    num_mel = torch.tensor(LENS)
    prompts = torch.tensor([0, 101, 9])

    def gradients(f: torch.Tensor, lens: torch.Tensor) -> list[torch.Tensor]:
        valid = torch.arange(f.shape[1]) < lens[:, None]
        loss = ((f.sin().sum(-1) * valid).tanh()).sum()
        return torch.autograd.grad(loss, list(net.encoder.parameters()))

    expected = gradients(*net.encode(mel, num_mel, prompts, 3))
    enc, _, lens = FastEncoder(net.encoder, torch.float32, compiled=False)(mel, num_mel, 3)
    got = gradients(net.project(enc, prompts), lens)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
