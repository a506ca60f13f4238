"""The bundled checkpoint hears held-out sentences, also by voices that it never heard."""

from __future__ import annotations

import re

import jiwer
import pytest
import soundfile

from nemotron_asr import load_checkpoint


def normalise(text: str) -> str:
    """Case and punctuation do not count."""
    return " ".join(re.sub(r"[^\w' ]", " ", text.lower()).split())


@pytest.mark.parametrize("latency_ms", [80, 160, 320, 560, 1120])
@pytest.mark.parametrize("language", ["en-US", "auto"])
def test_word_error_rate_of_the_samples(demo_checkpoint, samples, latency_ms, language):
    recognizer = load_checkpoint(demo_checkpoint)
    audio = [soundfile.read(clip, dtype="float32")[0] for clip in samples]
    references = [normalise(clip.with_suffix(".txt").read_text()) for clip in samples]
    results = recognizer.transcribe(audio, language, latency_ms)
    hypotheses = [normalise(result.text) for result in results]
    assert jiwer.wer(references, hypotheses) < 0.25
    assert {result.language for result in results} == {"en-US"}
