"""Recordings of every kind: empty, short, silent, clipped, an hour long; steps equal the whole."""

from __future__ import annotations

import itertools
import os

import numpy as np
import psutil
import pytest
import torch

from asr_bench.memory import PeakMemory
from nemotron_asr import load_checkpoint, recordings
from nemotron_asr.chunks import Chunk, total_frames
from reference import speech_like


def ids(results) -> list[list[tuple]]:
    return [[(t.id, t.frame) for t in r.tokens] for r in results]


def test_nothing_and_next_to_nothing_give_a_result(recognizer):
    audio = [np.zeros(n, np.float32) for n in (0, 1, 159, 160, 161)]
    results = recognizer.transcribe(audio)
    assert [r.text for r in results[:3]] == ["", "", ""]
    assert [r.num_samples for r in results] == [0, 1, 159, 160, 161]


def test_int16_and_float32_are_the_same_audio(recognizer):
    pcm = (speech_like(40_000, 0) * 32767).astype(np.int16)
    floats = pcm.astype(np.float32) / 32768
    assert ids(recognizer.transcribe([pcm])) == ids(recognizer.transcribe([floats]))


def test_batch_neighbours_change_nothing(recognizer):
    audio = [speech_like(n, n) for n in range(500, 120_000, 6007)]
    together = recognizer.transcribe(audio, "fr-FR", 560)
    alone = [recognizer.transcribe([a], "fr-FR", 560)[0] for a in audio]
    assert ids(together) == ids(alone)


@pytest.mark.parametrize("latency_ms", [80, 160, 320, 560, 1120])
def test_three_steps_equal_the_whole(recognizer, latency_ms):
    audio = [speech_like(n, n) for n in (0, 100, 30_000, 200_000, 7777)]
    mels = [recordings.features(recognizer, a) for a in audio]
    lengths = [len(a) for a in audio]
    encoded = recordings.encode(recognizer, mels, lengths, [9] * 5, latency_ms // 80 - 1)
    tokens = recordings.decode(recognizer, encoded)
    whole = recognizer.transcribe(audio, "de-DE", latency_ms)
    assert [[(t.id, t.frame) for t in row] for row in tokens] == ids(whole)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("size", [700, 17_000, 143_559, 143_560, 143_561, 10**9])
def test_blocks_of_any_size_give_the_same_features(recognizer, size, dtype):
    for length in (0, 100, 143_560, 300_001):
        samples = speech_like(length, 5)
        samples = samples if dtype is np.float32 else (samples * 32767).astype(np.int16)
        blocks = [samples[i : i + size] for i in range(0, length, size)]
        mel, num_samples = recordings.features_of_blocks(recognizer, blocks)
        assert num_samples == length
        assert len(mel) == 8 * total_frames(length)
        assert mel.stride() == (mel.shape[1], 1)
        if len(mel):
            row = Chunk(samples, 0, 0, length, prompt_id=0)
            whole = recognizer.features([row], total_frames(length))[0]
            torch.testing.assert_close(mel, whole, rtol=0, atol=1e-5)


def test_features_of_long_audio_keep_the_mel_once_and_no_samples(recognizer):
    minute = speech_like(16_000 * 60, 2)
    blocks = itertools.chain([minute], itertools.repeat(minute, 59))
    recordings.features(recognizer, minute)
    with PeakMemory({"own": psutil.Process(os.getpid())}) as peak:
        before_mb = psutil.Process(os.getpid()).memory_info().rss / 1e6
        mel, _ = recordings.features_of_blocks(recognizer, blocks)
    assert len(mel) == 8 * total_frames(16_000 * 3600)
    grown_mb = peak.peak_mb["own"] - before_mb - mel.nbytes / 1e6
    assert grown_mb < 48, "half of what the mel takes: it was there twice, or the samples were"


def test_clipped_audio_and_silence(recognizer):
    loud = np.sign(speech_like(50_000, 1)) * 1.0
    for audio in (loud.astype(np.float32), np.zeros(50_000, np.float32)):
        assert recognizer.transcribe([audio])[0].num_samples == 50_000


def test_an_hour_needs_no_more_memory_than_a_minute(checkpoints):
    """Samples come as they are; what is computed from them is there a stretch at a time."""
    recognizer = load_checkpoint(checkpoints("tiny"))
    recognizer.net.joint.head.bias[-1] += 4  # fewer tokens, in less time
    hour = np.tile((speech_like(16_000 * 60, 2) * 32767).astype(np.int16), 60)
    recognizer.transcribe([hour[: 16_000 * 60]])
    process = psutil.Process(os.getpid())
    before = process.memory_info().rss
    result = recognizer.transcribe([hour])[0]
    grown = (process.memory_info().rss - before) / 2**20
    assert result.tokens[-1].frame > 44_000
    assert len(result.tokens) > 3600
    assert grown < 64, f"{grown:.0f} MiB"
    assert [w.start_ms for w in result.words] == sorted(w.start_ms for w in result.words)
