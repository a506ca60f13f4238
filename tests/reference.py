"""Random models of this architecture that behave like trained ones, for tests.

Default random weights prove little: they emit a few tokens, always the same. Here the joint's
inputs are centred and scaled on real features, so that outputs have many distinct tokens, blanks
and forced advances, and change with audio, language and lookahead.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import torch
import yaml
from sentencepiece import SentencePieceTrainer
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


def is_tied(recognizer, audio: np.ndarray, language: str = "auto", latency_ms: int = 320) -> bool:
    """Whether a model of random weights cannot decide this int16 audio in float32.

    Of thousands of decisions a minute one in some twenty minutes is between logits that lie within
    their rounding (1e-5 of 7), and so falls as the neighbours in a batch happen to be, also when a
    stream is decoded again. Such a text changes as well with audio that is louder by a millionth.
    """
    louder = 1 + np.arange(-4, 5) * 1e-6
    copies = [(audio * (factor / 32768)).astype(np.float32) for factor in louder]
    return len({heard.text for heard in recognizer.transcribe(copies, language, latency_ms)}) > 1


def reference_features(model, audio: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """The reference's front end: mel (B, T, M) and its mask (B, T)."""
    extract = NemotronAsrStreamingFeatureExtractor(
        feature_size=model.config.encoder_config.num_mel_bins
    )
    inputs = extract(audio, sampling_rate=16000, return_tensors="pt")
    return inputs.input_features, inputs.attention_mask


def pieces_for(num_pieces: int) -> list[str]:
    """A vocabulary: `<unk>`, tags, marks, then syllables with and without a leading space."""
    syllables = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
    words = [piece for s in syllables for piece in ("\u2581" + s.capitalize(), s)] + [
        "\u2581" + a + b for a in syllables for b in syllables
    ]
    more = [f"{prefix}{i}" for i in range(num_pieces) for prefix in ("\u2581", "")]
    return ["<unk>", *TAGS, ".", ",", *words, *more][:num_pieces]


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


# NeMo's names, written out from the reference's conversion script in the other direction.
_NEMO_NAMES = [
    ("encoder.subsampling.conv_in.", "encoder.pre_encode.conv.0."),
    ("encoder.subsampling.layers.0.depthwise_conv.", "encoder.pre_encode.conv.2."),
    ("encoder.subsampling.layers.0.pointwise_conv.", "encoder.pre_encode.conv.3."),
    ("encoder.subsampling.layers.1.depthwise_conv.", "encoder.pre_encode.conv.5."),
    ("encoder.subsampling.layers.1.pointwise_conv.", "encoder.pre_encode.conv.6."),
    ("encoder.subsampling.linear.", "encoder.pre_encode.out."),
    (".conv.norm.", ".conv.batch_norm."),
    (".q_proj.", ".linear_q."),
    (".k_proj.", ".linear_k."),
    (".v_proj.", ".linear_v."),
    (".o_proj.", ".linear_out."),
    (".relative_k_proj.", ".linear_pos."),
    (".bias_u", ".pos_bias_u"),
    (".bias_v", ".pos_bias_v"),
    ("prompt_projector.linear_1.", "prompt_kernel.0."),
    ("prompt_projector.linear_2.", "prompt_kernel.2."),
    ("decoder.embedding.", "decoder.prediction.embed."),
    ("decoder.lstm.", "decoder.prediction.dec_rnn.lstm."),
    ("encoder_projector.", "joint.enc."),
    ("decoder.decoder_projector.", "joint.pred."),
    ("joint.head.", "joint.joint_net.2."),
]


def nemo_state(model) -> dict[str, torch.Tensor]:
    """The model's tensors by NeMo's names, and the front end's that NeMo keeps beside them."""
    state = {
        "preprocessor.featurizer.window": torch.hann_window(400, periodic=False),
        "preprocessor.featurizer.fb": torch.zeros(1, 128, 257),
    }
    for key, value in model.state_dict().items():
        for ours, nemo in _NEMO_NAMES:
            key = key.replace(ours, nemo)
        state[key] = value
    return state


def nemo_yaml(model) -> dict:
    """model_config.yaml of a prompt-conditioned cache-aware transducer."""
    config, encoder = model.config, model.config.encoder_config
    left = encoder.sliding_window - 1
    return {
        "sample_rate": 16000,
        "model_defaults": {
            "enc_hidden": encoder.hidden_size,
            "pred_hidden": config.decoder_hidden_size,
            "joint_hidden": config.decoder_hidden_size,
            "num_prompts": config.num_prompts,
            "prompt_dictionary": PROMPTS,
        },
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "sample_rate": 16000, "normalize": "NA", "window_size": 0.025, "window_stride": 0.01,
            "window": "hann", "features": encoder.num_mel_bins, "n_fft": 512,
            "frame_splicing": 1, "dither": 1e-05, "pad_to": 0,
        },
        "encoder": {
            "_target_": "nemo.collections.asr.modules.ConformerEncoder",
            "feat_in": encoder.num_mel_bins, "feat_out": -1,
            "n_layers": encoder.num_hidden_layers, "d_model": encoder.hidden_size,
            "use_bias": encoder.attention_bias, "subsampling": "dw_striding",
            "subsampling_factor": 8,
            "subsampling_conv_channels": encoder.subsampling_conv_channels,
            "causal_downsampling": True, "reduction": None, "reduction_position": None,
            "reduction_factor": 1,
            "ff_expansion_factor": encoder.intermediate_size // encoder.hidden_size,
            "self_attention_model": "rel_pos", "n_heads": encoder.num_attention_heads,
            "att_context_size": [[left, r] for r in (3, 0, 6, 13)],
            "att_context_style": "chunked_limited", "xscaling": encoder.scale_input,
            "untie_biases": True, "pos_emb_max_len": 5000,
            "conv_kernel_size": encoder.conv_kernel_size, "conv_norm_type": "layer_norm",
            "conv_context_size": "causal", "dropout": 0.1, "dropout_pre_encoder": 0.1,
            "dropout_emb": 0.0, "dropout_att": 0.1, "stochastic_depth_drop_prob": 0.0,
            "stochastic_depth_mode": "linear", "stochastic_depth_start_layer": 1,
        },
        "decoder": {
            "prednet": {
                "pred_hidden": config.decoder_hidden_size,
                "pred_rnn_layers": config.num_decoder_layers,
            },
            "vocab_size": config.blank_token_id,
        },
        "joint": {
            "num_classes": config.blank_token_id,
            "jointnet": {"joint_hidden": config.decoder_hidden_size, "activation": "relu"},
        },
        "decoding": {
            "strategy": "greedy_batch",
            "greedy": {"max_symbols": config.max_symbols_per_step},
        },
        "tokenizer": {"type": "bpe", "model_path": "nemo:0123abcd_tokenizer.model"},
    }  # fmt: skip


def sentencepiece_model(num_pieces: int) -> bytes:
    """A unigram model with the tags as pieces, trained on made-up text."""
    rng = np.random.default_rng(0)
    syllables = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
    sentences = [
        " ".join("".join(rng.choice(syllables, rng.integers(1, 4))) for _ in range(8))
        for _ in range(400)
    ]
    out = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=out, vocab_size=num_pieces,
        model_type="unigram", user_defined_symbols=TAGS, bos_id=-1, eos_id=-1, minloglevel=2,
    )  # fmt: skip
    return out.getvalue()


def save_nemo(model, path: Path, state: dict | None = None, config: dict | None = None) -> Path:
    """A .nemo archive: model_config.yaml, weights and SentencePiece model, in a tar."""
    weights = io.BytesIO()
    torch.save(nemo_state(model) if state is None else state, weights)
    text = yaml.safe_dump(nemo_yaml(model) if config is None else config)
    members = {
        "./model_config.yaml": text.encode(),
        "./model_weights.ckpt": weights.getvalue(),
        "./0123abcd_tokenizer.model": sentencepiece_model(model.config.blank_token_id),
    }
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path
