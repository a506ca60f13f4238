"""Load: live gRPC streams at real-time pace, and whole files over HTTP.

    locust -f tests/load/locustfile.py --headless --users 32 --spawn-rate 4 --run-time 60s

Both kinds of user by default; name one (`LiveUser`, `OfflineUser`) at the end to run it alone.

live start    from the request for a stream to the server's consent
live chunk    lag against the schedule: how long after the last sample of the packet that completed
              a chunk was spoken the answer came, a late sender and every queue included
live final    from the end of the audio to the final text
offline       service time of one file

Chunks are told from packets by the processed time that an answer reports: most packets complete no
chunk, are answered at once, and would only flatter the percentiles.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path

import grpc.experimental.gevent
from locust import HttpUser, User, constant, events, task

grpc.experimental.gevent.init_gevent()  # before the first channel; locust has patched the rest

import gevent  # noqa: E402
import numpy as np  # noqa: E402

from asr_client import ClientError, LiveStream  # noqa: E402
from asr_client.audio import SAMPLE_RATE, file_packets  # noqa: E402

MIN_PACKET_MS, MAX_PACKET_MS = 20, 100  # what browsers and telephony send
AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".mp3"}
START_SPREAD_S = 1.0  # users of one spawn step must not speak in step: that flatters batching


@events.init_command_line_parser.add_listener
def add_arguments(parser) -> None:
    """The options beside locust's own; `--host` is the HTTP endpoint."""
    parser.add_argument("--audio-dir", default="samples", help="recordings to send")
    parser.add_argument("--grpc-url", default="127.0.0.1:8001", help="endpoint of live streams")
    parser.add_argument("--asr-language", default="auto", help="language of every request")
    parser.add_argument("--live-latency-ms", type=int, default=320, help="of live streams")
    parser.add_argument("--offline-latency-ms", type=int, default=1120, help="of files")


@events.test_start.add_listener
def find_audio(environment, **_kwargs) -> None:
    """Read the recordings once; without any, stop and say so."""
    folder = Path(environment.parsed_options.audio_dir)
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise SystemExit(f"no recordings in {folder}: give --audio-dir")
    environment.recordings = [(p.name, p.read_bytes(), _samples(p)) for p in files]


def _samples(path: Path) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int16), *file_packets(path, 1000)])


def ragged_packets(samples: np.ndarray) -> Iterator[np.ndarray]:
    """Cut (n,) int16 into packets of 20 to 100 ms."""
    begin = 0
    while begin < len(samples):
        length = random.randint(MIN_PACKET_MS, MAX_PACKET_MS) * SAMPLE_RATE // 1000
        yield samples[begin : begin + length]
        begin += length


class LiveUser(User):
    """Speaks one recording after another, each as a stream of its own."""

    wait_time = constant(0)
    weight = 4

    def on_start(self) -> None:
        time.sleep(random.uniform(0, START_SPREAD_S))

    @task
    def speak(self) -> None:
        _name, _data, samples = random.choice(self.environment.recordings)
        options = self.environment.parsed_options
        begin_s = time.perf_counter()
        try:
            with LiveStream(
                options.grpc_url,
                language=options.asr_language,
                latency_ms=options.live_latency_ms,
                words=True,
                progress=True,
                reconnect_s=0,  # a stream that is lost is a failure here
            ) as stream:
                self._record("live start", begin_s)
                self._follow(stream, list(ragged_packets(samples)))
        except ClientError as error:
            self._record("live stream", begin_s, error=error)
            time.sleep(1)  # a refused client does not come back at once

    def _follow(self, stream: LiveStream, packets: list[np.ndarray]) -> None:
        """Send on schedule in one greenlet, read the answers in this one."""
        spoken_s = [n / SAMPLE_RATE for n in itertools.accumulate(map(len, packets))]
        start_s = time.perf_counter()
        due_s = [start_s + s for s in spoken_s]  # when each packet's last sample was spoken
        sender = gevent.spawn(_send_on_schedule, stream, packets, due_s)
        processed_ms, num_chars = 0, 0
        try:
            for index, result in enumerate(stream.results()):
                num_chars += len(result.text)
                if result.is_final:
                    self._record("live final", due_s[-1], num_chars)
                elif result.audio_processed_ms > processed_ms:
                    processed_ms = result.audio_processed_ms
                    self._record("live chunk", due_s[index])
        finally:
            sender.kill()

    def _record(self, name: str, begin_s: float, length: int = 0, error=None) -> None:
        self.environment.events.request.fire(
            request_type="gRPC",
            name=name,
            response_time=(time.perf_counter() - begin_s) * 1000,
            response_length=length,
            exception=error,
            context={},
        )


def _send_on_schedule(stream: LiveStream, packets: list[np.ndarray], due_s: list[float]) -> None:
    try:
        for packet, due in zip(packets, due_s, strict=True):
            time.sleep(max(0.0, due - time.perf_counter()))
            stream.send(packet)
        stream.end()
    except ClientError:
        pass  # the reader reports it


class OfflineUser(HttpUser):
    """Sends one file after another, as curl would."""

    host = "http://127.0.0.1:8000"
    wait_time = constant(1)
    weight = 1

    @task
    def send_file(self) -> None:
        _name, data, _samples = random.choice(self.environment.recordings)
        options = self.environment.parsed_options
        self.client.post(
            "/v2/models/asr_offline/infer",
            data=data,
            headers={
                "Content-Type": "application/octet-stream",
                "Inference-Header-Content-Length": "0",
                "language": options.asr_language,
                "latency_ms": str(options.offline_latency_ms),
            },
            name="offline",
        )
