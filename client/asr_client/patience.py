"""How long a stream waits: for answers, for room, for a server that is away.

No I/O, no locks; time is an argument. Shared by the streams of threads and of asyncio.
"""

from __future__ import annotations

from .errors import AtCapacity, ClientError, ServerUnavailable, StreamNotFound
from .session import StreamSession

RELEASE_S = 0.5  # how long a stream that is given up waits for the server to free its slot
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0  # before a lost stream is tried again; doubles
_MAX_BACKLOG = 6000  # packets that wait after a loss: two minutes of 20 ms where none are joined
_LOST = (ServerUnavailable, StreamNotFound)  # what another connection may mend


class Patience:
    """The rules of one stream, over all its connections.

    max_in_flight: packets that may wait for answers.  max_ahead: samples that may, if that is
    bounded.  max_backlog: samples that may after a loss, in no more than _MAX_BACKLOG packets.
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
        max_ahead: int | None = None,
        timeout_s: float,
        reconnect_s: float,
    ):
        self.timeout_s = timeout_s
        self.reconnect_s = reconnect_s
        self._url = url
        self._session = session
        self._max_in_flight = max_in_flight
        self._max_backlog = max_backlog
        self._max_ahead = max_ahead
        self._catching_up = False  # from a loss until no more waits than usual
        self._last_progress_s = 0.0  # the latest answer, or a packet after a pause
        self._lost_at_s: float | None = None  # until the stream has got on again

    def has_room(self) -> bool:
        """Whether another packet may be put into the session."""
        backlog, unanswered = self._session.tape.backlog, self._session.unanswered
        if unanswered < self._max_in_flight and (
            self._max_ahead is None or backlog < self._max_ahead
        ):
            return True
        return self._catching_up and backlog < self._max_backlog and unanswered < _MAX_BACKLOG

    def on_connect(self, now: float) -> None:
        self._last_progress_s = now

    def on_send(self, now: float) -> None:
        """Call before what may go is sent."""
        if not self._session.in_flight:
            self._last_progress_s = now

    def on_answer(self, got_on: bool, now: float) -> None:
        """Call after the session took an answer.  got_on: what `accept` returned."""
        self._last_progress_s = now
        if got_on or not self._session.unanswered:
            self._lost_at_s = None
        if self._session.unanswered < self._max_in_flight:
            self._catching_up = False

    def on_loss(self, now: float) -> None:
        self._catching_up = True
        if self._lost_at_s is None:
            self._lost_at_s = now

    def is_mendable(self, error: ClientError, on_the_way_back: bool) -> bool:
        """Whether to try again. Not what was never open; a full server only on the way back."""
        kinds = (*_LOST, AtCapacity) if on_the_way_back else _LOST
        return bool(self.reconnect_s and self._session.server) and isinstance(error, kinds)

    def left_s(self, now: float) -> float:
        """Seconds for which a lost stream is still tried."""
        return self._lost_at_s + self.reconnect_s - now

    def remaining_s(self, now: float) -> float | None:
        """Seconds until the server must have answered, or else has dropped a stream so silent.

        Of a stream that is connected.  None: no end, as one that is silent can be restored once it
        speaks.
        """
        waits_for_server = bool(self._session.in_flight)
        if self.reconnect_s and not waits_for_server:
            return None
        idle_s = 0 if waits_for_server else self._session.idle_timeout_s
        return self._last_progress_s + self.timeout_s + idle_s - now

    def timeout_error(self) -> ClientError:
        if self._session.in_flight:
            return ServerUnavailable(f"no answer from {self._url} for {self.timeout_s:g} s")
        return StreamNotFound(
            f"NOT_FOUND: nothing was sent for longer than {self._session.idle_timeout_s:g} s, "
            "the server's idle limit; call keep_alive() in pauses"
        )
