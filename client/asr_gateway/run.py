"""Serve: one process, or several that share the ports."""

from __future__ import annotations

import json
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace

import uvicorn
import uvloop
from prometheus_client.multiprocess import mark_process_dead

from asr_server.errors import SettingsError
from asr_server.guard import end_with
from asr_server.settings import bound_socket

from .access import Access
from .app import make_app
from .connections import MAX_WAITING, Loop, WebSocketProtocol, allow_many_files, http_protocol
from .gateway import Gateway
from .settings import GatewaySettings

RESTART_S = 1.0  # before a process that died is begun anew
LOOK_S = 0.2  # how often, whether there is a signal to pass on
_LOGGED = ("door", "caller", "session", "reason", "code", "bytes", "audio_s", "lasted_s")


class JsonLines(logging.Formatter):
    """One JSON object a line; never a word of what was said."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in _LOGGED if hasattr(record, name)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up_logging(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "uvicorn.access", "uvicorn.error"):  # whole addresses
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # each bad form, byte by byte


def with_free_ports(settings: GatewaySettings) -> GatewaySettings:
    """Every port 0 replaced by one that is free now."""

    def free(port: int | None) -> int | None:
        if port != 0:
            return port
        with bind(settings.host, 0) as held:
            return held.getsockname()[1]

    return replace(settings, port=free(settings.port), riva_port=free(settings.riva_port))


def bind(host: str, port: int, shared: bool = False, write_timeout_s: float = 0) -> socket.socket:
    """A socket to listen at.  Raises OSError.

    shared: other processes may bind it too.  write_timeout_s: connections end that take nothing
    for so long; 0: as the system has it.
    """
    options = [
        (socket.SOL_SOCKET, socket.SO_REUSEPORT, shared),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(write_timeout_s * 1000)),  # inherited
    ]
    try:
        return bound_socket(host, port, options)
    except SettingsError as error:
        raise OSError(str(error)) from None
    except OSError as error:
        raise OSError(f"cannot listen at {host}:{port}: {error.strerror}") from None


class _Server(uvicorn.Server):
    """Told to stop, it takes no new sessions and lets those open end; told again, it stops."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway, drain_timeout_s: float):
        super().__init__(config)
        self._gateway = gateway
        self._drain_timeout_s = drain_timeout_s

    def handle_exit(self, sig: int, frame) -> None:
        if self._gateway.places.draining:
            super().handle_exit(sig, frame)
        else:
            self._stop_at_s = time.monotonic() + self._drain_timeout_s
            self._gateway.places.drain()

    async def on_tick(self, counter: int) -> bool:
        places = self._gateway.places
        if places.draining and (not places.is_busy or time.monotonic() > self._stop_at_s):
            self.should_exit = True
        return await super().on_tick(counter)


async def serve(settings: GatewaySettings) -> None:
    """Serve in this process until SIGINT or SIGTERM.  Raises OSError, ValueError (keys)."""
    gateway = Gateway(settings)
    config = uvicorn.Config(
        make_app(settings, gateway),
        log_config=None,
        access_log=False,
        server_header=False,
        http=http_protocol(settings),  # of h11: headers are bounded; httptools takes any length
        limit_concurrency=settings.max_requests + MAX_WAITING,
        ws=WebSocketProtocol,
        ws_max_size=settings.max_message_bytes,
        ws_ping_timeout=None,  # a pong may wait behind audio; TCP's acknowledgement does not
        ws_per_message_deflate=False,  # audio does not get smaller, and inflating can be an attack
        timeout_graceful_shutdown=3,  # for what is in buffers
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    server = _Server(config, gateway, settings.drain_timeout_s)
    is_shared = settings.processes > 1
    await server.serve([bind(settings.host, settings.port, is_shared, settings.slow_reader_s)])


def check(settings: GatewaySettings) -> None:
    """Raises OSError where nobody can listen, ValueError for a bad file of keys."""
    for port in (settings.port, settings.riva_port):
        if port is not None:
            bind(settings.host, port).close()
    Access(settings.keys)


def run(settings: GatewaySettings, log_level: str = "info") -> int:
    """Serve until told to stop; the exit code.  See `check`."""
    allow_many_files()
    if settings.processes == 1:
        _run_one(settings, log_level)
        return 0
    with tempfile.TemporaryDirectory(prefix="asr-gateway-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        return _run_many(settings, log_level)


def _run_one(settings: GatewaySettings, log_level: str, parent_pid: int | None = None) -> None:
    if parent_pid is not None:
        os.setsid()  # Ctrl-C is for the parent, which tells its children
        end_with(parent_pid, signal.SIGTERM)
    set_up_logging(log_level)
    uvloop.run(serve(settings), loop_factory=Loop)


def _run_many(settings: GatewaySettings, log_level: str) -> int:
    """Children that share the ports; one that dies is begun anew, and its sessions are lost."""
    context = multiprocessing.get_context("spawn")
    stops = 0  # how often it was told to

    def start() -> multiprocessing.Process:
        child = context.Process(
            target=_run_one, args=(settings, log_level, os.getpid()), name="asr-gateway"
        )
        child.start()
        return child

    def stop(_number: int, _frame) -> None:
        nonlocal stops
        stops += 1

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    children = [start() for _ in range(settings.processes)]
    told = Counter[int]()  # by the pid of a child, which may be younger than the signal
    while alive := [child for child in children if child.is_alive()]:
        for child in alive:
            if told[child.pid] < stops:
                told[child.pid] += 1
                os.kill(child.pid, signal.SIGTERM)
        multiprocessing.connection.wait([child.sentinel for child in alive], timeout=LOOK_S)
        for i, child in enumerate(children):
            if not (child.is_alive() or stops):
                mark_process_dead(child.pid)
                time.sleep(RESTART_S)
                if not stops:
                    children[i] = start()
    return 0
