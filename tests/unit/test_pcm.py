"""Live audio of any rate and channels is what a file of it is, however it is cut into packets."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotron_asr import AsrError
from nemotron_asr.audio import decode_audio
from nemotron_asr.pcm import MAX_CHANNELS, SAMPLE_RATES, LiveAudio, decode_g711

RAMP = np.arange(-8000, 8000, dtype=np.int16)


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-30_000, 30_000, num_samples).astype(np.int16)


def offline(samples: np.ndarray, rate: int, channels: int) -> np.ndarray:
    """The same samples as a WAV file: (n,) float32."""
    file = io.BytesIO()
    soundfile.write(file, samples.reshape(-1, channels), rate, format="WAV", subtype="PCM_16")
    return decode_audio(file.getvalue())


def live(samples: np.ndarray, rate: int, channels: int, sizes) -> np.ndarray:
    """The samples in packets of these sizes, over and over: (n,) float32."""
    audio = LiveAudio(rate, channels)
    parts, at, turn = [], 0, 0
    while at < len(samples):
        size = sizes[turn % len(sizes)]
        parts.append(audio.push(samples[at : at + size]))
        at, turn = at + size, turn + 1
    parts.append(audio.finish())
    assert len({part.dtype for part in parts}) == 1
    joined = np.concatenate(parts)
    return joined / np.float32(32768) if joined.dtype == np.int16 else joined


@pytest.mark.parametrize("rate", SAMPLE_RATES)
@pytest.mark.parametrize("channels", [1, 2, 3, MAX_CHANNELS])
def test_live_is_offline_to_the_bit(rate, channels):
    samples = noise(channels * (rate + 17))
    whole = offline(samples, rate, channels)
    assert len(whole) == pytest.approx((rate + 17) * 16_000 / rate, abs=1)
    for sizes in [(len(samples),), (rate // 50 * channels,), (1, 0, 7, 160, 1001)]:
        np.testing.assert_array_equal(live(samples, rate, channels, sizes), whole)


@settings(max_examples=60, deadline=None)
@given(
    rate=st.sampled_from(SAMPLE_RATES),
    channels=st.integers(1, MAX_CHANNELS),
    num_frames=st.integers(0, 3000),
    sizes=st.lists(st.integers(0, 2000), min_size=1, max_size=8).filter(any),
)
def test_live_is_offline_in_any_packets(rate, channels, num_frames, sizes):
    samples = noise(channels * num_frames, seed=num_frames)
    expected = offline(samples, rate, channels)
    np.testing.assert_array_equal(live(samples, rate, channels, sizes), expected)


@pytest.mark.parametrize("rate", SAMPLE_RATES)
def test_a_tone_stays_a_tone_in_its_place(rate):
    def tone(rate):
        return 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)

    heard = live((tone(rate) * 32767).astype(np.int16), rate, 1, (rate // 100,))
    assert len(heard) == 16_000
    np.testing.assert_allclose(heard[1000:-1000], tone(16_000)[1000:-1000], atol=1e-3)


@pytest.mark.parametrize("rate", SAMPLE_RATES)
def test_what_is_held_back_is_as_documented_and_not_more(rate):
    """A stream's latency: samples in, in seconds, against samples out."""
    audio, heard = LiveAudio(rate), 0
    limit_ms = 58 if rate >= 16_000 else 84 if rate > 8000 else 116
    for sent in range(1, 301):
        heard += len(audio.push(noise(rate // 100)))
        assert 1000 * (sent * (rate // 100) / rate - heard / 16_000) <= limit_ms


def test_16_khz_mono_is_not_touched():
    audio = LiveAudio()
    assert audio.push(RAMP) is RAMP
    assert audio.finish().dtype == np.int16


def test_packets_may_be_read_only_and_their_memory_used_again():
    audio, buffer = LiveAudio(48_000, 2), np.zeros(3, np.int16)
    locked = np.frombuffer(RAMP.tobytes(), np.int16)
    outputs = []
    for at in range(0, len(locked), 3):
        packet = locked[at : at + 3]
        buffer[: len(packet)] = packet
        outputs.append(audio.push(buffer[: len(packet)]))
        buffer[:] = 0
    expected = offline(RAMP, 48_000, 2)
    np.testing.assert_array_equal(np.concatenate([*outputs, audio.finish()]), expected)


def test_half_a_frame_at_the_end_is_left_out():
    np.testing.assert_array_equal(
        live(RAMP[:161], 16_000, 2, (50,)), live(RAMP[:160], 16_000, 2, (50,))
    )


# From ITU-T G.711: the extremes, the smallest values of either sign, and one between.
@pytest.mark.parametrize(
    ("encoding", "code", "value"),
    [
        ("mulaw", 0x00, -32124),
        ("mulaw", 0x80, 32124),
        ("mulaw", 0x7F, 0),
        ("mulaw", 0xFF, 0),
        ("mulaw", 0xFE, 8),
        ("mulaw", 0x50, -876),
        ("alaw", 0x2A, -32256),
        ("alaw", 0xAA, 32256),
        ("alaw", 0x55, -8),
        ("alaw", 0xD5, 8),
    ],
)
def test_g711_codes(encoding, code, value):
    assert decode_g711(bytes([code]), encoding).tolist() == [value]
    assert decode_g711(np.array([code], np.uint8), encoding).tolist() == [value]


@pytest.mark.parametrize(("encoding", "subtype"), [("mulaw", "ULAW"), ("alaw", "ALAW")])
def test_g711_is_what_a_wav_file_of_it_is(encoding, subtype):
    file = io.BytesIO()
    soundfile.write(file, RAMP, 8000, format="WAV", subtype=subtype)
    codes = file.getvalue()[-len(RAMP) :]
    decoded = decode_g711(codes, encoding)
    assert decoded.dtype == np.int16
    np.testing.assert_array_equal(live(decoded, 8000, 1, (160,)), decode_audio(file.getvalue()))


def test_another_encoding_is_named():
    with pytest.raises(AsrError, match=r"^INVALID_ARGUMENT: encoding 'opus'.*mulaw, alaw"):
        decode_g711(b"", "opus")


@pytest.mark.parametrize("rate", SAMPLE_RATES)
def test_fewer_samples_than_the_least_are_surely_too_few(rate):
    audio, out = LiveAudio(rate), 0
    for size in (1, 777, 5000, 3, 2048):
        for wanted in (1, 500, 5120, 20_000):
            least = audio.least(wanted)
            assert least <= -(-wanted * rate // 16_000)
            if least > size:
                got = len(audio.push(noise(size)))
                out += got
                assert got < wanted
    assert out
