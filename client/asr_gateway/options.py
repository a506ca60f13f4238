"""The options of a session or file as they came: out of JSON, a query, a form, a message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from asr_client.errors import InvalidArgument
from nemotron_asr.config import LOOKAHEAD_BY_LATENCY_MS
from nemotron_asr.errors import AsrError
from nemotron_asr.options import AUTO, FILE, LIVE, Option, option_table
from nemotron_asr.pcm import ENCODINGS
from nemotron_asr.phrases import listed

from .errors import invalid

ENCODING = "encoding"  # of live samples; of a client, as on the wire to Triton there is PCM alone
_TABLE = option_table((AUTO,), LOOKAHEAD_BY_LATENCY_MS)
_TABLE["progress"] = Option(  # of the library, not of Triton
    "progress", (True, False), "A result for all audio that was heard, also without text.", (LIVE,)
)
_BY_SERVER = ("language", "languages")  # which there are only the server knows


def read_options(values: Mapping[str, object], of: str) -> dict[str, object]:
    """Options as `LiveStream` (of "live") or `OfflineClient` (of "file") takes them.

    Raises InvalidArgument naming the bad option or value and the valid ones.
    """
    known = [name for name, option in _TABLE.items() if of in option.of]
    read = {}
    for name, value in values.items():
        if name == ENCODING and of == LIVE:
            read[name] = one_of(value, name, ENCODINGS)
        elif name not in known:
            valid = ", ".join([*known, ENCODING] if of == LIVE else known)
            raise invalid(f"unknown option {name!r}; valid: {valid}")
        elif name in _BY_SERVER:
            read[name] = value if isinstance(value, list) else str(value)
        else:
            try:
                read[name] = _TABLE[name].read(value)
            except AsrError as error:
                raise InvalidArgument(str(error)) from None
    return read


def one_of(value: object, name: str, valid: Iterable[str]) -> str:
    """The value.  Raises InvalidArgument naming it and the valid ones."""
    valid = tuple(valid)
    if value not in valid:
        raise invalid(f"{name} {value!r} is not supported; valid: {', '.join(valid)}")
    return value


def take_list(fields: dict, name: str, separator: str) -> list[str]:
    """Take out a field that is a list, or one written as text.  Raises InvalidArgument."""
    try:
        return listed(fields.pop(name, ""), separator)
    except ValueError as error:
        raise invalid(f"{name}: {error}") from None


__all__ = ["ENCODING", "FILE", "LIVE", "one_of", "read_options", "take_list"]
