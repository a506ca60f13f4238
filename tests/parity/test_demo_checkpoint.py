"""The bundled checkpoint in the reference implementation: the same tokens."""

from __future__ import annotations

import pytest
import soundfile
import torch

from nemotron_asr import load_checkpoint
from parity.test_transformers import generate


@pytest.fixture(scope="module")
def models(demo_checkpoint):
    from transformers import Nemotron3_5AsrForRNNT

    model = Nemotron3_5AsrForRNNT.from_pretrained(demo_checkpoint, dtype=torch.float32).eval()
    return load_checkpoint(demo_checkpoint), model


@pytest.mark.parametrize("latency_ms", [80, 320, 560, 1120])
def test_tokens_are_those_of_the_reference(models, samples, latency_ms):
    recognizer, model = models
    for clip in samples:
        audio, rate = soundfile.read(clip, dtype="float32")
        assert rate == 16000
        tokens = recognizer.transcribe([audio], "en-US", latency_ms)[0].tokens
        expected = generate(model, audio, latency_ms // 80 - 1, recognizer.prompt_id("en-US"))
        assert [(t.id, t.frame) for t in tokens] == expected
        assert len(tokens) > 5


def test_processor_of_the_reference_reads_it(demo_checkpoint, samples):
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(demo_checkpoint)
    recognizer = load_checkpoint(demo_checkpoint)
    audio, _ = soundfile.read(samples[0], dtype="float32")
    result = recognizer.transcribe([audio], "en-US", 1120)[0]
    ids = [t.id for t in result.tokens]
    decoded = processor.decode(ids, skip_special_tokens=True)
    assert " ".join(decoded.split()) == result.text
