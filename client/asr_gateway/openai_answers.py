"""Transcripts as OpenAI's clients read them."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Collection
from functools import partial

from starlette.responses import JSONResponse, PlainTextResponse, Response

from asr_client.formats import FORMATS
from asr_client.results import Segment, Transcript, Word
from nemotron_asr.options import AUTO

from .openai_models import english_name

VERBOSE = "verbose_json"
RESPONSE_FORMATS = ("json", VERBOSE, "text", "srt", "vtt")
_LEAST = 1e-6  # of a confidence whose logarithm is taken


def answer(
    transcript: Transcript,
    response_format: str,
    granularities: Collection[str],
    language: str | None,
) -> Response:
    """granularities: of `verbose_json`, word, segment.  language: that was asked for, if any."""
    if response_format == "json":
        return JSONResponse(_plain(transcript))
    if response_format == VERBOSE:
        made = _verbose(transcript, granularities, language)
        return Response(_in_parts(made), media_type="application/json")
    return PlainTextResponse(FORMATS[response_format](transcript))


def _in_parts(made: dict) -> str:
    """JSON, made item by item: all at once nothing else would run, not even in another thread."""
    dump = partial(json.dumps, ensure_ascii=False, separators=(",", ":"))
    parts = []
    for name, value in made.items():
        text = f"[{','.join(map(dump, value))}]" if isinstance(value, list) else dump(value)
        parts.append(f"{dump(name)}:{text}")
    return "{" + ",".join(parts) + "}"


def languages_of(transcript: Transcript) -> dict:
    """The field `languages`, where one was detected."""
    return {"languages": [{"code": transcript.language}]} if transcript.language else {}


def _plain(transcript: Transcript) -> dict:
    usage = {"type": "duration", "seconds": _seconds(transcript.audio_processed_ms or 0)}
    return {"text": transcript.text, **languages_of(transcript), "usage": usage}


def _verbose(transcript: Transcript, granularities: Collection[str], language: str | None) -> dict:
    asked = None if language == AUTO else language
    made = _plain(transcript) | {
        "task": "transcribe",
        "language": english_name(transcript.language or asked),
        "duration": _seconds(transcript.audio_processed_ms or 0),
    }
    if "word" in granularities:
        made["words"] = [_word(word) for word in transcript.words]
    if "segment" in granularities:
        made["segments"] = [_segment(segment) for segment in transcript.segments]
    return made


def _word(word: Word) -> dict:
    times = {"start": _seconds(word.start_ms), "end": _seconds(word.end_ms)}
    return {"word": word.text, **times, "confidence": word.confidence}


def _segment(segment: Segment) -> dict:
    """All fields that clients know, null where there is nothing to tell.

    avg_logprob: of words, by their confidences.  compression_ratio: as Whisper computes it.
    """
    text = segment.text.encode()
    sure = [math.log(max(w.confidence, _LEAST)) for w in segment.words if w.confidence is not None]
    return {
        "id": segment.segment,
        "start": _seconds(segment.start_ms),
        "end": _seconds(segment.end_ms),
        "text": segment.text,
        "temperature": 0.0,  # decoding is greedy
        "avg_logprob": sum(sure) / len(sure) if sure else None,
        "compression_ratio": len(text) / len(zlib.compress(text)),
        "seek": None,
        "tokens": None,
        "no_speech_prob": None,
    }


def _seconds(ms: int) -> float:
    return ms / 1000
