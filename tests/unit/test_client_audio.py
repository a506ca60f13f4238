"""Samples are checked and converted; files and pipes are cut into packets."""

from __future__ import annotations

import io
import os
import sys
import threading

import numpy as np
import pytest
import soundfile

from asr_client.audio import (
    SAMPLE_RATE,
    AudioFormat,
    file_packets,
    microphone_packets,
    paced,
    pipe_packets,
    to_pcm16,
)
from asr_client.errors import ClientError, InvalidArgument

RAMP = np.arange(-1000, 1000, dtype=np.int16)


def tone(num_samples: int, rate: int = SAMPLE_RATE) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * 440 * np.arange(num_samples) / rate)).astype(np.float32)


@pytest.mark.parametrize(
    "samples",
    [
        RAMP,
        RAMP.astype(">i2"),
        RAMP.astype("<i2").tobytes(),
        bytearray(RAMP.astype("<i2").tobytes()),
        memoryview(RAMP.astype("<i2").tobytes()),
        (RAMP / 32768).astype(np.float32),
        RAMP / 32768,
        np.repeat(RAMP, 2)[::2],
    ],
    ids=[
        "int16",
        "big-endian",
        "bytes",
        "bytearray",
        "memoryview",
        "float32",
        "float64",
        "strided",
    ],
)
def test_every_accepted_form_is_the_same_audio(samples):
    pcm = to_pcm16(samples)
    assert pcm.dtype == np.int16
    assert np.array_equal(pcm, RAMP)


def test_floats_cover_the_whole_range_and_are_clipped_beyond():
    pcm = to_pcm16(np.array([-1.0, 1.0, 1.3, -1.3, 0.0, 1e-9], np.float32))
    assert pcm.tolist() == [-32768, 32767, 32767, -32768, 0, 0]


def test_the_callers_buffer_may_be_reused():
    buffer = RAMP.copy()
    pcm = to_pcm16(buffer)
    buffer[:] = 0
    assert np.array_equal(pcm, RAMP)


@pytest.mark.parametrize("empty", [b"", np.zeros(0, np.int16), np.zeros(0, np.float32)])
def test_no_samples_are_fine(empty):
    assert to_pcm16(empty).shape == (0,)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (b"abc", "3 bytes"),
        (np.zeros((2, 10), np.int16), r"shape \(2, 10\)"),
        (np.array(3, np.int16), r"shape \(\)"),
        (np.zeros(4, np.int32), "int32"),
        (np.zeros(4, np.uint8), "uint8"),
        (np.zeros(4, bool), "bool"),
        (np.zeros(4, np.uint16), "uint16"),
        (np.zeros(4, np.float16), "float16"),
        (np.zeros(4, np.complex64), "complex64"),
        (np.array([0.0, np.nan], np.float32), "NaN"),
        (np.array([0.0, -np.inf]), "infinity"),
        (np.array([0.0, 12000.0], np.float32), "12000"),
        ([0, 1], "list"),
        ("abcd", "str"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_audio_is_named(samples, reason):
    with pytest.raises(InvalidArgument, match=reason) as caught:
        to_pcm16(samples)
    assert str(caught.value).startswith("INVALID_ARGUMENT: ")


STEREO = AudioFormat(48_000, channels=2)
MULAW = AudioFormat(8000, encoding="mulaw")
CODES = bytes(range(256))


def test_several_channels_are_interleaved():
    pcm = np.arange(12, dtype=np.int16).reshape(6, 2)
    for samples in (pcm, pcm.reshape(-1), pcm.tobytes(), (pcm / 32768).astype(np.float32)):
        assert to_pcm16(samples, STEREO).tolist() == list(range(12))
    assert to_pcm16(pcm[:, :1]).tolist() == pcm[:, 0].tolist()
    with pytest.raises(InvalidArgument, match=r"shape \(4, 3\); valid: \(n,\) or \(n, 2\)"):
        to_pcm16(pcm.reshape(4, 3), STEREO)


@pytest.mark.parametrize("encoding", ["mulaw", "alaw"])
def test_telephone_codes_are_looked_up(encoding):
    format = AudioFormat(8000, encoding=encoding)
    file = io.BytesIO(CODES)
    subtype = {"mulaw": "ULAW", "alaw": "ALAW"}[encoding]
    expected, _ = soundfile.read(
        file, format="RAW", subtype=subtype, channels=1, samplerate=8000, dtype="int16"
    )
    for codes in (CODES, bytearray(CODES), np.frombuffer(CODES, np.uint8)):
        np.testing.assert_array_equal(to_pcm16(codes, format), expected)
    with pytest.raises(InvalidArgument, match=f"int16; valid for {encoding}: bytes, uint8"):
        to_pcm16(RAMP, format)


def test_another_encoding_is_named():
    with pytest.raises(InvalidArgument, match="'opus' is not supported; valid: pcm16, mulaw, alaw"):
        AudioFormat(encoding="opus")


def test_pipe_packets_of_other_formats():
    packets = list(pipe_packets(io.BytesIO(CODES), 10, MULAW))
    assert [len(p) for p in packets] == [80, 80, 80, 16]
    np.testing.assert_array_equal(np.concatenate(packets), to_pcm16(CODES, MULAW))
    packets = list(pipe_packets(io.BytesIO(RAMP.tobytes()), 10, STEREO))
    assert [len(p) for p in packets] == [960, 960, 80]


def test_pace_is_that_of_the_format(monkeypatch):
    """A hundredth of a second each, whatever the rate and channels."""
    slept = []
    monkeypatch.setattr("asr_client.audio.time.sleep", slept.append)
    monkeypatch.setattr("asr_client.audio.time.monotonic", lambda: 0.0)
    for format in (AudioFormat(), STEREO, MULAW):
        list(paced(iter([np.zeros(format.num_samples(10), np.int16)] * 3), format))
        assert slept == pytest.approx([0.01, 0.02, 0.03])
        slept.clear()


def test_the_microphone_is_opened_in_the_format(monkeypatch):
    opened = []

    class Microphone:
        PortAudioError = OSError

        def RawInputStream(self, rate, num_frames, channels, dtype):  # noqa: N802
            opened.append((rate, num_frames, channels, dtype))
            raise self.PortAudioError("no such device")

    monkeypatch.setitem(sys.modules, "sounddevice", Microphone())
    with pytest.raises(ClientError, match="no such device"):
        next(microphone_packets(10, STEREO))
    assert opened == [(48_000, 480, 2, "int16")]


@pytest.mark.parametrize("packet_ms", [10, 80, 333, 10_000])
def test_file_packets_are_the_file(tmp_path, packet_ms):
    pcm = np.random.default_rng(0).integers(-9999, 9999, 40_001).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", pcm, SAMPLE_RATE)
    packets = list(file_packets(tmp_path / "a.wav", packet_ms))
    assert np.array_equal(np.concatenate(packets), pcm)
    assert {len(p) for p in packets[:-1]} <= {packet_ms * 16}


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000])
def test_other_rates_and_channels_are_converted(tmp_path, rate):
    mono = tone(2 * rate, rate)
    soundfile.write(tmp_path / "a.flac", np.stack([2 * mono, 0 * mono], axis=1), rate)
    pcm = np.concatenate(list(file_packets(tmp_path / "a.flac", 80)))
    assert abs(len(pcm) - 2 * SAMPLE_RATE) <= 1
    error = pcm / 32768 - tone(len(pcm))
    assert np.abs(error[500:-500]).max() < 2e-3


def test_an_empty_file_has_no_packets(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(0, np.int16), SAMPLE_RATE)
    assert list(file_packets(tmp_path / "a.wav", 80)) == []


def test_a_file_that_is_no_audio_is_named_with_the_reason(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"hello")
    with pytest.raises(InvalidArgument, match=r"a\.wav.*Format not recognised"):
        next(file_packets(tmp_path / "a.wav", 80))


def test_nan_in_a_file_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([0, np.nan]), SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(InvalidArgument, match="not a finite number"):
        list(file_packets(tmp_path / "a.wav", 80))


def test_pipe_packets_are_the_bytes_without_a_last_half_sample():
    raw = RAMP.tobytes() + b"x"
    packets = list(pipe_packets(io.BytesIO(raw), 10))
    assert np.array_equal(np.concatenate(packets), RAMP)
    assert {len(p) for p in packets[:-1]} == {160}


def test_a_pipe_that_delivers_in_odd_pieces():
    read_end, write_end = os.pipe()

    def write() -> None:
        with os.fdopen(write_end, "wb", buffering=0) as pipe:
            for begin in range(0, len(RAMP.tobytes()), 333):
                pipe.write(RAMP.tobytes()[begin : begin + 333])

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(read_end, "rb") as pipe:
        packets = list(pipe_packets(pipe, 10))
    writer.join()
    assert np.array_equal(np.concatenate(packets), RAMP)
    assert {len(p) for p in packets[:-1]} == {160}


def test_a_missing_sounddevice_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(ClientError, match=r"\[mic\]"):
        next(microphone_packets(80))


@pytest.mark.parametrize(("format", "name"), [("WAV", "WAV"), ("FLAC", "FLAC"), ("OGG", "Ogg")])
def test_a_file_in_a_pipe_is_named(format, name):
    file = io.BytesIO()
    soundfile.write(file, tone(1600), SAMPLE_RATE, format=format)
    with pytest.raises(InvalidArgument, match=f"a {name} file"):
        list(pipe_packets(io.BytesIO(file.getvalue()), 80))
