"""Results of a live stream as events of OpenAI's Realtime API: items, their text, their ends.

No I/O: what comes out is to be sent, in this order. Text is told as it is known, so that the deltas
of an item come before the event that commits its audio.
"""

from __future__ import annotations

import itertools
import secrets
from collections import deque
from collections.abc import Iterator

from asr_client.errors import ClientError
from asr_client.results import Result

from .errors import http_status, message_of

COMMIT, CLEAR = "commit", "clear"  # why a client's utterance is finalized
_TRANSCRIPTION = "conversation.item.input_audio_transcription"


class Items:
    """The items of one session.  is_beta: they are `created`, not `added` and `done`."""

    def __init__(self, is_beta: bool):
        self._is_beta = is_beta
        self._finalizing: deque[str] = deque()  # COMMIT or CLEAR, whose answers are still to come
        self._name, self._numbers = secrets.token_hex(8), itertools.count(1)
        self._id: str | None = None  # of the item that is spoken now
        self._last_id: str | None = None
        self._text = self._joint = ""  # joint: between the texts of two streams
        self._language: str | None = None
        self._is_heard = False  # speech_started was said
        self._from_ms = 0  # where the audio of the next item begins

    def finalizing(self, why: str) -> None:
        """The utterance was told to end: its result is a commit, or is to be thrown away."""
        self._finalizing.append(why)

    def next_stream(self) -> None:
        """What follows is of another stream; an item that is open goes on in it."""
        self._joint = " " if self._text else ""

    def of_result(
        self, result: Result, begin_ms: int, latency_ms: int, vad: dict | None
    ) -> Iterator[dict]:
        """Events of a result.

        begin_ms: of its stream in the session.  vad: the `turn_detection` of the stream; None:
        utterances end by commits alone.
        """
        processed_ms = begin_ms + (result.audio_processed_ms or 0)
        for piece in result.segments:
            if self._finalizing and self._finalizing[0] == CLEAR:
                continue
            if piece.text:
                first = begin_ms + piece.words[0].start_ms if piece.words else None
                heard_ms = processed_ms - latency_ms if first is None else first
                yield from self._delta(piece.text, heard_ms, vad)
                self._language = piece.language or self._language
            if piece.is_final and vad and piece.reason != "finalize":
                yield from self._end(begin_ms + piece.end_ms, by_vad=True)
        if result.finalized and self._finalizing:
            if self._finalizing.popleft() == COMMIT:
                yield from self._end(processed_ms)
            else:
                yield from self._clear(processed_ms)

    def failed(self, error: ClientError, end_ms: int) -> Iterator[dict]:
        """The stream is lost: what was spoken or waits to be committed has no text.

        end_ms: of its audio in the session.
        """
        self._from_ms = end_ms
        waiting = list(self._finalizing)
        if self._id is not None and not waiting:
            waiting = [COMMIT]
        self._finalizing.clear()
        for why in waiting:
            if why == CLEAR:
                yield from self._clear(end_ms)
            else:
                yield from self._commit()
                yield {
                    "type": f"{_TRANSCRIPTION}.failed", "item_id": self._last_id,
                    "content_index": 0, "error": as_error(error),
                }  # fmt: skip
                self._forget()
        if not waiting:
            yield {"type": "error", "error": as_error(error)}

    def _delta(self, text: str, heard_ms: int, vad: dict | None) -> Iterator[dict]:
        if self._id is None:
            self._id = self._new_id()
            text = text.lstrip()  # the space between two utterances
            if vad:
                self._is_heard = True
                start_ms = max(self._from_ms, heard_ms - vad["prefix_padding_ms"])
                yield {
                    "type": "input_audio_buffer.speech_started", "item_id": self._id,
                    "audio_start_ms": start_ms,
                }  # fmt: skip
        text, self._joint = self._joint + text, ""
        self._text += text
        yield {
            "type": f"{_TRANSCRIPTION}.delta", "item_id": self._id, "content_index": 0,
            "delta": text,
        }  # fmt: skip

    def _end(self, end_ms: int, by_vad: bool = False) -> Iterator[dict]:
        if by_vad and self._id is None:
            return
        if by_vad and self._is_heard:
            stopped = {"type": "input_audio_buffer.speech_stopped", "item_id": self._id}
            yield stopped | {"audio_end_ms": end_ms}
        yield from self._commit()
        languages = [{"code": self._language}] if self._language else []
        usage = {"type": "duration", "seconds": max(0, end_ms - self._from_ms) / 1000}
        yield {
            "type": f"{_TRANSCRIPTION}.completed", "item_id": self._last_id, "content_index": 0,
            "transcript": self._text, "usage": usage, "languages": languages,
        }  # fmt: skip
        self._from_ms = end_ms
        self._forget()

    def _commit(self) -> Iterator[dict]:
        """An item becomes the last one of the conversation."""
        id, before = self._id or self._new_id(), {"previous_item_id": self._last_id}
        yield {"type": "input_audio_buffer.committed", "item_id": id, **before}
        item = {
            "id": id, "object": "realtime.item", "type": "message", "role": "user",
            "status": "completed", "content": [{"type": "input_audio", "transcript": None}],
        }  # fmt: skip
        for kind in ("created",) if self._is_beta else ("added", "done"):
            yield {"type": f"conversation.item.{kind}", **before, "item": item}
        self._id, self._last_id = None, id

    def _clear(self, end_ms: int) -> Iterator[dict]:
        self._from_ms = end_ms
        self._forget()
        yield {"type": "input_audio_buffer.cleared"}

    def _forget(self) -> None:
        self._id, self._language, self._is_heard = None, None, False
        self._text = self._joint = ""

    def _new_id(self) -> str:
        return f"item_{self._name}_{next(self._numbers)}"


def as_error(error: ClientError) -> dict:
    """An error as events have it."""
    kind = "invalid_request_error" if http_status(error) < 500 else "server_error"
    return {"type": kind, "code": error.code, "message": message_of(error), "param": None}
