"""Checkpoints: a Hugging Face directory or a NeMo archive, loaded strictly."""

from __future__ import annotations

import json
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml
from safetensors import SafetensorError, safe_open

from .confidence import read_calibration
from .config import ModelConfig, parse_config
from .errors import CheckpointError
from .layers import Int8Linear, compute_dtype
from .model import NemotronAsr
from .nemo_config import convert_nemo_config
from .options import AUTO
from .recognizer import Recognizer
from .settings import DEVICES, DTYPES
from .tokenizer import pieces_from_sentencepiece, pieces_from_tokenizer_json

PARTS = ("encoder", "prompt_projector", "encoder_projector", "decoder", "joint")

# NeMo's parameter names to the Hugging Face ones, applied in this order.
_NEMO_KEYS = [
    (re.compile(pattern), name)
    for pattern, name in [
        (r"^encoder\.pre_encode\.conv\.0\.", "encoder.subsampling.conv_in."),
        (r"^encoder\.pre_encode\.conv\.2\.", "encoder.subsampling.layers.0.depthwise_conv."),
        (r"^encoder\.pre_encode\.conv\.3\.", "encoder.subsampling.layers.0.pointwise_conv."),
        (r"^encoder\.pre_encode\.conv\.5\.", "encoder.subsampling.layers.1.depthwise_conv."),
        (r"^encoder\.pre_encode\.conv\.6\.", "encoder.subsampling.layers.1.pointwise_conv."),
        (r"^encoder\.pre_encode\.out\.", "encoder.subsampling.linear."),
        (r"\.conv\.batch_norm\.", ".conv.norm."),  # a LayerNorm, whatever its name
        (r"\.self_attn\.linear_([qkv])\.", r".self_attn.\1_proj."),
        (r"\.self_attn\.linear_out\.", ".self_attn.o_proj."),
        (r"\.self_attn\.linear_pos\.", ".self_attn.relative_k_proj."),
        (r"\.self_attn\.pos_bias_([uv])$", r".self_attn.bias_\1"),
        (r"^prompt_kernel\.0\.", "prompt_projector.linear_1."),
        (r"^prompt_kernel\.2\.", "prompt_projector.linear_2."),
        (r"^decoder\.prediction\.embed\.", "decoder.embedding."),
        (r"^decoder\.prediction\.dec_rnn\.lstm\.", "decoder.lstm."),
        (r"^joint\.enc\.", "encoder_projector."),
        (r"^joint\.pred\.", "decoder.decoder_projector."),
        (r"^joint\.joint_net\.2\.", "joint.head."),
    ]
]
_FLOAT32 = ("prompt_projector.", "encoder_projector.")  # in every dtype of the model
_NEMO_DROPPED = ("preprocessor.", "ctc_decoder.", "encoder.pos_enc.")


def load_checkpoint(
    path: str | Path,
    device: str = "cpu",
    dtype: str = "float32",
    parts: Iterable[str] = PARTS,
) -> Recognizer:
    """Load a model for inference.

    path: a directory with config.json, model.safetensors, processor_config.json and
        tokenizer.json, and maybe confidence.json; or a `.nemo` archive, of which nothing is
        unpickled but tensors.
    device: "cpu", "cuda", "cuda:1", ..., or "auto": a GPU where there is one.
    dtype: float32, bfloat16, float16 (GPU), or int8 (CPU): weights in int8, the rest in float32.
    parts: which parts of the network to load; the others stay empty and must not be called.
    Raises CheckpointError naming the file and the key for anything missing, extra or misshapen,
    also in parts that are not loaded.
    """
    path = Path(path)
    if dtype not in DTYPES:
        raise CheckpointError(f"dtype {dtype!r} is not supported; valid: {', '.join(DTYPES)}")
    on = resolve_device(device)
    _check_dtype(dtype, on)
    kind = compute_dtype(dtype)
    if path.is_dir():
        read = _read_huggingface
    elif path.is_file():
        read = _read_nemo
    else:
        raise CheckpointError(f"{path}: no such checkpoint directory or .nemo file")
    with _named_errors(path), read(path) as (config, prompts, pieces, shapes, tensor, where):
        _check_prompts(prompts, config, path)
        with torch.device("meta"):
            net = NemotronAsr(config)
        _check_shapes(net, shapes, where)
        wanted = {
            key: tensor(key).to(on, torch.float32 if key.startswith(_FLOAT32) else kind)
            for key in net.state_dict()
            if key.partition(".")[0] in set(parts)
        }
        net.load_state_dict(wanted, strict=False, assign=True)
    recognizer = Recognizer(net.prepare(dtype), pieces, prompts, path.name, on, kind)
    recognizer.calibration = read_calibration(path)
    return recognizer


def _check_dtype(dtype: str, device: torch.device) -> None:
    """Raises CheckpointError for one that the device does not compute in."""
    if dtype == "int8" and (device.type != "cpu" or not Int8Linear.is_supported()):
        raise CheckpointError(
            f"dtype 'int8' needs a CPU with VNNI and a torch with oneDNN; device: {device}; "
            f"valid here: {', '.join(d for d in DTYPES if d != 'int8')}"
        )
    if dtype == "float16" and device.type == "cpu":
        raise CheckpointError(
            "dtype 'float16' needs a GPU; valid on a CPU: float32, bfloat16, int8"
        )


def resolve_device(device: str) -> torch.device:
    """ "auto" means a GPU where there is one. Raises CheckpointError for an unusable device."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise CheckpointError(
            f"device {device!r} is not one; valid: {', '.join(DEVICES)}"
        ) from error
    if resolved.type not in ("cpu", "cuda"):
        raise CheckpointError(f"device {device!r} is not supported; valid: {', '.join(DEVICES)}")
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise CheckpointError(f"device {device!r}: there is no GPU here; valid: auto, cpu")
    return resolved


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Content of an unexpected kind, deep in a file, still names the checkpoint."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ZeroDivisionError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path}: malformed: {type(error).__name__}: {error}") from error


# What reading a layout yields: config, prompt dictionary, pieces, the shape of each tensor by key,
# a way to read one, and the name of the file that holds them.
_Contents = tuple[
    ModelConfig, dict, list, dict[str, tuple], Callable[[str], torch.Tensor], str
]  # fmt: skip


@contextmanager
def _read_huggingface(directory: Path) -> Iterator[_Contents]:
    processor = _read_json(directory / "processor_config.json")
    config = parse_config(_read_json(directory / "config.json"), processor)
    prompts = processor.get("prompt_dictionary")
    if not prompts:
        raise CheckpointError(f"{directory / 'processor_config.json'}: no prompt_dictionary")
    tokenizer = _existing(directory / "tokenizer.json")
    pieces = pieces_from_tokenizer_json(tokenizer, _num_pieces(config))
    weights = _existing(directory / "model.safetensors")
    try:
        with safe_open(weights, framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            yield config, prompts, pieces, shapes, file.get_tensor, str(weights)
    except SafetensorError as error:
        raise CheckpointError(f"{weights}: not a safetensors file: {error}") from error


@contextmanager
def _read_nemo(archive: Path) -> Iterator[_Contents]:
    with tempfile.TemporaryDirectory() as directory:
        try:
            with tarfile.open(archive) as tar:
                members = {Path(m.name).name: m for m in tar.getmembers() if m.isfile()}
                config_file = _unpack(tar, members, "model_config.yaml", directory, archive)
                nemo = yaml.safe_load(config_file.read_text())
                tokenizer_name = _nemo_tokenizer_name(nemo, archive)
                tokenizer = _unpack(tar, members, tokenizer_name, directory, archive)
                weights = _unpack(tar, members, "model_weights.ckpt", directory, archive)
        except tarfile.TarError as error:
            raise CheckpointError(f"{archive}: not a .nemo archive: {error}") from error
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch raises several kinds
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{archive}: model_weights.ckpt: {reason}") from error
        tensors = {
            _huggingface_key(key): value
            for key, value in state.items()
            if not key.startswith(_NEMO_DROPPED)
        }
        config, prompts = convert_nemo_config(nemo, tensors, f"{archive}: model_config.yaml")
        pieces = pieces_from_sentencepiece(
            tokenizer, _num_pieces(config), f"{archive}: {tokenizer_name}"
        )
        shapes = {key: tuple(value.shape) for key, value in tensors.items()}
        # Copies, so that nothing keeps the unpacked file mapped.
        yield config, prompts, pieces, shapes, lambda key: tensors[key].clone(), str(archive)


def _huggingface_key(key: str) -> str:
    for pattern, name in _NEMO_KEYS:
        key = pattern.sub(name, key)
    return key


def _unpack(tar, members: dict, name: str, directory: str, archive: Path) -> Path:
    """Copy one member out under its bare name: nothing in an archive chooses where it lands."""
    if name not in members:
        raise CheckpointError(f"{archive}: no {name}; it has {', '.join(sorted(members))}")
    target = Path(directory) / name
    with tar.extractfile(members[name]) as source, target.open("wb") as out:
        while block := source.read(1 << 24):
            out.write(block)
    return target


def _nemo_tokenizer_name(nemo: dict, archive: Path) -> str:
    model_path = str((nemo.get("tokenizer") or {}).get("model_path", ""))
    name = Path(model_path.removeprefix("nemo:")).name
    if not name:
        raise CheckpointError(f"{archive}: model_config.yaml: no tokenizer.model_path")
    return name


def _num_pieces(config: ModelConfig) -> int:
    if config.blank_token_id != config.vocab_size - 1:
        raise CheckpointError(
            f"blank_token_id {config.blank_token_id} is not the last of vocab_size "
            f"{config.vocab_size}: only {config.vocab_size - 1} is supported"
        )
    return config.blank_token_id


def _check_shapes(net: NemotronAsr, shapes: dict[str, tuple], where: str) -> None:
    expected = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    problems = [f"missing tensor {key!r}" for key in sorted(expected.keys() - shapes.keys())]
    problems += [f"unexpected tensor {key!r}" for key in sorted(shapes.keys() - expected.keys())]
    problems += [
        f"tensor {key!r} has shape {shapes[key]}, expected {shape}"
        for key, shape in sorted(expected.items())
        if key in shapes and shapes[key] != shape
    ]
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(f"{where}: {'; '.join(problems[:5])}{more}")


def _check_prompts(prompts: dict, config: ModelConfig, path: Path) -> None:
    if not isinstance(prompts, dict):
        raise CheckpointError(f"{path}: prompt_dictionary is {prompts!r}: expected an object")
    for language, prompt in prompts.items():
        if not (isinstance(prompt, int) and 0 <= prompt < config.num_prompts):
            raise CheckpointError(
                f"{path}: prompt_dictionary[{language!r}] is {prompt!r}: "
                f"valid are 0 to {config.num_prompts - 1}"
            )
    if prompts.setdefault(AUTO, config.default_prompt_id) != config.default_prompt_id:
        raise CheckpointError(
            f"{path}: prompt_dictionary['auto'] is {prompts[AUTO]}, but default_prompt_id is "
            f"{config.default_prompt_id}"
        )


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; a checkpoint directory has config.json, model.safetensors, "
            "processor_config.json and tokenizer.json"
        )
    return path


def _read_json(path: Path) -> dict:
    try:
        return json.loads(_existing(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
