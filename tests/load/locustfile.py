"""Load on Triton itself: live gRPC streams at real-time pace, and whole files over HTTP.

    locust -f tests/load/locustfile.py --headless --users 32 --spawn-rate 4 --run-time 60s

Kinds of user: LiveUser, AbandoningUser, OfflineUser; name some at the end to run them alone.
doors.py beside this has those of the gateway, ramp.py a load that grows; -f takes several files
between commas. `--html FILE` leaves a report; the exit code is 1 where --max-failures or
--max-chunk-p95-ms is passed. Several machines: --master on one, --worker --master-host on others.

live start    from the request for a stream to the server's consent
live chunk    lag against the schedule: how long after the last sample of the packet that completed
              a chunk was spoken the answer came, a late sender and every queue included
live final    from the end of the audio to the final text
abandoned     a stream that its client leaves in mid-sentence, without END
offline       service time of one file

Chunks are told from packets by the processed time that an answer reports: most packets complete no
chunk, are answered at once, and would only flatter the percentiles.
"""

from __future__ import annotations

import itertools
import queue
import random
import time

import gevent
import grpc
from common import START_SPREAD_S, FileUser, Schedule, record
from locust import User, constant, task
from tritonclient.grpc import service_pb2_grpc

from asr_client import ClientError, LiveStream
from asr_client.replay import SILENCE
from asr_client.wire import build_request, new_sequence_id, parse_response


class LiveUser(User):
    """Speaks one recording after another, each as a stream of its own."""

    wait_time = constant(0)
    weight = 4

    def on_start(self) -> None:
        time.sleep(random.uniform(0, START_SPREAD_S))

    @task
    def speak(self) -> None:
        _name, _data, samples = random.choice(self.environment.recordings)
        begin_s = time.perf_counter()
        try:
            with self._stream() as stream:
                self._record("live start", begin_s)
                self._follow(stream, Schedule(samples))
        except ClientError as error:
            self._record("live stream", begin_s, error=error)
            time.sleep(1)  # a refused client does not come back at once

    def _stream(self) -> LiveStream:
        options = self.environment.parsed_options
        return LiveStream(
            options.grpc_url,
            language=options.asr_language,
            latency_ms=options.live_latency_ms,
            words=True,
            progress=True,
            reconnect_s=0,  # a stream that is lost is a failure here
        )

    def _follow(self, stream: LiveStream, schedule: Schedule) -> None:
        """Send on schedule in one greenlet, read the answers in this one."""
        sender = gevent.spawn(_send, stream, schedule)
        processed_ms, num_chars = 0, 0
        try:
            for index, result in enumerate(stream.results()):
                num_chars += len(result.text)
                if result.is_final:
                    self._record("live final", float(schedule.due_s[-1]), num_chars)
                elif result.audio_processed_ms > processed_ms:
                    processed_ms = result.audio_processed_ms
                    self._record("live chunk", float(schedule.due_s[index]))
        finally:
            sender.kill()

    def _record(self, name: str, begin_s: float, length: int = 0, error=None) -> None:
        record(self.environment, "gRPC", name, begin_s, length, error)


def _send(stream: LiveStream, schedule: Schedule) -> None:
    try:
        for packet in schedule.spoken():
            stream.send(packet)
        stream.end()
    except ClientError:
        pass  # the reader reports it


class AbandoningUser(User):
    """Goes away in mid-sentence without END: the server is left with the stream."""

    wait_time = constant(1)
    weight = 1

    @task
    def speak_and_go(self) -> None:
        options = self.environment.parsed_options
        _name, _data, samples = random.choice(self.environment.recordings)
        sequence_id, begin_s = new_sequence_id(), time.perf_counter()
        wanted = {"language": options.asr_language, "latency_ms": options.live_latency_ms}
        requests = queue.SimpleQueue()
        requests.put(build_request(sequence_id, SILENCE, start=True, options=wanted))
        with grpc.insecure_channel(options.grpc_url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            answers = stub.ModelStreamInfer(iter(requests.get, None))
            try:
                parse_response(next(answers))
                for packet in itertools.islice(Schedule(samples).spoken(), random.randint(3, 30)):
                    requests.put(build_request(sequence_id, packet))
            except (ClientError, grpc.RpcError) as error:
                record(self.environment, "gRPC", "abandoned", begin_s, error=error)
                return
            answers.cancel()
        record(self.environment, "gRPC", "abandoned", begin_s)


class OfflineUser(FileUser):
    """Sends one file after another, as curl would."""

    def send(self, _name: str, data: bytes, options) -> None:
        self.client.post(
            f"{options.http_url}/v2/models/asr_offline/infer",
            data=data,
            headers={
                "Content-Type": "application/octet-stream",
                "Inference-Header-Content-Length": "0",
                "language": options.asr_language,
                "latency_ms": str(options.offline_latency_ms),
            },
            name="offline",
        )
