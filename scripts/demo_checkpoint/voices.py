"""The synthesisers, each behind one function: (text, language, rng) -> voice, tag, samples, rate.

Held-out voices are used only where `unheard` says so; flite is for evaluation alone.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr
from lexicon import words

FLITE_VOICES = ["slt", "rms", "awb", "kal16"]
ESPEAK_VOICES = words(
    "f1 f2 f3 f4 f5 m1 m2 m3 m4 m5 m6 m7 m8 Alex Andy Annie Alicia Andrea Gene Lee Michael Mike "
    "belinda linda steph steph2 max paul rob zac"
)
ESPEAK_ACCENTS = {
    "en": words("en-us en-us en-us en-gb en-gb-scotland en-gb-x-rp"),
    "es": words("es es es-419"),
    "fr": words("fr-fr fr-fr fr-be fr-ch"),
}
FESTIVAL_VOICES = {  # kal, slt and rms would be flite's speakers
    "en": ["ked_diphone"],
    "cs": ["czech_dita", "czech_machac", "czech_ph", "czech_krb"],
    "it": ["lp_diphone", "pc_diphone"],
    "ru": ["msu_ru_nsh_clunits"],
}
FESTIVAL_ENCODING = {"cs": "iso-8859-2", "it": "iso-8859-1", "ru": "utf-8", "en": "ascii"}
PICO_VOICES = {"en": ["en-US", "en-GB"], "es": ["es-ES"], "fr": ["fr-FR"], "de": ["de-DE"],
               "it": ["it-IT"]}  # fmt: skip
KOKORO_LANGUAGES = {"en": "en-us", "es": "es", "fr": "fr-fr", "it": "it"}
KOKORO_NATIVE = {"en": "ab", "es": "e", "fr": "f", "it": "i"}  # first letters of voices
HELD_OUT_VOICES = {
    "f4", "Michael", "af_heart", "am_michael", "bf_emma", "bm_george", "em_santa", "im_nicola",
}  # fmt: skip
TAGS = {"en": "en-US", "es": "es-ES", "fr": "fr-FR", "de": "de-DE", "it": "it-IT", "nl": "nl-NL",
        "cs": "cs-CZ", "ru": "ru-RU"}  # fmt: skip
ACCENT_TAGS = {"es-419": "es-US", "en-gb": "en-GB", "en-gb-scotland": "en-GB",
               "en-gb-x-rp": "en-GB"}  # fmt: skip

Spoken = tuple[str, str, np.ndarray, int]  # voice, language tag, samples, their rate
Speak = Callable[[str, str, random.Random], Spoken]


def shift(samples: np.ndarray, rng: random.Random) -> np.ndarray:
    """Another speaker out of the same: pitch and formants moved by up to a sixth."""
    if rng.random() < 0.3:
        return samples
    return soxr.resample(samples, 1.0, rng.uniform(0.86, 1.16))


def pico() -> Speak:
    """SVOX Pico, one voice a locale, with varied pitch and rate."""
    from ttspico import TtsEngine

    engines = {name: TtsEngine(name) for names in PICO_VOICES.values() for name in names}

    def speak(text: str, language: str, rng: random.Random) -> Spoken:
        voice = rng.choice(PICO_VOICES[language])
        engine = engines[voice]
        engine.pitch, engine.rate = rng.randint(75, 140), rng.randint(80, 125)
        samples = np.frombuffer(engine.speak(text), np.int16) / 32768
        return voice, voice, shift(samples, rng), 16000

    return speak


def run_to_wav(command: list[str], text: bytes = b"") -> tuple[np.ndarray, int]:
    """Run a command that writes the WAV file named by its last argument; silence if it fails."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        try:
            subprocess.run([*command, file.name], check=True, capture_output=True, input=text)
            return soundfile.read(file.name)
        except (subprocess.CalledProcessError, soundfile.LibsndfileError):
            return np.zeros(1), 16000  # festival does not know every word


def flite() -> Speak:
    """The four English voices of Debian's flite, with varied rate."""

    def speak(text: str, language: str, rng: random.Random) -> Spoken:
        voice = rng.choice(FLITE_VOICES)
        stretch = f"duration_stretch={rng.uniform(0.85, 1.2):.2f}"
        command = ["flite", "-voice", voice, "--setf", stretch, "-t", text, "-o"]
        return voice, "en-US", *run_to_wav(command)

    return speak


def festival() -> Speak:
    """Debian's festival voices, with varied rate."""

    def speak(text: str, language: str, rng: random.Random) -> Spoken:
        voice = rng.choice(FESTIVAL_VOICES[language])
        stretch = f"(Parameter.set 'Duration_Stretch {rng.uniform(0.85, 1.2):.2f})"
        command = ["text2wave", "-eval", f"(voice_{voice})", "-eval", stretch, "-o"]
        samples, rate = run_to_wav(command, text.encode(FESTIVAL_ENCODING[language], "replace"))
        return voice, TAGS[language], shift(samples, rng), rate

    return speak


def espeak(unheard: bool = False) -> Speak:
    """Variants of espeak-ng, several accents, with varied pitch and rate."""
    voices = sorted((set(ESPEAK_VOICES) & HELD_OUT_VOICES) if unheard
                    else set(ESPEAK_VOICES) - HELD_OUT_VOICES)  # fmt: skip

    def speak(text: str, language: str, rng: random.Random) -> Spoken:
        voice, accent = rng.choice(voices), rng.choice(ESPEAK_ACCENTS.get(language, [language]))
        pitch, rate = str(rng.randint(25, 75)), str(rng.randint(125, 190))
        command = ["espeak-ng", "-v", f"{accent}+{voice}", "-p", pitch, "-s", rate, text, "-w"]
        return voice, ACCENT_TAGS.get(accent, TAGS[language]), *run_to_wav(command)

    return speak


def kokoro(folder: Path, unheard: bool = False) -> Speak:
    """Kokoro-82M: single voices, or for training mixtures of two as well."""
    from kokoro import RATE, Kokoro

    engine = Kokoro(folder)
    held_out = HELD_OUT_VOICES & set(engine.styles)
    names = sorted(held_out if unheard else set(engine.styles) - held_out)

    def choose(language: str, rng: random.Random) -> tuple[str, np.ndarray]:
        native = [n for n in names if n[0] in KOKORO_NATIVE[language]] or names
        first = rng.choice(native if rng.random() < 0.65 else names)
        if unheard or rng.random() < 0.5:
            return first, engine.styles[first]
        second = rng.choice(native if rng.random() < 0.65 else names)
        share = rng.uniform(0.3, 0.7)
        style = share * engine.styles[first] + (1 - share) * engine.styles[second]
        return f"{first}+{second}", style

    def speak(text: str, language: str, rng: random.Random) -> Spoken:
        voice, style = choose(language, rng)
        british = language == "en" and voice[0] == "b"
        accent = "en-gb" if british else KOKORO_LANGUAGES[language]
        speed = rng.uniform(0.8, 1.25)
        samples = engine.speak(text, style.astype(np.float32), speed, accent)
        return voice, "en-GB" if british else TAGS[language], samples, RATE

    return speak
