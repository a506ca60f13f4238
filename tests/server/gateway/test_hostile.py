"""Slow and hostile clients: what they cost, and that it is nobody else who pays."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
from riva.client.proto.health_pb2 import HealthCheckResponse

from asr_gateway.access import add_key
from asr_gateway.connections import MAX_WAITING
from server.conftest import pcm
from server.gateway.conftest import RunningGateway, start_gateway, stop, wait_for
from server.gateway.test_riva import DIRECT
from server.gateway.test_riva_refusals import RECOGNIZE, STREAM
from server.gateway.test_websocket import ragged, talk

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


# Connections


def connect(gateway: RunningGateway) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Once all that was answered is read."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


UPLOAD = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n"


@pytest.mark.parametrize(
    ("begin", "drip"),
    [
        (b"", b""),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n", b"a: b\r\n"),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET ", b"/"),
        (UPLOAD, b"x"),  # whose answer, 401 or 400, is out
    ],
    ids=["silence", "headers", "a second request", "a refused body"],
)
def test_requests_that_never_come_end(gateway, begin, drip):
    with connect(gateway) as connection:
        connection.sendall(begin)
        done = threading.Event()

        def go_on() -> None:
            with suppress(OSError):
                while drip and not done.wait(0.5):
                    connection.sendall(drip)

        dripping = threading.Thread(target=go_on)
        dripping.start()
        try:
            assert is_closed(connection)
        finally:
            done.set()
            dripping.join()


def test_a_crowd_that_says_nothing_is_in_nobodys_way(gateway):
    """The oldest go at once: all others are still there to ask something, one after the other."""
    crowd = [connect(gateway) for _ in range(MAX_WAITING + 40)]
    try:
        assert all(is_closed(connection) for connection in crowd[:40])
        for connection in crowd[40:]:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 200"
        for _ in range(20):
            assert httpx.get(f"{gateway.url}/health", timeout=60).status_code == 200
        with gateway.socket("/v1/stream?language=auto") as session:
            assert json.loads(session.recv())["type"] == "ready"
    finally:
        for connection in crowd:
            connection.close()


@pytest.mark.parametrize("upgrade", [b"", b"Upgrade: websocket\r\nConnection: Upgrade\r\n"])
def test_giant_headers_are_refused(gateway, upgrade):
    with connect(gateway) as connection:
        with suppress(ConnectionError):
            connection.sendall(b"GET /v1/stream HTTP/1.1\r\nHost: x\r\n" + upgrade)
            connection.sendall(b"a: " + b"b" * 100_000)
        assert is_closed(connection)
    assert httpx.get(f"{gateway.url}/health").status_code == 200


def test_who_reads_nothing_is_given_up(gateway):
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", gateway.port))
        connection.setblocking(False)
        asked = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 20_000
        with suppress(BlockingIOError):
            connection.send(asked)
        mine = connection.getsockname()
        wait_for(lambda: mine in clients_of(gateway))
        wait_for(lambda: mine not in clients_of(gateway))


def clients_of(gateway: RunningGateway) -> set[tuple[str, int]]:
    """Addresses of those that are connected to its HTTP port."""
    return {
        tuple(c.raddr)
        for c in psutil.Process(gateway.process.pid).net_connections("tcp")
        if c.status == psutil.CONN_ESTABLISHED and c.laddr.port == gateway.port
    }


# Frames


def masked(first: int, payload: bytes = b"") -> bytes:
    """A frame of a client; the mask is 0.  first: FIN and the opcode."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([first]) + length + bytes(4) + payload


FLOODS = {
    "pings": masked(0x89),
    "pongs": masked(0x8A),
    "fragments": masked(0x00),
    "messages": masked(0x82),
    "samples": masked(0x82, b"ab"),
}


def handshake(gateway: RunningGateway, path: str) -> socket.socket:
    connection = connect(gateway)
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert connection.recv(12) == b"HTTP/1.1 101"
    return connection


@pytest.mark.parametrize("kind", FLOODS)
def test_floods_of_frames_harm_no_neighbour(gateway, served, kind):
    audio = pcm(16_000 * 3, seed=21)
    with handshake(gateway, "/v1/stream?language=auto") as flooding:
        flooding.settimeout(1)
        flood = (masked(0x02) if kind == "fragments" else b"") + FLOODS[kind] * 200_000
        sending = threading.Thread(target=_send, args=(flooding, flood))
        sending.start()
        results, last = talk(gateway, ragged(audio), options={"language": "de-DE"})
        sending.join()
        if kind in ("pings", "pongs", "fragments"):
            flooding.settimeout(60)
            assert is_closed(flooding)
    text = "".join(r.get("text", "") for r in results)
    assert text == served.expected(audio, "de-DE").text
    assert last["type"] == "end"


def _send(connection: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        for at in range(0, len(data), 65536):
            connection.sendall(data[at : at + 65536])


def test_giant_frames_end_their_session_alone(gateway):
    for length in (b"\xff" + struct.pack(">Q", 1 << 62), b"\xff" + struct.pack(">Q", 5 * MIB)):
        with handshake(gateway, "/v1/stream?language=auto") as connection:
            _send(connection, b"\x82" + length + bytes(4) + bytes(70_000))
            assert is_closed(connection)
