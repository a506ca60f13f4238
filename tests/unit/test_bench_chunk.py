"""The chunk benchmark on a small model: the contenders compute the same, the floor what it says."""

from __future__ import annotations

import pytest
import torch

from asr_bench import chunk, offline, profile
from asr_bench.floor import Floor, matrices
from asr_bench.random_checkpoint import TOKENS_PER_S, write_random
from asr_bench.speech import speech, speech_pcm
from nemotron_asr import load_checkpoint
from nemotron_asr.config import EncoderConfig, ModelConfig

SMALL = ModelConfig(
    encoder=EncoderConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
        intermediate_size=128, subsampling_conv_channels=8,
    ),
    vocab_size=300, blank_token_id=299, decoder_hidden_size=48, prompt_intermediate_size=80,
)  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "small"
    write_random(SMALL, path)
    return path


def test_random_checkpoint_speaks_like_a_person(small):
    recognizer = load_checkpoint(small)
    audio = [speech_pcm(20.0), speech_pcm(20.0, 11.0)]
    for latency_ms in recognizer.latencies_ms:
        tokens = [t for r in recognizer.transcribe(audio, latency_ms=latency_ms) for t in r.tokens]
        assert TOKENS_PER_S / 3 < len(tokens) / 40 < TOKENS_PER_S * 3
        assert len({t.id for t in tokens}) >= 5


def test_floor_has_every_matrix_of_the_published_encoder():
    names = [name for name, _ in matrices(ModelConfig(), 4)]
    assert len(names) == len(set(names)) == 3 + 24 * 10 + 3
    with torch.device("meta"):
        from nemotron_asr.model import NemotronAsr

        shapes = {n: p.shape for n, p in NemotronAsr(ModelConfig()).named_parameters()}
    wide = [n for n, s in shapes.items() if len([d for d in s if d > 1]) > 1]
    heads = [n for n in wide if not n.startswith(("decoder", "joint"))]
    left_out = set(heads) - set(names)
    assert all(n.endswith(("relative_k_proj.weight", "depthwise_conv.weight", "conv_in.weight",
                           "bias_u", "bias_v")) for n in left_out)  # fmt: skip


def test_floor_runs_in_both_ways(small):
    recognizer = load_checkpoint(small)
    weights = chunk.published_weights(small, recognizer, torch.bfloat16)
    calls = Floor(SMALL, weights).calls(batch=2, frames=4)
    assert set(calls) <= {"floor_plain", "floor_packed"}
    for call in calls.values():
        call()


@pytest.mark.parametrize("lookahead", [0, 3, 13])
def test_chunk_compares_like_with_like(small, lookahead):
    settings = chunk.ChunkSettings(
        small, "float32", lookaheads=(lookahead,), batches=(2,), repeats=1
    )
    report = chunk.run(settings)
    by_key = {(row["part"], row["contender"]): row for row in report["rows"]}
    assert by_key["encoder", "transformers"]["difference"] < 1e-4
    assert {part for part, name in by_key if name == "ours"} == set(chunk.PARTS)
    assert all(row["min_ms"] > 0 for row in report["rows"])
    assert by_key["decoder", "ours"]["tokens_per_s"] > 0.3
    chunk.table(report).print()


def test_whole_files_and_generate_give_as_many_tokens(small):
    settings = offline.OfflineSettings(
        small, "float32", cases=("10 s",), doors=("library",), repeats=1
    )
    rows = {row["door"]: row for row in offline.run(settings)["rows"]}
    ours, theirs = rows["in turns: ours"], rows["in turns: transformers"]
    assert ours["tokens"] == theirs["tokens"] > 5
    assert rows["library"]["rtf"] > 0


def test_profile_names_operators(small):
    options = {"dtype": "float32", "device": "cpu", "latency_ms": 320, "batch": 2, "rounds": 1}
    report = profile.run(small, **options)
    assert any("linear" in row["operator"] or "mm" in row["operator"] for row in report["rows"])
    profile.table(report).print()


def test_speech_repeats_and_shifts():
    assert len(speech(100.0)) == 1_600_000
    assert (speech(2.0, 1.0)[:16_000] == speech(2.0)[16_000:]).all()
    assert speech_pcm(1.0).dtype.name == "int16"
