"""Random models of this architecture that behave like trained ones, for tests.

Default random weights prove little: they emit a few tokens, always the same. Here the joint's
inputs are centred and scaled on real features, so that outputs have many distinct tokens, blanks
and forced advances, and change with audio, language and lookahead.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Nemotron3_5AsrConfig,
    Nemotron3_5AsrForRNNT,
    NemotronAsrStreamingFeatureExtractor,
)

PROMPTS = {"en-US": 0, "en": 0, "de-DE": 9, "fr-FR": 8, "auto": 101}
TAGS = ["<de-DE>", "<en-US>", "<fr-FR>"]
BLANK_SHARE = 0.7  # of the joint's evaluations

ENCODER = {
    "model_type": "nemotron_asr_streaming_encoder",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 128,
    "subsampling_conv_channels": 8,
    "num_mel_bins": 128,
    "sliding_window": 57,
    "attention_bias": False,
    "convolution_bias": False,
    "scale_input": False,
    "default_num_lookahead_tokens": 3,
    "supported_num_lookahead_tokens": [3, 0, 6, 13],
}
SIZES = {
    "tiny": {},
    "biased": {
        "encoder_config": {
            "hidden_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "num_mel_bins": 80,
            "sliding_window": 71,
            "attention_bias": True,
            "convolution_bias": True,
            "scale_input": True,
        },
        "vocab_size": 48,
        "blank_token_id": 47,
        "num_decoder_layers": 1,
        "max_symbols_per_step": 2,
    },
    "wide": {
        "encoder_config": {
            "hidden_size": 160,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
            "intermediate_size": 320,
            "subsampling_conv_channels": 24,
            "conv_kernel_size": 5,
        },
        "vocab_size": 400,
        "blank_token_id": 399,
        "decoder_hidden_size": 96,
        "num_prompts": 110,
    },
}


def speech_like(num_samples: int, seed: int) -> np.ndarray:
    """Noise and tones under a syllable-like envelope: 16 kHz float32 in [-1, 1]."""
    rng = np.random.default_rng(seed)
    t = np.arange(num_samples) / 16000
    envelope = 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(2, 5) * t + rng.uniform(0, 6))
    pitch = 120 + 60 * np.sin(2 * np.pi * rng.uniform(0.3, 1.5) * t)
    phase = 2 * np.pi * np.cumsum(pitch) / 16000
    voice = sum(np.sin(k * phase) / k for k in range(1, 12))
    noise = rng.standard_normal(num_samples)
    mix = np.where(np.sin(2 * np.pi * rng.uniform(1, 3) * t) > 0, voice, noise)
    return (0.1 * envelope * mix + 0.002 * noise).astype(np.float32)


def reference_config(size: str = "tiny") -> Nemotron3_5AsrConfig:
    overrides = SIZES[size]
    top = {
        "vocab_size": 96, "blank_token_id": 95, "decoder_hidden_size": 64,
        "prompt_intermediate_size": 80, "max_symbols_per_step": 3,
    }  # fmt: skip
    encoder = {**ENCODER, **overrides.get("encoder_config", {})}
    return Nemotron3_5AsrConfig(**{**top, **overrides, "encoder_config": encoder})


def reference_model(config: Nemotron3_5AsrConfig, seed: int = 0) -> Nemotron3_5AsrForRNNT:
    """A lively random model of `transformers`, float32, in eval mode."""
    torch.manual_seed(seed)
    model = Nemotron3_5AsrForRNNT(config).eval().requires_grad_(False)
    model.generation_config.decoder_start_token_id = config.blank_token_id
    for name, p in model.named_parameters():
        if "norm" in name:
            p.copy_(torch.randn_like(p) * 0.1 + float(name.endswith("weight")))
        elif p.dim() > 1 and "embedding" not in name:
            p.normal_(std=1.4 / p[0].numel() ** 0.5)
        else:
            p.normal_(std=0.1 if p.dim() == 1 else 1.0)
    width = config.encoder_config.hidden_size
    model.prompt_projector.linear_1.weight[:, width:].normal_(std=0.1)
    ids = torch.randint(0, config.blank_token_id, (16, 24))
    _standardise(model.encoder_projector, _encoder_outputs(model), 3.0)
    _standardise(model.decoder.decoder_projector, model.decoder(ids), 1.0)
    f, g = _encoder_outputs(model).flatten(0, 1), model.decoder(ids).flatten(0, 1)
    f, g = (x[torch.randint(0, len(x), (2000,))] for x in (f, g))
    head, blank = model.joint.head, config.blank_token_id
    logits = model.joint(decoder_hidden_states=g, encoder_hidden_states=f)
    std, mean = torch.std_mean(logits, dim=0)
    head.weight.mul_(3 / std[:, None])
    head.bias.sub_(mean).mul_(3 / std)
    logits = model.joint(decoder_hidden_states=g, encoder_hidden_states=f)
    rival = logits.index_fill(1, torch.tensor(blank), float("-inf")).max(-1).values
    head.bias[blank] += torch.quantile(rival - logits[:, blank], BLANK_SHARE)
    return model


def _encoder_outputs(model) -> torch.Tensor:
    """Joint inputs (streams, frames, J) over audio, prompts and lookaheads."""
    mel, mask = reference_features(model, [speech_like(80_000, seed) for seed in range(4)])
    outputs = []
    for lookahead, prompt in ((0, 0), (3, 9), (13, 101)):
        prompts = torch.full((4,), prompt)
        out = model.get_audio_features(
            mel, attention_mask=mask, num_lookahead_tokens=lookahead, prompt_ids=prompts
        )
        outputs.append(out.pooler_output)
    return torch.cat(outputs)


def _standardise(linear: torch.nn.Linear, outputs: torch.Tensor, wanted: float) -> None:
    """Centre each output of a layer and give it this deviation within a stream (B, T, J)."""
    std, mean = outputs.std(dim=1).mean(dim=0) / wanted, outputs.mean(dim=(0, 1))
    linear.weight.div_(std[:, None])
    linear.bias.sub_(mean).div_(std)


def reference_features(model, audio: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """The reference's front end: mel (B, T, M) and its mask (B, T)."""
    extract = NemotronAsrStreamingFeatureExtractor(
        feature_size=model.config.encoder_config.num_mel_bins
    )
    inputs = extract(audio, sampling_rate=16000, return_tensors="pt")
    return inputs.input_features, inputs.attention_mask


def pieces_for(num_pieces: int) -> list[str]:
    """A vocabulary: `<unk>`, the tags, then syllables with and without a leading space."""
    syllables = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
    words = [prefix + s for s in syllables for prefix in ("\u2581", "")] + [
        "\u2581" + a + b for a in syllables for b in syllables
    ]
    return ["<unk>", *TAGS, *words][:num_pieces]


def write_tokenizer(directory: Path, num_pieces: int) -> None:
    """tokenizer.json in the layout of the published one: blank's id is also `<pad>`'s."""
    pieces = pieces_for(num_pieces)
    tokenizer = Tokenizer(
        models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=[], unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ["<pad>", "<blank>", *TAGS]])
    tokenizer.save(str(directory / "tokenizer.json"))


def save_checkpoint(model, directory: Path) -> Path:
    """A Hugging Face checkpoint directory as published, from a random model."""
    config = model.config
    model.save_pretrained(directory)
    write_tokenizer(directory, config.blank_token_id)
    processor = {
        "blank_token": "<blank>",
        "default_num_lookahead_tokens": 3,
        "feature_extractor": {
            "feature_extractor_type": "NemotronAsrStreamingFeatureExtractor",
            "feature_size": config.encoder_config.num_mel_bins,
            "hop_length": 160,
            "n_fft": 512,
            "padding_side": "right",
            "padding_value": 0.0,
            "preemphasis": 0.97,
            "return_attention_mask": True,
            "sampling_rate": 16000,
            "win_length": 400,
        },
        "num_prompts": config.num_prompts,
        "processor_class": "Nemotron3_5AsrProcessor",
        "prompt_dictionary": PROMPTS,
        "supported_num_lookahead_tokens": [3, 0, 6, 13],
    }
    (directory / "processor_config.json").write_text(json.dumps(processor))
    return directory
