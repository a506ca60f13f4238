"""How many sessions and files there may be at a time, and how many of them may be one key's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from asr_client.errors import ClientError, ServerUnavailable

from .access import Access, Caller
from .errors import TooMuch
from .metrics import Metrics
from .settings import GatewaySettings

PATIENCE_S = 10.0  # that a recording has to arrive whole where others want to


class Places:
    """Those of one process."""

    def __init__(self, settings: GatewaySettings, access: Access, metrics: Metrics):
        self._drain = asyncio.Event()
        self._settings, self._access = settings, access
        self._refused = metrics.refused
        self._sessions = self._streams = self._files = self._answers = 0
        self._arriving: dict[Callable[[], None], tuple[Caller, float]] = {}  # the oldest first

    @property
    def draining(self) -> bool:
        """Whether nothing new is taken: the process stops once what is open is over."""
        return self._drain.is_set()

    def drain(self) -> None:
        """Take nothing new from now on."""
        self._drain.set()

    async def until_draining(self) -> None:
        await self._drain.wait()

    @property
    def is_busy(self) -> bool:
        """Whether live streams or files are under way, or answers on their way out."""
        return bool(self._streams or self._files or self._answers)

    @contextmanager
    def answer(self) -> Iterator[None]:
        """What keeps the process from its end until its client was told of it."""
        self._answers += 1
        try:
            yield
        finally:
            self._answers -= 1

    def check_draining(self) -> None:
        """Raises ServerUnavailable where nothing new is taken."""
        if self.draining:
            raise ServerUnavailable("UNAVAILABLE: draining: this gateway stops soon; try another")

    @contextmanager
    def session(self, door: str, caller: Caller, of_file: bool = False) -> Iterator[None]:
        """A connection for live audio, also while it says nothing.  of_file: it was let in as such.

        Raises TooMuch, ServerUnavailable.
        """
        with self._counting_refusals(door):
            if not of_file:
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
    def arriving(self, door: str, caller: Caller, give_up: Callable[[], None]) -> Iterator[None]:
        """A recording in one message, until all of it is here and `file` takes it.

        Nobody can see whether any of it came, so that it takes no place yet. As many may arrive as
        there are places, shared in the same way. One more than that tells the oldest to give up, of
        the same key if that has one, once it had PATIENCE_S.  Raises TooMuch, ServerUnavailable.
        """
        now = time.monotonic()
        with self._counting_refusals(door):
            self.check_draining()
            self._check_files(caller)
            free = self._settings.max_files - len(self._arriving)
            own = [one for one, (whose, _) in self._arriving.items() if whose is caller]
            oldest = None
            if not free or (self._access.has_several_keys and len(own) >= free):
                oldest = next(iter(own or self._arriving))
                if now - self._arriving[oldest][1] < PATIENCE_S:
                    raise TooMuch(f"{len(self._arriving)} recordings arrive, as many as may")
            caller.count_request(now)
        if oldest is not None:
            del self._arriving[oldest]
            oldest()
        self._arriving[give_up] = caller, now
        try:
            yield
        finally:
            self._arriving.pop(give_up, None)

    @contextmanager
    def file(self, door: str, caller: Caller, has_arrived: bool = False) -> Iterator[None]:
        """A file from its first byte to its answer: it fills memory or disk.

        Where there are several keys, each leaves as many places free as it has taken, so that no
        one can take them all.  has_arrived: it was let in as `arriving`.
        Raises TooMuch, ServerUnavailable.
        """
        with self._counting_refusals(door):
            if not has_arrived:
                self.check_draining()
            self._check_files(caller)
            if not has_arrived:
                caller.count_request(time.monotonic())
        self._files += 1
        caller.files += 1
        try:
            yield
        finally:
            self._files -= 1
            caller.files -= 1

    def _check_files(self, caller: Caller) -> None:
        """Raises TooMuch where there is no place for a file of this caller."""
        free = self._settings.max_files - self._files
        if not free:
            raise TooMuch(f"{self._files} files are under way, as many as may be")
        if self._access.has_several_keys and caller.files >= free:
            raise TooMuch(f"{caller.files} files of this key are under way; others want some")

    @contextmanager
    def _counting_refusals(self, door: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            self._refused.labels(door, error.code).inc()
            raise
