"""The options of a stream or a file: one parser for every adapter and client. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .config import LOOKAHEAD_BY_LATENCY_MS, SAMPLE_RATE
from .errors import invalid

AUTO = "auto"
SAMPLE_RATES = (SAMPLE_RATE,)


@dataclass(frozen=True)
class Options:
    """What a caller may ask of a stream (all of them) or a file (`language`, `latency_ms`)."""

    latency_ms: int
    language: str = AUTO
    sample_rate: int = SAMPLE_RATE  # Hz, of the samples that the caller sends

    @property
    def lookahead(self) -> int:
        return LOOKAHEAD_BY_LATENCY_MS[self.latency_ms]


def parse_options(
    parameters: Mapping[str, object],
    languages: Iterable[str],
    latencies_ms: Iterable[int],
    default_latency_ms: int,
) -> Options:
    """Read request parameters.

    languages, latencies_ms: what the loaded model offers.
    Raises AsrError INVALID_ARGUMENT naming the bad parameter or value and the valid ones.
    """
    known = {
        "language": lambda value: _language(value, languages),
        "latency_ms": lambda value: _one_of("latency_ms", value, latencies_ms),
        "sample_rate": lambda value: _one_of("sample_rate", value, SAMPLE_RATES),
    }
    values = {"latency_ms": default_latency_ms}
    for name, value in parameters.items():
        if name not in known:
            raise invalid(f"unknown parameter {name!r}; valid: {', '.join(known)}")
        values[name] = known[name](value)
    return Options(**values)


def _one_of(name: str, value: object, valid: Iterable[int]) -> int:
    valid = sorted(valid)
    try:
        number = int(value) if not isinstance(value, bool | float) else None
    except (TypeError, ValueError):
        number = None
    if number not in valid:
        raise invalid(f"{name} {value!r} is not supported; valid: {', '.join(map(str, valid))}")
    return number


def _language(value: object, languages: Iterable[str]) -> str:
    languages = tuple(languages)
    if isinstance(value, str):
        by_lower = {language.lower(): language for language in languages}
        found = by_lower.get(value.lower().replace("_", "-"))
        if found is not None:
            return found
    raise invalid(f"language {value!r} is not supported; valid: {', '.join(sorted(languages))}")
