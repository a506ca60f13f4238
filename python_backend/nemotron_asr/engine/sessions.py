"""Policy of live streams: admission, audio bookkeeping, idle expiry. No torch, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np

from ..options import Options
from ..text import TextAssembler


class AudioBuffer:
    """The stretch of a stream's samples that is still needed, in packets as they came."""

    def __init__(self):
        self._packets: deque[np.ndarray] = deque()
        self.start = 0  # index in the stream of the first sample kept
        self.stop = 0  # samples received

    def append(self, samples: np.ndarray) -> None:
        if len(samples):
            self._packets.append(samples)
            self.stop += len(samples)

    def drop_before(self, sample: int) -> None:
        """Let go of packets that end before `sample`."""
        while self._packets and self.start + len(self._packets[0]) <= sample:
            self.start += len(self._packets.popleft())

    def window(self, stop: int) -> np.ndarray:
        """The kept samples before index `stop`, from `self.start` on."""
        parts, at = [], self.start
        for packet in self._packets:
            if at >= stop:
                break
            parts.append(packet[: stop - at])
            at += len(packet)
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int16)


@dataclass
class Session:
    """One live stream. Its caches lie in the arena, in its slot."""

    id: Hashable
    slot: int
    options: Options
    prompt_id: int
    assembler: TextAssembler
    last_active: float
    audio: AudioBuffer = field(default_factory=AudioBuffer)
    frames: int = 0  # encoder frames decoded
    ending: bool = False  # END has come: nothing may follow
    requests: deque = field(default_factory=deque)  # unanswered, oldest first


class SessionTable:
    """Who holds which slot. A slot is free again the moment its session is released."""

    def __init__(self, num_slots: int, idle_timeout_s: float):
        if num_slots < 1:
            raise ValueError(f"num_slots is {num_slots}; valid: 1 or more")
        if idle_timeout_s <= 0:
            raise ValueError(f"idle_timeout_s is {idle_timeout_s}; valid: more than 0")
        self.num_slots = num_slots
        self.idle_timeout_s = idle_timeout_s
        self._free = deque(range(num_slots))
        self._sessions: dict[Hashable, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self):
        return iter(list(self._sessions.values()))

    def get(self, id_: Hashable) -> Session | None:
        return self._sessions.get(id_)

    def claim_slot(self) -> int | None:
        """A free slot, or None at capacity. `admit` must follow."""
        return self._free.popleft() if self._free else None

    def admit(self, session: Session) -> None:
        assert session.id not in self._sessions
        self._sessions[session.id] = session

    def release(self, session: Session) -> None:
        if self._sessions.pop(session.id, None) is session:
            self._free.append(session.slot)

    def expired(self, now: float) -> list[Session]:
        """Sessions without a request for longer than the idle limit; none that waits for us."""
        return [
            session
            for session in self._sessions.values()
            if not session.requests and now - session.last_active > self.idle_timeout_s
        ]
