"""What comes through Riva's door, without a server: WAV headers in any pieces, the mapping."""

from __future__ import annotations

import io
import random
import struct

import numpy as np
import pytest
import soundfile

pytest.importorskip("riva.client")

from riva.client.proto.riva_asr_pb2 import RecognitionConfig, SpeechContext
from riva.client.proto.riva_audio_pb2 import AudioEncoding

from asr_client.audio import AudioFormat
from asr_client.errors import InvalidArgument
from asr_gateway.riva_audio import LiveBytes, as_file
from asr_gateway.riva_config import read_config
from nemotron_asr.options import FILE, LIVE
from nemotron_asr.pcm import decode_g711

SAMPLES = np.random.default_rng(0).integers(-9000, 9000, 4001).astype(np.int16)


def wav(format: str = "WAV", subtype: str = "PCM_16", rate: int = 16_000) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, SAMPLES, rate, format=format, subtype=subtype)
    return out.getvalue()


def heard(data: bytes, seed: int, config: RecognitionConfig) -> tuple[bytes, AudioFormat]:
    """What LiveBytes makes of bytes that come in pieces."""
    live, rng, at, samples = LiveBytes(config), random.Random(seed), 0, b""
    while at < len(data):
        size = rng.choice([1, 3, 7, 44, 1000])
        samples += live.push(data[at : at + size])
        at += size
    return samples + live.finish(), live.format


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
def test_a_wav_header_is_left_out_however_it_is_cut(kind, seed):
    data = wav(kind) + b"LIST" + struct.pack("<I", 4) + b"\xff" * 4
    samples, format = heard(data, seed, RecognitionConfig())
    assert (samples, format) == (SAMPLES.tobytes(), AudioFormat(16_000))
    at = data.index(b"data") + 4
    for endless in (0, 0x7FFF_F000, 0xFFFF_FFFF):  # of a writer that could not go back
        piped = data[:at] + struct.pack("<I", endless) + SAMPLES.tobytes()
        assert heard(piped, seed, RecognitionConfig())[0] == SAMPLES.tobytes()


def test_g711_in_wav_and_bare_samples():
    samples, format = heard(wav(subtype="ALAW", rate=8000), 0, RecognitionConfig())
    assert (len(samples), format) == (len(SAMPLES), AudioFormat(8000, encoding="alaw"))
    for config, format in (
        (RecognitionConfig(), AudioFormat(16_000)),
        (RecognitionConfig(sample_rate_hertz=48_000), AudioFormat(48_000)),
        (RecognitionConfig(encoding=AudioEncoding.MULAW), AudioFormat(8000, encoding="mulaw")),
    ):
        for data in (SAMPLES.tobytes(), b"ab", b""):
            assert heard(data, 1, config) == (data, format)
    assert heard(b"abc", 0, RecognitionConfig())[0] == b"ab"  # half a sample is none


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (wav(subtype="PCM_24"), "16 bits"),
        (wav(subtype="FLOAT"), "16 bits"),
        (wav()[:30], "ended"),
        (b"RIFF\0\0\0\0WAVEjunk" + b"\xff" * 8, "65536"),
        (b"fLaC" + bytes(20), "LINEAR_PCM"),
    ],
)
def test_headers_that_cannot_be_streamed(data, named):
    with pytest.raises(InvalidArgument, match=named):
        heard(data, 2, RecognitionConfig())


@pytest.mark.parametrize("encoding", ["LINEAR_PCM", "MULAW", "ALAW"])
def test_samples_become_a_file_that_libsndfile_reads(encoding):
    config = RecognitionConfig(
        encoding=AudioEncoding.Value(encoding), sample_rate_hertz=8000, audio_channel_count=2
    )
    data = SAMPLES.tobytes()
    frames, rate = soundfile.read(io.BytesIO(as_file(data, config)), dtype="int16")
    bare = SAMPLES if encoding == "LINEAR_PCM" else decode_g711(data, encoding.lower())
    assert rate == 8000
    np.testing.assert_array_equal(frames, bare[: len(bare) // 2 * 2].reshape(-1, 2))
    assert as_file(wav(), config) == wav()


def test_the_mapping():
    bare = read_config(RecognitionConfig(), LIVE)
    assert bare == {
        "language": "auto", "punctuation": False, "capitals": False, "profanity": "keep",
        "endpoint_ms": 800,
    }  # fmt: skip
    config = RecognitionConfig(
        language_code="en-US", enable_automatic_punctuation=True, profanity_filter=True,
        speech_contexts=[SpeechContext(phrases=["Quilter"]), SpeechContext(phrases=["a"], boost=8)],
        custom_configuration={"latency_ms": "80", "capitals": "false", "languages": "en-US;de-DE"},
    )  # fmt: skip
    config.endpointing_config.stop_history = 320
    assert read_config(config, FILE) == {
        "language": "en-US", "punctuation": True, "capitals": False, "profanity": "mask",
        "phrases": '["Quilter^0.5", "a"]', "boost": 2.0, "endpoint_ms": 320, "latency_ms": 80,
        "languages": "en-US,de-DE",
    }  # fmt: skip
    config.endpointing_config.stop_history = -1
    config.endpointing_config.stop_history_eou = 240
    assert read_config(config, LIVE)["endpoint_ms"] == 240
