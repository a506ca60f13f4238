"""One gRPC call with a connection of its own, and the thread that reads its answers."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from .address import is_loopback
from .errors import ClientError, ServerError, ServerUnavailable, error_from_message

_BROKEN = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,  # a reset: what the model refuses comes as an answer
    grpc.StatusCode.UNKNOWN,
)
# A server is seen within seconds of its return, however long it was away: gRPC would wait longer
# and longer, up to two minutes, before it tries again, and calls fail at once meanwhile.
_BACKOFF_MS = {"initial": 100, "max": 1000, "min": 5000}  # min: what one attempt may take


class Connection:
    """A call of the server, from its making to `close`.

    on_answer(connection, response), on_lost(connection, error): called in the reading thread; the
    latter once, when the call is over, however that came.
    """

    def __init__(self, url: str, on_answer: Callable, on_lost: Callable):
        self._url = url
        self._on_answer = on_answer
        self._on_lost = on_lost
        self._answers = 0
        self._outbox = queue.SimpleQueue()  # requests, then None
        self._channel = grpc.insecure_channel(url, channel_options(url))
        stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._call = stub.ModelStreamInfer(iter(self._outbox.get, None))
        self._reader = threading.Thread(target=self._read, name="asr-live-reader", daemon=True)
        self._reader.start()

    def send(self, request: service_pb2.ModelInferRequest) -> None:
        """Send a request; returns at once."""
        self._outbox.put(request)

    def send_no_more(self) -> None:
        """The client's half of the call is over: the server ends it behind its last answer."""
        self._outbox.put(None)

    def close(self, wait_s: float) -> None:
        """Close it; the server may have so many seconds to end it by itself."""
        if self._reader is not threading.current_thread():
            self._reader.join(wait_s)
        self._call.cancel()
        self._channel.close()

    def _read(self) -> None:
        error = ServerUnavailable(f"{self._url} closed the stream")
        try:
            for response in self._call:
                self._answers += 1
                self._on_answer(self, response)
        except grpc.RpcError as broken:
            error = error_of_call(broken, self._url, self._answers)
        except Exception as bad:  # an answer that this client cannot read
            error = ServerError(f"INTERNAL: bad answer from {self._url}: {bad!r}")
        finally:
            self._outbox.put(None)
            self._on_lost(self, error)


def channel_options(url: str) -> list[tuple[str, int]]:
    """Of a channel with a connection of its own, past a proxy where that could not reach it."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    options += [(f"grpc.{name}_reconnect_backoff_ms", ms) for name, ms in _BACKOFF_MS.items()]
    return [*options, ("grpc.enable_http_proxy", 0)] if is_loopback(url) else options


def error_of_call(error: grpc.RpcError, url: str, answers: int) -> ClientError:
    """What a call broke of, after so many answers."""
    if error.code() in _BROKEN:
        state = "lost the connection to" if answers else "cannot connect to"
        return ServerUnavailable(f"{state} {url}: {error.details()}")
    return error_from_message(f"{url}: {error.details()}")
