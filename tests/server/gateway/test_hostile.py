"""Slow and hostile clients: what they cost, and that it is nobody else who pays."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from riva.client.proto.health_pb2 import HealthCheckResponse

from asr_gateway.access import add_key
from server.gateway.conftest import RunningGateway, start_gateway, stop
from server.gateway.test_riva import DIRECT
from server.gateway.test_riva_refusals import RECOGNIZE, STREAM

pytestmark = pytest.mark.server
MIB = 1 << 20
CHECK = "/grpc.health.v1.Health/Check"


def most_memory(gateway: RunningGateway) -> int:
    """The most bytes that its process had at a time."""
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10


@pytest.fixture
def keyed(served, tmp_path):
    """A gateway with keys, and a key."""
    keys = tmp_path / "keys.json"
    key = add_key(keys, "one", max_sessions=2, requests_per_minute=None)
    gateway = start_gateway(served.server, "--keys", str(keys))
    yield gateway, key
    stop(gateway)


def field(size: int) -> bytes:
    """A message of one field that nobody knows, so many bytes long."""
    length, rest = b"", size
    while rest >= 0x80:
        length, rest = length + bytes([rest & 0x7F | 0x80]), rest >> 7
    return b"\xfa\x7f" + length + bytes([rest]) + bytes(size)


def test_giant_messages_of_strangers_fill_no_memory(keyed):
    gateway, _ = keyed
    before = most_memory(gateway)
    message = field(30 * MIB)
    with ThreadPoolExecutor(12) as pool:

        def send(method: str):
            options = [*DIRECT, ("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(gateway.riva, options) as channel:
                call = channel.stream_unary(method).future(iter([message]), timeout=60)
                return call.code(), call.exception() is None and call.result()

        for method in (RECOGNIZE, STREAM):
            codes = {code for code, _ in pool.map(send, [method] * 12)}
            assert codes == {grpc.StatusCode.UNAUTHENTICATED}
        assert most_memory(gateway) - before < 30 * MIB
        answers = {answer for _, answer in pool.map(send, [CHECK] * 12)}
        assert answers == {
            HealthCheckResponse(status=HealthCheckResponse.SERVING).SerializeToString()
        }
    assert most_memory(gateway) - before < 200 * MIB


def test_a_recording_above_grpcs_limit(keyed):
    gateway, key = keyed
    with grpc.insecure_channel(gateway.riva, DIRECT) as channel:
        metadata = [("authorization", f"Bearer {key}")]
        call = channel.stream_unary(RECOGNIZE).future(iter([field(70 * MIB)]), metadata=metadata)
        assert call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in call.details()
