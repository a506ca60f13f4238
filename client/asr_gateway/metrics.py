"""Prometheus metrics of one gateway, its own registry."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from nemotron_asr.errors import INTERNAL, UNAVAILABLE

_DOORS = ("openai", "realtime", "websocket", "riva")
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_LAG = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """What every door counts."""

    def __init__(self):
        self.registry = CollectorRegistry()
        mine = {"registry": self.registry}
        self.sessions = Gauge(
            "asr_gateway_sessions", "Live streams that are open", ["door"],
            multiprocess_mode="livesum", **mine,
        )  # fmt: skip
        self.started = Counter("asr_gateway_sessions_started", "Live streams", ["door"], **mine)
        self.ended = Counter(
            "asr_gateway_sessions_ended", "By the code of the error, or end", ["door", "reason"],
            **mine,
        )  # fmt: skip
        self.refused = Counter(
            "asr_gateway_refused", "Sessions and files not taken", ["door", "code"], **mine
        )
        self.audio_seconds = Counter(
            "asr_gateway_audio_seconds", "Audio of live streams and files", ["door"], **mine
        )
        self.files = Counter("asr_gateway_files", "Files", ["door", "code"], **mine)
        self.file_seconds = Histogram(
            "asr_gateway_file_seconds", "From upload to answer", ["door"], buckets=_SECONDS, **mine
        )
        self.loop_lag = Histogram(
            "asr_gateway_loop_lag_seconds", "How late the event loop is", buckets=_LAG, **mine
        )

        for door in _DOORS:  # an alert sees the first of them only where it grows from 0
            for reason in (INTERNAL, UNAVAILABLE):
                self.ended.labels(door, reason)

    def page(self) -> bytes:
        """In Prometheus' text format, of all processes of this gateway."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)
        return generate_latest(together)
