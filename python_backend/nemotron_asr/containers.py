"""Files that libsndfile does not read, such as M4A, MP4 and WebM, decoded by FFmpeg (PyAV).

FFmpeg believes anything: a playlist that opens other files, hundreds of codecs. So only the formats
and codecs below are let near a file, and nothing but the file itself can be read.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np

from .config import SAMPLE_RATE

_DEMUXERS = ("matroska", "mov", "aac", "amr", "asf", "mpegts", "ogg", "wav")
_DECODERS = (
    "aac", "aac_latm", "ac3", "alac", "amrnb", "amrwb", "eac3", "flac", "libopencore_amrnb",
    "libopencore_amrwb", "libopus", "libvorbis", "mp2", "mp2float", "mp3", "mp3float", "opus",
    "pcm_alaw", "pcm_f32be", "pcm_f32le", "pcm_mulaw", "pcm_s16be", "pcm_s16le", "pcm_s24be",
    "pcm_s24le", "pcm_s32le", "pcm_u8", "speex", "vorbis", "wmapro", "wmav1", "wmav2",
)  # fmt: skip
_TELL_LENGTHS = ("matroska", "mov")  # the others' durations are guesses from bit rates
LENGTH_TOLERANCE_S = 0.25  # a few codec frames


class Container:
    """The audio track of a file, the best one where there are several.

    file: a path, or binary and seekable.  rate: Hz.  channels: their number.  duration_s: what the
    header says, None where it does not.  Raises ValueError with the reason where the file cannot be
    decoded, OSError where it cannot be opened.
    """

    def __init__(self, file: str | Path | BinaryIO):
        self._to_close = ExitStack()
        if isinstance(file, str | Path):  # never given to FFmpeg: it would take it for a URL
            file = self._to_close.enter_context(open(file, "rb"))  # noqa: SIM115
        file.seek(0)
        try:
            options = {
                "format_whitelist": ",".join(_DEMUXERS),
                "codec_whitelist": ",".join(_DECODERS),
                "protocol_whitelist": "",
            }
            self._container = self._to_close.enter_context(
                av.open(file, options=options, metadata_errors="replace")
            )
            self._track = self._container.streams.best("audio")
            if self._track is None:
                raise ValueError("It has no audio track.")
            codec = self._track.codec_context.name
            if codec not in _DECODERS:
                raise ValueError(f"Its audio is {codec}, which is not decoded.")
            self.duration_s = self._duration_s()
            frames = self._container.decode(self._track)
            first = list(itertools.islice(frames, 1))
            self._frames = itertools.chain(first, frames)
            # Not what the header says: AAC's may be half the rate, and mono that is stereo.
            self.rate = first[0].sample_rate if first else SAMPLE_RATE
            self.channels = first[0].layout.nb_channels if first else 1
        except av.FFmpegError as error:
            self.close()
            raise ValueError("Format not recognised, or its beginning is broken.") from error
        except BaseException:
            self.close()
            raise

    def blocks(self) -> Iterator[np.ndarray]:
        """(n, channels) float32 of about a second each, every sample of the track."""
        kept, num_kept = [], 0
        try:
            for samples in self._decoded():
                kept.append(samples)
                num_kept += samples.shape[1]
                if num_kept >= self.rate:
                    yield np.concatenate(kept, axis=1).T
                    kept, num_kept = [], 0
        except av.FFmpegError as error:
            raise ValueError(f"{error.strerror}.") from error
        if kept:
            yield np.concatenate(kept, axis=1).T

    def close(self) -> None:
        self._to_close.close()

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_exc) -> None:
        self.close()

    def _decoded(self) -> Iterator[np.ndarray]:
        """(channels, n) float32 of each codec frame. Raises ValueError where it ends early."""
        to_float = av.AudioResampler(format="fltp")
        start_s = end_s = None
        for frame in self._frames:
            if (frame.sample_rate, frame.layout.nb_channels) != (self.rate, self.channels):
                raise ValueError("Its rate or number of channels changes on the way.")
            if frame.time is not None:
                start_s = frame.time if start_s is None else start_s
                end_s = frame.time + frame.samples / self.rate
            for converted in to_float.resample(frame):
                yield converted.to_ndarray()
        heard_s = 0.0 if end_s is None else end_s - start_s
        if self.duration_s is not None and heard_s < self.duration_s - LENGTH_TOLERANCE_S:
            raise ValueError(f"It ends after {heard_s:.2f} of {self.duration_s:.2f} s.")

    def _duration_s(self) -> float | None:
        """What the header says, None where it says nothing or only guesses."""
        if not self._container.format.name.startswith(_TELL_LENGTHS):
            return None
        if self._track.duration is not None:
            return float(self._track.duration * self._track.time_base)
        if len(self._container.streams) == 1 and self._container.duration is not None:
            return self._container.duration / av.time_base
        return None
