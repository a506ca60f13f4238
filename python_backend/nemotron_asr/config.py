"""Sizes of the model, read from a checkpoint's config.json and processor_config.json.

Axes used in every shape of this package:
    B batch    T mel frames (10 ms)    M mel bands    E encoder frames (80 ms)    D model width
    H heads    C cached frames (left context)    J joint width    L layers    N slots    U tokens
    V vocabulary
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from .errors import CheckpointError

SAMPLE_RATE = 16_000
HOP = 160  # samples per mel frame
SUBSAMPLING = 8  # mel frames per encoder frame: three convolutions of stride 2
TOKEN_FRAME_SAMPLES = HOP * SUBSAMPLING  # 1280 samples per encoder frame
TOKEN_FRAME_MS = 1000 * TOKEN_FRAME_SAMPLES // SAMPLE_RATE  # 80 ms per encoder frame

# A chunk of r + 1 encoder frames can be decoded once its last frame is heard.
LOOKAHEAD_BY_LATENCY_MS = {(r + 1) * TOKEN_FRAME_MS: r for r in (0, 1, 3, 6, 13)}
LOOKAHEADS = tuple(LOOKAHEAD_BY_LATENCY_MS.values())


@dataclass(frozen=True)
class FeatureConfig:
    """The front end; the published checkpoint's values are the defaults."""

    feature_size: int = 128
    n_fft: int = 512
    win_length: int = 400
    preemphasis: float = 0.97
    sampling_rate: int = SAMPLE_RATE
    hop_length: int = HOP

    def __post_init__(self):
        _check_numbers(self, "feature_extractor")
        fixed = {"sampling_rate": SAMPLE_RATE, "hop_length": HOP, "n_fft": 512, "win_length": 400}
        _check_fixed(self, "feature_extractor", fixed)


@dataclass(frozen=True)
class EncoderConfig:
    """Cache-aware FastConformer; names as in the published config.json, its values as defaults."""

    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 8
    num_key_value_heads: int = 8
    intermediate_size: int = 4096
    num_mel_bins: int = 128
    conv_kernel_size: int = 9
    subsampling_conv_channels: int = 256
    subsampling_conv_kernel_size: int = 3
    subsampling_conv_stride: int = 2
    subsampling_factor: int = SUBSAMPLING
    sliding_window: int = 57  # the left context and the frame itself
    attention_bias: bool = False
    convolution_bias: bool = False
    scale_input: bool = False
    hidden_act: str = "silu"
    default_num_lookahead_tokens: int = 3
    supported_num_lookahead_tokens: tuple[int, ...] = (3, 0, 6, 13)

    def __post_init__(self):
        fixed = {
            "subsampling_conv_kernel_size": 3,
            "subsampling_conv_stride": 2,
            "subsampling_factor": SUBSAMPLING,
            "hidden_act": "silu",
        }
        _check_numbers(self, "encoder_config")
        _check_fixed(self, "encoder_config", fixed)
        supported = (*self.supported_num_lookahead_tokens, self.default_num_lookahead_tokens)
        for lookahead in supported:
            if lookahead not in LOOKAHEADS:
                raise CheckpointError(
                    f"encoder_config: lookahead {lookahead!r} is not supported; "
                    f"valid: {', '.join(map(str, LOOKAHEADS))}"
                )
        if self.hidden_size % self.num_attention_heads:
            raise CheckpointError(
                f"encoder_config.hidden_size {self.hidden_size} is not a multiple of "
                f"num_attention_heads {self.num_attention_heads}"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise CheckpointError(
                f"encoder_config.num_attention_heads {self.num_attention_heads} is not a multiple "
                f"of num_key_value_heads {self.num_key_value_heads}"
            )

    @property
    def left_context(self) -> int:
        """Encoder frames of the past that attention sees, C."""
        return self.sliding_window - 1

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def subsampled_bins(self) -> tuple[int, int, int]:
        """Frequency bins after each subsampling stage: n -> n // 2 + 1 (128 -> 65 -> 33 -> 17)."""
        first = self.num_mel_bins // 2 + 1
        second = first // 2 + 1
        return first, second, second // 2 + 1


@dataclass(frozen=True)
class ModelConfig:
    """The whole model; names as in the published config.json, its values as defaults."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    vocab_size: int = 13088  # the pieces and blank
    blank_token_id: int = 13087
    decoder_hidden_size: int = 640
    num_decoder_layers: int = 2
    hidden_act: str = "relu"
    max_symbols_per_step: int = 10
    num_prompts: int = 128
    prompt_intermediate_size: int = 2048
    default_prompt_id: int = 101

    def __post_init__(self):
        _check_numbers(self, "config.json", zero_allowed=("blank_token_id", "default_prompt_id"))
        _check_fixed(self, "config.json", {"hidden_act": "relu"})
        if not 0 <= self.blank_token_id < self.vocab_size:
            raise CheckpointError(
                f"blank_token_id {self.blank_token_id} is outside vocab_size {self.vocab_size}"
            )
        if not 0 <= self.default_prompt_id < self.num_prompts:
            raise CheckpointError(
                f"default_prompt_id {self.default_prompt_id} is outside num_prompts "
                f"{self.num_prompts}"
            )
        if self.features.feature_size != self.encoder.num_mel_bins:
            raise CheckpointError(
                f"feature_extractor.feature_size {self.features.feature_size} differs from "
                f"encoder_config.num_mel_bins {self.encoder.num_mel_bins}"
            )


# Keys that say nothing about inference: training, bookkeeping, or the reference's own limits.
_IGNORED = {
    "architectures", "dtype", "torch_dtype", "durations", "initializer_range", "is_encoder_decoder",
    "model_type", "pad_token_id", "transformers_version", "encoder_config", "_name_or_path",
    "return_dict", "output_hidden_states", "output_attentions", "id2label", "label2id",
    "problem_type", "chunk_size_feed_forward", "tie_word_embeddings", "use_cache",
}  # fmt: skip
_IGNORED_ENCODER = _IGNORED | {
    "activation_dropout", "attention_dropout", "dropout", "dropout_positions", "layerdrop",
    "max_position_embeddings", "head_dim",
}  # fmt: skip
_IGNORED_FEATURES = {
    "feature_extractor_type", "padding_side", "padding_value", "return_attention_mask",
    "mel_filters_dtype", "processor_class",
}  # fmt: skip
# What the reference's classes assume where a config.json does not say (its defaults differ from
# the published values).
_REFERENCE_ENCODER_DEFAULTS = {
    "num_mel_bins": 80, "attention_bias": True, "convolution_bias": True, "scale_input": True,
    "sliding_window": 71, "default_num_lookahead_tokens": 13,
    "supported_num_lookahead_tokens": LOOKAHEADS,
}  # fmt: skip


def parse_config(config: dict, processor: dict | None = None) -> ModelConfig:
    """Read the contents of config.json and processor_config.json (Hugging Face layout).

    Raises CheckpointError for an unknown key, naming the known ones, and for unsupported values.
    """
    config = _section(config, "config.json")
    section = _section(config.get("encoder_config") or {}, "config.json: encoder_config")
    encoder = _read(
        EncoderConfig,
        {**_REFERENCE_ENCODER_DEFAULTS, **_without_none(section)},
        "config.json: encoder_config",
        _IGNORED_ENCODER,
    )
    if processor is None:
        features = FeatureConfig(feature_size=encoder.num_mel_bins)
    else:
        where = "processor_config.json: feature_extractor"
        section = _section(_section(processor, where).get("feature_extractor", {}), where)
        if section.get("mel_filters_dtype", "float32") != "float32":
            raise CheckpointError(
                f"{where}.mel_filters_dtype is {section['mel_filters_dtype']!r}: "
                "only 'float32' is supported"
            )
        features = _read(FeatureConfig, section, where, _IGNORED_FEATURES)
    return _read(ModelConfig, config, "config.json", _IGNORED, encoder=encoder, features=features)


def _section(value, where: str) -> dict:
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: expected an object, found {type(value).__name__}")
    return value


def _without_none(section: dict) -> dict:
    return {key: value for key, value in section.items() if value is not None}


def _check_fixed(config, where: str, fixed: dict) -> None:
    for name, only in fixed.items():
        if getattr(config, name) != only:
            raise CheckpointError(
                f"{where}.{name} is {getattr(config, name)!r}: only {only!r} is supported"
            )


def _check_numbers(config, where: str, zero_allowed=("default_num_lookahead_tokens",)) -> None:
    """Every int field is an int of 1 or more, every bool a bool."""
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if f.type == "bool" and not isinstance(value, bool):
            raise CheckpointError(f"{where}.{f.name} is {value!r}: valid are true and false")
        if f.type == "int":
            least = 0 if f.name in zero_allowed else 1
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise CheckpointError(f"{where}.{f.name} is {value!r}: valid: {least} or more")


def _read(cls, section: dict, where: str, ignored: set[str], **given):
    known = {f.name for f in dataclasses.fields(cls)} - set(given)
    unknown = sorted(set(section) - known - ignored)
    if unknown:
        raise CheckpointError(
            f"{where}: unknown key {', '.join(map(repr, unknown))}; "
            f"known keys: {', '.join(sorted(known | ignored))}"
        )
    values = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in section.items()
        if key in known
    }
    return cls(**values, **given)
