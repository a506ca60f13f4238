"""Policy of live streams: admission, audio bookkeeping, idle expiry. No torch, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np

from ..options import Options
from ..pcm import LiveAudio
from .segments import Segment, UnheardSpeech
from .vad import VoiceActivity


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

    def window(self, start: int, stop: int) -> np.ndarray:
        """Samples `start` to `stop`; `start` lies in what is kept."""
        parts, at = [], self.start
        for packet in self._packets:
            if at >= stop:
                break
            if at + len(packet) > start:
                parts.append(packet[max(0, start - at) : stop - at])
            at += len(packet)
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int16)


@dataclass(eq=False)
class Session:
    """One live stream. Its caches lie in the arena, in its slot."""

    id: Hashable
    slot: int
    options: Options
    prompt_id: int
    segment: Segment
    live: LiveAudio
    last_active: float  # when the last packet came or was answered
    audio: AudioBuffer = field(default_factory=AudioBuffer)
    unheard: UnheardSpeech | None = None  # where asked for
    vad: VoiceActivity | None = None  # where asked for
    language: str | None = None  # detected last in the segments before
    asked_language: str | None = None  # of the audio that was sent last; options has that decoded
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
        self._by_slot: dict[int, Session] = {}
        self._by_id: dict[Hashable, Session] = {}  # those that take more packets

    def __len__(self) -> int:
        return len(self._by_slot)

    def __iter__(self):
        return iter(list(self._by_slot.values()))

    def get(self, id_: Hashable) -> Session | None:
        """The stream that takes packets under this id."""
        return self._by_id.get(id_)

    def has_room(self) -> bool:
        return bool(self._free)

    def admit(self, id_: Hashable, options: Options, prompt_id: int, segment, live, now: float):
        """Give a new stream a slot. Ask `has_room` first; the id must not be in use."""
        session = Session(id_, self._free.popleft(), options, prompt_id, segment, live, now)
        self._by_slot[session.slot] = session
        self._by_id[id_] = session
        return session

    def detach(self, session: Session) -> None:
        """END has come: its id is free for another stream while the rest is decoded."""
        if self._by_id.get(session.id) is session:
            del self._by_id[session.id]

    def release(self, session: Session) -> None:
        """Free the slot. Does nothing for a session released before."""
        self.detach(session)
        if self._by_slot.get(session.slot) is session:
            del self._by_slot[session.slot]
            self._free.append(session.slot)

    def expired(self, now: float) -> list[Session]:
        """Sessions without a request for longer than the idle limit; none that waits for us."""
        return [
            session
            for session in self
            if not session.requests and now - session.last_active > self.idle_timeout_s
        ]
