"""Audio on its way to the server: checked samples, and packets of them from files and pipes."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import BinaryIO

import numpy as np

from nemotron_asr.audio import decode_blocks
from nemotron_asr.config import SAMPLE_RATE
from nemotron_asr.errors import AsrError
from nemotron_asr.pcm import ENCODINGS, PCM16, decode_g711

from .errors import ClientError, InvalidArgument

_FULL_SCALE = 32_768  # int16 = float * 2**15, as libsndfile reads it back
_MAX_OVERSHOOT = 2.0  # resamplers overshoot 1.0 a little; int16 values kept as floats are far above

Samples = np.ndarray | bytes | bytearray | memoryview


@dataclass(frozen=True)
class AudioFormat:
    """What samples are before they are int16 on the wire.

    encoding: "pcm16" (little-endian), or G.711's "mulaw" or "alaw", a byte a sample. These are
    looked up in a table before they are sent, exactly.
    Raises InvalidArgument for another encoding, and for what is no number; which rates and channels
    there are is for the server to judge.
    """

    sample_rate: int = SAMPLE_RATE  # Hz
    channels: int = 1  # interleaved
    encoding: str = PCM16

    def __post_init__(self):
        if self.encoding not in ENCODINGS:
            valid = ", ".join(ENCODINGS)
            raise _invalid(f"encoding {self.encoding!r} is not supported; valid: {valid}")
        for name in ("sample_rate", "channels"):
            value = getattr(self, name)
            if not isinstance(value, Integral):
                raise _invalid(f"{name} {value!r}; valid: an integer")

    @property
    def bytes_per_sample(self) -> int:
        return 2 if self.encoding == PCM16 else 1

    def num_samples(self, milliseconds: int) -> int:
        """Samples of all channels in so much time."""
        return self.sample_rate * milliseconds // 1000 * self.channels


MODEL_FORMAT = AudioFormat()
# Files by how they begin, which samples hardly do.
FILE_KINDS = {b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3": "MP3", b"\x1aE\xdf\xa3": "WebM"}


def to_pcm16(samples: Samples, format: AudioFormat = MODEL_FORMAT) -> np.ndarray:
    """Check samples and convert them.  Returns (n,) int16, interleaved, n >= 0.

    samples: (n,) int16; or (n,) float32 or float64 in [-1, 1] (overshoots are clipped); either also
    as (n, channels); or bytes in the format's encoding; or (n,) uint8 of mu-law or A-law.
    Raises InvalidArgument for anything else, and for NaN and infinity.
    """
    if isinstance(samples, bytes | bytearray | memoryview):
        data = bytes(samples)
        if len(data) % format.bytes_per_sample:
            raise _invalid(f"{len(data)} bytes are no whole number of 16-bit samples")
        if format.encoding == PCM16:
            return np.frombuffer(data, "<i2").astype(np.int16)
        return decode_g711(data, format.encoding)
    if not isinstance(samples, np.ndarray):
        raise _invalid(f"samples are {type(samples).__name__}; give a numpy array or bytes")
    if samples.ndim != 1 and samples.shape[1:] != (format.channels,):
        valid = "(n,)" if format.channels == 1 else f"(n,) or (n, {format.channels})"
        raise _invalid(f"samples have shape {samples.shape}; valid: {valid}")
    return _array_to_pcm16(samples.reshape(-1), format)


def _array_to_pcm16(samples: np.ndarray, format: AudioFormat) -> np.ndarray:
    if format.encoding != PCM16:
        if samples.dtype == np.uint8:
            return decode_g711(samples.tobytes(), format.encoding)
        raise _invalid(f"samples are {samples.dtype}; valid for {format.encoding}: bytes, uint8")
    if samples.dtype.kind == "i" and samples.dtype.itemsize == 2:
        return samples.astype(np.int16)  # a copy: the caller may reuse its buffer at once
    if samples.dtype.kind == "f" and samples.dtype.itemsize in (4, 8):
        return _float_to_pcm16(samples)
    raise _invalid(f"samples are {samples.dtype}; valid: int16, float32, float64, PCM16 bytes")


def _float_to_pcm16(samples: np.ndarray) -> np.ndarray:
    if not np.isfinite(samples).all():
        raise _invalid("samples contain NaN or infinity")
    peak = float(np.abs(samples).max(initial=0.0))
    if peak > _MAX_OVERSHOOT:
        raise _invalid(f"float samples must lie in [-1, 1]; found {peak:g}")
    scaled = np.rint(samples * _FULL_SCALE)
    return np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)


def file_packets(path: str | Path, packet_ms: int) -> Iterator[np.ndarray]:
    """Packets of an audio file, any format and rate that `decode_audio` reads, mixed to mono.

    Yields (n,) int16 at 16 kHz, n of packet_ms but for the last.  The file is decoded as it goes.
    Raises InvalidArgument, at the first packet, where the file cannot be read.
    """
    try:
        blocks = map(to_pcm16, decode_blocks(str(path), str(path)))
        yield from _repack(blocks, MODEL_FORMAT.num_samples(packet_ms))
    except AsrError as error:
        raise InvalidArgument(str(error)) from error


def _repack(blocks: Iterable[np.ndarray], num_samples: int) -> Iterator[np.ndarray]:
    """Blocks of any size -> packets of num_samples, the last one shorter."""
    rest = np.zeros(0, np.int16)
    for block in blocks:
        rest = np.concatenate([rest, block])
        whole = len(rest) - len(rest) % num_samples
        yield from rest[:whole].reshape(-1, num_samples)
        rest = rest[whole:]
    if len(rest):
        yield rest


def paced(
    packets: Iterator[np.ndarray], format: AudioFormat = MODEL_FORMAT
) -> Iterator[np.ndarray]:
    """Packets when a microphone would deliver them: each when its last sample has been spoken."""
    start_s = time.monotonic()
    samples_per_s = format.num_samples(1000)
    spoken = 0  # samples
    for packet in packets:
        spoken += len(packet)
        time.sleep(max(0.0, start_s + spoken / samples_per_s - time.monotonic()))
        yield packet


def pipe_packets(
    pipe: BinaryIO, packet_ms: int, format: AudioFormat = MODEL_FORMAT
) -> Iterator[np.ndarray]:
    """Packets of raw samples of a format, read from a binary file until its end.

    Yields (n,) int16, interleaved.  A last odd byte of PCM16 is half a sample and is left out.
    Raises InvalidArgument for a WAV file or one of FILE_KINDS, which would be heard as noise.
    """
    num_bytes = format.num_samples(packet_ms) * format.bytes_per_sample
    # Unbuffered: a thread that waits in a buffered read holds a lock that the exit would wait for.
    raw = getattr(pipe, "raw", pipe)
    data = _read_fully(raw, num_bytes)
    for begin, kind in {b"RIFF": "WAV", **FILE_KINDS}.items():
        if data.startswith(begin):
            raise _invalid(f"stdin is a {kind} file; give raw samples, or the file by its name")
    while data:
        yield to_pcm16(data[: len(data) - len(data) % format.bytes_per_sample], format)
        data = _read_fully(raw, num_bytes)


def _read_fully(raw: BinaryIO, num_bytes: int) -> bytes:
    """num_bytes, fewer only at the end: a pipe delivers less than asked for."""
    data = b""
    while len(data) < num_bytes and (more := raw.read(num_bytes - len(data))):
        data += more
    return data


def microphone_packets(packet_ms: int, format: AudioFormat = MODEL_FORMAT) -> Iterator[np.ndarray]:
    """Packets of the default microphone, for ever.  Yields (n,) int16, interleaved.

    Raises ClientError where sounddevice, PortAudio or a microphone is missing.
    """
    try:
        sounddevice = importlib.import_module("sounddevice")
    except ImportError as error:
        extra = 'pip install -e ".[mic]"'
        raise ClientError(f"the microphone needs sounddevice: {extra}") from error
    except OSError as error:  # sounddevice is there, the PortAudio library is not
        raise ClientError(f"the microphone needs PortAudio: {error}") from error
    num_frames = format.num_samples(packet_ms) // format.channels
    try:
        with sounddevice.RawInputStream(
            format.sample_rate, num_frames, channels=format.channels, dtype="int16"
        ) as mic:
            while True:
                data, _overflowed = mic.read(num_frames)
                yield to_pcm16(bytes(data))
    except sounddevice.PortAudioError as error:
        raise ClientError(f"cannot open the microphone: {error}") from error


def _invalid(message: str) -> InvalidArgument:
    return InvalidArgument(f"INVALID_ARGUMENT: {message}")
