"""What a transcription session of OpenAI's Realtime API is told, and the options that it means.

The settings are kept in today's shape, `session.audio.input`. The older one of the beta, flat, is
read into it and written from it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

from nemotron_asr.pcm import PCM16, SAMPLE_RATES

from .errors import invalid
from .openai_models import all_like, language_like
from .options import ENCODING, LIVE, one_of, read_options, take_list

DEFAULT_RATE = 24_000
DEFAULT_PAUSE_MS = 500
SERVER_VAD = "server_vad"
TELEPHONE_RATE = 8_000
DEFAULTS = {
    "format": {"type": "audio/pcm", "rate": DEFAULT_RATE},
    "transcription": {},
    "turn_detection": {
        "type": SERVER_VAD, "threshold": 0.5, "prefix_padding_ms": 300,
        "silence_duration_ms": DEFAULT_PAUSE_MS,
    },
    "noise_reduction": None,
}  # fmt: skip
_G711 = {"audio/pcmu": "mulaw", "audio/pcma": "alaw"}
_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}  # beta's
_BETA = {  # its names of the settings
    "input_audio_format": "format",
    "input_audio_transcription": "transcription",
    "turn_detection": "turn_detection",
    "input_audio_noise_reduction": "noise_reduction",
}
_DELAYS_MS = {"minimal": 80, "low": 160, "medium": 320, "high": 560, "xhigh": 1120}
_WITHOUT_EFFECT = ("prompt", "model")  # of `transcription`; which models there are is checked apart
_ELSEWHERE = (ENCODING, "sample_rate", "channels", "endpoint_ms", "progress")  # ours, not its
_VAD_FIELDS = (
    *DEFAULTS["turn_detection"], "create_response", "interrupt_response", "idle_timeout_ms",
)  # fmt: skip


def read_update(session: object, is_beta: bool) -> dict:
    """The settings that an update of a session changes.  Raises InvalidArgument."""
    session = _object(session, "session")
    if is_beta:
        given = _known(session, "session", (*_BETA, "include", "modalities", "client_secret"))
        changes = {_BETA[name]: value for name, value in given.items() if name in _BETA}
        if changes.get("format") is not None:
            format = one_of(changes["format"], "input_audio_format", _FORMATS)
            changes["format"] = {"type": _FORMATS[format]}
    else:
        if session.get("type") != "transcription":
            raise invalid(f"session.type {session.get('type')!r}; valid: transcription")
        _known(session, "session", ("type", "audio", "include"))
        audio = _known(_object(session.get("audio"), "session.audio"), "session.audio", ("input",))
        given = _object(audio.get("input"), "session.audio.input")
        changes = _known(given, "session.audio.input", tuple(DEFAULTS))
    if session.get("include"):
        raise invalid(f"session.include {session['include']!r}: there are no logprobs of tokens")
    return changes


def updated(settings: dict, changes: dict) -> dict:
    """Settings with changes, as `session.updated` tells them.  Raises InvalidArgument."""
    settings = copy.deepcopy(settings)
    for name, value in changes.items():
        path = f"session.audio.input.{name}"
        if name == "turn_detection":
            settings[name] = None if value is None else _turn_detection(_object(value, path))
        elif name == "transcription" and value is not None:
            told = settings[name] | _object(value, path)
            settings[name] = {key: item for key, item in told.items() if item is not None}
        elif name == "format" and value is not None:
            settings[name] = _format(_object(value, path))
        elif value is None:
            settings[name] = copy.deepcopy(DEFAULTS[name])
        else:  # noise_reduction, which is not done
            settings[name] = _plain(_object(value, path), path, ("type", "strength"))
    return settings


def live_options(settings: dict, offered: Iterable[str]) -> dict[str, object]:
    """The options of a live stream.  offered: languages.  Raises InvalidArgument."""
    kind, told = settings["format"]["type"], dict(settings["transcription"])
    for name in _WITHOUT_EFFECT:
        _text(told, name)
    options: dict[str, object] = {
        "language": language_like(_text(told, "language"), offered),
        ENCODING: _G711.get(kind, PCM16),
        "sample_rate": settings["format"].get("rate", TELEPHONE_RATE),
    }
    if settings["turn_detection"] is not None:
        options["endpoint_ms"] = settings["turn_detection"]["silence_duration_ms"]
    if languages := take_list(told, "languages", ","):
        options["languages"] = all_like(languages, offered)
    if keywords := take_list(told, "keywords", ";"):
        options["phrases"] = keywords
    if (delay := told.pop("delay", None)) is not None:
        options["latency_ms"] = _DELAYS_MS[one_of(delay, "delay", _DELAYS_MS)]
    if elsewhere := set(told) & set(_ELSEWHERE):
        raise invalid(f"{elsewhere.pop()!r} is no option of transcription")
    return read_options(options | told, LIVE)


def as_session(settings: dict, id: str, is_beta: bool) -> dict:
    """A session as events tell it."""
    if not is_beta:
        kind = {"type": "transcription", "object": "realtime.transcription_session", "id": id}
        return kind | {"audio": {"input": settings}, "include": None}
    flat = {name: settings[ours] for name, ours in _BETA.items()}
    names = {ours: name for name, ours in _FORMATS.items()}
    flat["input_audio_format"] = names[settings["format"]["type"]]
    return {"object": "realtime.transcription_session", "id": id, **flat}


def _format(format: dict) -> dict:
    kind = one_of(format.get("type", "audio/pcm"), "format.type", _FORMATS.values())
    if kind != "audio/pcm":
        return {"type": kind}
    rate = format.get("rate", DEFAULT_RATE)
    if rate not in SAMPLE_RATES or isinstance(rate, bool):
        raise invalid(f"format.rate {rate!r}; valid: {', '.join(map(str, SAMPLE_RATES))}")
    return {"type": kind, "rate": rate}


def _turn_detection(told: dict) -> dict:
    _plain(told, "turn_detection", _VAD_FIELDS)
    one_of(told.get("type", SERVER_VAD), "turn_detection.type", (SERVER_VAD,))
    made = DEFAULTS["turn_detection"] | {k: v for k, v in told.items() if v is not None}
    for name, least in (("silence_duration_ms", 1), ("prefix_padding_ms", 0)):
        if type(made[name]) is not int or not least <= made[name] <= 10_000:
            raise invalid(f"turn_detection.{name} {made[name]!r}; valid: {least} to 10000")
    return made


def _object(value: object, name: str) -> dict:
    """Raises InvalidArgument for what is neither an object nor missing."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid(f"{name} {value!r} is no object")
    return value


def _known(told: dict, name: str, valid: tuple[str, ...]) -> dict:
    if unknown := set(told) - set(valid):
        raise invalid(f"{name}.{min(unknown)} is unknown; valid: {', '.join(valid)}")
    return told


def _plain(told: dict, name: str, valid: tuple[str, ...]) -> dict:
    """Known fields, whose values are no objects or lists themselves."""
    for field, value in _known(told, name, valid).items():
        if isinstance(value, (dict, list)):
            raise invalid(f"{name}.{field} is no plain value")
    return told


def _text(told: dict, name: str) -> str:
    value = told.pop(name, "")
    if not isinstance(value, str):
        raise invalid(f"{name} {value!r} is no text")
    return value
