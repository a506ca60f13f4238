"""A stream's way to the server: one connection after another, for as long as it takes."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from .connection import Connection
from .errors import AtCapacity, ClientError, ServerUnavailable, StreamNotFound
from .session import StreamSession

RELEASE_S = 0.5  # how long a stream that is given up waits for the server to free its slot
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 2.0  # before a lost stream is tried again; doubles
_LOST = (ServerUnavailable, StreamNotFound)  # what another connection may mend

log = logging.getLogger(__name__)


class Link:
    """Sends what a session has to send and hands it the answers; restores a lost stream.

    Every method but `open` and `close` is called with `changed` held, which guards the session too.
    max_in_flight: packets that may wait for answers.  max_backlog: samples that may, after a loss.
    timeout_s: the longest that an answer may take.  reconnect_s: how long a lost stream is tried,
    counted until it gets on; 0: not at all.
    """

    def __init__(
        self,
        url: str,
        session: StreamSession,
        *,
        max_in_flight: int,
        max_backlog: int,
        timeout_s: float,
        reconnect_s: float,
    ):
        self.changed = threading.Condition()
        self.error: ClientError | None = None  # what the stream ended of
        self._url = url
        self._session = session
        self._max_in_flight = max_in_flight
        self._max_backlog = max_backlog
        self._catching_up = False  # from a loss until no more waits than usual
        self._timeout_s = timeout_s
        self._reconnect_s = reconnect_s
        self._connection: Connection | None = None  # None: lost
        self._last_progress_s = 0.0  # the latest answer, or a packet after a pause
        self._lost_at_s: float | None = None  # until the stream has got on again
        self._loss: ClientError | None = None  # the latest
        self._reconnector: threading.Thread | None = None  # while it works

    def open(self) -> None:
        """Connect, and wait for the server's consent.  Raises what it says instead."""
        try:
            with self.changed:
                self._connect()
                self.wait(lambda: self._session.started)
        except BaseException:
            self.close()
            raise

    def has_room(self) -> bool:
        """Whether another packet may be put into the session."""
        if self._session.unanswered < self._max_in_flight:
            return True
        return self._catching_up and self._session.tape.backlog < self._max_backlog

    def flush(self) -> None:
        """Send what may be sent now."""
        if self._connection is None:
            return
        if not self._session.in_flight:
            self._last_progress_s = time.monotonic()
        for request in self._session.requests():
            self._connection.send(request)

    def wait(self, ready: Callable[[], object]) -> None:
        """Wait until ready().  Raises the stream's error, a timeout included."""
        while not ready():
            if self.error is not None:
                raise self.error
            remaining_s = self._remaining_s()
            if remaining_s is None or remaining_s > 0:
                self.changed.wait(remaining_s)
            else:
                self._on_lost(self._connection, self._timeout_error())

    def fail(self, error: ClientError) -> None:
        """End the stream with this error, unless it is over."""
        if self.error is None and not self._session.done:
            self.error = error
            self.changed.notify_all()

    def close(self) -> None:
        """End what there is, waiting a moment for the server to free the slot."""
        with self.changed:
            connection, reconnector = self._connection, self._reconnector
            if connection is not None and not self._session.done:
                self._leave(connection)
        if connection is not None:
            connection.close(RELEASE_S)
        if reconnector is not None:
            reconnector.join(RELEASE_S)

    def _connect(self) -> Connection:
        self._last_progress_s = time.monotonic()
        self._connection = Connection(self._url, self._on_answer, self._on_lost)
        self.flush()
        return self._connection

    def _leave(self, connection: Connection) -> None:
        """Free the slot, and after a refusal the entry that Triton keeps for this id until END."""
        connection.send(self._session.end_request())
        connection.send_no_more()

    def _remaining_s(self) -> float | None:
        """Seconds until the server must have answered, or else has dropped a stream so silent.

        None: no end. Of a stream that is lost the reconnecting thread keeps the time, and one that
        is silent can be restored once it speaks.
        """
        waits_for_server = bool(self._session.in_flight)
        if self._connection is None or (self._reconnect_s and not waits_for_server):
            return None
        idle_s = 0 if waits_for_server else self._session.idle_timeout_s
        return self._last_progress_s + self._timeout_s + idle_s - time.monotonic()

    def _timeout_error(self) -> ClientError:
        if self._session.in_flight:
            return ServerUnavailable(f"no answer from {self._url} for {self._timeout_s:g} s")
        return StreamNotFound(
            f"NOT_FOUND: nothing was sent for longer than {self._session.idle_timeout_s:g} s, "
            "the server's idle limit; call keep_alive() in pauses"
        )

    def _on_answer(self, connection: Connection, response) -> None:
        """In the thread that reads the answers."""
        with self.changed:
            if connection is not self._connection or self.error is not None:
                return
            session = self._session
            self._last_progress_s = time.monotonic()
            try:
                got_on = session.accept(response)
            except ClientError as error:
                self._on_lost(connection, error)
                return
            self.flush()
            if got_on or not session.unanswered:
                self._lost_at_s = None
            if session.unanswered < self._max_in_flight:
                self._catching_up = False
            if session.done:
                connection.send_no_more()
            self.changed.notify_all()

    def _on_lost(self, connection: Connection, error: ClientError) -> None:
        """A connection is of no more use: restore the stream on another, or end it."""
        with self.changed:
            if connection is not self._connection or self.error or self._session.done:
                return
            self._leave(connection)
            if not self._is_mendable(error):
                self.fail(error)
                return
            self._connection, self._loss = None, error
            self._catching_up = True
            if self._lost_at_s is None:
                self._lost_at_s = time.monotonic()
            if self._reconnector is None:
                log.warning("%s; reconnecting for up to %g s", error, self._reconnect_s)
                self._reconnector = threading.Thread(
                    target=self._reconnect, args=(connection,), name="asr-live-link", daemon=True
                )
                self._reconnector.start()
            self.changed.notify_all()

    def _is_mendable(self, error: ClientError) -> bool:
        """Whether to try again. Not what was never open; a full server only on the way back."""
        kinds = (*_LOST, AtCapacity) if self._reconnector is not None else _LOST
        return bool(self._reconnect_s and self._session.server) and isinstance(error, kinds)

    def _reconnect(self, connection: Connection) -> None:
        """Try until the server takes the stream again, the time is over or the stream is."""
        wait_s = _FIRST_WAIT_S
        while connection is not None:
            connection.close(RELEASE_S)
            with self.changed:
                self.changed.wait_for(lambda: self.error, wait_s * random.uniform(0.5, 1))
                connection = self._try_again()
                if connection is None:
                    self._reconnector = None
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _try_again(self) -> Connection | None:
        """Connect once more.  Returns the connection if it was lost again; None: try no more."""
        left_s = self._lost_at_s + self._reconnect_s - time.monotonic()
        if left_s <= 0:
            self.fail(self._loss)
        if self.error is not None:
            return None
        self._session.restart()
        connection = self._connect()
        settled = self.changed.wait_for(
            lambda: self._session.started or self.error or self._connection is not connection,
            min(self._timeout_s, left_s),
        )
        if not settled:
            self._on_lost(connection, self._timeout_error())
        if self.error is None and self._connection is not connection:
            return connection
        if self.error is None:
            log.warning("connected to %s again", self._url)
        return None
