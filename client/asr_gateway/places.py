"""How many sessions and files there may be at a time, and how many of them may be one key's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from asr_client.errors import ClientError, ServerUnavailable

from .access import Access, Caller
from .errors import TooMuch
from .metrics import Metrics
from .settings import GatewaySettings


class Places:
    """Those of one process."""

    def __init__(self, settings: GatewaySettings, access: Access, metrics: Metrics):
        self.draining = False  # nothing new: the process stops once what is open is over
        self._settings, self._access = settings, access
        self._refused = metrics.refused
        self._sessions = self._streams = self._files = 0

    @property
    def is_busy(self) -> bool:
        """Whether live streams or files are under way."""
        return bool(self._streams or self._files)

    def check_draining(self) -> None:
        """Raises ServerUnavailable where nothing new is taken."""
        if self.draining:
            raise ServerUnavailable("UNAVAILABLE: draining: this gateway stops soon; try another")

    @contextmanager
    def session(self, door: str, caller: Caller) -> Iterator[None]:
        """A connection for live audio, also while it says nothing.

        Raises TooMuch, ServerUnavailable.
        """
        with self._counting_refusals(door):
            self.check_draining()
            if self._sessions >= self._settings.max_sessions:
                raise TooMuch(f"{self._sessions} sessions are open, as many as may be")
            caller.begin_session()
        self._sessions += 1
        try:
            yield
        finally:
            self._sessions -= 1
            caller.sessions -= 1

    @contextmanager
    def stream(self, door: str, caller: Caller, of_file: bool = False) -> Iterator[None]:
        """A live stream of a session.  of_file: it was counted as such.

        Raises TooMuch, ServerUnavailable.
        """
        with self._counting_refusals(door):
            if not of_file:
                caller.count_request(time.monotonic())
                self.check_draining()
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    @contextmanager
    def file(self, door: str, caller: Caller) -> Iterator[None]:
        """A file from its first byte to its answer: it fills memory or disk.

        Where there are several keys, each leaves as many places free as it has taken, so that no
        one can take them all.  Raises TooMuch, ServerUnavailable.
        """
        with self._counting_refusals(door):
            self.check_draining()
            free = self._settings.max_files - self._files
            if not free:
                raise TooMuch(f"{self._files} files are under way, as many as may be")
            if self._access.has_several_keys and caller.files >= free:
                raise TooMuch(f"{caller.files} files of this key are under way; others want some")
            caller.count_request(time.monotonic())
        self._files += 1
        caller.files += 1
        try:
            yield
        finally:
            self._files -= 1
            caller.files -= 1

    @contextmanager
    def _counting_refusals(self, door: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            self._refused.labels(door, error.code).inc()
            raise
