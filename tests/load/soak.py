"""Soak: very many short sessions on the real server, or a very long one, and what they leave.

    nice -n 19 .venv/bin/python tests/load/soak.py --sessions 100000
    nice -n 19 .venv/bin/python tests/load/soak.py --hours 8

Most sessions end as they should, and their text is compared with the library's. Some are abandoned
and expire, some are killed with packets in flight, some are refused. Every few seconds a line tells
what the server holds: resident memory of its process and of the streaming model's, shared memory,
slots in use. All must stay where they are once 330 s are over: for so long Triton remembers a
stream that nobody ended. The sessions have a tiny random model.

With --hours one stream hears the bundled recordings again and again, as fast as the bundled model
decodes them, and ends an utterance at each pause. Those of the first two rounds must be what the
library makes of their audio; all later ones the same, words and times included, one round later.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `import reference`

import reference
from asr_client import LiveStream
from asr_client.audio import file_packets
from asr_client.results import Result, Segment
from asr_server import TritonServer
from nemotron_asr import Recognizer, load_checkpoint
from server.conftest import ROOT, pcm, settings_for
from server.raw import RawStream, random_id
from server.test_metrics import total

WORKERS = 8  # connections at a time
IDLE_TIMEOUT_S = 2.0
KINDS = {"ended": 80, "abandoned": 8, "killed": 4, "refused": 8}  # sessions of each in 100
NUM_CLIPS = 8
FRAME = 1280  # samples: utterances begin at whole frames of a stream, so rounds are of whole frames
PAUSE_MS, ENDPOINT_MS = 1600, 800  # 20 and 10 frames


@dataclass(frozen=True)
class Sample:
    """What a server holds at one moment."""

    sessions: int
    server_mib: float  # resident
    model_mib: float  # resident, of the process with the streaming model
    shm_mib: float
    active: int  # slots in use

    def __str__(self) -> str:
        return (
            f"{self.sessions:>8} sessions  server {self.server_mib:7.1f} MiB  model "
            f"{self.model_mib:7.1f} MiB  shm {self.shm_mib:5.1f} MiB  slots {self.active:>3}"
        )


@dataclass(frozen=True)
class Moment:
    """Where a long stream is."""

    audio_s: float  # decoded
    kept_s: float  # of audio, by the client
    held: Sample

    def __str__(self) -> str:
        return f"{self.audio_s / 3600:6.3f} h  kept {self.kept_s:4.1f} s {self.held}"


def measure(server: TritonServer, sessions: int) -> Sample:
    process = psutil.Process(server.pid)
    model = next(p for p in process.children() if "asr_streaming/1" in " ".join(p.cmdline()))
    shm = sum(f.stat().st_blocks * 512 for f in Path("/dev/shm").glob(f"{server.name}*"))
    mib = [n / 2**20 for n in (process.memory_info().rss, model.memory_info().rss, shm)]
    return Sample(sessions, *mib, int(total(server, "asr_active_streams")))


def soak(
    server: TritonServer, recognizer, sessions: int, on_sample: Callable[[Sample], None], every: int
) -> Counter[str]:
    """Run the sessions; how many ended in which way.  Raises AssertionError for a wrong text.

    every: sessions from one sample to the next.
    """
    clips = [pcm(4000 + 1700 * i, seed=i) for i in range(NUM_CLIPS)]
    texts = [result.text for result in recognizer.transcribe(clips, latency_ms=80)]
    outcomes: Counter[str] = Counter()
    lock, numbers = threading.Lock(), iter(range(1, sessions + 1))

    def work(seed: int) -> None:
        rng = random.Random(seed)
        raw = RawStream(server.grpc_address)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                raw.close()
                return
            kind = rng.choices(list(KINDS), KINDS.values())[0]
            clip = rng.randrange(NUM_CLIPS)
            outcome = _session(raw, kind, clips[clip], texts[clip], rng)
            if kind == "killed":
                raw.close()
                raw = RawStream(server.grpc_address)
            with lock:
                outcomes[outcome] += 1
            if number % every == 0:
                on_sample(measure(server, number))

    with ThreadPoolExecutor(WORKERS) as pool:
        for done in [pool.submit(work, seed) for seed in range(WORKERS)]:
            done.result()
    return outcomes


def _session(raw: RawStream, kind: str, clip, text: str, rng: random.Random) -> str:
    """One session of a kind; how it ended."""
    id_ = random_id()
    if kind == "refused":
        assert "latency_ms 3 is not supported" in raw.ask(id_, start=True, latency_ms=3)
        raw.ask(id_, end=True)  # so that Triton forgets it
        return kind
    answer = raw.ask(id_, clip[:2000], start=True, latency_ms=80)
    if answer.startswith("UNAVAILABLE: at capacity"):
        raw.ask(id_, end=True)
        return "at capacity"
    if kind == "killed":
        for _ in range(3):
            raw.send(id_, clip)
    if kind == "ended":
        cut = rng.randint(2000, len(clip))
        answer += raw.ask(id_, clip[2000:cut]) + raw.ask(id_, clip[cut:], end=True)
        assert answer == text, f"{answer!r} instead of {text!r}"
    return kind


def wait_until_free(server: TritonServer, within_s: float = 60.0) -> None:
    """Until no slot is in use, and the endpoint says so."""
    deadline = time.monotonic() + within_s
    while total(server, "asr_active_streams"):
        assert time.monotonic() < deadline, "slots are still in use"
        time.sleep(0.5)


def recordings() -> np.ndarray:
    """A round: every bundled recording and a pause behind it, (n,) int16."""
    rng, parts = np.random.default_rng(0), []
    for path in sorted((ROOT / "samples").glob("*.flac")):
        parts += file_packets(str(path), packet_ms=1000)
        pause = PAUSE_MS * 16 + -sum(map(len, parts)) % FRAME
        parts.append(rng.normal(0, 5, pause).astype(np.int16))
    return np.concatenate(parts)


def long_stream(
    server: TritonServer,
    recognizer: Recognizer,
    hours: float,
    on_moment: Callable[[Moment], None],
    every_s: float,
) -> list[Segment]:
    """One stream, fed as fast as it is decoded.  Returns all its utterances, which are checked.

    every_s: of audio, from one moment to the next.
    """
    audio = recordings()
    round_ms = len(audio) // 16
    num_rounds = max(3, round(hours * 3_600_000 / round_ms))
    found: list[Segment] = []
    first: list[Segment] = []  # those that begin in the first round
    again: list[Segment] = []  # those of the second
    next_s = 0.0
    with LiveStream(server.grpc_address, endpoint_ms=ENDPOINT_MS, words=True) as stream:
        stream.feed(_packets(audio, num_rounds))
        results = stream.results()
        for segment in _utterances(results):
            found.append(segment)
            if segment.start_ms < 2 * round_ms:
                (first if segment.start_ms < round_ms else again).append(segment)
                _check_text(segment, audio, recognizer)
            else:
                late, which = divmod(len(found) - 1 - len(first), len(again))
                expected = _told(again[which], late * round_ms)
                assert _told(segment) == expected, f"{segment} instead of {expected}"
            if segment.end_ms >= next_s * 1000:
                next_s += every_s
                tape = stream._session.tape
                kept_s = (tape.end - tape.begin) / 16_000
                on_moment(Moment(segment.end_ms / 1000, kept_s, measure(server, 1)))
        transcript = stream.finish()
    assert transcript.audio_processed_ms == num_rounds * round_ms
    expected = len(first) + (num_rounds - 1) * len(again) - 1  # the last pause says nothing
    assert len(found) == len(transcript.segments) == expected
    return found


def _packets(audio: np.ndarray, times: int) -> Iterator[np.ndarray]:
    rng = random.Random(0)
    for _ in range(times):
        cuts = sorted(rng.sample(range(1, len(audio)), len(audio) // 8000))
        yield from np.split(audio, cuts)


def _utterances(results: Iterator[Result]) -> Iterator[Segment]:
    """Whole ones, put together from what each result adds to them."""
    pieces = itertools.chain.from_iterable(result.segments for result in results)
    for _, group in itertools.groupby(pieces, lambda piece: piece.segment):
        *parts, last = group
        text = "".join(piece.text for piece in [*parts, last]).strip()
        words = sum((piece.words for piece in [*parts, last]), ())
        yield replace(last, text=text, words=words)


def _check_text(segment: Segment, audio: np.ndarray, recognizer: Recognizer) -> None:
    """Against the library, on its own audio alone: flushed, that may say a little more."""
    own = np.tile(audio, 3)[segment.start_ms * 16 : segment.end_ms * 16]
    alone = recognizer.transcribe([own], latency_ms=320)[0]
    assert alone.text.startswith(segment.text), f"{segment} instead of {alone.text!r}"
    starts = [word.start_ms - segment.start_ms for word in segment.words]
    assert starts == [word.start_ms for word in alone.words][: len(starts)]


def _told(segment: Segment, later_ms: int = 0) -> tuple:
    """What an utterance says and when."""
    words = [(w.text, w.start_ms + later_ms, w.end_ms + later_ms) for w in segment.words]
    times = segment.start_ms + later_ms, segment.end_ms + later_ms
    return segment.text, words, times, segment.reason, segment.language


@contextmanager
def log_kept(server: TritonServer) -> Iterator[None]:
    """Say where the server's log is after a failure."""
    try:
        yield
    except BaseException:
        print(f"the server's log: {server.keep_log()}", flush=True)
        raise


def main() -> None:
    parser = argparse.ArgumentParser(description="what many sessions leave, or a long one")
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--every", type=int, default=1000, help="sessions between two lines")
    parser.add_argument("--hours", type=float, help="one session that hears so much audio")
    options = parser.parse_args()
    began_s = time.monotonic()

    def show(sample: Sample | Moment) -> None:
        print(f"{time.monotonic() - began_s:6.0f} s {sample}", flush=True)

    if options.hours:
        checkpoint = ROOT / "checkpoints" / "demo"
        with TritonServer(settings_for(checkpoint)) as server, log_kept(server):
            recognizer = load_checkpoint(checkpoint)
            found = long_stream(server, recognizer, options.hours, show, every_s=360)
            print(f"{len(found)} utterances; the last: {found[-1]}")
        return
    with tempfile.TemporaryDirectory() as directory:
        model = reference.reference_model(reference.reference_config("tiny"))
        checkpoint = reference.save_checkpoint(model, Path(directory))
        recognizer = load_checkpoint(checkpoint)
        settings = settings_for(checkpoint, idle_timeout_s=IDLE_TIMEOUT_S)
        with TritonServer(settings) as server, log_kept(server):
            show(measure(server, 0))
            outcomes = soak(server, recognizer, options.sessions, show, options.every)
            wait_until_free(server)
            show(measure(server, options.sessions))
            print(dict(outcomes))


if __name__ == "__main__":
    main()
