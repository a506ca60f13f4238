"""NeMo's model_config.yaml read as this package's configuration."""

from __future__ import annotations

from .config import ModelConfig, parse_config
from .errors import CheckpointError

# encoder section: NeMo's name -> config.json's
_ENCODER_NAMES = {
    "d_model": "hidden_size",
    "n_heads": "num_attention_heads",
    "n_layers": "num_hidden_layers",
    "feat_in": "num_mel_bins",
    "conv_kernel_size": "conv_kernel_size",
    "subsampling_factor": "subsampling_factor",
    "subsampling_conv_channels": "subsampling_conv_channels",
    "xscaling": "scale_input",
}
# What the architecture requires; another value would need another network.
_ENCODER_REQUIRED = {
    "self_attention_model": "rel_pos",
    "subsampling": "dw_striding",
    "causal_downsampling": True,
    "att_context_style": "chunked_limited",
    "conv_norm_type": "layer_norm",
    "conv_context_size": "causal",
    "untie_biases": True,
}
_ENCODER_IGNORED = {
    "_target_", "feat_out", "att_context_probs", "pos_emb_max_len", "dropout", "dropout_emb",
    "dropout_att", "dropout_pre_encoder", "stochastic_depth_drop_prob", "stochastic_depth_mode",
    "stochastic_depth_start_layer", "reduction", "reduction_position", "reduction_factor",
    "sync_max_audio_length", "use_pytorch_sdpa", "use_pytorch_sdpa_backends",
    "global_tokens", "global_tokens_spacing", "global_attn_separate",
}  # fmt: skip
_FEATURES_REQUIRED = {"window": "hann", "normalize": "NA", "frame_splicing": 1, "log": True}


def convert_nemo_config(
    nemo: dict, tensors: dict, where: str
) -> tuple[ModelConfig, dict[str, int]]:
    """nemo: the parsed YAML.  tensors: by Hugging Face key, for sizes the YAML does not state.

    Returns the configuration and the prompt dictionary. Raises CheckpointError naming the key.
    """
    prompt_weight = tensors.get("prompt_projector.linear_1.weight")
    if prompt_weight is None:
        raise CheckpointError(
            f"{where}: no prompt_kernel.0.weight among the weights: this is no prompt-conditioned "
            "model such as nemotron-3.5-asr-streaming-0.6b"
        )
    defaults = _section(nemo, "model_defaults", where)
    prompts = _prompts(defaults, where)
    prednet = _section(_section(nemo, "decoder", where), "prednet", where)
    joint = _section(nemo, "joint", where)
    jointnet = _section(joint, "jointnet", where)
    num_classes = joint.get("num_classes") or len(joint.get("vocabulary") or [])
    if not num_classes:
        raise CheckpointError(f"{where}: joint has neither num_classes nor vocabulary")
    if jointnet.get("joint_hidden") != prednet.get("pred_hidden"):
        raise CheckpointError(
            f"{where}: joint_hidden {jointnet.get('joint_hidden')} differs from pred_hidden "
            f"{prednet.get('pred_hidden')}"
        )
    greedy = (nemo.get("decoding") or {}).get("greedy") or {}
    max_symbols = greedy.get("max_symbols") or greedy.get("max_symbols_per_step") or 10
    config = {
        "vocab_size": num_classes + 1,
        "blank_token_id": num_classes,
        "decoder_hidden_size": prednet.get("pred_hidden"),
        "num_decoder_layers": prednet.get("pred_rnn_layers"),
        "hidden_act": jointnet.get("activation", "relu"),
        "max_symbols_per_step": max_symbols,
        "num_prompts": int(defaults["num_prompts"]),
        "prompt_intermediate_size": prompt_weight.shape[0],
        "default_prompt_id": prompts["auto"],
        "encoder_config": _encoder(_section(nemo, "encoder", where), where),
    }
    features = _features(_section(nemo, "preprocessor", where), where)
    return parse_config(config, {"feature_extractor": features}), prompts


def _prompts(defaults: dict, where: str) -> dict[str, int]:
    prompts = defaults.get("prompt_dictionary")
    if not prompts or "num_prompts" not in defaults:
        raise CheckpointError(f"{where}: no model_defaults.prompt_dictionary and num_prompts")
    # YAML 1.1 reads an unquoted `no`, Norwegian, as false.
    prompts = {"no" if key is False else str(key): int(id_) for key, id_ in prompts.items()}
    if "auto" not in prompts:
        raise CheckpointError(f"{where}: model_defaults.prompt_dictionary has no 'auto'")
    return prompts


def _encoder(section: dict, where: str) -> dict:
    _require(section, _ENCODER_REQUIRED, f"{where}: encoder")
    contexts = section.get("att_context_size")
    if not contexts:
        raise CheckpointError(f"{where}: no encoder.att_context_size")
    if not isinstance(contexts[0], list):
        contexts = [contexts]
    left = {context[0] for context in contexts}
    if len(left) != 1 or min(left) < 0:
        raise CheckpointError(f"{where}: encoder.att_context_size {contexts}: one left context "
                              "of 0 or more is supported")  # fmt: skip
    known = {*_ENCODER_NAMES, *_ENCODER_REQUIRED, *_ENCODER_IGNORED,
             "att_context_size", "use_bias", "ff_expansion_factor"}  # fmt: skip
    unknown = sorted(set(section) - known)
    if unknown:
        raise CheckpointError(
            f"{where}: encoder: unknown key {', '.join(map(repr, unknown))}; "
            f"known keys: {', '.join(sorted(known))}"
        )
    bias = bool(section.get("use_bias", True))
    return {
        **{ours: section[theirs] for theirs, ours in _ENCODER_NAMES.items() if theirs in section},
        "num_key_value_heads": section["n_heads"],
        "intermediate_size": section["d_model"] * section["ff_expansion_factor"],
        "attention_bias": bias,
        "convolution_bias": bias,
        "sliding_window": left.pop() + 1,
        "supported_num_lookahead_tokens": [context[1] for context in contexts],
        "default_num_lookahead_tokens": contexts[0][1],
    }


def _features(section: dict, where: str) -> dict:
    _require(section, _FEATURES_REQUIRED, f"{where}: preprocessor")
    rate = section["sample_rate"]
    return {
        "feature_size": section["features"],
        "n_fft": section["n_fft"],
        "win_length": round(section["window_size"] * rate),
        "hop_length": round(section["window_stride"] * rate),
        "sampling_rate": rate,
        "preemphasis": section.get("preemph", section.get("preemphasis", 0.97)),
    }


def _require(section: dict, required: dict, where: str) -> None:
    for key, value in required.items():
        if section.get(key, value) != value:
            raise CheckpointError(f"{where}.{key} is {section[key]!r}: only {value!r} is supported")


def _section(config: dict, name: str, where: str) -> dict:
    section = config.get(name)
    if not isinstance(section, dict):
        raise CheckpointError(f"{where}: no section {name!r}")
    return section
