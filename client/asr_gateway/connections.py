"""uvicorn's protocols, with an end to what a slow or hostile client may take of them."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Callable

import h11
import uvloop
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from .pacer import Pacer
from .settings import GatewaySettings

WAIT_S = 10.0  # for a request's headers; for a body whose answer is out; for TLS
MAX_WAITING = 256  # connections without a request; of more the oldest is closed
MAX_EMPTY_FRAMES = 1024  # pings and fragments in which no message ends
_TCP_ESTABLISHED = 1  # <netinet/tcp.h>


def http_protocol(settings: GatewaySettings) -> Callable[..., Pacer]:
    """What uvicorn makes for each connection, in place of its own protocol."""
    waiting: dict[HttpProtocol, None] = {}
    most = settings.max_requests + MAX_WAITING

    def make(**kwargs) -> Pacer:
        return Pacer(HttpProtocol(waiting, most, **kwargs))

    return make


class HttpProtocol(H11Protocol):
    """A connection without a request waits for one: not for ever, and in a line of limited length.

    So who opens connections and says nothing, or too little, is in nobody's way but his own.
    """

    def __init__(self, waiting: dict[HttpProtocol, None], most: int, **kwargs):
        """waiting: all that wait, the oldest first.  most: connections that there may be."""
        super().__init__(**kwargs)
        self._all_waiting, self._most = waiting, most
        self._waits_for: object = None  # what h11 expects next, where that has a deadline
        self._deadline: asyncio.TimerHandle | None = None
        self._is_upgraded = False  # to a WebSocket, which has limits of its own

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if len(self.connections) > self._most:
            transport.abort()
        else:
            self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_for(None)
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        self._look()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._is_upgraded = True
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def _look(self) -> None:
        state = self.conn.their_state
        is_answered = self.cycle is None or self.cycle.response_complete
        is_over = self.transport.is_closing() or self._is_upgraded or not is_answered
        self._wait_for(None if is_over else state)

    def _wait_for(self, state: object) -> None:
        """Begin to wait, unless it already does: what comes bit by bit changes no deadline."""
        if state is self._waits_for:
            return
        self._waits_for = state
        self._all_waiting.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
        if state is None:
            return
        self._deadline = self.loop.call_later(WAIT_S, self.transport.abort)
        self._all_waiting[self] = None
        if len(self._all_waiting) > MAX_WAITING:
            next(iter(self._all_waiting)).transport.abort()


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Closes where pings or fragments come without end; knows when a client is gone unheard.

    The application finds it as `websocket.state.connection`.
    """

    def __init__(self, app_state: dict, **kwargs):
        super().__init__(app_state={**app_state, "connection": self}, **kwargs)
        self._empty_frames = 0
        self._has_failed = False

    def is_gone(self) -> bool:
        """Whether the client closed: also behind data that nobody has taken yet."""
        if self.transport.is_closing():
            return True
        connected = self.transport.get_extra_info("socket")
        state = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return state != _TCP_ESTABLISHED

    def handle_cont(self, event) -> None:
        if self._may_go_on():
            super().handle_cont(event)

    def handle_ping(self) -> None:
        if self._may_go_on():
            super().handle_ping()

    def handle_pong(self, event) -> None:
        if self._may_go_on():
            super().handle_pong(event)

    def send_receive_event_to_app(self) -> None:
        if not self.close_sent:
            self._empty_frames = 0
        if self.curr_msg_data_type == "text" and not _is_text(b"".join(self.frames)):
            self._fail(1007, "no UTF-8")  # uvicorn would log the message, and fail where it closes
        else:
            super().send_receive_event_to_app()

    def handle_parser_exception(self) -> None:
        self._has_failed = True
        super().handle_parser_exception()

    async def send(self, message) -> None:
        if self._has_failed:  # here, not by the application, which uvicorn would call wrong
            raise ClientDisconnected
        await super().send(message)

    def _may_go_on(self) -> bool:
        self._empty_frames += 1
        if self._empty_frames == MAX_EMPTY_FRAMES:
            self._fail(1008, "too many frames without a message")
        return self._empty_frames < MAX_EMPTY_FRAMES

    def _fail(self, code: int, reason: str) -> None:
        self.frames = []
        if not self.close_sent:
            self.conn.fail(code, reason)
            self.handle_parser_exception()


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


class Loop(uvloop.Loop):
    """uvloop's, which does not wait a minute for TLS to be agreed on."""

    def create_server(self, *args, **kwargs):
        if kwargs.get("ssl") is not None:
            kwargs["ssl_handshake_timeout"] = WAIT_S
        return super().create_server(*args, **kwargs)


def allow_many_files() -> None:
    """As many open files as this process may have: a connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
