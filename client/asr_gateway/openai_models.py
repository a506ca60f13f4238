"""OpenAI's names for what is served: `/v1/models`, and languages as its clients write them."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from nemotron_asr.options import AUTO

from .errors import ModelNotFound, invalid
from .gateway import Gateway

ALIASES = (  # what clients ask for by default; all are the model that is served
    "whisper-1", "gpt-transcribe", "gpt-4o-transcribe", "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15", "gpt-live-transcribe", "gpt-realtime-whisper",
)  # fmt: skip
NAMES = {  # ISO 639-1 to the names that `verbose_json` has
    "ar": "arabic", "bg": "bulgarian", "cs": "czech", "da": "danish", "de": "german",
    "el": "greek", "en": "english", "es": "spanish", "et": "estonian", "fi": "finnish",
    "fr": "french", "he": "hebrew", "hi": "hindi", "hr": "croatian", "hu": "hungarian",
    "it": "italian", "ja": "japanese", "ko": "korean", "lt": "lithuanian", "lv": "latvian",
    "mt": "maltese", "nb": "norwegian", "nl": "dutch", "nn": "nynorsk", "no": "norwegian",
    "pl": "polish", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sk": "slovak",
    "sl": "slovenian", "sv": "swedish", "th": "thai", "tr": "turkish", "uk": "ukrainian",
    "vi": "vietnamese", "zh": "chinese",
}  # fmt: skip


async def models(request: Request) -> Response:
    """What `model` may be: ours first."""
    gateway = _let_in(request)
    ids = [(await gateway.offered())["model"], *ALIASES]
    return JSONResponse({"object": "list", "data": [_described(id) for id in ids]})


async def model(request: Request) -> Response:
    """One of them.  Raises ModelNotFound."""
    id = request.path_params["model"]
    await check_model(_let_in(request), id)
    return JSONResponse(_described(id))


async def check_model(gateway: Gateway, id: str) -> None:
    """Raises ModelNotFound naming those that there are."""
    if id in ALIASES:
        return
    ours = (await gateway.offered())["model"]
    if id != ours:
        valid = ", ".join([ours, *ALIASES])
        raise ModelNotFound(f"model_not_found: the model {id!r} does not exist; valid: {valid}")


def languages_like(code: str, offered: Iterable[str]) -> list[str]:
    """Ours that a code may mean: en is en, en-GB, en-US; en_us is en-US.

    Raises InvalidArgument where there is none.
    """
    spelled = code.strip().lower().replace("_", "-")
    names = {name.lower(): name for name in offered}
    found = [names[spelled]] if spelled in names else []
    found += sorted(name for low, name in names.items() if low.startswith(spelled + "-"))
    if not found or not spelled:
        valid = ", ".join(sorted(names.values()))
        raise invalid(f"language {code!r} is not supported; valid: {valid}")
    return found


def all_like(codes: Iterable[str], offered: Iterable[str]) -> list[str]:
    """Ours that any of the codes may mean.  Raises InvalidArgument."""
    return [name for code in codes for name in languages_like(code, offered)]


def language_like(code: str | None, offered: Iterable[str]) -> str:
    """The one that a code most simply means; auto where there is none.  Raises InvalidArgument."""
    return languages_like(code, offered)[0] if code else AUTO


def english_name(language: str | None) -> str:
    """english for en-US; the code where we know no name, "" where nothing was detected."""
    iso = (language or "").partition("-")[0]
    return NAMES.get(iso, iso)


def _let_in(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    gateway.let_in(request.headers)
    return gateway


def _described(id: str) -> dict:
    # When a model was made a checkpoint does not tell; clients want a number.
    return {"id": id, "object": "model", "created": 0, "owned_by": "nemotron-asr-triton"}
