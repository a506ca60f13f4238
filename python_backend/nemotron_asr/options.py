"""The options of a stream or a file: one table for adapters, clients and help. No torch here.

An option is a field of `Options` and a row of `option_table`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from . import pcm, phrases
from .config import LOOKAHEAD_BY_LATENCY_MS, SAMPLE_RATE
from .errors import invalid
from .pcm import MIX

AUTO = "auto"
KEEP, MASK = "keep", "mask"
MODEL, VAD = "model", "vad"
MAX_BOOST = 20.0
MAX_DIGITS = 20  # Python refuses to read thousands of them
LIVE, PACKET, FILE = "live", "packet", "file"  # of a stream, of any of its packets, of a file


@dataclass(frozen=True)
class Options:
    """What a caller may ask of a stream or a file; each field is explained in `option_table`."""

    latency_ms: int
    language: str = AUTO
    sample_rate: int = SAMPLE_RATE
    channels: int = 1
    channel: int | str = MIX
    punctuation: bool = True
    capitals: bool = True
    profanity: str = KEEP
    languages: str = ""
    phrases: str = ""
    boost: float = 1.0
    endpoint_ms: int = 0
    endpoint_by: str = MODEL
    max_utterance_ms: int = 0
    recover_ms: int = 0
    finalize: bool = False

    @property
    def segments(self) -> bool:
        """Whether utterances end by themselves."""
        return bool(self.endpoint_ms or self.max_utterance_ms)

    @property
    def lookahead(self) -> int:
        return LOOKAHEAD_BY_LATENCY_MS[self.latency_ms]


@dataclass(frozen=True)
class Written:
    """Values that are written in some way, where they cannot be listed."""

    read: Callable[[object], str | float]  # raises ValueError, naming what is not valid
    shown: str

    def __contains__(self, value: object) -> bool:
        return self.read(value) == value


@dataclass(frozen=True)
class Option:
    """One option: its name, its values, what it means, and who has it."""

    name: str
    valid: tuple | range | Written
    help: str
    of: tuple[str, ...] = (LIVE, FILE)

    def read(self, value: object):
        """A value as it came, out of JSON or as text out of a header, to the valid one it means.

        Raises AsrError INVALID_ARGUMENT naming the value and the valid ones.
        """
        if isinstance(self.valid, Written):
            try:
                return self.valid.read(value)
            except ValueError as error:
                raise invalid(f"{self.name}: {error}; valid: {self.shown()}") from error
        if isinstance(self.valid, range):
            digits = _spelling(value)
            if digits.isdecimal() and len(digits) < MAX_DIGITS and int(digits) in self.valid:
                return int(digits)
        else:
            for valid in self.valid:
                if _spelling(valid) == _spelling(value):
                    return valid
        raise invalid(f"{self.name} {value!r} is not supported; valid: {self.shown()}")

    def shown(self, between: str = ", ") -> str:
        """The valid values, for people."""
        if isinstance(self.valid, Written):
            return self.valid.shown
        if isinstance(self.valid, range):
            return f"{self.valid[0]} to {self.valid[-1]}"
        return between.join(_shown(value) for value in self.valid)


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _spelling(value: object) -> str:
    """true for True; en-us for en_US: what headers and people write."""
    return str(value).strip().lower().replace("_", "-")


def read_languages(valid: Iterable[str], value: object) -> str:
    """Languages to one way of writing them: de-DE,en-US; "" for none."""
    names = {_spelling(name): name for name in valid if name != AUTO}
    wanted = phrases.listed(value, ",")
    unknown = [item for item in wanted if _spelling(item) not in names]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not supported")
    return ",".join(sorted({names[_spelling(item)] for item in wanted}))


def read_boost(value: object) -> float:
    try:
        number = float(_spelling(value))
    except ValueError:
        number = -1.0
    if not 0 <= number <= MAX_BOOST:
        raise ValueError(f"{value!r} is not supported")
    return number


def option_table(languages: Iterable[str], latencies_ms: Iterable[int]) -> dict[str, Option]:
    """Every option by name.  languages, latencies_ms: what the loaded model offers."""
    flag, languages = (True, False), sorted(languages)
    options = [
        Option("language", tuple(languages), "Spoken language, or auto."),
        Option("latency_ms", tuple(sorted(latencies_ms)), "Milliseconds that the model waits."),
        Option("sample_rate", pcm.SAMPLE_RATES, "Hz, of the samples that are sent.", of=(LIVE,)),
        Option(
            "channels",
            tuple(range(1, pcm.MAX_CHANNELS + 1)),
            "Channels of the samples, interleaved; they are mixed.",
            of=(LIVE,),
        ),
        Option(
            "channel",
            (MIX, *range(pcm.MAX_CHANNELS)),
            "The channel of the file to hear, from 0, or mix.",
            of=(FILE,),
        ),
        Option("punctuation", flag, "Punctuation in the text."),
        Option("capitals", flag, "Capital letters in the text."),
        Option("profanity", (KEEP, MASK), "mask: offensive words as a letter and asterisks."),
        Option(
            "languages",
            Written(
                partial(read_languages, languages),
                f"some of {', '.join(name for name in languages if name != AUTO)}",
            ),
            "With language auto: the only languages that may be detected, between commas.",
        ),
        Option(
            "phrases",
            Written(phrases.read_phrases, phrases.SYNTAX),
            "Words and phrases to expect, between semicolons; Quilter^2 counts twice.",
        ),
        Option(
            "boost",
            Written(read_boost, f"0 to {MAX_BOOST:g}"),
            "How much phrases are favoured; more finds more of them, also where they are not.",
        ),
        Option(
            "endpoint_ms",
            range(10_001),
            "Silence that ends an utterance, in milliseconds; 0: none does.",
        ),
        Option(
            "endpoint_by",
            (MODEL, VAD),
            "What tells silence in endpoint_ms and max_utterance_ms: the model, which then says "
            "nothing, or a voice detector.",
            of=(LIVE,),
        ),
        Option(
            "max_utterance_ms",
            range(600_001),
            "An utterance this long ends at the next pause, in milliseconds; 0: at none.",
            of=(LIVE,),
        ),
        Option(
            "recover_ms",
            range(60_001),
            "Speech without text after which the model begins afresh, in milliseconds; 0: never.",
            of=(LIVE,),
        ),
        Option("finalize", flag, "Ends the utterance with this packet.", of=(PACKET,)),
    ]
    return {option.name: option for option in options}


def parse_options(
    parameters: Mapping[str, object],
    languages: Iterable[str],
    latencies_ms: Iterable[int],
    default_latency_ms: int,
    of: str,
) -> Options:
    """Read request parameters.

    languages, latencies_ms: what the loaded model offers.  of: "live", packets included, or "file".
    Raises AsrError INVALID_ARGUMENT naming the bad parameter or value and the valid ones.
    """
    table = option_table(languages, latencies_ms)
    has = (LIVE, PACKET) if of == LIVE else (of,)
    known = [name for name, option in table.items() if set(has) & set(option.of)]
    values = {"latency_ms": default_latency_ms}
    for name, value in parameters.items():
        if name not in known:
            raise invalid(_unknown(name, table, known, of))
        values[name] = table[name].read(value)
    return _with_one_language(Options(**values))


def _with_one_language(options: Options) -> Options:
    """Where one language alone may be detected it is given."""
    allowed = options.languages.split(",")
    if not options.languages or options.language in allowed:
        return options
    if options.language != AUTO:
        raise invalid(f"language {options.language!r} is not among languages {options.languages!r}")
    return replace(options, language=allowed[0]) if len(allowed) == 1 else options


def _unknown(name: str, table: dict[str, Option], known: list[str], of: str) -> str:
    valid = f"valid: {', '.join(known)}"
    if name in table:
        return f"parameter {name!r} is not for a {'file' if of == FILE else 'live stream'}; {valid}"
    return f"unknown parameter {name!r}; {valid}"
