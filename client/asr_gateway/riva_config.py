"""What Riva's RecognitionConfig asks for, as our options."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from riva.client.proto.riva_asr_pb2 import EndpointingConfig, RecognitionConfig, SpeechContext

from nemotron_asr.options import AUTO, KEEP, MASK

from .errors import invalid
from .options import LIVE, read_options

ENDPOINT_MS = 800  # silence that ends an utterance of a live stream, as Riva's own default
USUAL_BOOST = 4.0  # what NVIDIA's clients send where nobody chose one: our boost of 1
MOST_BOOST = 20.0  # 20 to 100, which NVIDIA advises for its beam search, are our 5
_ANY_LANGUAGE = ("", AUTO, "multi")
_FIELDS = {  # options that are no custom ones, as Riva has fields for them
    "encoding": "encoding",
    "sample_rate": "sample_rate_hertz",
    "channels": "audio_channel_count",
    "progress": "interim_results",
}


def read_config(config: RecognitionConfig, of: str) -> dict[str, object]:
    """Options as `read_options` returns them, without the format of the audio.

    of: "live" or "file".  Ignored: max_alternatives, as there is one; verbatim_transcripts, as the
    model writes what it learned to.  custom_configuration is read last and holds our own options.
    Raises InvalidArgument naming the field or value and the valid ones.
    """
    if config.diarization_config.enable_speaker_diarization:
        raise invalid(
            "speaker diarization is not supported; "
            "valid: enable_separate_recognition_per_channel, of Recognize"
        )
    punctuated = config.enable_automatic_punctuation
    options = {
        "punctuation": punctuated,
        "capitals": punctuated,  # as of Riva's models, whose bare text is in lower case
        "profanity": MASK if config.profanity_filter else KEEP,
        **_language(config.language_code),
        **_phrases(config.speech_contexts),
        **_endpoint(config.endpointing_config, of),
        **_custom(config.custom_configuration),
    }
    return read_options(options, of)


def _language(code: str) -> dict[str, str]:
    """One, none, or several between commas: as `GetRivaSpeechRecognitionConfig` lists them."""
    if code.strip().lower() in _ANY_LANGUAGE:
        return {"language": AUTO}
    return {"language": AUTO, "languages": code} if "," in code else {"language": code}


def _phrases(contexts: Iterable[SpeechContext]) -> dict[str, object]:
    """The strongest boost is ours, the others are weights of their phrases."""
    boosts: list[tuple[str, float]] = []
    for context in contexts:
        if not 0 <= context.boost < math.inf:
            raise invalid(
                f"boost {context.boost:g} of speech_contexts; valid: 0 to {MOST_BOOST:g}, "
                f"and what is above counts as {MOST_BOOST:g}"
            )
        boost = min(context.boost or USUAL_BOOST, MOST_BOOST)
        boosts += [(phrase, boost) for phrase in context.phrases if phrase.strip()]
    if not boosts:
        return {}
    most = max(boost for _, boost in boosts)
    phrases = [
        phrase if boost == most else f"{phrase}^{boost / most:.6f}" for phrase, boost in boosts
    ]
    return {"phrases": phrases, "boost": most / USUAL_BOOST}


def _endpoint(config: EndpointingConfig, of: str) -> dict[str, int]:
    """Milliseconds; below 0 is unset, as in NVIDIA's clients. What tells speech is the model."""
    for name in ("stop_history", "stop_history_eou"):
        if config.HasField(name) and getattr(config, name) >= 0:
            return {"endpoint_ms": getattr(config, name)}
    return {"endpoint_ms": ENDPOINT_MS} if of == LIVE else {}


def _custom(custom: Mapping[str, str]) -> dict[str, str]:
    for name in custom:
        if name in _FIELDS:
            raise invalid(f"custom_configuration {name!r}; there is a field: {_FIELDS[name]}")
    options = dict(custom)
    if "languages" in options:  # NVIDIA's clients part their options by commas
        options["languages"] = options["languages"].replace(";", ",")
    return options
