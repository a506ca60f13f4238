"""A stream's way to the server: one connection after another, for as long as it takes."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from .connection import Connection
from .errors import ClientError
from .patience import FIRST_WAIT_S, LONGEST_WAIT_S, RELEASE_S, Patience
from .session import StreamSession

log = logging.getLogger(__name__)


class Link:
    """Sends what a session has to send and hands it the answers; restores a lost stream.

    Every method but `open` and `close` is called with `changed` held, which guards the session too.
    """

    def __init__(self, url: str, session: StreamSession, patience: Patience):
        self.changed = threading.Condition()
        self.error: ClientError | None = None  # what the stream ended of
        self._url = url
        self._session = session
        self._patience = patience
        self._connection: Connection | None = None  # None: lost
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

    def flush(self) -> None:
        """Send what may be sent now."""
        if self._connection is None:
            return
        self._patience.on_send(time.monotonic())
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
                self._on_lost(self._connection, self._patience.timeout_error())

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
        self._patience.on_connect(time.monotonic())
        self._connection = Connection(self._url, self._on_answer, self._on_lost)
        self.flush()
        return self._connection

    def _leave(self, connection: Connection) -> None:
        """Free the slot, and after a refusal the entry that Triton keeps for this id until END."""
        connection.send(self._session.end_request())
        connection.send_no_more()

    def _remaining_s(self) -> float | None:
        """Seconds until a wait is too long; None: no end.

        Of a stream that is lost the reconnecting thread keeps the time.
        """
        if self._connection is None:
            return None
        return self._patience.remaining_s(time.monotonic())

    def _on_answer(self, connection: Connection, response) -> None:
        """In the thread that reads the answers."""
        with self.changed:
            if connection is not self._connection or self.error is not None:
                return
            session = self._session
            try:
                got_on = session.accept(response)
            except ClientError as error:
                self._on_lost(connection, error)
                return
            self._patience.on_answer(got_on, time.monotonic())
            self.flush()
            if session.done:
                connection.send_no_more()
            self.changed.notify_all()

    def _on_lost(self, connection: Connection, error: ClientError) -> None:
        """A connection is of no more use: restore the stream on another, or end it."""
        with self.changed:
            if connection is not self._connection or self.error or self._session.done:
                return
            self._leave(connection)
            if not self._patience.is_mendable(error, self._reconnector is not None):
                self.fail(error)
                return
            self._connection, self._loss = None, error
            self._patience.on_loss(time.monotonic())
            if self._reconnector is None:
                log.warning("%s; reconnecting for up to %g s", error, self._patience.reconnect_s)
                self._reconnector = threading.Thread(
                    target=self._reconnect, args=(connection,), name="asr-live-link", daemon=True
                )
                self._reconnector.start()
            self.changed.notify_all()

    def _reconnect(self, connection: Connection) -> None:
        """Try until the server takes the stream again, the time is over or the stream is."""
        wait_s = FIRST_WAIT_S
        while connection is not None:
            connection.close(RELEASE_S)
            with self.changed:
                self.changed.wait_for(lambda: self.error, wait_s * random.uniform(0.5, 1))
                connection = self._try_again()
                if connection is None:
                    self._reconnector = None
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _try_again(self) -> Connection | None:
        """Connect once more.  Returns the connection if it was lost again; None: try no more."""
        left_s = self._patience.left_s(time.monotonic())
        if left_s <= 0:
            self.fail(self._loss)
        if self.error is not None:
            return None
        self._session.restart()
        connection = self._connect()
        settled = self.changed.wait_for(
            lambda: self._session.started or self.error or self._connection is not connection,
            min(self._patience.timeout_s, left_s),
        )
        if not settled:
            self._on_lost(connection, self._patience.timeout_error())
        if self.error is None and self._connection is not connection:
            return connection
        if self.error is None:
            log.warning("connected to %s again", self._url)
        return None
