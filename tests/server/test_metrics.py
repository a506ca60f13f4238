"""The model's own numbers on Triton's metrics endpoint, after a load that is known."""

from __future__ import annotations

import re
import time

import httpx
import pytest

from asr_client import LiveStream
from asr_server import TritonServer
from server.conftest import pcm, settings_for
from server.raw import RawStream, random_id

pytestmark = pytest.mark.server
SLOTS = 4
IDLE_TIMEOUT_S = 6.0


def numbers(server: TritonServer) -> dict[str, float]:
    """Samples as they stand on the endpoint: name and labels -> value."""
    text = httpx.get(server.metrics_url, trust_env=False).text
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {sample: float(value) for sample, _, value in lines}


def total(server: TritonServer, name: str, **labels: str) -> float:
    """The sum of a family's samples that have these labels."""
    wanted = {f'{key}="{value}"' for key, value in labels.items()}
    return sum(
        value
        for sample, value in numbers(server).items()
        if sample.partition("{")[0] == name
        and wanted <= set(sample.partition("{")[2].rstrip("}").split(","))
    )


def wait_for(server: TritonServer, expected: dict[tuple, float], within_s: float = 60.0) -> None:
    """Until each (name, label=value, ...) has its value; they are published now and then."""
    deadline = time.monotonic() + within_s
    while True:
        found = {k: total(server, k[0], **dict(x.split("=") for x in k[1:])) for k in expected}
        if found == pytest.approx(expected):
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


@pytest.fixture(scope="module")
def server(checkpoints):
    settings = settings_for(checkpoints("tiny"), slots=SLOTS, idle_timeout_s=IDLE_TIMEOUT_S)
    with TritonServer(settings) as running:
        yield running


def test_a_known_load_is_counted_exactly(server):
    wait_for(server, {("asr_slots",): SLOTS, ("asr_streams_started_total",): 0})
    audio = pcm(4 * 5120, seed=1)  # chunks of 320 ms; and END has a rest to flush
    with RawStream(server.grpc_address) as raw:
        ended, idle, again, held = (random_id() for _ in range(4))
        for id_ in (ended, again, held):
            raw.ask(id_, audio, start=True, latency_ms=320)
        raw.ask(idle, audio[:8000], start=True)
        assert "at capacity" in raw.ask(random_id(), start=True)
        assert "INVALID_ARGUMENT" in raw.ask(random_id(), start=True, latency_ms=3)
        raw.ask(ended, end=True)
        raw.ask(again, audio[:1600], start=True, end=True)
        while "NOT_FOUND" not in raw.ask(idle):
            for _ in range(20):  # it answers only while the stream lives, and lets it grow old
                raw.ask(held)
                time.sleep(IDLE_TIMEOUT_S / 15)
        wait_for(
            server,
            {
                ("asr_active_streams",): 1,
                ("asr_streams_started_total",): 5,
                ("asr_streams_refused_total", "code=UNAVAILABLE"): 1,
                ("asr_streams_refused_total", "code=INVALID_ARGUMENT"): 1,
                ("asr_streams_ended_total",): 4,
                ("asr_streams_ended_total", "reason=end"): 2,
                ("asr_streams_ended_total", "reason=idle"): 1,
                ("asr_streams_ended_total", "reason=restart"): 1,
                ("asr_errors_total", "code=NOT_FOUND"): 1,
                ("asr_errors_total",): 3,
                ("asr_audio_seconds_total",): (3 * len(audio) + 8000 + 1600) / 16_000,
            },
        )
        raw.ask(held, end=True)
    wait_for(server, {("asr_active_streams",): 0, ("asr_streams_ended_total", "reason=end"): 3})


def test_batches_and_lags_are_histograms(server):
    before = {
        name: total(server, name)
        for name in ("asr_batch_rows_sum", "asr_rounds_total", "asr_busy_seconds_total")
    }
    with LiveStream(server.grpc_address, latency_ms=80) as stream:
        stream.send(pcm(50 * 1280, seed=2))
        stream.finish()
    wait_for(server, {("asr_batch_rows_sum",): before["asr_batch_rows_sum"] + 51})
    assert total(server, "asr_rounds_total") == before["asr_rounds_total"] + 51  # it was alone
    assert total(server, "asr_busy_seconds_total") > before["asr_busy_seconds_total"]
    chunks = total(server, "asr_chunk_lag_seconds_count")
    assert chunks == total(server, "asr_batch_rows_sum")
    assert total(server, "asr_chunk_lag_seconds_bucket", le="+Inf") == chunks
    assert total(server, "asr_batch_rows_bucket", le="1") >= 51
    buckets = [v for k, v in numbers(server).items() if k.startswith("asr_chunk_lag_seconds_b")]
    assert max(buckets) == chunks
    assert total(server, "asr_chunk_lag_seconds_sum") > 0


def test_nobody_s_id_or_words_are_among_the_labels(server):
    with RawStream(server.grpc_address) as raw:
        raw.ask("call-of-somebody", pcm(60_000, seed=3), start=True, end=True)
    allowed = r'(process="asr_streaming_\d_\d"|le="[\d.+Inf]+"|(code|reason)="[A-Za-z_]+")'
    for sample in filter(lambda name: name.startswith("asr_"), numbers(server)):
        assert re.fullmatch(rf"asr_[a-z_]+\{{({allowed},?)+\}}", sample)


def test_instances_are_told_apart(checkpoints):
    settings = settings_for(checkpoints("tiny"), instances=2, slots=SLOTS)
    with TritonServer(settings) as server:
        streams = [LiveStream(server.grpc_address) for _ in range(SLOTS)]
        started = "asr_streams_started_total"
        wait_for(server, {(started,): SLOTS, ("asr_slots",): 2 * SLOTS})
        for process in ("asr_streaming_0_0", "asr_streaming_0_1"):
            assert total(server, "asr_slots", process=process) == SLOTS
            assert total(server, started, process=process) == SLOTS / 2
        for stream in streams:
            stream.close()
