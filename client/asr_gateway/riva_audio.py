"""Riva's audio: bytes of a live stream to samples, bytes of a recording to a file."""

from __future__ import annotations

import struct
from typing import NamedTuple

from riva.client.proto.riva_asr_pb2 import RecognitionConfig
from riva.client.proto.riva_audio_pb2 import AudioEncoding

from asr_client.audio import AudioFormat
from nemotron_asr.config import SAMPLE_RATE
from nemotron_asr.pcm import PCM16

from .errors import invalid
from .options import LIVE, read_options

_RAW = {
    AudioEncoding.LINEAR_PCM: PCM16,
    AudioEncoding.MULAW: "mulaw",
    AudioEncoding.ALAW: "alaw",
}
_WAV_TAGS = {PCM16: 1, "alaw": 6, "mulaw": 7}  # encoding: WAVE_FORMAT_...
_EXTENSIBLE = 0xFFFE  # the tag stands further behind
_G711_RATE = 8000  # Hz, where none is said
_MARKS = 12  # bytes that tell a WAV file
_MAX_HEADER = 1 << 16
_MAX_PIECES = 1024  # messages until the format is known
_ENDLESS = 0x7FFF_F000  # bytes; so many or more, or 0, say writers that cannot go back
_LIVE_VALID = f"valid: {', '.join(map(AudioEncoding.Name, _RAW))}, or a WAV header of these"


class WavHeader(NamedTuple):
    format: AudioFormat
    begin: int  # of the samples, in bytes
    size: int | None  # bytes of samples; None: until the end


class WavReader:
    """Reads the header of a WAV file, which comes in pieces: each chunk once."""

    def __init__(self):
        self._format: AudioFormat | None = None
        self._at = _MARKS  # where the next chunk begins

    def read(self, data: bytes) -> WavHeader | None:
        """data: all that came.  None where more is to come.  Raises InvalidArgument."""
        while len(data) >= self._at + 8:
            name, size = struct.unpack_from("<4sI", data, self._at)
            begin = self._at + 8
            if name == b"data":
                if self._format is None:
                    raise invalid("a WAV header without a format")
                return WavHeader(self._format, begin, size if 0 < size < _ENDLESS else None)
            if name == b"fmt " and begin + size <= _MAX_HEADER:
                if len(data) < begin + size:
                    break
                self._format = _wav_format(data[begin : begin + size])
            self._at = begin + size + size % 2
        if max(self._at, len(data)) > _MAX_HEADER:
            raise invalid(f"a WAV header of more than {_MAX_HEADER} bytes")
        return None


def _wav_format(chunk: bytes) -> AudioFormat:
    if len(chunk) < 16:
        raise invalid(f"a WAV header with a format of {len(chunk)} bytes")
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if tag == _EXTENSIBLE and len(chunk) >= 26:
        (tag,) = struct.unpack_from("<H", chunk, 24)
    for encoding, known in _WAV_TAGS.items():
        if tag == known and bits == 8 * AudioFormat(encoding=encoding).bytes_per_sample:
            return AudioFormat(rate, channels, encoding)
    raise invalid(
        f"a WAV file of {bits} bits, format {tag}, cannot be streamed; "
        "valid: PCM of 16 bits, mu-law, A-law"
    )


def is_wav(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:_MARKS] == b"WAVE"


class LiveBytes:
    """The bytes of one live stream, however they are cut.

    A WAV header in front tells the format, whatever the configuration says: files are streamed
    with theirs. Without one they are what the configuration says, PCM where it says nothing.
    """

    def __init__(self, config: RecognitionConfig):
        """Raises InvalidArgument for an encoding that cannot be streamed."""
        if config.encoding != AudioEncoding.ENCODING_UNSPECIFIED and config.encoding not in _RAW:
            raise invalid(f"encoding {_name(config.encoding)} cannot be streamed; {_LIVE_VALID}")
        self.format: AudioFormat | None = None  # as soon as it is known
        self._config = config
        self._kept = b""  # of a header, or of a sample, that is not whole
        self._header, self._pieces = WavReader(), 0
        self._left: int | None = None  # bytes of samples until the WAV file's end, if known

    def push(self, data: bytes) -> bytes:
        """The next bytes.  Returns whole samples, none before the format is known.

        Raises InvalidArgument for a header that cannot be read.
        """
        if self.format is None:
            data, self._kept, header = self._kept + data, b"", None
            if len(data) < _MARKS or (is_wav(data) and (header := self._header.read(data)) is None):
                self._kept = data
                self._pieces += 1
                if self._pieces == _MAX_PIECES:
                    raise invalid(f"{_MAX_PIECES} messages without audio or a whole WAV header")
                return b""
            data = self._begin(data, header)
        if self._left is not None:  # other chunks may follow
            data = data[: self._left]
            self._left -= len(data)
        data = self._kept + data
        whole = len(data) - len(data) % self.format.bytes_per_sample
        self._kept = data[whole:]
        return data[:whole]

    def finish(self) -> bytes:
        """No more bytes come.  Returns the samples of a stream whose format was not known yet."""
        if self.format is not None:
            return b""
        if is_wav(self._kept):
            raise invalid("the stream ended within a WAV header")
        data = self._begin(self._kept, None)
        self._kept = b""
        return data[: len(data) - len(data) % self.format.bytes_per_sample]

    def _begin(self, data: bytes, header: WavHeader | None) -> bytes:
        """The format is known.  Returns what is behind the header."""
        if header is not None:
            self.format, self._left = header.format, header.size
        elif self._config.encoding == AudioEncoding.ENCODING_UNSPECIFIED and _is_file(data):
            raise invalid(f"a file of FLAC or Ogg cannot be streamed; {_LIVE_VALID}")
        else:
            self.format = raw_format(self._config)
        separate = self._config.enable_separate_recognition_per_channel
        if separate and self.format.channels > 1:
            raise invalid(
                f"{self.format.channels} channels cannot be told apart in one stream; "
                "valid: a stream for each, or Recognize"
            )
        return data[header.begin :] if header else data


def raw_format(config: RecognitionConfig) -> AudioFormat:
    """Of samples without a header; PCM of 16 kHz where nothing is said, G.711 of 8.

    Raises InvalidArgument naming the valid rates or channels.
    """
    encoding = _RAW.get(config.encoding, PCM16)
    usual_rate = SAMPLE_RATE if encoding == PCM16 else _G711_RATE
    values = {
        "sample_rate": config.sample_rate_hertz or usual_rate,
        "channels": config.audio_channel_count or 1,
    }
    return AudioFormat(**read_options(values, LIVE), encoding=encoding)


def as_file(audio: bytes, config: RecognitionConfig) -> bytes:
    """A recording as a file: samples get a WAV header, files stay as they are.

    Bytes of no encoding are samples where a rate is said and nothing tells a file.
    Raises InvalidArgument naming the valid encodings, rates or channels.
    """
    encoding = config.encoding
    if encoding == AudioEncoding.ENCODING_UNSPECIFIED:
        is_raw = config.sample_rate_hertz and not (is_wav(audio) or _is_file(audio))
    elif encoding in _RAW:
        is_raw = not is_wav(audio)
    elif encoding in (AudioEncoding.FLAC, AudioEncoding.OGGOPUS):
        is_raw = False
    else:
        valid = ", ".join(AudioEncoding.keys())
        raise invalid(f"encoding {_name(encoding)} is not supported; valid: {valid}")
    return _with_header(audio, raw_format(config)) if is_raw and audio else audio


def _with_header(samples: bytes, format: AudioFormat) -> bytes:
    """A WAV file.  What is behind the last whole frame is left out."""
    width = format.bytes_per_sample * format.channels
    size = len(samples) - len(samples) % width
    tag, rate, bits = _WAV_TAGS[format.encoding], format.sample_rate, 8 * format.bytes_per_sample
    head = struct.pack("<4sI4s4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16)
    head += struct.pack("<HHIIHH", tag, format.channels, rate, rate * width, width, bits)
    return b"".join([head, struct.pack("<4sI", b"data", size), memoryview(samples)[:size]])


def _is_file(data: bytes) -> bool:
    """Whether it is one of Riva's files that are no WAV."""
    return data[:4] in (b"fLaC", b"OggS")


def _name(encoding: int) -> str:
    """Of an encoding, which may be one that nobody knows."""
    return AudioEncoding.Name(encoding) if encoding in AudioEncoding.values() else str(encoding)
