"""A process beside the server that shares its life: the gateway."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from functools import partial

from .guard import end_with

RESTART_S, LONGEST_RESTART_S = 1.0, 30.0  # before one that died is begun anew; doubles
STABLE_AFTER_S = 60.0
STOP_MARGIN_S = 10.0  # beyond what it may take to end, then it is killed


class Companion:
    """Begun with the server, begun anew when it dies, told to stop first. Time is an argument.

    command: its output is ours.  say: takes the one-line messages.
    """

    def __init__(self, command: list[str], say: Callable[[str], None]):
        self._command = command
        self._say = say
        self._process: subprocess.Popen | None = None
        self._started_s = 0.0
        self._wait_s = RESTART_S
        self._start_at_s = float("-inf")

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def keep_up(self, now: float) -> None:
        """Start it, or start it again once it is time."""
        if self._process is not None and (status := self._process.poll()) is not None:
            if now - self._started_s > STABLE_AFTER_S:
                self._wait_s = RESTART_S
            self._retry(now, f"the gateway ended (exit status {status})")
        if self._process is None and now >= self._start_at_s:
            self._started_s = now
            try:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is for the supervisor, which then stops it
                    preexec_fn=partial(end_with, os.getpid(), signal.SIGTERM),
                )
            except (OSError, subprocess.SubprocessError) as error:  # no memory, no processes
                self._retry(now, f"the gateway cannot be started: {error}")

    def _retry(self, now: float, why: str) -> None:
        self._say(f"{why}; again in {self._wait_s:g} s")
        self._process, self._start_at_s = None, now + self._wait_s
        self._wait_s = min(2 * self._wait_s, LONGEST_RESTART_S)

    def tell_to_stop(self) -> None:
        """Its sessions may end; told again, they end at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End it at once."""
        if self._process is None:
            return
        self.tell_to_stop()
        if self.is_running():
            self._process.send_signal(signal.SIGINT)  # two of a kind may arrive as one
        try:
            self._process.wait(STOP_MARGIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
