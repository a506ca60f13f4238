"""Write the trained model in the Hugging Face layout, and measure it.

python export.py build/demo_data build/demo_run ../../checkpoints/demo
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from data import PROMPTS, Clips, load_sentences
from safetensors.torch import save_file
from tokenizer import make_tokenizer, save_tokenizer
from train import BLANK, Trainee, demo_config, word_error_rate

from nemotron_asr.config import LOOKAHEADS, ModelConfig
from nemotron_asr.features import LogMel

AUTO = 101
PROMPT_IDS = {  # the published ids
    "auto": AUTO, "cs": 22, "cs-CZ": 22, "de": 9, "de-DE": 9, "en": 0, "en-GB": 1, "en-US": 0,
    "es": 3, "es-ES": 2, "es-US": 3, "fr": 8, "fr-FR": 8, "it": 15, "it-IT": 15, "nl": 16,
    "nl-NL": 16, "pt-BR": 12, "ru": 11, "ru-RU": 11,
}  # fmt: skip


def checkpoint_tensors(model: Trainee) -> dict[str, torch.Tensor]:
    """The state under Hugging Face's keys, float16, without the CTC head.

    The feature normalisation goes into the first convolution; prompts that were never trained get
    the weights of `auto`, so that they are harmless.
    """
    conv = model.net.encoder.subsampling.conv_in
    state = dict(model.net.state_dict())
    weight, bias = conv.folded()
    state["encoder.subsampling.conv_in.weight"] = weight
    state["encoder.subsampling.conv_in.bias"] = bias
    linear = state["prompt_projector.linear_1.weight"].clone()
    width = model.net.config.encoder.hidden_size
    for prompt in set(range(model.net.config.num_prompts)) - set(PROMPTS):
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


def measure(model: Trainee, data: Path, tokenizer, limit: int) -> None:
    """Print WER tables over `limit` sentences of a part, for each lookahead."""
    parts = load_sentences(data, tokenizer)
    sets = {"unheard text": parts["text"]}
    for engine in sorted({s.engine for s in parts["voice"]}):
        sets[f"unheard voice, {engine}"] = [s for s in parts["voice"] if s.engine == engine]
    print("| set | words |", " | ".join(f"{80 * (r + 1)} ms" for r in LOOKAHEADS), "|")
    for name, sentences in sets.items():
        sentences = sentences[:: max(1, len(sentences) // limit)][:limit]
        words = sum(len(s.text.split()) for s in sentences)
        clips = Clips(LogMel(model.net.config.features), 0)
        rates = [word_error_rate(model, clips, sentences, r, tokenizer) for r in LOOKAHEADS]
        cells = " | ".join(f"{wer:.1f} %" for wer, _ in rates)
        print(f"| {name} | {words} | {cells} |", flush=True)
        for reference, text in rates[3][1][:4]:
            print(f"    {reference}\n    {text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=Path("build/demo_data"))
    parser.add_argument("run", type=Path, nargs="?", default=Path("build/demo_run"))
    parser.add_argument("out", type=Path, nargs="?", default=Path("checkpoints/demo"))
    parser.add_argument("--limit", type=int, default=400, help="sentences a set; 0 for no measure")
    args = parser.parse_args()
    config, tokenizer = demo_config(), make_tokenizer()
    model = Trainee(config)
    model.load_state_dict(torch.load(args.run / "last.pt")["model"])
    save_tokenizer(tokenizer, args.out)
    for name, content in hugging_face_configs(config).items():
        (args.out / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    tensors = checkpoint_tensors(model)
    save_file(tensors, args.out / "model.safetensors", metadata={"format": "pt"})
    size = (args.out / "model.safetensors").stat().st_size
    print(f"{len(tensors)} tensors, {size:,} bytes in {args.out}")
    if args.limit:
        measure(model, args.data, tokenizer, args.limit)


if __name__ == "__main__":
    main()
