"""A checkpoint of the published sizes with random weights that speaks about as much as a person.

The published weights cannot be had everywhere, and the speed of all but the decoder does not depend
on them. The decoder's does. Plain random weights emit nothing, or the most symbols on every frame,
and another lookahead turns one into the other. Here two units of the joint watch one fast unit of
the encoder's output: a token of the other half of the vocabulary is due whenever that unit changes
its sign, and the bias of blank, found by bisection on real features, says how far it must go for
TOKENS_PER_S. Stored in bfloat16, so that every dtype starts from the same numbers.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from nemotron_asr import Recognizer, load_checkpoint, recordings
from nemotron_asr.config import TOKEN_FRAME_MS, ModelConfig
from nemotron_asr.model import NemotronAsr

from .report import ROOT, say
from .speech import speech

TOKENS_PER_S = 3.0
DEFAULT_PATH = ROOT / "build" / "bench" / "published-random"
PROMPTS = {"en-US": 0, "de-DE": 9, "auto": 101}
CALIBRATION_S = 18.0
CALIBRATION_LOOKAHEADS = (0, 3, 13)
RESIDUAL_GAIN = 0.2  # of what a layer adds: the output follows the speech, not the layers' means
SIGN = 4.0  # deviation of the watched unit, in a joint whose other units have about 1
HALVES = 3 * SIGN  # K: so far apart that x hardly ever lies beyond both halves
_ROUNDS = 8  # of the bisection: bfloat16 has steps of 0.25 there
WINDOW = 16  # frames that are looked at together


def published_random(path: Path = DEFAULT_PATH, seed: int = 0) -> Path:
    """The checkpoint directory, made where it is not there yet: 1.3 GB, about a minute."""
    if (path / "model.safetensors").exists():
        return path
    say(f"making random weights of the published sizes in {path}")
    write_random(ModelConfig(), path, seed)
    return path


@torch.inference_mode()
def write_random(config: ModelConfig, path: Path, seed: int = 0) -> None:
    """Write a checkpoint directory of this configuration.  Needs its float32 weights in memory."""
    path.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    _write_json(path / "config.json", config_json(config))
    _write_json(path / "generation_config.json", {"decoder_start_token_id": config.blank_token_id})
    _write_json(path / "processor_config.json", processor_json(config))
    write_tokenizer(path, config.blank_token_id)
    draft = path.with_name(path.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(path, draft)  # a checkpoint to calibrate on, before the real one is complete
    weights = _random_weights(config)
    _save(weights, draft)
    audio = [speech(CALIBRATION_S, offset_s) for offset_s in (0.0, CALIBRATION_S)]
    front_end = load_checkpoint(draft, parts=())
    mels = [recordings.features(front_end, samples) for samples in audio]
    _fold_scale(weights, torch.cat(mels))
    _save(weights, draft)
    encoded = _encode(load_checkpoint(draft), audio, mels)
    encoded = _watch_fast_unit(config, weights, encoded)
    _set_blank_bias(config, weights, encoded)
    _save(weights, path)
    shutil.rmtree(draft)


def _random_weights(config: ModelConfig) -> dict[str, torch.Tensor]:
    """Float32 tensors by their published names."""
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in NemotronAsr(config).named_parameters()}
    weights = {}
    for name, shape in shapes.items():
        p = torch.empty(shape)
        if "norm" in name:
            p.fill_(1.0 if name.endswith("weight") else 0.0)
        elif len(shape) > 1:
            p.normal_(std=1.4 / p[0].numel() ** 0.5 if "embedding" not in name else 1.0)
        else:
            p.normal_(std=0.02)
        if name.endswith(("o_proj.weight", "linear2.weight", "pointwise_conv2.weight")):
            p.mul_(RESIDUAL_GAIN)
        weights[name] = p
    return weights


def _save(weights: dict[str, torch.Tensor], path: Path) -> None:
    part = path / "model.safetensors.part"
    save_file({name: p.to(torch.bfloat16) for name, p in weights.items()}, part)
    part.rename(path / "model.safetensors")  # complete from here on


def _encode(recognizer: Recognizer, audio: list, mels: list) -> list[torch.Tensor]:
    """The joint's inputs, (E, J) of each recording at each lookahead."""
    lengths = [len(samples) for samples in audio]
    prompts = [recognizer.config.default_prompt_id] * len(audio)
    return [
        f
        for lookahead in CALIBRATION_LOOKAHEADS
        for f in recordings.encode(recognizer, mels, lengths, prompts, lookahead)
    ]


def _fold_scale(weights: dict[str, torch.Tensor], mel: torch.Tensor) -> None:
    """Let the first convolution see log-mel of mean 0 and deviation 1."""
    weight = weights["encoder.subsampling.conv_in.weight"]
    std, mean = torch.std_mean(mel)
    weights["encoder.subsampling.conv_in.bias"] -= weight.sum(dim=(1, 2, 3)) * mean / std
    weight /= std


def _watch_fast_unit(
    config: ModelConfig, weights: dict[str, torch.Tensor], encoded: list[torch.Tensor]
) -> list[torch.Tensor]:
    """Joint units 0 and 1 become relu(x - Kc) and relu(Kc - x).

    x is the unit of the encoder's output that changes fastest, c the half (1 or -1, odd or even
    ids) that the last token came from. Their sum |x - Kc| works against blank, and each for the
    half of the vocabulary that x is on the side of.
    encoded: the joint's inputs as they were, (E, J) each.  Returns them as they are now.
    """
    change = torch.cat([f.diff(dim=0) for f in encoded]).std(dim=0)
    std, mean = torch.std_mean(torch.cat(encoded), dim=0)
    fast = int((change / std).argmax())
    weight, bias = weights["encoder_projector.weight"], weights["encoder_projector.bias"]
    weight /= std[:, None]
    bias.copy_((bias - mean) / std)
    weight_x, bias_x = weight[fast].clone(), bias[fast].clone()
    for unit, sign in ((0, SIGN), (1, -SIGN)):
        weight[unit], bias[unit] = sign * weight_x, sign * bias_x
    half = torch.ones(config.vocab_size)
    half[::2] = -1.0
    carried = _carry(config, weights, half)
    projector = weights["decoder.decoder_projector.weight"]
    weights["decoder.decoder_projector.bias"][:2], projector[:2] = 0.0, 0.0
    projector[0, 0], projector[1, 0] = -HALVES / carried, HALVES / carried
    head = weights["joint.head.weight"]
    head[:, 0], head[:, 1] = 2 * half, -2 * half
    head[config.blank_token_id] = 0.0
    head[config.blank_token_id, :2] = -2.0
    now = [(f - mean) / std for f in encoded]
    return [torch.cat([SIGN * f[:, [fast]], -SIGN * f[:, [fast]], f[:, 2:]], 1) for f in now]


def _carry(config: ModelConfig, weights: dict[str, torch.Tensor], half: torch.Tensor) -> float:
    """Let unit 0 of every LSTM layer be the last token's half; the magnitude that comes out."""
    width, value = config.decoder_hidden_size, 1.0
    weights["decoder.embedding.weight"][:, 0] = half
    for layer in range(config.num_decoder_layers):
        ih, hh, bias_ih, bias_hh = (
            weights[f"decoder.lstm.{kind}_l{layer}"]
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        for gate, opened in enumerate((10.0, -10.0, 0.0, 10.0)):  # input, forget, cell, output
            row = gate * width
            ih[row], hh[row], bias_ih[row], bias_hh[row] = 0.0, 0.0, opened, 0.0
        ih[2 * width, 0] = 1.0
        value = float(np.tanh(np.tanh(value)))
    return value


def _set_blank_bias(
    config: ModelConfig, weights: dict[str, torch.Tensor], encoded: list[torch.Tensor]
) -> None:
    """Bisect the bias that lets about TOKENS_PER_S out."""
    decoder = _Decoder(config, weights)
    seconds = sum(map(len, encoded)) * TOKEN_FRAME_MS / 1000
    low, high = 4 * HALVES, 4 * HALVES + 24  # the more bias, the fewer tokens
    for _ in range(_ROUNDS):
        bias = torch.tensor((low + high) / 2).bfloat16()
        weights["joint.head.bias"][config.blank_token_id] = bias
        rate = sum(map(decoder.count_tokens, encoded)) / seconds
        low, high = ((low + high) / 2, high) if rate > TOKENS_PER_S else (low, (low + high) / 2)
    say(f"{rate:.2f} tokens a second with a bias of {float(bias):.3f} for blank")


class _Decoder:
    """Greedy RNN-T in float32, for one recording at a time."""

    def __init__(self, config: ModelConfig, weights: dict[str, torch.Tensor]):
        width = config.decoder_hidden_size
        self._config = config
        self._weights = weights
        self._lstm = torch.nn.LSTM(width, width, config.num_decoder_layers)
        prefix = "decoder.lstm."
        lstm = {n.removeprefix(prefix): p for n, p in weights.items() if n.startswith(prefix)}
        self._lstm.load_state_dict(lstm)

    def count_tokens(self, encoded: torch.Tensor) -> int:
        """encoded: (E, J).  Returns the number of tokens."""
        weight, bias = self._weights["joint.head.weight"], self._weights["joint.head.bias"]
        blank, most = self._config.blank_token_id, self._config.max_symbols_per_step
        g, state = self._predict(blank, None)
        at = symbols = tokens = 0
        while at < len(encoded):
            ids = F.linear(torch.relu(encoded[at : at + WINDOW] + g), weight, bias).argmax(1)
            skipped = next((i for i, id_ in enumerate(ids.tolist()) if id_ != blank), None)
            if skipped is None:
                at, symbols = at + WINDOW, 0
                continue
            symbols = 1 if skipped else symbols + 1
            at, tokens = at + skipped, tokens + 1
            g, state = self._predict(int(ids[skipped]), state)
            if symbols == most:
                at, symbols = at + 1, 0
        return tokens

    def _predict(self, id_: int, state):
        w = self._weights
        out, state = self._lstm(w["decoder.embedding.weight"][id_][None], state)
        projected = torch.mv(w["decoder.decoder_projector.weight"], out[0])
        return projected + w["decoder.decoder_projector.bias"], state


def config_json(config: ModelConfig) -> dict:
    """config.json as `transformers` writes it."""
    fields = dataclasses.asdict(config)
    encoder = {**fields.pop("encoder"), "model_type": "nemotron_asr_streaming_encoder"}
    del fields["features"]
    return {
        **fields,
        "architectures": ["Nemotron3_5AsrForRNNT"],
        "model_type": "nemotron3_5_asr",
        "is_encoder_decoder": True,
        "pad_token_id": 0,
        "encoder_config": encoder,
    }


def processor_json(config: ModelConfig) -> dict:
    features = {
        **dataclasses.asdict(config.features),
        "feature_extractor_type": "NemotronAsrStreamingFeatureExtractor",
        "return_attention_mask": True,
    }
    return {
        "feature_extractor": features,
        "num_prompts": config.num_prompts,
        "processor_class": "Nemotron3_5AsrProcessor",
        "prompt_dictionary": PROMPTS,
    }


def write_tokenizer(directory: Path, num_pieces: int) -> None:
    """tokenizer.json: made-up pieces, every other one begins a word."""
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(letters[[i // 676 % 26, i // 26 % 26, i % 26]]) for i in range(num_pieces)]
    pieces = ["<unk>", "<en-US>"]
    pieces += [("▁" if i % 2 else "") + words[i] for i in range(2, num_pieces)]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<pad>", "<en-US>")])
    tokenizer.save(str(directory / "tokenizer.json"))


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
