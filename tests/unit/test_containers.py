"""M4A, MP4, WebM and others to 16 kHz mono; hostile, truncated and endless ones say why."""

from __future__ import annotations

import io
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotron_asr import AsrError, audio, containers
from nemotron_asr.audio import decode_audio, decode_blocks


def tone(rate: int, seconds: float, hz: float = 440) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)


def encode(
    format: str, codec: str, rate: int, channels: np.ndarray, options=(), video: bool = False
) -> bytes:
    """channels: (channels, n) float64."""
    layout = "mono" if len(channels) == 1 else "stereo"
    directory = tempfile.TemporaryDirectory()  # an M4A with its header in front is written twice
    path = Path(directory.name, "a")
    with directory, av.open(path, "w", format=format, options=dict(options)) as container:
        if video:
            pictures = container.add_stream("mpeg4", rate=10)
            pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        track = container.add_stream(codec, rate=rate, layout=layout)
        if codec == "wmav2":
            track.bit_rate = 128_000
        if video:
            for number in range(30):
                picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")
                picture.pts, picture.time_base = number, Fraction(1, 10)
                container.mux(pictures.encode(picture))
            container.mux(pictures.encode(None))
        pcm = (channels * 32767).astype(np.int16).T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(pcm, "s16", layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        converter = av.AudioResampler(track.format, layout, rate)
        for part in [*converter.resample(frame), *converter.resample(None)]:
            container.mux(track.encode(part))
        container.mux(track.encode(None))
        container.close()
        return path.read_bytes()


def m4a(seconds: float = 3, **kwargs) -> bytes:
    return encode("ipod", "aac", 44_100, tone(44_100, seconds)[None], **kwargs)


def refused(data: bytes, **kwargs) -> str:
    with pytest.raises(AsrError, match=r"^INVALID_ARGUMENT: ") as caught:
        decode_audio(data, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize(
    ("format", "codec", "rate", "num_channels"),
    [
        ("webm", "libopus", 48_000, 1),
        ("webm", "libopus", 48_000, 2),
        ("ipod", "aac", 44_100, 2),
        ("mp4", "aac", 16_000, 1),
        ("mp4", "libmp3lame", 44_100, 1),
        ("mov", "alac", 44_100, 2),
        ("mov", "pcm_s16le", 8_000, 1),
        ("3gp", "libopencore_amrnb", 8_000, 1),
        ("amr", "libopencore_amrnb", 8_000, 1),
        ("adts", "aac", 22_050, 1),
        ("mpegts", "aac", 48_000, 2),
        ("asf", "wmav2", 44_100, 2),
        ("matroska", "flac", 48_000, 2),
    ],
)
def test_formats(format, codec, rate, num_channels):
    data = encode(format, codec, rate, np.tile(tone(rate, 3), (num_channels, 1)))
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.SoundFile(io.BytesIO(data))
    decoded = decode_audio(data)
    assert decoded.dtype == np.float32
    cut_s = 0.03 if codec == "wmav2" else 0  # FFmpeg writes or reads no last half frame of WMA
    assert (3 - cut_s) * 16_000 - 1 <= len(decoded) <= 3.1 * 16_000  # whole codec frames
    heard = np.abs(np.fft.rfft(decoded[8000:40_000] * np.hanning(32_000)))
    assert np.argmax(heard) == 440 * 2
    assert 0.15 < decoded[8000:40_000].std() < 0.25


def test_lossless_audio_is_that_of_a_flac_file():
    channels = np.stack([tone(48_000, 2), tone(48_000, 2, 700)])
    flac = io.BytesIO()
    soundfile.write(flac, (channels.T * 32767).astype(np.int16), 48_000, format="FLAC")
    matroska = encode("matroska", "flac", 48_000, channels)
    np.testing.assert_array_equal(decode_audio(matroska), decode_audio(flac.getvalue()))


def test_the_audio_of_a_video():
    assert len(decode_audio(m4a(video=True))) == pytest.approx(48_000, abs=2000)


def test_a_video_without_audio_says_so():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        track = container.add_stream("mpeg4", rate=10)
        track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")
        container.mux(track.encode(picture))
        container.mux(track.encode(None))
    assert "no audio track" in refused(file.getvalue())


@pytest.mark.parametrize("as_path", [str, lambda path: path], ids=["str", "Path"])
def test_paths(tmp_path, as_path):
    path = tmp_path / "concat:a.m4a"  # FFmpeg would take it for a protocol
    path.write_bytes(m4a())
    blocks = list(decode_blocks(as_path(path), "a.m4a"))
    assert len(blocks) > 2  # decoded as it goes
    np.testing.assert_array_equal(np.concatenate(blocks), decode_audio(path.read_bytes()))


@pytest.mark.parametrize(
    ("format", "codec", "rate"),
    [("ipod", "aac", 44_100), ("webm", "libopus", 48_000), ("amr", "libopencore_amrnb", 8000)],
)
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.5, 0.9])
def test_a_truncated_file_is_refused_or_whole_up_to_there(format, codec, rate, kept):
    signal = tone(rate, 5)
    data = encode(format, codec, rate, signal[None])
    try:
        decoded = decode_audio(data[: int(kept * len(data))])
    except AsrError as error:
        assert str(error).startswith("INVALID_ARGUMENT: ")  # noqa: PT017
        return
    assert len(decoded) <= (kept + 0.05) * 5 * 16_000
    assert np.abs(decoded).max(initial=0) < 0.5


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_truncated_m4a_with_its_header_in_front_says_where_it_ends(kept):
    data = m4a(5, options={"movflags": "faststart"})
    message = refused(data[: int(kept * len(data))])
    assert "of 5.00 s" in message or "Invalid data" in message


def test_what_the_header_tells_is_refused_before_decoding(monkeypatch):
    monkeypatch.setattr(containers.Container, "blocks", None)
    assert "lasts 3 s; valid: at most 2 s" in refused(m4a(), max_s=2)


def test_what_the_header_does_not_tell_is_refused_while_decoding():
    """Raw AAC: nothing says how long it is."""
    data = encode("adts", "aac", 8000, np.zeros((1, 8000 * 120)))
    blocks = decode_blocks(io.BytesIO(data), "it", max_s=60)
    decoded = []
    with pytest.raises(AsrError, match=r"is too long; valid: at most 60 s"):
        decoded.extend(blocks)
    assert 59 * 16_000 < sum(map(len, decoded)) <= 60 * 16_000


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{path}\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{path}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {path}\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{path}</BaseURL>'
        "</MPD>",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
    ],
)
def test_a_file_that_names_other_files_does_not_open_them(playlist, tmp_path, monkeypatch):
    other = tmp_path / "other.m4a"
    other.write_bytes(m4a())
    assert "Format not recognised" in refused(playlist.format(path=other).encode())


def test_a_codec_outside_of_the_list_is_not_opened(monkeypatch):
    decoders = [name for name in containers._DECODERS if name != "alac"]
    monkeypatch.setattr(containers, "_DECODERS", tuple(decoders))
    data = encode("mov", "alac", 44_100, tone(44_100, 1)[None])
    assert "cannot read" in refused(data)


def test_a_header_that_promises_more_than_there_is_is_refused():
    """Sizes in `stsz` and `stsc` for 800 million samples: neither memory nor an empty text."""
    data = bytearray(m4a())
    for box, offset in [(b"stsz", 8), (b"stsz", 12), (b"stsc", 16)]:
        at = data.find(box) + offset
        data[at : at + 4] = (1 if offset == 8 else 800_000_000).to_bytes(4, "big")
    assert "It ends after 0.00 of 3.0" in refused(bytes(data))


M4A, WEBM = m4a(1), encode("webm", "libopus", 48_000, tone(48_000, 1)[None])


@settings(max_examples=150, deadline=None)
@given(
    data=st.sampled_from([M4A, WEBM]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=20),
)
def test_a_file_with_wrong_bytes_is_decoded_or_refused(data, changes):
    broken = bytearray(data)
    for place, value in changes:
        broken[int(place * (len(broken) - 1))] = value
    try:
        decoded = decode_audio(bytes(broken), max_s=60)
    except AsrError as error:
        assert error.code == "INVALID_ARGUMENT"  # noqa: PT017
    else:
        assert np.isfinite(decoded).all()


def test_channels():
    left, right = tone(48_000, 2), tone(48_000, 2, 1000)
    data = encode("matroska", "flac", 48_000, np.stack([left, right]))
    only_left = encode("matroska", "flac", 48_000, left[None])
    np.testing.assert_array_equal(decode_audio(data, channel=0), decode_audio(only_left))
    assert np.abs(decode_audio(data, channel=1) - decode_audio(data, channel=0)).max() > 0.3
    assert "no channel 2; valid: mix, 0, 1" in refused(data, channel=2)


def test_without_pyav_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, containers.__name__, None)
    message = refused(M4A)
    assert "WAV, FLAC, OGG, MP3; for WebM" in message
    assert "[formats]" in message


def test_with_pyav_the_error_names_the_formats():
    message = refused(b"MZ not audio")
    assert "Format not recognised" in message
    assert "M4A" in message
    assert "M4A" in audio.formats()
