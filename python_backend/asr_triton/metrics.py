"""The numbers of a streaming engine on Triton's metrics endpoint."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import triton_python_backend_utils as pb_utils

from nemotron_asr.config import SAMPLE_RATE
from nemotron_asr.engine import StreamingEngine
from nemotron_asr.engine.metrics import Histogram

INTERVAL_S = 0.5  # each changed number costs a message to the server

# Triton's histograms take one value at a time, a message each: ours are counters, named so that
# Prometheus takes them for a histogram. Name -> whether it is a gauge, help.
FAMILIES = {
    "asr_active_streams": (True, "Streams that hold a slot"),
    "asr_slots": (True, "Streams at a time that this process takes"),
    "asr_streams_started_total": (False, "Streams that were given a slot"),
    "asr_streams_refused_total": (False, "Streams that were refused, by code of the error"),
    "asr_streams_ended_total": (False, "Streams that gave their slot back, by reason"),
    "asr_errors_total": (False, "Requests answered with an error, by code"),
    "asr_audio_seconds_total": (False, "Audio received"),
    "asr_rounds_total": (False, "Rounds that had something to decode"),
    "asr_busy_seconds_total": (False, "Time spent in rounds"),
    "asr_batch_rows_bucket": (False, "Forward calls, by the most streams that they took"),
    "asr_batch_rows_sum": (False, "Chunks decoded"),
    "asr_batch_rows_count": (False, "Forward calls"),
    "asr_chunk_lag_seconds_bucket": (False, "Chunks answered, by the longest that it took"),
    "asr_chunk_lag_seconds_sum": (False, "Time from a chunk's last sample to its answer"),
    "asr_chunk_lag_seconds_count": (False, "Chunks answered"),
}

Sample = tuple[str, dict[str, str], float]  # name, labels, value

log = logging.getLogger(__name__)


def samples(engine: StreamingEngine) -> Iterator[Sample]:
    """What is to be published of an engine, as of now."""
    metrics = engine.metrics
    yield "asr_active_streams", {}, len(engine.table)
    yield "asr_slots", {}, engine.table.num_slots
    yield "asr_streams_started_total", {}, metrics.started
    for name, label, counter in (
        ("asr_streams_refused_total", "code", metrics.refused),
        ("asr_streams_ended_total", "reason", metrics.ended),
        ("asr_errors_total", "code", metrics.errors),
    ):
        for key, count in list(counter.items()):
            yield name, {label: key}, count
    yield "asr_audio_seconds_total", {}, metrics.audio_samples / SAMPLE_RATE
    yield "asr_rounds_total", {}, metrics.rounds
    yield "asr_busy_seconds_total", {}, metrics.busy_s
    yield from _histogram("asr_batch_rows", metrics.batch_rows)
    yield from _histogram("asr_chunk_lag_seconds", metrics.chunk_lag_s)


def _histogram(name: str, histogram: Histogram) -> Iterator[Sample]:
    total = 0
    for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
        total += count
        yield f"{name}_bucket", {"le": str(bound)}, total
    yield f"{name}_sum", {}, histogram.sum
    yield f"{name}_count", {}, total


class Publisher:
    """Publishes an engine's numbers now and then, from a thread of its own.

    process: tells instances of a model apart.
    """

    def __init__(self, engine: StreamingEngine, process: str):
        self._engine = engine
        self._labels = {"process": process}
        self._families = {}
        self._published = {}  # name, labels -> the metric and its value
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End, while there is a server to take the metrics back."""
        self._stopping.set()
        self._thread.join()
        self._published.clear()  # a metric must go before its family
        self._families.clear()

    def _run(self) -> None:
        worked = True
        while not self._stopping.wait(INTERVAL_S):
            try:
                self._publish()
                worked = True
            except Exception:  # no room in shared memory, or a server without metrics: it serves
                if worked:
                    log.exception("no metrics for now")
                worked = False

    def _publish(self) -> None:
        for name, labels, value in samples(self._engine):
            key = name, *labels.items()
            if key not in self._published:
                metric = self._family(name).Metric(labels=self._labels | labels)
                self._published[key] = metric, 0
            metric, before = self._published[key]
            if value == before:
                continue
            if FAMILIES[name][0]:
                metric.set(value)
            else:
                metric.increment(value - before)
            self._published[key] = metric, value

    def _family(self, name: str):
        if name not in self._families:
            is_gauge, description = FAMILIES[name]
            kind = pb_utils.MetricFamily.GAUGE if is_gauge else pb_utils.MetricFamily.COUNTER
            self._families[name] = pb_utils.MetricFamily(
                name=name, description=description, kind=kind
            )
        return self._families[name]
