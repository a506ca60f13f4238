"""Between a transport and its protocol: what came is handed over in small pieces.

uvloop reads up to 256 KiB at once. As frames or chunks of a byte each that is half a second of
parsing, in which no other connection would be served.
"""

from __future__ import annotations

import asyncio

PIECE_BYTES = 8192  # at worst 20 ms of parsing


class Pacer(asyncio.Protocol):
    """The transport's protocol, and the transport of the protocol that it is given."""

    def __init__(self, protocol: asyncio.Protocol):
        self._transport: asyncio.Transport | None = None  # uvloop asks for names before it is
        self._protocol = protocol
        self._unread = bytearray()
        self._is_paused = False  # by the protocol
        self._is_due = False  # the next piece is

    # What the transport calls

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._protocol.connection_made(self)

    def data_received(self, data: bytes) -> None:
        self._unread += data
        self._next_piece()

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self._unread.clear()
        self._protocol.connection_lost(error)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    # What the protocol calls; all else goes to the transport

    def pause_reading(self) -> None:
        self._is_paused = True
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._is_paused = False
        self._go_on()

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        self._protocol = protocol

    def __getattr__(self, name: str):
        return getattr(self._transport, name)

    def _next_piece(self) -> None:
        self._is_due = False
        if self._unread and not self._is_paused:
            piece = bytes(self._unread[:PIECE_BYTES])
            del self._unread[:PIECE_BYTES]
            try:
                self._protocol.data_received(piece)
            except Exception:
                self._transport.abort()
                raise
        self._go_on()

    def _go_on(self) -> None:
        """Read on once everything was handed over; until then others have their turns."""
        if self._is_paused:
            return
        if not self._unread:
            self._transport.resume_reading()
        elif not self._is_due:
            self._is_due = True
            self._transport.pause_reading()
            self._loop.call_soon(self._next_piece)
