"""Human recordings with known text out of Debian and PyPI packages, as sets like synthesize.py's.

`human_<language>` is for training; `eval_human_<language>` holds the clips whose first sentence is
held out; `people`, read English, is only ever for evaluation. Needs the packages unpacked as
README.md says.

    python recordings.py build/speech
"""

from __future__ import annotations

import argparse
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import soxr
from grammar import DAYS, MONTHS, ORDINALS, is_held_out, number
from lexicon import words
from synthesize import SAMPLE_RATE, trim
from texts import LETTERS, clean, is_speakable, read, split
from voices import TAGS

LETTERS_PER_SECOND = (4, 26)  # outside of it audio and text are not of each other
NATO = words(
    """alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar
    papa quebec romeo sierra tango uniform victor whiskey xray yankee zulu"""
)
TWO_CITIES = " ".join(
    words(
        """It was the best of times, it was the worst of times, it was the age of wisdom, it was the
        age of foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the
        season of light, it was the season of darkness, it was the spring of hope, it was the winter
        of despair, we had everything before us, we had nothing before us, we were all going direct
        to heaven, we were all going direct the other way, in short, the period was so far like the
        present period, that some of its noisiest authorities insisted on its being received, for
        good or for evil, in the superlative degree of comparison only."""
    )
)


class Clip(NamedTuple):
    """A recording: who speaks, what, and its file (name and bytes)."""

    source: str
    speaker: str
    text: str
    name: str
    data: bytes

    @classmethod
    def of(cls, source: str, speaker: str, text: str, file: Path) -> Clip:
        return cls(source, speaker, text, file.name, file.read_bytes())


def decode(name: str, data: bytes) -> np.ndarray:
    """Mono samples at 16 kHz of any audio file; `.raw` is 16-bit at 16 kHz."""
    if name.endswith(".raw"):
        return np.frombuffer(data, "<i2") / 32768
    kind = "g722" if name.endswith(".g722") else None
    with av.open(io.BytesIO(data), format=kind) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler("flt", "mono", stream.rate)
        frames = [out for frame in container.decode(stream) for out in resampler.resample(frame)]
        parts = [frame.to_ndarray()[0] for frame in frames]
        samples = np.concatenate(parts or [np.zeros(0, np.float32)])
    return soxr.resample(samples, stream.rate, SAMPLE_RATE)


def festvox_ru(root: Path) -> Iterator[Clip]:
    """The recordings behind festival's Russian voice; "+" marks stress."""
    for folder in root.glob("**/msu_ru_nsh_clunits"):
        for line in read(folder / "etc/txt.done.data").splitlines():
            match = re.match(r'\( (\S+) "(.*)" \)', line)
            file = folder / f"wav/{match[1]}.wav" if match else None
            if file and file.exists():
                yield Clip.of("festvox-ru", "nsh", match[2].replace("+", ""), file)


def fillets(root: Path, language: str) -> Iterator[Clip]:
    """Dubbed dialogues, named by their ids."""
    game = root / "usr/share/games/fillets-ng"
    for table in sorted(game.glob(f"script/*/dialogs_{language}.lua")):
        pattern = r'dialogId\("([^"]*)".*\s+dialogStr\("((?:[^"\\]|\\.)*)"'
        for name, text in re.findall(pattern, read(table)):
            file = game / f"sound/{table.parent.name}/{language}/{name}.ogg"
            if file.exists():
                speaker = "small" if "-m-" in name else "big" if "-v-" in name else "other"
                yield Clip.of("fillets", speaker, text.replace('\\"', ""), file)


def tuxpaint(root: Path, language: str) -> Iterator[Clip]:
    """Descriptions of stamps."""
    folder = root / "usr/share/tuxpaint/stamps"
    for file in sorted(folder.glob(f"**/*_desc_{language}.ogg")):
        table = file.with_name(file.name.replace(f"_desc_{language}.ogg", ".txt"))
        match = (
            re.search(rf"^{language}\.utf8=(.*)$", read(table), re.M) if table.exists() else None
        )
        if match:
            text = match[1].strip()
            yield Clip.of("tuxpaint", "one", text if text[-1:] in ".?!" else text + ".", file)


def asterisk(root: Path) -> Iterator[Clip]:
    """Prompts whose words are certain from their file names."""
    folder = root / "usr/share/asterisk/sounds/en_US_f_Allison"
    said = {f"letters/{letter}": f"{letter.upper()}." for letter in LETTERS["en"]}
    said |= {f"digits/{n}": f"{number(n)}." for n in (*range(20), *range(20, 100, 10))}
    said |= {f"digits/h-{n}": f"{ORDINALS[n - 1]}." for n in range(1, 20)}
    said |= {f"digits/day-{i}": f"{DAYS[(i + 6) % 7]}." for i in range(7)}
    said |= {f"digits/mon-{i}": f"{MONTHS[i]}." for i in range(12)}
    said |= {f"phonetic/{word[0]}_p": f"{word.replace('xray', 'X-ray')}." for word in NATO}
    said |= {"digits/hundred": "hundred.", "digits/thousand": "thousand.",
             "digits/million": "million."}  # fmt: skip
    for name, text in said.items():
        file = folder / f"{name}.g722"
        if file.exists():
            yield Clip.of("asterisk", "Allison", text[0].upper() + text[1:], file)


def trigger_rally(root: Path) -> Iterator[Clip]:
    """Calls of a co-driver, three of them; the words are the file's name in camel case."""
    for archive in root.glob("usr/share/games/trigger-rally/data.zip"):
        with zipfile.ZipFile(archive) as files:
            for name in files.namelist():
                match = re.fullmatch(r"sounds/codriver/(\w+)/([A-Za-z]+)\.wav", name)
                if match and match[2] not in ("Dont",):
                    text = " ".join(re.findall(r"[A-Z][a-z]*", match[2])).capitalize() + "."
                    text = text.replace("dont", "don't")
                    yield Clip("trigger-rally", match[1], text, name, files.read(name))


def pocketsphinx(root: Path) -> Iterator[Clip]:
    """Read sentences of a novel, playing cards and two commands."""
    folder = root / "usr/share/pocketsphinx/test/data"
    for table in (folder / "librivox/transcription", folder / "cards/cards.transcription"):
        for line in read(table).splitlines():
            match = re.match(r"<s> (.*?) +</s> \((.*)\)", line)
            text = match[1].replace("more a amiable", "more amiable")  # as it is said
            text = text.replace("mister john dashwood", "Mister John Dashwood")
            text = text[0].upper() + text[1:] + "."
            yield Clip.of("pocketsphinx", table.parent.name, text, table.parent / f"{match[2]}.wav")
    for name, text in (("goforward", "Go forward ten meters."),
                       ("something", "Go somewhere and do something.")):  # fmt: skip
        yield Clip.of("pocketsphinx", name, text, folder / f"{name}.raw")


def people(sources: Path) -> Iterator[Clip]:
    """English for evaluation: nothing of it is ever trained on."""
    yield from pocketsphinx(sources / "root")
    for file in sources.glob("pypi/**/two_cities.wav"):
        yield Clip.of("moonshine-voice", "reader", TWO_CITIES, file)
    for file in sorted(sources.glob("pypi/**/examples/files/*.wav")):
        texts = {"bobby": "Bobby ripped his ledger.", "mary": "Mary rolled the barrel."}
        if file.stem in texts:
            yield Clip.of("praatio", file.stem, texts[file.stem], file)


def prepared(clip: Clip, language: str, checked: bool) -> tuple[str, np.ndarray] | None:
    """Clean text and samples, or None where the text is not plain words or does not fit.

    checked: a person has compared text and audio, so any text will do.
    """
    text = clean(clip.text)
    sentences = split(text)
    one = len(sentences) == 1 and len(text.split()) < 2 and re.fullmatch(r"[\w'-]+[.?!]", text)
    if not one and not checked:
        parts = [s if len(s.split()) > 1 else f"{s[:-1]} {s}" for s in sentences]
        if not parts or not all(is_speakable(s, language) for s in parts):
            return None
    samples = decode(clip.name, clip.data)
    if not samples.any():
        return None
    samples = trim(samples)
    rate = len(text) / (len(samples) / SAMPLE_RATE)
    low, high = LETTERS_PER_SECOND
    return (text, samples) if one or low <= rate <= high else None


def write_set(folder: Path, name: str, clips: Iterator[Clip], language: str) -> None:
    """Write a set; for training without what is held out, for `eval_human_` nothing else."""
    start, rows = 0, []
    with (folder / f"{name}.pcm").open("wb") as audio:
        for index, clip in enumerate(clips):
            made = prepared(clip, language, name == "people")
            if made is None:
                continue
            held_out = [is_held_out(sentence) for sentence in split(made[0])]
            wanted = {"eval": held_out[0], "human": not any(held_out), "people": True}
            if wanted[name.split("_")[0]]:
                audio.write((made[1] * 32767).astype("<i2").tobytes())
                rows.append({
                    "engine": "human", "voice": f"{clip.source} {clip.speaker}",
                    "language": TAGS[language], "text": made[0], "source": clip.source,
                    "index": index, "start": start, "num_samples": len(made[1]),
                })  # fmt: skip
                start += len(made[1])
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / f"{name}.jsonl").write_text(lines)
    print(f"{name}: {len(rows)} clips, {start / SAMPLE_RATE / 60:.1f} min", flush=True)


def clips_of(root: Path, language: str) -> Iterator[Clip]:
    """All human recordings of a language that may be trained on."""
    if language == "en":
        yield from asterisk(root)
        yield from trigger_rally(root)
    if language == "ru":
        yield from festvox_ru(root)
    if language in ("cs", "nl"):
        yield from fillets(root, language)
    if language in ("es", "fr", "ru"):
        yield from tuxpaint(root, language)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds sources/{root,pypi}")
    args = parser.parse_args()
    sources = args.folder / "sources"
    write_set(args.folder, "people", people(sources), "en")
    for language in ("en", "es", "fr", "nl", "cs", "ru"):
        for kind in ("human", "eval_human"):
            name = f"{kind}_{language}"
            write_set(args.folder, name, clips_of(sources / "root", language), language)


if __name__ == "__main__":
    main()
