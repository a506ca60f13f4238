"""One live stream without its connection: requests out, answers in, the transcript so far.

No I/O, no locks, no clock: a client of threads and one of asyncio can both drive it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np
from tritonclient.grpc import service_pb2

from . import wire
from .results import Result, Transcript, Word, result_from_json

START, AUDIO, END = "start", "audio", "end"  # kinds of requests
SILENCE = np.zeros(0, np.int16)
_DEFAULT_IDLE_TIMEOUT_S = 60  # where the server does not say


class StreamSession:
    """The state of one stream; it begins with the request `start()`.

    options: the stream's request parameters.  words: ask for words with every packet.
    progress: keep a Result for every packet, not only where text, words or the end came.
    """

    def __init__(self, options: Mapping[str, str | int], *, words: bool, progress: bool):
        self.server: dict = {}  # what the server offers, from the answer to START
        self.results: deque[Result] = deque()  # not yet read
        self.in_flight: deque[str] = deque()  # kinds of the requests without an answer, in order
        self.started = self.ending = self.done = False  # START answered, END sent, END answered
        self._options = options
        self._words = words
        self._progress = progress
        self._sequence_id = wire.new_sequence_id()
        self._texts: list[str] = []
        self._all_words: list[Word] = []
        self._last = Result("")  # the latest that came with language and time

    @property
    def idle_timeout_s(self) -> float:
        """How long the server keeps a stream that sends nothing, in seconds."""
        return self.server.get("idle_timeout_s", _DEFAULT_IDLE_TIMEOUT_S)

    def request(self, kind: str, pcm: np.ndarray = SILENCE) -> service_pb2.ModelInferRequest:
        """The next request, to be sent at once.  pcm: (n,) int16, n >= 0."""
        self.in_flight.append(kind)
        self.ending = kind == END
        return wire.build_request(
            self._sequence_id,
            pcm,
            start=kind == START,
            end=kind == END,
            options=self._options if kind == START else None,
            with_result=self._words or kind != AUDIO,
        )

    def accept(self, response: service_pb2.ModelStreamInferResponse) -> str:
        """Take the next answer.  Returns its request's kind; raises the error it is."""
        kind = self.in_flight.popleft()
        answer = wire.parse_response(response)
        self._texts.append(answer.text)
        self.done = kind == END
        if answer.result is None:
            result = Result(answer.text)
        else:
            result = self._last = result_from_json({**answer.result, "is_final": self.done})
            self._all_words += result.words
        if kind == START:
            self.server = answer.result.get("server", {})
            self.started = True
        if result.text or result.words or self.done or (self._progress and kind == AUDIO):
            self.results.append(result)
        return kind

    def transcript(self) -> Transcript:
        """Everything so far."""
        last = self._last
        text = "".join(self._texts)
        return Transcript(text, tuple(self._all_words), last.language, last.audio_processed_ms)
