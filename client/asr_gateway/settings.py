"""What a gateway is told: where Triton is, where to listen, whom to let in and how much of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
_SPARE = 256  # requests beside sessions and files


@dataclass(frozen=True)
class GatewaySettings:
    """Everything one gateway needs.

    grpc_url, http_url: Triton's endpoints.  port: of HTTP and WebSocket.  riva_port: of Riva's
    gRPC, None for none.  0: a free one.  processes: that share them.
    keys: file of API keys; None: everybody may come in.  origins: of web pages elsewhere whose
    browsers may, beside the gateway's own page; "*" for any.
    max_sessions: live streams of this process at a time.  max_files: transcribed at a time.
    max_file_bytes: of an upload.  max_riva_bytes: of a recording in one message of Riva's.
    max_message_bytes: of one message of a live session.
    idle_timeout_s: a session that sends nothing for longer is ended.
    slow_reader_s: a client that takes so long to read a message is given up.
    reconnect_s: how long a stream that Triton lost is tried to be restored.
    drain_timeout_s: what open sessions get when the gateway is told to stop.
    tls_cert, tls_key: PEM files; None: no TLS.
    """

    grpc_url: str = "127.0.0.1:8001"
    http_url: str = "http://127.0.0.1:8000"
    host: str = "127.0.0.1"
    port: int = 8080
    riva_port: int | None = 50051
    processes: int = 1
    keys: Path | None = None
    origins: tuple[str, ...] = ()
    max_sessions: int = 512
    max_files: int = 32
    max_file_bytes: int = 512 * MIB
    max_riva_bytes: int = 64 * MIB
    max_message_bytes: int = 4 * MIB
    idle_timeout_s: float = 60.0
    slow_reader_s: float = 20.0
    reconnect_s: float = 60.0
    drain_timeout_s: float = 30.0
    tls_cert: Path | None = None
    tls_key: Path | None = None

    @property
    def max_requests(self) -> int:
        """Requests and connections at a time."""
        return self.max_sessions + self.max_files + _SPARE
