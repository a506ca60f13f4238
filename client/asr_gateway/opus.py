"""Opus packets, as browsers and telephony send them, to PCM; with PyAV, the extra `formats`."""

from __future__ import annotations

import numpy as np

from .errors import invalid

OPUS = "opus"
_RATE = 48_000  # what Opus decodes to
_NO_AV = 'Opus needs PyAV: pip install -e ".[formats]"'


class OpusPackets:
    """A decoder of one stream's packets, one Opus packet a message, without a container."""

    sample_rate = _RATE

    def __init__(self, channels: int):
        """Raises InvalidArgument where PyAV is not installed, or for other than 1 or 2 channels."""
        try:
            import av
        except ModuleNotFoundError:
            raise invalid(_NO_AV) from None
        if channels not in (1, 2):
            raise invalid(f"{channels} channels of Opus; valid: 1, 2")
        self._av = av
        self._decoder = av.CodecContext.create("opus", "r")
        self._decoder.extradata = _head(channels)
        self._resampler = av.AudioResampler("s16", "mono" if channels == 1 else "stereo", _RATE)

    def decode(self, packet: bytes) -> np.ndarray:
        """Samples of a packet, channels interleaved, (n,) int16.  Raises InvalidArgument."""
        try:
            frames = self._decoder.decode(self._av.Packet(packet)) if packet else []
            parts = [part for frame in frames for part in self._resampler.resample(frame)]
        except self._av.error.FFmpegError as error:
            raise invalid(f"no Opus packet: {error}") from None
        return np.concatenate([part.to_ndarray()[0] for part in parts] or [np.zeros(0, np.int16)])


def _head(channels: int) -> bytes:
    """An identification header (RFC 7845, 5.1): version 1, no samples to skip, no gain."""
    return b"OpusHead" + bytes([1, channels, 0, 0]) + _RATE.to_bytes(4, "little") + bytes(3)
