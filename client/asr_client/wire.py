"""The bytes on the wire: requests and answers of `asr_streaming`, without any connection.

Shared by every client of the model, whatever runs the connection (threads, asyncio).
"""

from __future__ import annotations

import json
import secrets
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import numpy as np
from tritonclient.grpc import service_pb2

from nemotron_asr.options import Options

from .errors import ServerError, error_from_message

MODEL = "asr_streaming"


@dataclass(frozen=True)
class Answer:
    """One answer of the server: the text it fixed, and the RESULT object where it was asked for."""

    text: str
    result: dict | None


def new_sequence_id() -> int:
    """A random 63-bit id, never 0: Triton ties ids to no connection, so no two may collide."""
    return secrets.randbits(63) or 1


def build_request(
    sequence_id: int,
    samples: np.ndarray,
    *,
    start: bool = False,
    end: bool = False,
    options: Mapping[str, str | int | bool] | None = None,
    with_result: bool = False,
) -> service_pb2.ModelInferRequest:
    """One packet.  samples: (n,) int16, n >= 0; options travel as request parameters.

    with_result: ask for RESULT beside TEXT (the server builds its JSON only then).
    """
    request = service_pb2.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="AUDIO", datatype="INT16", shape=[1, len(samples)])
    request.raw_input_contents.append(samples.astype("<i2", copy=False).tobytes())
    request.outputs.add(name="TEXT")
    if with_result:
        request.outputs.add(name="RESULT")
    request.parameters["sequence_id"].int64_param = sequence_id
    request.parameters["sequence_start"].bool_param = start
    request.parameters["sequence_end"].bool_param = end
    for name, value in (options or {}).items():
        _set_parameter(request.parameters[name], value)
    return request


def _set_parameter(parameter: service_pb2.InferParameter, value: str | int | bool) -> None:
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    else:
        parameter.string_param = str(value)


def unusual(**options: str | float | bool | list) -> dict[str, str | int | bool]:
    """Those options that are not what the server takes anyway: an older one may not know them."""
    usual = {field.name: field.default for field in fields(Options)}
    return {name: _plain(value) for name, value in options.items() if value != usual[name]}


def _plain(value: str | float | bool | list) -> str | int | bool:
    """As what every protocol has."""
    if isinstance(value, (list, tuple)):
        return json.dumps(value)
    return str(value) if isinstance(value, float) else value


def parse_response(response: service_pb2.ModelStreamInferResponse) -> Answer:
    """Read one response.  Raises the ClientError that its error message stands for."""
    if response.error_message:
        raise error_from_message(response.error_message)
    infer = response.infer_response
    outputs = {
        output.name: next(iter_bytes_tensor(raw), b"").decode()
        for output, raw in zip(infer.outputs, infer.raw_output_contents, strict=True)
    }
    if "TEXT" not in outputs:
        raise ServerError(f"INTERNAL: no TEXT in the answer, only {sorted(outputs)}")
    result = json.loads(outputs["RESULT"]) if "RESULT" in outputs else None
    return Answer(outputs["TEXT"], result)


def iter_bytes_tensor(raw: bytes) -> Iterator[bytes]:
    """Elements of a BYTES tensor: each is a 4-byte little-endian length, then the data."""
    offset = 0
    while offset < len(raw):
        (length,) = struct.unpack_from("<I", raw, offset)
        offset += 4
        yield raw[offset : offset + length]
        offset += length
