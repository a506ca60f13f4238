"""The same on a GPU: tokens of whole recordings, and streaming against them."""

from __future__ import annotations

import numpy as np
import pytest

from nemotron_asr import load_checkpoint
from nemotron_asr.engine import Request, StreamingEngine
from reference import speech_like

pytestmark = pytest.mark.gpu

AUDIO = [speech_like(n, n) for n in (0, 5000, 50_077, 200_000)]


@pytest.fixture(scope="module")
def on_gpu(checkpoints):
    return load_checkpoint(checkpoints("tiny"), device="cuda")


@pytest.mark.parametrize("latency_ms", [80, 320, 1120])
def test_tokens_equal_the_cpu_s(on_gpu, recognizer, latency_ms):
    for a, b in zip(
        on_gpu.transcribe(AUDIO, "de-DE", latency_ms),
        recognizer.transcribe(AUDIO, "de-DE", latency_ms),
        strict=True,
    ):
        assert [(t.id, t.frame) for t in a.tokens] == [(t.id, t.frame) for t in b.tokens]


@pytest.mark.parametrize("latency_ms", [80, 320, 1120])
def test_streaming_equals_offline(on_gpu, latency_ms):
    engine, texts = StreamingEngine(on_gpu, num_slots=4), {}
    pcm = [(audio * 32767).astype(np.int16) for audio in AUDIO]
    for i, samples in enumerate(pcm):
        texts[i] = []
        options = {"latency_ms": latency_ms}
        engine.submit(Request(i, samples, True, True, options, texts[i].append))
    while engine.step(0.0):
        pass
    offline = on_gpu.transcribe(pcm, latency_ms=latency_ms)
    assert [texts[i][0].text for i in texts] == [r.text for r in offline]
