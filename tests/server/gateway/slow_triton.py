"""A stand-in for Triton that takes live streams and answers when it is told to."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

OFFER = {
    "model": "slow", "languages": ["auto"], "latencies_ms": [320], "sample_rates": [16_000],
    "max_channels": 8, "idle_timeout_s": 60, "max_queued_s": 600,
}  # fmt: skip


class SlowTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Packets wait until `answer` allows so many of them."""

    http_url = "http://127.0.0.1:9"  # nobody is there

    def __init__(self):
        self.samples = 0  # heard
        self._allowed = threading.Semaphore(0)
        self._server = grpc.server(ThreadPoolExecutor(8))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.grpc_address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> SlowTriton:
        self._server.start()
        return self

    def __exit__(self, *_exc) -> None:
        self.answer(1_000_000)
        self._server.stop(0).wait()

    def answer(self, packets: int) -> None:
        self._allowed.release(packets)

    def ModelStreamInfer(self, requests, _context) -> Iterator:  # noqa: N802
        for request in requests:
            if request.parameters["sequence_start"].bool_param:
                yield _answer({"text": "", "server": OFFER})
                continue
            self._allowed.acquire()
            self.samples += len(request.raw_input_contents[0]) // 2
            yield _answer({"text": "", "audio_processed_ms": self.samples // 16})


def _answer(result: dict) -> service_pb2.ModelStreamInferResponse:
    answer = service_pb2.ModelStreamInferResponse()
    for name, text in (("TEXT", b""), ("RESULT", json.dumps(result).encode())):
        answer.infer_response.outputs.add(name=name, datatype="BYTES", shape=[1])
        answer.infer_response.raw_output_contents.append(struct.pack("<I", len(text)) + text)
    return answer
