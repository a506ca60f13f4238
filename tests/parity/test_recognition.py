"""The bundled checkpoint hears held-out sentences, also by a person and voices it never heard."""

from __future__ import annotations

import jiwer
import pytest
import soundfile

from asr_bench.manifests import normalise
from nemotron_asr import load_checkpoint

LIMITS = {"pico": 0.4, "kokoro": 0.5, "flite": 0.85, "person": 0.8}  # known voices; unheard ones


@pytest.mark.parametrize("latency_ms", [80, 160, 320, 560, 1120])
@pytest.mark.parametrize("language", ["en-US", "auto"])
def test_word_error_rate_of_the_samples(demo_checkpoint, samples, latency_ms, language):
    recognizer = load_checkpoint(demo_checkpoint)
    audio = [soundfile.read(clip, dtype="float32")[0] for clip in samples]
    results = recognizer.transcribe(audio, language, latency_ms)
    for name, limit in LIMITS.items():
        said = [normalise(c.with_suffix(".txt").read_text()) for c in samples if name in c.name]
        pairs = zip(samples, results, strict=True)
        heard = [normalise(result.text) for clip, result in pairs if name in clip.name]
        assert jiwer.wer(said, heard) < limit, name
    assert {result.language for result in results} <= {"en-US", "en-GB"}
