"""Write the trained model in the Hugging Face layout, and what to measure it on.

python export.py build/speech build/speech_run checkpoints/demo
asr bench wer build/evaluation/*.jsonl
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from data import AUTO, PAUSE, PROMPTS, load_evaluation
from evaluate import by_language
from safetensors.torch import save_file
from tokenizer import load_tokenizer, save_tokenizer
from trainee import BLANK, Trainee, demo_config

from nemotron_asr.config import ModelConfig

PROMPT_IDS = {  # the published ids
    "auto": AUTO, **PROMPTS, "cs": 22, "de": 9, "en": 0, "es": 3, "fr": 8, "it": 15, "nl": 16,
    "pt-BR": 12, "ru": 11,
}  # fmt: skip
MAX_BYTES = 16_000_000


def checkpoint_tensors(model: Trainee) -> dict[str, torch.Tensor]:
    """The state under Hugging Face's keys, float16, without the CTC head.

    The feature normalisation goes into the first convolution; prompts that were never trained get
    the weights of `auto`, so that they are harmless.
    """
    state = dict(model.net.state_dict())
    weight, bias = model.net.encoder.subsampling.conv_in.folded()
    state["encoder.subsampling.conv_in.weight"] = weight
    state["encoder.subsampling.conv_in.bias"] = bias
    linear = state["prompt_projector.linear_1.weight"].clone()
    width = model.net.config.encoder.hidden_size
    for prompt in set(range(model.net.config.num_prompts)) - {AUTO, *PROMPTS.values()}:
        linear[:, width + prompt] = linear[:, width + AUTO]
    state["prompt_projector.linear_1.weight"] = linear
    return {key: value.detach().half().contiguous() for key, value in state.items()}


def hugging_face_configs(config: ModelConfig) -> dict[str, dict]:
    """The JSON files beside the weights, by name."""
    encoder = {
        **dataclasses.asdict(config.encoder),
        "activation_dropout": 0.1,
        "attention_dropout": 0.1,
        "dropout": 0.1,
        "dropout_positions": 0.0,
        "initializer_range": 0.02,
        "layerdrop": 0.1,
        "max_position_embeddings": 5000,
        "model_type": "nemotron_asr_streaming_encoder",
    }
    own = dataclasses.asdict(config)
    del own["encoder"], own["features"]
    model = {
        "architectures": ["Nemotron3_5AsrForRNNT"],
        **own,
        "dtype": "float16",
        "durations": [],
        "encoder_config": dict(sorted(encoder.items())),
        "initializer_range": 0.02,
        "is_encoder_decoder": True,
        "model_type": "nemotron3_5_asr",
        "pad_token_id": 0,
        "transformers_version": "5.13.0.dev0",
    }
    features = {
        **dataclasses.asdict(config.features),
        "feature_extractor_type": "NemotronAsrStreamingFeatureExtractor",
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
    }
    shared = {
        "default_num_lookahead_tokens": config.encoder.default_num_lookahead_tokens,
        "supported_num_lookahead_tokens": list(config.encoder.supported_num_lookahead_tokens),
    }
    processor = {
        "blank_token": "<blank>",
        **shared,
        "feature_extractor": dict(sorted(features.items())),
        "num_prompts": config.num_prompts,
        "processor_class": "Nemotron3_5AsrProcessor",
        "prompt_dictionary": PROMPT_IDS,
    }
    generation = {
        "_from_model_config": True,
        "decoder_start_token_id": BLANK,
        "output_attentions": False,
        "output_hidden_states": False,
        "pad_token_id": 0,
        "transformers_version": "5.13.0.dev0",
    }
    return {"config": model, "processor_config": processor, "generation_config": generation}


def write_checkpoint(run: Path, out: Path) -> None:
    """The averaged weights of the cool-down where there is one, else of the last save."""
    files = [run / "cooled.pt", run / "last.pt"]
    saved = torch.load(next(f for f in files if f.exists()), map_location="cpu")
    config = demo_config()
    model = Trainee(config)
    model.load_state_dict(saved["average"])
    save_tokenizer(load_tokenizer(run), out)
    for name, content in hugging_face_configs(config).items():
        (out / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    tensors = checkpoint_tensors(model)
    file = out / "model.safetensors"
    save_file(tensors, file, metadata={"format": "pt"})
    file.chmod(0o644)
    size = file.stat().st_size
    print(f"{len(tensors)} tensors, {size:,} bytes in {out}, step {saved['step']}", flush=True)
    assert size <= MAX_BYTES


def write_evaluation(data: Path, run: Path, out: Path) -> None:
    """The evaluation sets as manifests for `asr bench`, one a language, with silence around."""
    out.mkdir(parents=True, exist_ok=True)
    sets = by_language(load_evaluation(data, load_tokenizer(run)))
    for name, sentences in sets.items():
        start = 0
        with (out / f"{name}.jsonl").open("w") as rows, (out / f"{name}.pcm").open("wb") as audio:
            for s in sentences:
                samples = np.pad(s.samples, PAUSE)
                row = {"text": s.text, "language": s.language, "voice": s.voice, "start": start}
                row["num_samples"] = len(samples)
                rows.write(json.dumps(row, ensure_ascii=False) + "\n")
                audio.write(samples.astype("<i2").tobytes())
                start += len(samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=Path("build/speech"))
    parser.add_argument("run", type=Path, nargs="?", default=Path("build/speech_run"))
    parser.add_argument("out", type=Path, nargs="?", default=Path("checkpoints/demo"))
    parser.add_argument("--evaluation", type=Path, default=Path("build/evaluation"))
    args = parser.parse_args()
    write_checkpoint(args.run, args.out)
    write_evaluation(args.data, args.run, args.evaluation)


if __name__ == "__main__":
    main()
