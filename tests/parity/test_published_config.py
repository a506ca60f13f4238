"""The published configuration: 655 tensors by name and shape, and one forward of full size."""

from __future__ import annotations

import hashlib

import pytest
import torch

import reference
from nemotron_asr import load_checkpoint, recordings
from nemotron_asr.config import ModelConfig, parse_config
from nemotron_asr.model import NemotronAsr

# The published config.json, without what inference does not read.
PUBLISHED = {
    "encoder_config": {
        "attention_bias": False, "conv_kernel_size": 9, "convolution_bias": False,
        "default_num_lookahead_tokens": 3, "hidden_act": "silu", "hidden_size": 1024,
        "intermediate_size": 4096, "model_type": "nemotron_asr_streaming_encoder",
        "num_attention_heads": 8, "num_hidden_layers": 24, "num_key_value_heads": 8,
        "num_mel_bins": 128, "scale_input": False, "sliding_window": 57,
        "subsampling_conv_channels": 256, "subsampling_conv_kernel_size": 3,
        "subsampling_conv_stride": 2, "subsampling_factor": 8,
        "supported_num_lookahead_tokens": [3, 0, 6, 13],
    },
    "blank_token_id": 13087, "decoder_hidden_size": 640, "default_prompt_id": 101,
    "hidden_act": "relu", "max_symbols_per_step": 10, "num_decoder_layers": 2,
    "num_prompts": 128, "prompt_intermediate_size": 2048, "vocab_size": 13088,
}  # fmt: skip
# sha256 over the sorted lines "key\tF32\tshape" of the published model.safetensors' header.
FINGERPRINT = "c50ff5014b5bb7da8b6a96f27cc568adec886a6e80b53ea3910ee06e77d6b517"


def test_parameters_are_those_of_the_published_checkpoint():
    with torch.device("meta"):
        net = NemotronAsr(parse_config(PUBLISHED))
    state = net.state_dict()
    assert len(state) == 655
    assert sum(x.numel() for x in state.values()) == 637_997_088
    lines = [f"{k}\tF32\t{','.join(map(str, x.shape))}\n" for k, x in state.items()]
    assert hashlib.sha256("".join(sorted(lines)).encode()).hexdigest() == FINGERPRINT


def test_defaults_are_the_published_values():
    assert parse_config(PUBLISHED) == ModelConfig()


@pytest.mark.timeout(1200)
def test_one_forward_of_full_size(tmp_path):
    """Random weights of the published size, through save_pretrained and load_checkpoint."""
    from transformers import Nemotron3_5AsrConfig, Nemotron3_5AsrForRNNT

    torch.manual_seed(0)
    model = Nemotron3_5AsrForRNNT(Nemotron3_5AsrConfig(**PUBLISHED)).eval().requires_grad_(False)
    audio = reference.speech_like(24_000, 0)
    mel, mask = reference.reference_features(model, [audio])
    prompts = torch.tensor([101])
    expected = model.get_audio_features(
        mel, attention_mask=mask, num_lookahead_tokens=3, prompt_ids=prompts
    ).pooler_output
    reference.save_checkpoint(model, tmp_path)
    g = model.decoder(torch.tensor([[5, 7]]))
    logits = model.joint(decoder_hidden_states=g[:, -1:], encoder_hidden_states=expected[:, :1])
    del model
    recognizer = load_checkpoint(tmp_path)
    assert recognizer.latencies_ms == (80, 160, 320, 560, 1120)
    ours = recordings.encode(
        recognizer, [recordings.features(recognizer, audio)], [len(audio)], [101], 3
    )[0]
    scale = expected.std()
    assert (ours - expected[0, : len(ours)]).abs().max() < 1e-4 * max(1.0, scale)
    decoder = recognizer.net.decoder
    nothing = torch.zeros(1, 2, 640)
    first = decoder.step(torch.tensor([5]), nothing, nothing)
    second = decoder.step(torch.tensor([7]), first.h, first.c)
    mine = torch.stack([first.g, second.g], dim=1)
    torch.testing.assert_close(mine, g, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        recognizer.net.joint(expected[:, :1], g[:, -1:]), logits, atol=1e-5, rtol=1e-5
    )
