"""Word error rates of sets of recordings, by lookahead and language; offline and live."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np

from asr_client import LiveStream
from asr_client.audio import to_pcm16
from nemotron_asr import Recognizer, load_checkpoint
from nemotron_asr.options import AUTO
from nemotron_asr.recognizer import Transcription

from .manifests import NORMALISER, Utterance, normalise, read_manifest
from .report import TextTable, make_report, say
from .servers import serving
from .stats import bootstrap_interval

METHOD = f"""Word error rate (jiwer: substitutions, deletions and insertions over the words of the
reference), of a set as a whole and of each language in it, with the language given and with auto.
95 % confidence intervals by the bootstrap over utterances, 2,000 draws. Normaliser of both texts:
{NORMALISER}. Language accuracy: the share of utterances whose last tag is the language of the set,
the country aside. live: the same audio streamed through the real server in packets of 20 to 500 ms,
as fast as it takes them; equal: utterances whose live text is the offline text to the letter."""
ALL = "all"
GIVEN = "given"  # prompted with the language of the recording, unlike AUTO
BATCH = 64  # recordings in one call, and of streams at a time a quarter
PACKET_SAMPLES = (320, 8000)


@dataclass(frozen=True)
class WerSettings:
    manifests: tuple[Path, ...]
    checkpoint: Path
    dtype: str = "float32"
    device: str = "cpu"
    latencies_ms: tuple[int, ...] = ()  # all that the checkpoint has
    prompts: tuple[str, ...] = (GIVEN, AUTO)
    live: bool = False
    url: str | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Heard:
    """What came out for an utterance; a `Transcription` has as much."""

    text: str
    language: str | None


def run(settings: WerSettings) -> dict:
    recognizer = load_checkpoint(settings.checkpoint, settings.device, settings.dtype)
    latencies_ms = settings.latencies_ms or recognizer.latencies_ms
    sets = [read_manifest(path, settings.limit) for path in settings.manifests]
    offline = {}
    rows = []
    for utterances in sets:
        for prompt in settings.prompts:
            known = _known(utterances, prompt, recognizer.languages)
            for latency_ms in latencies_ms if known else ():
                heard = transcribe(recognizer, known, prompt, latency_ms)
                offline[known[0].set_name, prompt, latency_ms] = heard
                case = {"prompt": prompt, "latency_ms": latency_ms, "door": "offline"}
                rows += _rows(known, heard, case)
    languages = recognizer.languages
    del recognizer  # the server has one of its own
    if settings.live:
        rows += _live_rows(settings, sets, latencies_ms, languages, offline)
    used = {**vars(settings), "latencies_ms": latencies_ms}
    return make_report("wer", used, rows, METHOD)


def _known(utterances: Sequence[Utterance], prompt: str, languages: Iterable[str]) -> list:
    """Those whose language can be asked for, where it is to be given."""
    known = [u for u in utterances if prompt == AUTO or u.language in set(languages)]
    if len(known) < len(utterances):
        left_out = len(utterances) - len(known)
        say(f"{utterances[0].set_name}: {left_out} in languages that the checkpoint does not take")
    return known


def transcribe(
    recognizer: Recognizer,
    utterances: Sequence[Utterance],
    prompt: str,
    latency_ms: int,
    **options,
) -> list[Transcription]:
    """Offline, many at a time.  options: of `Recognizer.transcribe`."""
    heard: dict[int, Transcription] = {}
    by_language = defaultdict(list)
    for i, utterance in enumerate(utterances):
        by_language[AUTO if prompt == AUTO else utterance.language].append(i)
    for language, indices in by_language.items():
        for first in range(0, len(indices), BATCH):
            batch = indices[first : first + BATCH]
            audio = [utterances[i].samples() for i in batch]
            results = recognizer.transcribe(audio, language, latency_ms, **options)
            heard |= zip(batch, results, strict=True)
    return [heard[i] for i in range(len(utterances))]


def _live_rows(
    settings: WerSettings, sets: list, latencies_ms: Sequence[int], languages, offline: dict
) -> list[dict]:
    rows = []
    streams = BATCH // 4
    with serving(
        settings.checkpoint,
        settings.url,
        device=settings.device,
        dtype=settings.dtype,
        slots=streams,
    ) as target:
        for utterances in sets:
            for prompt in settings.prompts:
                known = _known(utterances, prompt, languages)
                for latency_ms in latencies_ms if known else ():
                    heard = _stream(target.grpc, known, prompt, latency_ms, streams)
                    before = offline[known[0].set_name, prompt, latency_ms]
                    equal = [a.text == b.text for a, b in zip(heard, before, strict=True)]
                    case = {"prompt": prompt, "latency_ms": latency_ms, "door": "live"}
                    rows += _rows(known, heard, case, equal)
    return rows


def _stream(
    url: str, utterances: Sequence[Utterance], prompt: str, latency_ms: int, streams: int
) -> list[Heard]:
    """Live, `streams` at a time."""

    def one(item: tuple[int, Utterance]) -> Heard:
        seed, utterance = item
        language = AUTO if prompt == AUTO else utterance.language
        with LiveStream(url, language=language, latency_ms=latency_ms) as stream:
            for packet in ragged(utterance.samples(), seed):
                stream.send(packet)
            transcript = stream.finish()
        return Heard(transcript.text, transcript.language)

    with ThreadPoolExecutor(streams) as pool:
        return list(pool.map(one, enumerate(utterances)))


def ragged(samples: np.ndarray, seed: int) -> Iterable[np.ndarray]:
    """(n,) samples in packets of uneven length."""
    rng = np.random.default_rng(seed)
    pcm, at = to_pcm16(samples), 0
    while at < len(pcm):
        length = int(rng.integers(*PACKET_SAMPLES))
        yield pcm[at : at + length]
        at += length


def _rows(
    utterances: Sequence[Utterance], heard: Sequence[Heard], case: dict, equal=None
) -> list[dict]:
    """A row for the set, and one for each language where it has several."""
    groups = {ALL: list(range(len(utterances)))}
    for language in sorted({u.language for u in utterances}):
        groups[language] = [i for i, u in enumerate(utterances) if u.language == language]
    if len(groups) == 2:
        groups = {utterances[0].language: groups[ALL]}
    rows = []
    for language, indices in groups.items():
        scores = score([utterances[i] for i in indices], [heard[i] for i in indices])
        row = {"set": utterances[0].set_name, "language": language, **case, **scores}
        if equal is not None:
            row["equal_share"] = round(sum(equal[i] for i in indices) / len(indices), 5)
        rows.append(row)
    first = rows[0]
    say(f"{first['set']}, {case['door']}, {case['prompt']}, {case['latency_ms']} ms: "
        f"WER {100 * first['wer']:.2f} %")  # fmt: skip
    return rows


def score(utterances: Sequence[Utterance], heard: Sequence[Heard]) -> dict:
    """Sizes, word error rate with its interval, language accuracy."""
    errors, words = [], []
    for utterance, out in zip(utterances, heard, strict=True):
        counts = jiwer.process_words(normalise(utterance.text), normalise(out.text))
        errors.append(counts.substitutions + counts.deletions + counts.insertions)
        words.append(counts.hits + counts.substitutions + counts.deletions)
    low, high = bootstrap_interval(errors, words)
    right = [
        int((out.language or "").partition("-")[0] == utterance.language.partition("-")[0])
        for utterance, out in zip(utterances, heard, strict=True)
    ]
    right_low, right_high = bootstrap_interval(right, [1] * len(right))
    return {
        "utterances": len(utterances),
        "words": sum(words),
        "seconds": round(sum(u.duration_s() for u in utterances), 1),
        "wer": round(sum(errors) / sum(words), 5),
        "wer_low": round(low, 5),
        "wer_high": round(high, 5),
        "language_accuracy": round(sum(right) / len(right), 5),
        "language_accuracy_low": round(right_low, 5),
        "language_accuracy_high": round(right_high, 5),
    }


def table(report: dict) -> TextTable:
    """One line a set, language, prompt and door; a column a lookahead."""
    lines: dict[tuple, dict] = defaultdict(dict)
    for row in report["rows"]:
        key = (row["set"], row["language"], row["prompt"], row["door"])
        lines[key][row["latency_ms"]] = row
    latencies_ms = report["settings"]["latencies_ms"]
    columns = ["set", "language", "prompt", "door", "clips", "words"]
    columns += [f"{ms} ms" for ms in latencies_ms] + ["tag right", "live=offline"]
    shown = []
    for key, by_latency in lines.items():
        last = by_latency[max(by_latency)]
        cells = [_interval(by_latency[ms]) if ms in by_latency else "" for ms in latencies_ms]
        equal = last.get("equal_share")
        shown.append([*key, last["utterances"], last["words"], *cells,
                      f"{100 * last['language_accuracy']:.1f} %",
                      "" if equal is None else f"{100 * equal:.2f} %"])  # fmt: skip
    return TextTable("word error rate, % (95 % interval)", columns, shown)


def _interval(row: dict) -> str:
    return f"{100 * row['wer']:.1f} ({100 * row['wer_low']:.1f}-{100 * row['wer_high']:.1f})"
