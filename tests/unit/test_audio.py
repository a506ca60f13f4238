"""Files of any format, rate and width to 16 kHz mono; broken ones say why."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from nemotron_asr import AsrError
from nemotron_asr.audio import BLOCK_SAMPLES, decode_audio, decode_blocks
from reference import speech_like


def encode(samples: np.ndarray, rate: int, **kwargs) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, **kwargs)
    return out.getvalue()


def tone(rate: int, seconds: float = 1.0) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)


def test_wav_at_16_khz_is_taken_sample_by_sample():
    pcm = (speech_like(20_000, 0) * 32767).astype(np.int16)
    decoded = decode_audio(encode(pcm, 16000, format="WAV"))
    np.testing.assert_array_equal(decoded, pcm.astype(np.float32) / 32768)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_and_channels(rate, channels):
    wave = np.tile(tone(rate)[:, None], channels)
    decoded = decode_audio(encode(wave, rate, format="WAV", subtype="FLOAT"))
    assert abs(len(decoded) - 16000) <= 1
    inner = slice(1000, 15000)
    np.testing.assert_allclose(decoded[inner], tone(16000)[inner], atol=5e-3)


@pytest.mark.parametrize("format", ["FLAC", "OGG", "MP3"])
def test_compressed_formats(format):
    decoded = decode_audio(encode(tone(16000), 16000, format=format))
    assert 15_000 < len(decoded) < 19_000
    assert 0.15 < np.sqrt((decoded**2).mean()) < 0.25


def test_long_files_are_decoded_in_blocks():
    wave = speech_like(700_000, 1)
    decoded = decode_audio(encode(wave, 16000, format="WAV", subtype="FLOAT"))
    np.testing.assert_array_equal(decoded, wave)


def test_blocks_are_of_bounded_size_whatever_the_channels():
    """A compressed file of silence in many channels is small."""
    data = encode(np.zeros((200_000, 64)), 16_000, format="WAV", subtype="PCM_U8")
    blocks = list(decode_blocks(io.BytesIO(data), "it"))
    assert sum(map(len, blocks)) == 200_000
    assert max(map(len, blocks)) * 64 <= BLOCK_SAMPLES


def test_one_channel_of_a_file():
    left, right = tone(8000), speech_like(8000, 0)
    data = encode(np.stack([left, right], axis=1), 8000, format="WAV", subtype="FLOAT")
    for channel, wave in ((0, left), (1, right)):
        alone = encode(wave, 8000, format="WAV", subtype="FLOAT")
        np.testing.assert_array_equal(decode_audio(data, channel=channel), decode_audio(alone))
    with pytest.raises(AsrError, match=r"^INVALID_ARGUMENT: .*no channel 2; valid: mix, 0, 1"):
        decode_audio(data, channel=2)


def test_no_samples_are_no_error():
    assert len(decode_audio(encode(np.zeros(0), 16000, format="WAV"))) == 0


@pytest.mark.parametrize("format", ["OGG", "MP3", "FLAC"])
@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9])
def test_a_truncated_file_is_refused_or_whole_up_to_there(format, kept):
    """Never filled up with whatever lies in memory."""
    data = encode(tone(16000, 10), 16000, format=format)
    truncated = data[: int(kept * len(data))]
    try:
        decoded = decode_audio(truncated)
    except AsrError:
        return
    assert len(decoded) < 160_000
    assert np.abs(decoded).max(initial=0) < 0.5


def test_headers_that_cannot_be_true_are_refused_before_decoding():
    slow = bytearray(encode(tone(16000), 16000, format="WAV"))
    slow[24:28] = (1).to_bytes(4, "little")
    hours = encode(np.zeros(16_000 * 7300, np.int16), 16000, format="FLAC")
    for data, max_s, words in [
        (bytes(slow), 60, "1 samples a second; valid: 4000 to 384000"),
        (hours, 7200, "lasts 7300 s; valid: at most 7200 s"),
    ]:
        with pytest.raises(AsrError, match=r"^INVALID_ARGUMENT: ") as caught:
            decode_audio(data, max_s)
        assert words in str(caught.value)


def test_broken_files_say_why():
    wave = tone(16000)
    wave[8000] = np.nan
    for data, words in [
        (b"", "0 bytes"),
        (b"MZ not audio", "12 bytes"),
        (encode(tone(16000), 16000, format="FLAC")[:30], "cannot read the audio"),
        (encode(wave, 16000, format="WAV", subtype="FLOAT"), "at 0.500 s"),
    ]:
        with pytest.raises(AsrError, match=r"^INVALID_ARGUMENT: ") as caught:
            decode_audio(data)
        assert words in str(caught.value)
