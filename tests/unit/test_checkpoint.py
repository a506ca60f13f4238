"""Both layouts load to the same model; anything wrong is named."""

from __future__ import annotations

import io
import json
import shutil
import tarfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import reference
from nemotron_asr import CheckpointError, load_checkpoint, recordings
from nemotron_asr.layers import Int8Linear

AUDIO = [reference.speech_like(40_000, 5)]


@pytest.fixture
def directory(checkpoints, tmp_path):
    """A copy of the tiny checkpoint to break."""
    return shutil.copytree(checkpoints("tiny"), tmp_path / "checkpoint")


@pytest.fixture(scope="module")
def nemo(references, tmp_path_factory):
    return reference.save_nemo(references("tiny"), tmp_path_factory.mktemp("nemo") / "model.nemo")


def edit(path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_weights(directory, change) -> None:
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def refusal(path, **kwargs) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, **kwargs)
    return str(caught.value)


def test_a_nemo_archive_is_the_same_model(nemo, recognizer):
    from_nemo = load_checkpoint(nemo)
    expected, got = recognizer.net.state_dict(), from_nemo.net.state_dict()
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[key], got[key]) for key in expected)
    assert from_nemo.config == recognizer.config
    assert from_nemo.prompts == recognizer.prompts
    tokens = [r.transcribe(AUDIO, "de-DE", 320)[0].tokens for r in (recognizer, from_nemo)]
    assert tokens[0] == tokens[1]
    assert tokens[0]
    assert from_nemo.pieces[1:4] == reference.TAGS


def test_other_sizes_survive_the_archive(references, recognizers, tmp_path):
    loaded = load_checkpoint(reference.save_nemo(references("wide"), tmp_path / "m.nemo"))
    assert loaded.config == recognizers("wide").config
    tokens = [r.transcribe(AUDIO)[0].tokens for r in (loaded, recognizers("wide"))]
    assert tokens[0] == tokens[1]


def test_norwegian_is_not_false(references, tmp_path):
    config = reference.nemo_yaml(references("tiny"))
    config["model_defaults"]["prompt_dictionary"] = {**reference.PROMPTS, False: 27}
    loaded = load_checkpoint(reference.save_nemo(references("tiny"), tmp_path / "m", config=config))
    assert loaded.prompts["no"] == 27


def test_dtypes_are_cast_but_the_prompt_stays_float32(checkpoints):
    net = load_checkpoint(checkpoints("tiny"), dtype="bfloat16").net
    assert net.encoder.layers[0].self_attn.qkv.weight.dtype == torch.bfloat16
    assert net.joint.head.weight.dtype == torch.bfloat16
    assert net.prompt_projector.linear_1.weight.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_smaller_dtypes_hear_the_same(checkpoints, recognizer, dtype):
    if dtype == "int8" and not Int8Linear.is_supported():
        pytest.skip("this CPU has no VNNI")
    half = load_checkpoint(checkpoints("tiny"), dtype=dtype)
    audio = [reference.speech_like(80_000, seed) for seed in range(3)]
    mel = [recordings.features(recognizer, a) for a in audio]
    lengths = [len(a) for a in audio]
    a, b = (torch.cat(recordings.encode(r, mel, lengths, [0] * 3, 3)) for r in (recognizer, half))
    assert (a - b).abs().mean() < 0.1 * a.std()


def test_float16_is_for_gpus(checkpoints):
    with pytest.raises(CheckpointError, match="valid on a CPU: float32, bfloat16, int8"):
        load_checkpoint(checkpoints("tiny"), device="cpu", dtype="float16")


def test_int8_is_for_cpus_with_vnni(checkpoints, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    with pytest.raises(CheckpointError, match=r"needs a CPU with VNNI.*valid here: float32"):
        load_checkpoint(checkpoints("tiny"), device="cpu", dtype="int8")


def test_parts_hold_only_their_own_tensors(checkpoints):
    decoder = load_checkpoint(checkpoints("tiny"), parts=("decoder", "joint")).net
    assert decoder.joint.head.weight.device.type == "cpu"
    assert decoder.encoder.layers[0].norm_out.weight.device.type == "meta"
    assert all(p.is_meta for p in load_checkpoint(checkpoints("tiny"), parts=()).net.parameters())


def test_missing_extra_and_misshapen_tensors_are_named(directory):
    edit_weights(directory, lambda t: t.pop("joint.head.bias"))
    assert "model.safetensors: missing tensor 'joint.head.bias'" in refusal(directory)
    edit_weights(directory, lambda t: t.update({"joint.head.bias": torch.zeros(7)}))
    message = refusal(directory)
    assert "tensor 'joint.head.bias' has shape (7,), expected (96,)" in message
    edit_weights(directory, lambda t: t.update({"stray": torch.zeros(1)}))
    assert "unexpected tensor 'stray'" in refusal(directory)
    assert "unexpected tensor 'stray'" in refusal(directory, parts=("decoder",))


def test_broken_archives_are_named(references, nemo, tmp_path):
    model = references("tiny")
    state = reference.nemo_state(model)
    del state["joint.enc.bias"]
    bad = reference.save_nemo(model, tmp_path / "missing.nemo", state=state)
    assert "missing tensor 'encoder_projector.bias'" in refusal(bad)
    config = reference.nemo_yaml(model)
    config["encoder"]["att_context_style"] = "regular"
    bad = reference.save_nemo(model, tmp_path / "style.nemo", config=config)
    assert "encoder.att_context_style is 'regular'" in refusal(bad)
    config = reference.nemo_yaml(model)
    config["encoder"]["glitter"] = 1
    bad = reference.save_nemo(model, tmp_path / "unknown.nemo", config=config)
    assert "unknown key 'glitter'" in refusal(bad)
    for section, key in (("encoder", "n_heads"), ("preprocessor", "n_fft")):
        config = reference.nemo_yaml(model)
        del config[section][key]
        bad = reference.save_nemo(model, tmp_path / "lacks.nemo", config=config)
        assert key in refusal(bad)
        assert "lacks.nemo" in refusal(bad)
    (tmp_path / "text.nemo").write_text("no archive")
    assert "text.nemo: not a .nemo archive" in refusal(tmp_path / "text.nemo")
    with tarfile.open(tmp_path / "empty.nemo", "w"):
        pass
    assert "no model_config.yaml" in refusal(tmp_path / "empty.nemo")


def test_nothing_but_tensors_is_unpickled(references, tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("unpickled",))

    state = {**reference.nemo_state(references("tiny")), "evil": Evil()}
    bad = reference.save_nemo(references("tiny"), tmp_path / "evil.nemo", state=state)
    assert "model_weights.ckpt: " in refusal(bad)


def test_archive_members_cannot_choose_where_they_land(nemo, tmp_path):
    target = tmp_path / "sly.nemo"
    with tarfile.open(nemo) as source, tarfile.open(target, "w") as out:
        for member in source.getmembers():
            data = source.extractfile(member).read()
            info = tarfile.TarInfo("../../" + member.name.removeprefix("./"))
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    assert load_checkpoint(target).config.vocab_size == 96
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("config.json", lambda c: c.update(sparkle=1), ["config.json: unknown key 'sparkle'"]),
        (
            "config.json",
            lambda c: c["encoder_config"].update(hidden_act="gelu"),
            ["encoder_config.hidden_act is 'gelu'", "'silu'"],
        ),
        (
            "config.json",
            lambda c: c["encoder_config"].update(subsampling_factor=4),
            ["subsampling_factor is 4", "8"],
        ),
        ("config.json", lambda c: c.update(blank_token_id=3), ["blank_token_id 3"]),
        ("config.json", lambda c: c.update(vocab_size=200, blank_token_id=199), ["no piece for"]),
        (
            "processor_config.json",
            lambda c: c["prompt_dictionary"].update({"de-DE": 400}),
            ["prompt_dictionary['de-DE'] is 400", "0 to 127"],
        ),
        ("processor_config.json", lambda c: c.pop("prompt_dictionary"), ["no prompt_dictionary"]),
        ("config.json", lambda c: c.update(max_symbols_per_step=None), ["max_symbols_per_step is"]),
        ("config.json", lambda c: c.update(max_symbols_per_step=0), ["max_symbols_per_step is 0"]),
        ("config.json", lambda c: c.update(vocab_size="96"), ["vocab_size is '96'"]),
        ("config.json", lambda c: c.update(encoder_config=[1]), ["encoder_config", "found list"]),
        (
            "config.json",
            lambda c: c["encoder_config"].update(default_num_lookahead_tokens=2),
            ["lookahead 2 is not supported", "0, 1, 3, 6, 13"],
        ),
        (
            "config.json",
            lambda c: c["encoder_config"].update(sliding_window=0),
            ["encoder_config.sliding_window is 0"],
        ),
        (
            "config.json",
            lambda c: c["encoder_config"].update(num_attention_heads=0),
            ["encoder_config.num_attention_heads is 0"],
        ),
        (
            "processor_config.json",
            lambda c: c["feature_extractor"].update(n_fft=1024),
            ["feature_extractor.n_fft is 1024", "512"],
        ),
        (
            "processor_config.json",
            lambda c: c.update(feature_extractor=None),
            ["feature_extractor", "found NoneType"],
        ),
        ("processor_config.json", lambda c: c.update(prompt_dictionary=[1]), ["prompt_dictionary"]),
        (
            "processor_config.json",
            lambda c: c["feature_extractor"].update(sampling_rate=8000),
            ["sampling_rate is 8000", "16000"],
        ),
        (
            "processor_config.json",
            lambda c: c["feature_extractor"].update(feature_size=80),
            ["feature_size 80", "128"],
        ),
    ],
)
def test_bad_configuration_is_named(directory, file, change, words):
    edit(directory / file, change)
    message = refusal(directory)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    "file", ["config.json", "model.safetensors", "processor_config.json", "tokenizer.json"]
)
def test_missing_and_broken_files_are_named(directory, file):
    (directory / file).write_bytes(b"{not what it should be")
    assert file in refusal(directory)
    (directory / file).unlink()
    assert f"{file}: no such file" in refusal(directory)


def test_bad_arguments_are_named(checkpoints, tmp_path):
    assert "no such checkpoint" in refusal(tmp_path / "nowhere")
    assert "dtype 'float8'" in refusal(checkpoints("tiny"), dtype="float8")
    assert "device 'tpu'" in refusal(checkpoints("tiny"), device="tpu")
    assert "valid: auto, cpu" in refusal(checkpoints("tiny"), device="mps")
    if not torch.cuda.is_available():
        assert "there is no GPU here" in refusal(checkpoints("tiny"), device="cuda")


def test_bad_audio_is_named(recognizer):
    from nemotron_asr import AsrError

    nan = np.zeros(100, np.float32)
    nan[42] = np.nan
    for audio, words in [
        (np.zeros((2, 9), np.float32), "shape (2, 9)"),
        (np.zeros(9, np.int32), "dtype int32"),
        (nan, "sample 42 is nan"),
    ]:
        with pytest.raises(AsrError, match=r"^INVALID_ARGUMENT: ") as caught:
            recognizer.transcribe([audio])
        assert words in str(caught.value)
