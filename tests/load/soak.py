"""Soak: very many short sessions on the real server, with a tiny random model, and what they leave.

    nice -n 19 .venv/bin/python tests/load/soak.py --sessions 100000

Most sessions end as they should, and their text is compared with the library's. Some are abandoned
and expire, some are killed with packets in flight, some are refused. Every few seconds a line tells
what the server holds: resident memory of its process and of the streaming model's, shared memory,
slots in use. All must stay where they are once 330 s are over: for so long Triton remembers a
stream that nobody ended.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `import reference`

import reference
from asr_server import TritonServer
from nemotron_asr import load_checkpoint
from server.conftest import pcm, settings_for
from server.raw import RawStream, random_id
from server.test_metrics import total

WORKERS = 8  # connections at a time
IDLE_TIMEOUT_S = 2.0
KINDS = {"ended": 80, "abandoned": 8, "killed": 4, "refused": 8}  # sessions of each in 100
NUM_CLIPS = 8


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


def main() -> None:
    parser = argparse.ArgumentParser(description="many short sessions, and what they leave")
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--every", type=int, default=1000, help="sessions between two lines")
    options = parser.parse_args()
    began_s = time.monotonic()

    def show(sample: Sample) -> None:
        print(f"{time.monotonic() - began_s:6.0f} s {sample}", flush=True)

    with tempfile.TemporaryDirectory() as directory:
        model = reference.reference_model(reference.reference_config("tiny"))
        checkpoint = reference.save_checkpoint(model, Path(directory))
        recognizer = load_checkpoint(checkpoint)
        with TritonServer(settings_for(checkpoint, idle_timeout_s=IDLE_TIMEOUT_S)) as server:
            show(measure(server, 0))
            outcomes = soak(server, recognizer, options.sessions, show, options.every)
            wait_until_free(server)
            show(measure(server, options.sessions))
            print(dict(outcomes))


if __name__ == "__main__":
    main()
