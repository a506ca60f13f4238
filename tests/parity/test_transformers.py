"""Equal to the reference implementation in `transformers` on shared random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import reference
from nemotron_asr import recordings
from nemotron_asr.chunks import Chunk
from nemotron_asr.config import HOP, LOOKAHEADS, parse_config
from nemotron_asr.encoder import UNKNOWN_LENGTH, num_encoder_frames
from nemotron_asr.features import slaney_mel_filters
from nemotron_asr.model import PredictionState

AUDIO = [reference.speech_like(n, seed) for seed, n in enumerate((83_000, 50_077, 33_333, 1000))]
LANGUAGES = ["auto", "de-DE", "en-US"]


def ours(recognizer, audio: list[np.ndarray], lookahead: int, language: str):
    """Joint inputs of whole recordings, (E, J) each."""
    return recordings.encode(
        recognizer,
        [recordings.features(recognizer, a) for a in audio],
        [len(a) for a in audio],
        [recognizer.prompt_id(language)] * len(audio),
        lookahead,
    )


def theirs(model, audio: list[np.ndarray], lookahead: int, prompt: int) -> list[torch.Tensor]:
    mel, mask = reference.reference_features(model, audio)
    prompts = torch.full((len(audio),), prompt)
    out = model.get_audio_features(
        mel, attention_mask=mask, num_lookahead_tokens=lookahead, prompt_ids=prompts
    ).pooler_output
    return [row[: num_encoder_frames(len(a) // HOP)] for row, a in zip(out, audio, strict=True)]


def generate(model, audio: np.ndarray, lookahead: int, prompt: int) -> list[tuple[int, int]]:
    """The reference's greedy tokens as (id, frame)."""
    mel, mask = reference.reference_features(model, [audio])
    out = model.generate(
        input_features=mel,
        attention_mask=mask,
        num_lookahead_tokens=lookahead,
        prompt_ids=torch.tensor([prompt]),
        max_new_tokens=5000,
        return_dict_in_generate=True,
    )
    steps, durations = out.sequences[0].tolist(), out.durations[0].tolist()
    frames = np.cumsum(durations) - durations
    blank = model.config.blank_token_id
    valid = num_encoder_frames(len(audio) // HOP)
    pairs = zip(steps, frames.tolist(), strict=True)
    return [(id_, frame) for id_, frame in list(pairs)[1:] if id_ != blank and frame < valid]


@pytest.mark.parametrize("bands", [80, 128])
def test_mel_filters(bands):
    from transformers import NemotronAsrStreamingFeatureExtractor

    extractor = NemotronAsrStreamingFeatureExtractor(feature_size=bands)
    torch.testing.assert_close(
        slaney_mel_filters(bands, 512, 16000), extractor.mel_filters, atol=1e-7, rtol=0
    )


def test_features(recognizers, references, size):
    recognizer, model = recognizers(size), references(size)
    for audio in AUDIO:
        mel, mask = reference.reference_features(model, [audio])
        mine = recordings.features(recognizer, audio)[7:]
        valid = int(mask.sum())
        torch.testing.assert_close(mine[:valid], mel[0, :valid], atol=5e-6, rtol=0)
        assert not mine[valid:].any(), "frames past the end are 0.0"


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_encoder_prompt_and_projection(recognizers, references, size, lookahead):
    recognizer, model = recognizers(size), references(size)
    for language in LANGUAGES:
        prompt = recognizer.prompt_id(language)
        mine = ours(recognizer, AUDIO, lookahead, language)
        expected = theirs(model, AUDIO, lookahead, prompt)
        for a, b in zip(mine, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    spread = torch.cat(mine).std(dim=0).mean()
    assert spread > 1, "the outputs vary, so that equality means something"


def test_prediction_network_and_joint(recognizers, references, size):
    recognizer, model = recognizers(size), references(size)
    ids = torch.randint(0, model.config.blank_token_id, (3, 9))
    expected, parts = model.decoder(ids), []
    state = recognizer.fresh_prediction(3)
    state = PredictionState(state.g, torch.zeros_like(state.h), torch.zeros_like(state.c))
    for u in range(ids.shape[1]):
        state = recognizer.net.decoder.step(ids[:, u], state.h, state.c)
        parts.append(state.g)
    torch.testing.assert_close(torch.stack(parts, dim=1), expected, atol=1e-5, rtol=1e-5)
    f = torch.randn(3, 1, expected.shape[-1])
    torch.testing.assert_close(
        recognizer.net.joint(f, expected),
        model.joint(decoder_hidden_states=expected, encoder_hidden_states=f),
        atol=1e-4,
        rtol=1e-4,
    )


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_tokens_and_frames(recognizers, references, size, lookahead):
    recognizer, model = recognizers(size), references(size)
    latency_ms = (lookahead + 1) * 80
    seen, forced = set(), 0
    for language in LANGUAGES:
        results = recognizer.transcribe(AUDIO, language, latency_ms=latency_ms)
        for audio, result in zip(AUDIO, results, strict=True):
            expected = generate(model, audio, lookahead, recognizer.prompt_id(language))
            assert [(t.id, t.frame) for t in result.tokens] == expected
            seen |= {t.id for t in result.tokens}
            frames = [t.frame for t in result.tokens]
            most = model.config.max_symbols_per_step
            forced += sum(frames.count(frame) == most for frame in set(frames))
    if size != "biased":  # too small a vocabulary
        assert len(seen) >= 20, "the outputs say enough for equality to mean something"
    assert forced > 0, "forced advances happen too"


def test_outputs_depend_on_audio_language_and_lookahead(recognizers, size):
    recognizer = recognizers(size)
    outputs = [
        tuple(t.id for t in r.tokens)
        for language in LANGUAGES
        for latency_ms in (80, 1120)
        for r in recognizer.transcribe(AUDIO[:3], language, latency_ms)
    ]
    assert len(set(outputs)) >= 0.8 * len(outputs)


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_streaming_encoder_equals_the_reference_offline(recognizers, references, lookahead):
    """Chunk by chunk with caches, flush included, against the reference's one call."""
    recognizer, model = recognizers("tiny"), references("tiny")
    audio = AUDIO[0]
    expected = theirs(model, [audio], lookahead, 9)[0]
    state, parts = recognizer.fresh_encoder(1, lookahead + 1), []
    for done in range(0, len(expected), lookahead + 1):
        last = done + lookahead + 1 >= len(expected)
        chunk = Chunk(audio, 0, done, len(audio) if last else None, 9)
        mel = recognizer.features([chunk], lookahead + 1)
        num_mel = len(audio) // HOP if last else UNKNOWN_LENGTH
        f = recognizer.encode(mel, [num_mel], [9], lookahead, state)
        parts.append(f[0])
    streamed = torch.cat(parts)[: len(expected)]
    torch.testing.assert_close(streamed, expected, atol=1e-4, rtol=1e-4)


def test_class_defaults_of_the_reference_are_not_the_published_values():
    """A config.json that leaves a key out means the reference's default, not the published one."""
    config = parse_config({"encoder_config": {"num_attention_heads": 8}})
    assert config.encoder.attention_bias
    assert config.encoder.left_context == 70
    assert config.encoder.num_mel_bins == 80
