"""Whole files: real-time factor and peak memory, through the library and the server's HTTP door."""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch

from asr_client import OfflineClient
from nemotron_asr import Recognizer, load_checkpoint, recordings
from nemotron_asr.chunks import total_frames
from nemotron_asr.config import SAMPLE_RATE, TOKEN_FRAME_MS

from .memory import PeakMemory, proportional_mb, resident_mb
from .report import TextTable, make_report, say
from .servers import serving
from .speech import speech_pcm, wav_file
from .stats import median
from .timing import interleaved, summary, synchronize

METHOD = """Bundled recordings repeated to the length (int16, 16 kHz), through Recognizer.transcribe
in this process and as WAV files through the server's HTTP door. Real-time factor: wall time over
seconds of audio, the fastest of the repeats; files of 10 min and more once. Memory: growth of the
peak over what the loaded and warm process holds; of the library resident (VmHWM), the audio itself
not counted; of the server proportional (PSS, sampled), all processes together. transformers: its
front end and generate() on the same 10 s, turn by turn with ours, with our encoder alone, and with
its floor: the matrices of one call of all its frames, plain and packed, as for one chunk."""
CASES = {"10 s": (10.0, 1), "32 x 10 s": (10.0, 32), "10 min": (600.0, 1), "60 min": (3600.0, 1)}
SHORT_S = 400.0  # cases of less audio in all are repeated
WARM_S = 20.0


@dataclass(frozen=True)
class OfflineSettings:
    checkpoint: Path
    dtype: str = "bfloat16"
    device: str = "cpu"
    latency_ms: int = 1120
    cases: tuple[str, ...] = tuple(CASES)
    doors: tuple[str, ...] = ("library", "http")
    transformers: bool = True
    repeats: int = 3


def run(settings: OfflineSettings) -> dict:
    rows = []
    if "library" in settings.doors or settings.transformers:
        recognizer = load_checkpoint(settings.checkpoint, settings.device, settings.dtype)
        if "library" in settings.doors:
            rows += library_rows(recognizer, settings)
        if settings.transformers:
            rows += generate_rows(recognizer, settings)
        del recognizer
        gc.collect()
    used = {**vars(settings), "threads": torch.get_num_threads()}
    if "http" in settings.doors:
        more, used["server"] = http_rows(settings)
        rows += more
    return make_report("offline", used, rows, METHOD)


class _Base:
    """What the loaded and warm processes hold."""

    def __init__(self, processes: dict[str, psutil.Process]):
        self.processes = processes
        self.resident_mb = resident_mb(processes)
        self.pss_mb = proportional_mb(processes)


def library_rows(recognizer: Recognizer, settings: OfflineSettings) -> list[dict]:
    """One row a case, shortest first: memory is never given back wholly."""
    audio = {case: _recordings(case) for case in settings.cases}
    warm = speech_pcm(WARM_S)

    def transcribe(arrays: list[np.ndarray]) -> None:
        recognizer.transcribe(arrays, latency_ms=settings.latency_ms)
        synchronize(recognizer.device)

    transcribe([warm])
    gc.collect()
    process = {"library": psutil.Process()}
    base = _Base(process)
    if recognizer.device.type == "cuda":
        gpu_base = torch.cuda.memory_allocated()
    rows = []
    for case, arrays in audio.items():
        if recognizer.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        row = _measure(case, "library", settings, base, lambda a=arrays: transcribe(a))
        if recognizer.device.type == "cuda":
            row["gpu_growth_mb"] = round((torch.cuda.max_memory_allocated() - gpu_base) / 1e6, 1)
        rows.append(row)
    return rows


def http_rows(settings: OfflineSettings) -> tuple[list[dict], str | None]:
    """The same files through HTTP; and the server's version."""
    rows = []
    with (
        serving(settings.checkpoint, device=settings.device, dtype=settings.dtype, slots=1) as at,
        OfflineClient(at.http, timeout_s=3600) as client,
    ):
        transcribe = functools.partial(client.transcribe, latency_ms=settings.latency_ms)

        def send(files: list[bytes]) -> None:
            with ThreadPoolExecutor(len(files)) as pool:
                list(pool.map(transcribe, files))

        send([wav_file(speech_pcm(WARM_S))])
        base = _Base(at.processes)
        for case in settings.cases:
            files = [wav_file(samples) for samples in _recordings(case)]
            call = lambda files=files: send(files)  # noqa: E731
            rows.append(_measure(case, "http", settings, base, call))
        return rows, at.version


def _measure(
    case: str,
    door: str,
    settings: OfflineSettings,
    base: _Base,
    call: Callable[[], None],
) -> dict:
    duration_s, count = CASES[case]
    audio_s = duration_s * count
    repeats = settings.repeats if audio_s < SHORT_S else 1
    elapsed_s = []
    with PeakMemory(base.processes) as memory:
        for _ in range(repeats):
            began_s = time.perf_counter()
            call()
            elapsed_s.append(time.perf_counter() - began_s)
    growth = {name: round(mb - base.resident_mb[name], 1) for name, mb in memory.peak_mb.items()}
    pss_growth_mb = memory.peak_pss_mb - base.pss_mb
    row = {
        "case": case,
        "door": door,
        "audio_s": audio_s,
        "repeats": repeats,
        "min_s": round(min(elapsed_s), 3),
        "median_s": round(median(elapsed_s), 3),
        "rtf": round(min(elapsed_s) / audio_s, 5),
        "growth_mb": round(pss_growth_mb, 1) if len(growth) > 1 else sum(growth.values()),
        "loaded_mb": round(base.pss_mb, 1),
        "resident_growth_mb": growth,
    }
    say(f"{door}, {case}: {row['min_s']} s, {row['growth_mb']} MB more")
    return row


def generate_rows(recognizer: Recognizer, settings: OfflineSettings) -> list[dict]:
    """10 s as a whole, ours and theirs, our encoder alone and its floor, turn by turn."""
    from .chunk import published_weights
    from .floor import Floor
    from .reference_model import load_reference, reference_extractor, reference_transcribe

    plain = torch.bfloat16 if settings.dtype == "int8" else getattr(torch, settings.dtype)
    weights = published_weights(settings.checkpoint, recognizer, plain)
    model = load_reference(settings.checkpoint, weights, plain, recognizer.device)
    extractor = reference_extractor(recognizer.config.features)
    audio = speech_pcm(10.0).astype(np.float32) / 32768
    lookahead = settings.latency_ms // TOKEN_FRAME_MS - 1
    prompt = recognizer.config.default_prompt_id
    mel, frames = recordings.features(recognizer, audio), total_frames(len(audio))
    tokens = {}

    def ours() -> None:
        result = recognizer.transcribe([audio], latency_ms=settings.latency_ms)[0]
        tokens["ours"] = len(result.tokens)

    def theirs() -> None:
        ids = reference_transcribe(model, extractor, audio, lookahead, prompt)
        tokens["transformers"] = len(ids)

    def encoder() -> None:
        recordings.encode(recognizer, [mel], [len(audio)], [prompt], lookahead)

    calls = {"ours": ours, "transformers": theirs, "our encoder": encoder}
    calls |= Floor(recognizer.config, weights).calls(1, frames)
    times = interleaved(calls, settings.repeats, recognizer.device)
    seconds = len(audio) / SAMPLE_RATE
    return [
        {"case": "10 s", "door": f"in turns: {name}", "audio_s": seconds, **summary(own),
         "rtf": round(min(own) / 1000 / seconds, 5), "tokens": tokens.get(name)}
        for name, own in times.items()
    ]  # fmt: skip


def _recordings(case: str) -> list[np.ndarray]:
    duration_s, count = CASES[case]
    return [speech_pcm(duration_s, 1.7 * i) for i in range(count)]


def table(report: dict) -> TextTable:
    columns = ["file", "through", "s", "median s", "real-time factor", "times real time",
               "peak MB more", "loaded MB", "tokens"]  # fmt: skip
    lines = []
    for row in report["rows"]:
        fastest_s = row["min_s"] if "min_s" in row else row["min_ms"] / 1000
        median_s = row["median_s"] if "median_s" in row else row["median_ms"] / 1000
        rtf = f"{row['rtf']:.4f}"
        lines.append([row["case"], row["door"], fastest_s, median_s, rtf, 1 / row["rtf"],
                      row.get("growth_mb"), row.get("loaded_mb"), row.get("tokens")])  # fmt: skip
    s = report["settings"]
    return TextTable(f"whole files, {s['dtype']}, {s['latency_ms']} ms", columns, lines)
