"""The record of a recording: the same fields in each, whether it was transcribed or failed."""

from __future__ import annotations

from nemotron_asr.config import SAMPLE_RATE
from nemotron_asr.errors import INTERNAL, AsrError

from .manifest import Row

Record = dict[str, object]


def transcribed(row: Row, result, words: bool) -> Record:
    """result: a `Transcription`.  words: whether to keep its words."""
    found = result.as_dict()
    return _record(
        row,
        text=result.text,
        language=result.language,
        duration_s=round(result.num_samples / SAMPLE_RATE, 3),
        words=found["words"] if words else None,
        segments=found.get("segments"),
    )


def failed(row: Row, error: Exception) -> Record:
    """error: an AsrError, or what nobody expected."""
    if not isinstance(error, AsrError):
        error = AsrError(INTERNAL, f"{type(error).__name__}: {error}")
    message = str(error).removeprefix(f"{error.code}: ")
    message = message.encode(errors="replace").decode()  # a server's bytes may be no text
    return _record(row, error={"code": error.code, "message": message})


def _record(
    row: Row,
    text: str | None = None,
    language: str | None = None,
    duration_s: float | None = None,
    words: list | None = None,
    segments: list | None = None,
    error: dict | None = None,
) -> Record:
    return {
        "id": row.id, "audio": row.audio, "text": text, "language": language,
        "duration_s": duration_s, "words": words, "segments": segments, "error": error,
    }  # fmt: skip


def schema():
    """Of the same record in Parquet."""
    import pyarrow as pa

    text, ms = pa.string(), pa.int64()
    word = {"text": text, "start_ms": ms, "end_ms": ms, "confidence": pa.float64()}
    words = pa.list_(pa.struct(word))
    segment = {"segment": pa.int64(), "text": text, "words": words, "start_ms": ms, "end_ms": ms}
    segment |= {"language": text, "is_final": pa.bool_(), "reason": text}
    fields = {"id": text, "audio": text, "text": text, "language": text}
    fields |= {"duration_s": pa.float64(), "words": words}
    fields |= {"segments": pa.list_(pa.struct(segment))}
    fields |= {"error": pa.struct({"code": text, "message": text})}
    return pa.schema(fields)
