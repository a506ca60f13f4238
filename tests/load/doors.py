"""Load on the gateway's doors: WebSocket and Riva streams at real-time pace, OpenAI uploads.

    locust -f tests/load/doors.py --headless --users 32 --spawn-rate 4 --run-time 60s --html r.html

Options, thresholds and names as in locustfile.py. Answers of these doors come with text alone:
their `chunk` is lag from the moment that the audio of an answer was spoken to its text.
"""

from __future__ import annotations

import json
import random
import time
from urllib.parse import urlencode

import gevent
import grpc
import riva.client
from common import START_SPREAD_S, FileUser, Schedule, record
from locust import User, constant, task
from riva.client.proto import riva_asr_pb2
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect


class DoorUser(User):
    """Speaks one recording after another through a door."""

    abstract = True
    wait_time = constant(0)
    kind = ""  # of the requests in the report

    def on_start(self) -> None:
        time.sleep(random.uniform(0, START_SPREAD_S))

    @task
    def speak(self) -> None:
        _name, _data, samples = random.choice(self.environment.recordings)
        begin_s = time.perf_counter()
        try:
            self.converse(samples, begin_s)
        except (OSError, WebSocketException, grpc.RpcError, RuntimeError) as error:
            self.record("stream", begin_s, error=error)
            time.sleep(1)

    def record(self, what: str, begin_s: float, length: int = 0, error=None) -> None:
        name = f"{self.kind} {what}"
        record(self.environment, self.kind, name, begin_s, length, error)


class WebSocketUser(DoorUser):
    """The plain WebSocket."""

    kind = "websocket"
    weight = 3

    def converse(self, samples, begin_s: float) -> None:
        options = self.environment.parsed_options
        query = urlencode({"language": options.asr_language, "latency_ms": options.live_latency_ms})
        url = options.gateway_url.replace("http", "ws", 1)
        with connect(f"{url}/v1/stream?{query}", compression=None) as socket:
            if (ready := json.loads(socket.recv()))["type"] != "ready":
                raise RuntimeError(ready["message"])
            self.record("start", begin_s)
            schedule = Schedule(samples)
            sender = gevent.spawn(self._send, socket, schedule)
            try:
                self._read(socket, schedule)
            finally:
                sender.kill()

    def _send(self, socket, schedule: Schedule) -> None:
        try:
            for packet in schedule.spoken():
                socket.send(packet.tobytes())
            socket.send('{"type": "end"}')
        except WebSocketException:
            pass  # the reader reports it

    def _read(self, socket, schedule: Schedule) -> None:
        num_chars = 0
        for message in socket:
            result = json.loads(message)
            num_chars += len(result.get("text", ""))
            if result["type"] == "error":
                raise RuntimeError(result["message"])
            if result["type"] == "end":
                self.record("final", float(schedule.due_s[-1]), num_chars)
                return
            if not result.get("is_final"):
                self.record("chunk", schedule.due_of_audio_s(result["audio_processed_ms"]))
        raise RuntimeError("the gateway closed the session")


class RivaUser(DoorUser):
    """Riva's gRPC, by NVIDIA's own client."""

    kind = "riva"
    weight = 2

    def converse(self, samples, begin_s: float) -> None:
        options = self.environment.parsed_options
        language = "multi" if options.asr_language == "auto" else options.asr_language
        config = riva.client.StreamingRecognitionConfig(
            config=riva.client.RecognitionConfig(
                encoding=riva.client.AudioEncoding.LINEAR_PCM,
                sample_rate_hertz=16_000,
                language_code=language,
                enable_automatic_punctuation=True,
                custom_configuration={"latency_ms": str(options.live_latency_ms)},
            ),
            interim_results=True,
        )
        service = riva.client.ASRService(riva.client.Auth(uri=options.riva_url))
        schedule = Schedule(samples)
        packets = (packet.tobytes() for packet in schedule.spoken())
        num_chars = 0
        for answer in service.streaming_response_generator(packets, config):
            num_chars += self._count(answer, schedule)
        self.record("final", float(schedule.due_s[-1]), num_chars)

    def _count(self, answer: riva_asr_pb2.StreamingRecognizeResponse, schedule: Schedule) -> int:
        num_chars = 0
        for result in answer.results:
            if result.is_final:
                num_chars += len(result.alternatives[0].transcript)
            else:
                self.record("chunk", schedule.due_of_audio_s(result.audio_processed * 1000))
        return num_chars


class OpenAiUser(FileUser):
    """Uploads files as OpenAI's clients do."""

    def send(self, name: str, data: bytes, options) -> None:
        form = {"model": "whisper-1", "latency_ms": str(options.offline_latency_ms)}
        if options.asr_language != "auto":
            form["language"] = options.asr_language
        url = f"{options.gateway_url}/v1/audio/transcriptions"
        self.client.post(url, data=form, files={"file": (name, data)}, name="openai file")
