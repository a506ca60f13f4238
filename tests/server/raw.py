"""A bare gRPC stream, to say what no well-behaved client would. Also run as a client to be killed.

python raw.py ADDRESS    # 64 streams in flight on one connection, for ever
"""

from __future__ import annotations

import queue
import random
import sys
import time

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc


def packet(id_, samples=(), start=False, end=False, **parameters):
    """One request of asr_streaming."""
    samples = np.asarray(samples, dtype="<i2")
    request = service_pb2.ModelInferRequest(model_name="asr_streaming")
    request.inputs.add(name="AUDIO", datatype="INT16", shape=[1, len(samples)])
    request.raw_input_contents.append(samples.tobytes())
    request.outputs.add(name="TEXT")
    kind = "string_param" if isinstance(id_, str) else "int64_param"
    setattr(request.parameters["sequence_id"], kind, id_)
    request.parameters["sequence_start"].bool_param = start
    request.parameters["sequence_end"].bool_param = end
    for name, value in parameters.items():
        kind = "int64_param" if isinstance(value, int) else "string_param"
        setattr(request.parameters[name], kind, value)
    return request


class RawStream:
    """One gRPC stream; `ask` sends a packet and returns its text or its error."""

    def __init__(self, address: str):
        self._channel = grpc.insecure_channel(address)
        self._requests = queue.SimpleQueue()
        stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self.answers = stub.ModelStreamInfer(iter(self._requests.get, None))

    def send(self, *args, **kwargs) -> None:
        self.put(packet(*args, **kwargs))

    def put(self, request) -> None:
        self._requests.put(request)

    def ask(self, *args, **kwargs) -> str:
        self.send(*args, **kwargs)
        return self.read()

    def read(self) -> str:
        answer = next(self.answers)
        if answer.error_message:
            return answer.error_message
        return answer.infer_response.raw_output_contents[0][4:].decode()

    def close(self) -> None:
        self._requests.put(None)
        self.answers.cancel()
        self._channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def random_id() -> int:
    return random.getrandbits(62) + 1


def never_stop(address: str, streams: int = 64) -> None:
    noise = np.random.default_rng().integers(-3000, 3000, 1280)
    with RawStream(address) as raw:
        ids = [random_id() for _ in range(streams)]
        for id_ in ids:
            raw.send(id_, noise, start=True, latency_ms=80)
        print("in flight", flush=True)
        while True:
            for id_ in ids:
                raw.send(id_, noise)
            time.sleep(0.02)


if __name__ == "__main__":
    never_stop(sys.argv[1])
