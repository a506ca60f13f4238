"""What all load users share: recordings, packets, options, how lag is counted, pass or fail."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from pathlib import Path

import grpc.experimental.gevent
from locust import HttpUser, constant, events, task

grpc.experimental.gevent.init_gevent()  # before the first channel; locust has patched the rest

import numpy as np  # noqa: E402

from asr_client.audio import SAMPLE_RATE, file_packets  # noqa: E402
from nemotron_asr.chunks import samples_needed  # noqa: E402
from nemotron_asr.config import TOKEN_FRAME_MS  # noqa: E402

MIN_PACKET_MS, MAX_PACKET_MS = 20, 100  # what browsers and telephony send
AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".mp3"}
START_SPREAD_S = 1.0  # users of one spawn step must not speak in step: that flatters batching

log = logging.getLogger(__name__)


@events.init_command_line_parser.add_listener
def add_arguments(parser) -> None:
    """The options beside locust's own."""
    parser.add_argument("--audio-dir", default="samples", help="recordings to send")
    parser.add_argument("--grpc-url", default="127.0.0.1:8001", help="Triton's gRPC")
    parser.add_argument("--http-url", default="http://127.0.0.1:8000", help="Triton's HTTP")
    parser.add_argument("--gateway-url", default="http://127.0.0.1:8080", help="the gateway's")
    parser.add_argument("--riva-url", default="127.0.0.1:50051", help="the gateway's Riva door")
    parser.add_argument("--asr-language", default="auto", help="language of every request")
    parser.add_argument("--live-latency-ms", type=int, default=320, help="of live streams")
    parser.add_argument("--offline-latency-ms", type=int, default=1120, help="of files")
    parser.add_argument("--max-failures", type=float, default=0.01, help="share that may fail")
    parser.add_argument(
        "--max-chunk-p95-ms", type=float, default=1000, help="lag that may be, of each live kind"
    )


@events.test_start.add_listener
def find_audio(environment, **_kwargs) -> None:
    """Read the recordings once; without any, stop and say so."""
    folder = Path(environment.parsed_options.audio_dir)
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise SystemExit(f"no recordings in {folder}: give --audio-dir")
    environment.recordings = [(p.name, p.read_bytes(), _samples(p)) for p in files]


@events.quitting.add_listener
def judge(environment, **_kwargs) -> None:
    """Exit code 1, and the reason in the log, where a threshold is passed."""
    reasons = [*failures(environment)]
    for reason in reasons:
        log.error("failed: %s", reason)
    if reasons:
        environment.process_exit_code = 1
    elif environment.stats.total.num_requests:
        log.info("passed")


def failures(environment) -> Iterator[str]:
    """Which thresholds are passed."""
    options, stats = environment.parsed_options, environment.stats
    if stats.total.fail_ratio > options.max_failures:
        yield f"{stats.total.fail_ratio:.2%} of the requests failed"
    for entry in stats.entries.values():
        p95_ms = entry.get_response_time_percentile(0.95) or 0
        if entry.name.endswith(" chunk") and p95_ms > options.max_chunk_p95_ms:
            yield f"p95 of {entry.name!r} is {p95_ms:.0f} ms"


def _samples(path: Path) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int16), *file_packets(path, 1000)])


def ragged_packets(samples: np.ndarray) -> Iterator[np.ndarray]:
    """Cut (n,) int16 into packets of 20 to 100 ms."""
    begin = 0
    while begin < len(samples):
        length = random.randint(MIN_PACKET_MS, MAX_PACKET_MS) * SAMPLE_RATE // 1000
        yield samples[begin : begin + length]
        begin += length


class FileUser(HttpUser):
    """Sends one file after another."""

    abstract = True
    host = "http://127.0.0.1"  # locust wants one; the options say which
    wait_time = constant(1)
    weight = 1

    @task
    def send_one(self) -> None:
        name, data, _samples = random.choice(self.environment.recordings)
        self.send(name, data, self.environment.parsed_options)

    def send(self, name: str, data: bytes, options) -> None:
        raise NotImplementedError


class Schedule:
    """When what of a recording has been spoken, from now on."""

    def __init__(self, samples: np.ndarray):
        self.packets = list(ragged_packets(samples))
        ends = np.cumsum([len(packet) for packet in self.packets])
        self.due_s = time.perf_counter() + ends / SAMPLE_RATE  # of each packet's last sample
        self._ends_ms = ends * 1000 / SAMPLE_RATE

    def due_of_audio_s(self, processed_ms: float) -> float:
        """When the packet was spoken with which so much could be decoded.

        The last frame of what is decoded reaches to its middle and a little further.
        """
        needed_ms = samples_needed(round(processed_ms / TOKEN_FRAME_MS)) * 1000 / SAMPLE_RATE
        index = int(np.searchsorted(self._ends_ms, needed_ms))
        return float(self.due_s[min(index, len(self.due_s) - 1)])

    def spoken(self) -> Iterator[np.ndarray]:
        """The packets, each once it is due."""
        for packet, due_s in zip(self.packets, self.due_s, strict=True):
            time.sleep(max(0.0, due_s - time.perf_counter()))
            yield packet


def record(environment, kind: str, name: str, begin_s: float, length: int = 0, error=None) -> None:
    """One response, whose time counts from begin_s."""
    environment.events.request.fire(
        request_type=kind,
        name=name,
        response_time=(time.perf_counter() - begin_s) * 1000,
        response_length=length,
        exception=error,
        context={},
    )
