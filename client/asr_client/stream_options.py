"""What can be asked of a live stream: read once, for the streams of threads and of asyncio."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

from .audio import AudioFormat
from .errors import InvalidArgument
from .patience import Patience
from .session import StreamSession
from .wire import unusual

MAX_PACKET_S = 5  # seconds of audio in one request; what is longer is cut
_LONGEST_UTTERANCE_MS = 600_000  # that the server takes
_CUT_AT_LATEST = 1.25  # times max_utterance_ms, where there is no pause


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """The keyword arguments of `LiveStream`, which explains each.  Raises InvalidArgument."""

    language: str = "auto"
    latency_ms: int = 320
    sample_rate: int = 16_000
    channels: int = 1
    encoding: str = "pcm16"
    punctuation: bool = True
    capitals: bool = True
    profanity: str = "keep"
    languages: Sequence[str] | str = ""
    phrases: Sequence[str] | str = ""
    boost: float = 1.0
    endpoint_ms: int = 0
    endpoint_by: str = "model"
    max_utterance_ms: int = 0
    recover_ms: int = 0
    words: bool = False
    progress: bool = False
    max_in_flight: int = 64
    timeout_s: float = 30.0
    reconnect_s: float = 120.0
    max_replay_s: float = 300.0

    def __post_init__(self):
        longest_s = _LONGEST_UTTERANCE_MS / 1000 * _CUT_AT_LATEST
        bounds = {
            "max_in_flight": (1, math.inf),
            "timeout_s": (0.1, math.inf),
            "reconnect_s": (0, math.inf),
            "max_utterance_ms": (0, _LONGEST_UTTERANCE_MS),
        }
        if self.reconnect_s:
            bounds["max_replay_s"] = (1, longest_s)
        for name, (least, most) in bounds.items():
            value = getattr(self, name)
            if not (isinstance(value, Real) and least <= value <= most):
                valid = f"{least:g} or more" if most == math.inf else f"{least:g} to {most:g}"
                raise InvalidArgument(f"INVALID_ARGUMENT: {name} {value!r}; valid: {valid}")
        self.format()

    def format(self) -> AudioFormat:
        """Of the samples that will be sent."""
        return AudioFormat(self.sample_rate, self.channels, self.encoding)

    def session(self, keep: bool = True) -> StreamSession:
        """A new stream.  keep: its transcript."""
        max_utterance_ms = self._kept_ms() if self.reconnect_s else self.max_utterance_ms
        options = {"language": self.language, "latency_ms": self.latency_ms}
        options["sample_rate"] = self.sample_rate
        options |= unusual(
            channels=self.channels, punctuation=self.punctuation, capitals=self.capitals,
            profanity=self.profanity, languages=self.languages, phrases=self.phrases,
            boost=self.boost, endpoint_ms=self.endpoint_ms, endpoint_by=self.endpoint_by,
            max_utterance_ms=max_utterance_ms, recover_ms=self.recover_ms,
        )  # fmt: skip
        return StreamSession(
            options,
            details=bool(self.words or self.endpoint_ms or max_utterance_ms or self.recover_ms),
            progress=self.progress,
            replay=bool(self.reconnect_s),
            merge=not self.progress,  # which has a result for each packet that was sent
            keep=keep,
            format=self.format(),
        )

    def patience(
        self, url: str, session: StreamSession, max_ahead_s: float | None = None
    ) -> Patience:
        """max_ahead_s: of audio that may wait for answers; None: max_in_flight alone counts."""
        max_ahead = (
            None if max_ahead_s is None else self.format().num_samples(int(max_ahead_s * 1000))
        )
        return Patience(
            url,
            session,
            max_in_flight=self.max_in_flight,
            max_ahead=max_ahead,
            max_backlog=self.format().num_samples(int(self.max_replay_s * 1000)),
            timeout_s=self.timeout_s,
            reconnect_s=self.reconnect_s,
        )

    def _kept_ms(self) -> int:
        """The longest utterance, so that it can be kept: it may become a little longer."""
        kept_ms = int(self.max_replay_s * 1000 / _CUT_AT_LATEST)
        return min(self.max_utterance_ms or kept_ms, kept_ms)
