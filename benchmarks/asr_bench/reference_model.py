"""The reference implementation in `transformers`, on the same checkpoint, for comparison."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from transformers import (
    Nemotron3_5AsrConfig,
    Nemotron3_5AsrForRNNT,
    NemotronAsrStreamingFeatureExtractor,
)

from nemotron_asr.config import FeatureConfig


def load_reference(
    path: Path, weights: dict[str, torch.Tensor], dtype: torch.dtype, device: torch.device
) -> Nemotron3_5AsrForRNNT:
    """The reference model of a Hugging Face checkpoint directory.

    weights: its tensors; those that already have the dtype and device are shared, not copied.
    """
    config = Nemotron3_5AsrConfig(**json.loads((path / "config.json").read_text()))
    with torch.device("meta"):
        model = Nemotron3_5AsrForRNNT(config)
    model.load_state_dict(
        {key: value.to(device=device, dtype=dtype) for key, value in weights.items()}, assign=True
    )
    for module in model.modules():  # not in the state: made again, off the meta device
        if hasattr(module, "compute_default_relative_positional_parameters"):
            made = module.compute_default_relative_positional_parameters(config.encoder_config)
            module.inv_freq = made.to(device)
    model.generation_config.decoder_start_token_id = config.blank_token_id
    model.generation_config.pad_token_id = config.pad_token_id
    return model.eval().requires_grad_(False)


def reference_extractor(features: FeatureConfig) -> NemotronAsrStreamingFeatureExtractor:
    return NemotronAsrStreamingFeatureExtractor(feature_size=features.feature_size)


class ReferenceStream:
    """The reference's encoder in steady state: chunk after chunk with its own caches."""

    def __init__(self, model: Nemotron3_5AsrForRNNT, lookahead: int, prompt_id: int):
        self._model = model
        self._lookahead = lookahead
        self._prompt_id = prompt_id
        self._caches = {}

    @torch.inference_mode()
    def step(self, mel: torch.Tensor) -> torch.Tensor:
        """mel: (B, T, M) of the next chunk or chunks; the first has 7 frames less.

        Returns the joint's input, (B, E, J).
        """
        out = self._model.get_audio_features(
            input_features=mel.to(self._model.dtype),
            num_lookahead_tokens=self._lookahead,
            prompt_ids=torch.full((len(mel),), self._prompt_id, device=mel.device),
            use_cache=True,
            output_attention_mask=False,
            **self._caches,
        )
        self._caches = {
            "past_key_values": out.past_key_values,
            "padding_cache": out.padding_cache,
        }
        return out.pooler_output


@torch.inference_mode()
def reference_transcribe(
    model: Nemotron3_5AsrForRNNT,
    extractor: NemotronAsrStreamingFeatureExtractor,
    samples: np.ndarray,
    lookahead: int,
    prompt_id: int,
) -> list[int]:
    """`generate()` on a whole recording, front end included.  Returns the ids without blanks."""
    inputs = extractor([samples], sampling_rate=16_000, return_tensors="pt")
    out = model.generate(
        input_features=inputs.input_features.to(device=model.device, dtype=model.dtype),
        attention_mask=inputs.attention_mask.to(model.device),
        num_lookahead_tokens=lookahead,
        prompt_ids=torch.tensor([prompt_id], device=model.device),
        max_new_tokens=100 * len(samples) // 16_000 + 1000,
        return_dict_in_generate=True,
    )
    return [id_ for id_ in out.sequences[0].tolist() if id_ != model.config.blank_token_id]
