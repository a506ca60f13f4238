"""Keep one server running: restart it when a process dies or a real inference fails."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from .companion import Companion
from .errors import ServerCrashed, ServerError, StartCancelled
from .launcher import TritonServer
from .probe import Probe
from .settings import ServerSettings

TICK_S = 0.2
NO_ROOM = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))


@dataclass(frozen=True)
class RestartPolicy:
    """When to look, when to restart, when to give up. Pure numbers: time is an argument."""

    probe_interval_s: float = 10.0
    retry_interval_s: float = 2.0  # after a failed probe
    max_probe_failures: int = 3
    max_start_failures: int = 5
    backoff_s: float = 1.0  # before the first restart; doubles with each
    max_backoff_s: float = 30.0
    stable_after_s: float = 60.0  # ready for so long: the next restart is a first one again

    def wait_s(self, num_restarts: int) -> float:
        """Seconds before restart number `num_restarts` (from 1) of an unstable server."""
        return min(self.backoff_s * 2 ** (num_restarts - 1), self.max_backoff_s)


class Supervisor:
    """Runs a server in the foreground until SIGINT or SIGTERM."""

    def __init__(
        self,
        settings: ServerSettings,
        policy: RestartPolicy | None = None,
        probe: Callable[[], str | None] | None = None,
        say: Callable[[str], None] = print,
    ):
        """probe: returns None or what is wrong; default: a stream of no audio to asr_streaming.

        say: takes the one-line messages. Raises SettingsError for a bad setting.
        """
        self.server = TritonServer(settings)
        self._policy = policy or RestartPolicy()
        self._probe = probe or Probe(self.server.http_url, self.server.metrics_url)
        self._say = say
        self.companion: Companion | None = None  # begun once the server is ready, stopped first
        self._stopping = self._hurrying = False

    def stop(self) -> None:
        """Make `run` let live streams end, stop the server and return 0; again: at once.

        Safe in a signal handler, from any thread.
        """
        self._hurrying = self._stopping
        self._stopping = True

    def run(self) -> int:
        """Serve. Returns 0 when told to stop and all is stopped; 1 if the server cannot be started.

        A first start that fails is final, as nothing says that it would ever work, but for one that
        a signal ended: it is tried once more. A restart is tried `max_start_failures` times in a
        row, and for as long as a file system is full.
        """
        with self._signals():
            try:
                return self._serve()
            finally:
                if self.companion is not None:
                    self.companion.stop()
                self.server.stop()

    def _serve(self) -> int:
        num_restarts = num_start_failures = 0
        was_ready = False
        while not self._stopping:
            try:
                self.server.start(lambda: self._stopping)
            except StartCancelled:
                break
            except ServerError as error:
                self._say(str(error))
                trouble = "no room to start"
                if not was_ready or not any(reason in str(error) for reason in NO_ROOM):
                    num_start_failures += 1
                    if was_ready:
                        limit = self._policy.max_start_failures
                    else:
                        limit = 2 if isinstance(error, ServerCrashed) else 1
                    if num_start_failures >= limit:
                        return 1
                    trouble = f"start {num_start_failures} of {limit} failed"
            else:
                num_start_failures, was_ready = 0, True
                ready_at_s = time.monotonic()
                trouble = self._serve_until_trouble()
                if time.monotonic() - ready_at_s > self._policy.stable_after_s:
                    num_restarts = 0
            if trouble is not None:
                num_restarts += 1
                wait_s = self._policy.wait_s(num_restarts)
                self._say(f"{trouble}; restarting in {wait_s:g} s")
                self._sleep(wait_s)
        return 0

    def _serve_until_trouble(self) -> str | None:
        """Returns why the server, stopped by now, must start again; None if told to stop."""
        self._say(self._ready_line())
        trouble = self._watch()
        if trouble is None:
            self._drain()
        else:
            kept = self.server.keep_log()
            trouble += f" (log: {kept})" if kept else ""
            self.server.stop(at_once=True)
        return trouble

    def _watch(self) -> str | None:
        """Watch a ready server. Returns why it must be restarted, or None if told to stop."""
        pool = ThreadPoolExecutor(1, "probe")  # a probe may hang, and a stop must not wait for it
        try:
            return self._watch_with(pool)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _watch_with(self, pool: ThreadPoolExecutor) -> str | None:
        num_failures, next_probe_s = 0, time.monotonic() + self._policy.probe_interval_s
        running: Future[str | None] | None = None
        while not self._stopping:
            self.server.forward_log()
            if self.companion is not None:
                self.companion.keep_up(time.monotonic())
            if trouble := self.server.trouble():
                return trouble
            now_s = time.monotonic()
            if running is None and now_s >= next_probe_s:
                running = pool.submit(self._probe)
            if running is not None and running.done():
                wrong, running = running.result(), None
                num_failures = num_failures + 1 if wrong else 0
                if num_failures >= self._policy.max_probe_failures:
                    return f"{num_failures} probes failed in a row ({wrong})"
                policy = self._policy
                pause_s = policy.retry_interval_s if wrong else policy.probe_interval_s
                next_probe_s = now_s + pause_s
            time.sleep(TICK_S)
        return None

    def _drain(self) -> None:
        """Wait for live streams to end, no longer than `drain_timeout_s`.

        A gateway first: where it has sessions, what it asks of the server must still be answered.
        """
        timeout_s = self.server.settings.drain_timeout_s
        began_s = time.monotonic()
        companion = self.companion
        if companion is not None:
            companion.tell_to_stop()
        else:
            self.server.drain()
        said = False
        while not self._hurrying and self.server.trouble() is None:
            if companion is not None and not companion.is_running():
                companion = None
                self.server.drain()
            if companion is None and not self.server.has_streams():
                return
            waited_s = time.monotonic() - began_s
            if waited_s > timeout_s:
                return
            if waited_s > 1 and not said:
                self._say(f"live streams get {timeout_s:g} s to end; stop again to end them now")
                said = True
            self.server.forward_log()
            time.sleep(TICK_S)

    def _sleep(self, duration_s: float) -> None:
        until_s = time.monotonic() + duration_s
        while not self._stopping and time.monotonic() < until_s:
            time.sleep(min(TICK_S, duration_s))

    def _ready_line(self) -> str:
        s = self.server.settings
        what = s.checkpoint if s.checkpoint is not None else s.model_repository
        where = "  ".join(f"{name} {s.address(name)}" for name in ("grpc", "http", "metrics"))
        return f"serving {what} ({s.dtype}, {s.device}, {s.room}): {where}"

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM set a flag. In a thread that is not the main one: nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, lambda *_: self.stop()) for number in names}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(settings: ServerSettings, gateway: list[str] | None = None) -> int:
    """Run a server until told to stop; the exit code. Messages go to stdout, problems to stderr.

    gateway: arguments of `asr gateway`, to run one beside it; None: none.
    """

    def say(message: str) -> None:
        file = sys.stdout if message.startswith("serving ") else sys.stderr
        with suppress(OSError):  # a file on a full disk, a terminal that is gone
            print(message, file=file, flush=True)

    supervisor = Supervisor(settings, say=say)
    if gateway is not None:
        server = supervisor.server
        urls = ["--grpc-url", server.grpc_address, "--http-url", server.http_url]
        command = [sys.executable, "-m", "asr_client.cli", "gateway", *urls, *gateway]
        supervisor.companion = Companion(command, say)
    say(f"loading {settings.checkpoint or settings.model_repository}: it may take a minute")
    return supervisor.run()
