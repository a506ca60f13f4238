"""Live streams on the real server: exact text for everyone, whatever the others do."""

from __future__ import annotations

import io
import random
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from asr_client import AtCapacity, LiveStream, OfflineClient, StreamNotFound, transcribe_live
from asr_client.errors import InvalidArgument
from server.conftest import IDLE_TIMEOUT_S, NUM_SLOTS, pcm, wav
from server.raw import RawStream, random_id

pytestmark = pytest.mark.server

LATENCIES_MS = [80, 160, 320, 560, 1120]
LANGUAGES = ["auto", "de-DE", "fr-FR", "en-US"]


def packets(audio, size: int, rng: random.Random):
    """Ragged packets of `size` samples on average."""
    at = 0
    while at < len(audio):
        n = rng.randint(1, 2 * size)
        yield audio[at : at + n]
        at += n


def live_text(served, audio, size=1280, seed=0, **options) -> str:
    chunks = packets(audio, size, random.Random(seed))
    results = transcribe_live(chunks, url=served.server.grpc_address, **options)
    return "".join(result.text for result in results)


@pytest.fixture
def raw(served):
    with RawStream(served.server.grpc_address) as stream:
        yield stream


def wait_until_free(served, slots: int = NUM_SLOTS, within_s: float = IDLE_TIMEOUT_S + 20) -> None:
    """All slots can be taken again within one idle limit and a while, for slow machines."""
    deadline = time.monotonic() + within_s
    while True:
        with RawStream(served.server.grpc_address) as stream:
            ids = [random_id() for _ in range(slots)]
            answers = [stream.ask(id_, start=True) for id_ in ids]
            for id_ in ids:
                stream.ask(id_, end=True)
        if not any(answers):
            return
        assert time.monotonic() < deadline, next(filter(None, answers))
        time.sleep(0.3)


def test_32_concurrent_streams_get_exactly_the_library_s_text(served):
    rng = random.Random(0)
    jobs = [
        {
            "audio": pcm(rng.randint(0, 120_000), seed=i),
            "size": rng.choice([200, 1280, 5000, 40_000]),
            "language": LANGUAGES[i % 4],
            "latency_ms": LATENCIES_MS[i % 5],
        }
        for i in range(32)
    ]
    with ThreadPoolExecutor(32) as pool:
        texts = list(pool.map(lambda job: live_text(served, **job), jobs))
    expected = [served.expected(j["audio"], j["language"], j["latency_ms"]).text for j in jobs]
    assert texts == expected
    assert len(set(texts)) > 20


def test_results_carry_words_and_progress(served):
    audio = pcm(90_000, seed=5)
    with LiveStream(served.server.grpc_address, language="de-DE", words=True) as stream:
        assert stream.server["latencies_ms"] == LATENCIES_MS
        stream.feed(packets(audio, 1280, random.Random(1)))
        transcript = stream.finish()
    expected = served.expected(audio, "de-DE")
    assert transcript.text == expected.text
    times = [(w.text, w.start_ms, w.end_ms) for w in transcript.words]
    assert times == [(w.text, w.start_ms, w.end_ms) for w in expected.words]
    assert transcript.audio_processed_ms == len(audio) // 16


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"language": "tlh"}, "language 'tlh' is not supported; valid: auto, de-DE"),
        ({"latency_ms": 300}, "latency_ms 300 is not supported; valid: 80, 160, 320, 560, 1120"),
        ({"sample_rate": 11000}, "sample_rate 11000 is not supported; valid: 8000, 11025"),
        ({"endpoint_ms": 99_999}, "endpoint_ms 99999 is not supported; valid: 0 to 10000"),
    ],
)
def test_bad_options_are_refused_by_name(served, options, words):
    with pytest.raises(InvalidArgument, match=words):
        LiveStream(served.server.grpc_address, **options)


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44_100, 2), (16_000, 3)])
def test_live_audio_of_any_rate_is_what_a_file_of_it_is(served, rate, channels):
    audio = np.stack([pcm(3 * rate, seed=i) for i in range(channels)], axis=1)
    file = io.BytesIO()
    soundfile.write(file, audio, rate, format="WAV")
    with OfflineClient(served.server.http_url) as client:
        expected = client.transcribe(file.getvalue(), language="de-DE", latency_ms=320).text
    live = live_text(
        served, audio.flatten(), 999, language="de-DE", sample_rate=rate, channels=channels
    )
    assert live == expected != ""


def without_marks(text: str) -> str:
    return " ".join(re.sub(r"[.,]", " ", text).split())


def test_text_options_change_the_text_of_streams_and_files_alike(served):
    audio = pcm(160_000, seed=6)
    plain = served.expected(audio, "fr-FR").text
    for options, changed in (
        ({"capitals": False}, plain.lower()),
        ({"punctuation": False}, without_marks(plain)),
    ):
        live = live_text(served, audio, language="fr-FR", **options)
        with OfflineClient(served.server.http_url) as client:
            file = client.transcribe(wav(audio), language="fr-FR", latency_ms=320, **options)
        assert live == file.text == changed != plain


def test_unknown_parameters_are_refused_by_name(raw):
    error = raw.ask(random_id(), start=True, langauge="de-DE")
    assert error.startswith("INVALID_ARGUMENT: unknown parameter 'langauge'; valid: language")


def test_end_without_start_and_unknown_ids_are_not_found(served, raw):
    for kwargs in ({}, {"end": True}):
        assert "must specify the START flag" in raw.ask(random_id(), pcm(100, 0), **kwargs)
    id_, audio = random_id(), pcm(50_000, 0)
    assert raw.ask(id_, audio, start=True, end=True) == served.expected(audio).text
    assert "START flag" in raw.ask(id_, pcm(100, 0)), "a packet behind END"


def test_a_reused_id_begins_anew(served, raw):
    id_, audio = random_id(), pcm(60_000, seed=9)
    raw.ask(id_, pcm(50_000, seed=8), start=True)
    text = raw.ask(id_, audio, start=True) + raw.ask(id_, end=True)
    assert text == served.expected(audio).text


def test_an_id_can_be_used_again_once_its_end_is_answered(served, raw):
    id_, audio = random_id(), pcm(60_000, seed=11)
    for _ in range(3):
        text = raw.ask(id_, audio, start=True) + raw.ask(id_, end=True)
        assert text == served.expected(audio).text


def test_refused_starts_do_not_wedge_the_server(served, raw):
    """Each holds a candidate of Triton's until its idle limit: there are enough of them."""
    wait_until_free(served)
    held = [random_id() for _ in range(NUM_SLOTS)]
    for id_ in held:
        raw.ask(id_, start=True)
    for _ in range(20):
        for _ in range(2000):
            raw.send(random_id(), start=True)
        answers = {raw.read() for _ in range(2000)}
        for id_ in held:
            raw.ask(id_)
        assert answers == {f"UNAVAILABLE: at capacity ({NUM_SLOTS}/{NUM_SLOTS})"}
    for id_ in held:
        raw.ask(id_, end=True)
    audio = pcm(60_000, seed=12)
    assert live_text(served, audio) == served.expected(audio).text


def test_string_ids_work(served, raw):
    audio = pcm(60_000, seed=10)
    text = raw.ask("call-7", audio, start=True) + raw.ask("call-7", end=True)
    assert text == served.expected(audio).text


def test_an_idle_stream_expires_and_an_empty_packet_keeps_alive(served, raw):
    idle, alive = random_id(), random_id()
    raw.ask(idle, pcm(8000, 1), start=True)
    raw.ask(alive, pcm(8000, 1), start=True)
    for _ in range(4):
        time.sleep(IDLE_TIMEOUT_S / 3)
        assert not raw.ask(alive)
    assert raw.ask(idle).startswith("NOT_FOUND: ")
    assert raw.ask(idle, end=True).startswith("NOT_FOUND: ")
    raw.ask(alive, end=True)


def test_a_client_that_pauses_too_long_learns_it(served):
    with LiveStream(served.server.grpc_address, reconnect_s=0) as stream:
        stream.send(pcm(8000, 2))
        time.sleep(IDLE_TIMEOUT_S + 1)
        stream.send(pcm(8000, 2))
        with pytest.raises(StreamNotFound):
            stream.finish()


def test_twice_as_many_streams_as_slots(served):
    """The surplus is refused at once, by number; the others are served; every slot comes back."""
    wait_until_free(served)
    audio = pcm(60_000, seed=20)
    gate = threading.Barrier(2 * NUM_SLOTS)

    def one(_):
        try:
            stream = LiveStream(served.server.grpc_address)
        except AtCapacity as error:
            gate.wait()
            return str(error)
        gate.wait()  # held until everyone has asked
        with stream:
            stream.send(audio)
            return stream.finish().text

    with ThreadPoolExecutor(2 * NUM_SLOTS) as pool:
        answers = list(pool.map(one, range(2 * NUM_SLOTS)))
    refused = [a for a in answers if f"at capacity ({NUM_SLOTS}/{NUM_SLOTS})" in a]
    assert len(refused) == NUM_SLOTS
    assert answers.count(served.expected(audio).text) == NUM_SLOTS
    wait_until_free(served)


def test_20_killed_clients_harm_nobody(served):
    """kill -9 with 64 streams in flight, 20 times, beside streams at their own pace."""
    wait_until_free(served)
    pid, stop = served.server.pid, threading.Event()
    audio = [pcm(30_000 + 7000 * i, seed=30 + i) for i in range(4)]
    expected = [served.expected(a).text for a in audio]
    outcomes: list[str] = []

    def steady(i: int) -> None:
        while not stop.is_set():
            try:
                text = live_text(served, audio[i])
            except AtCapacity:  # the killed streams hold their slots until the idle limit
                time.sleep(0.1)
            else:
                outcomes.append("same" if text == expected[i] else f"other: {text}")

    threads = [threading.Thread(target=steady, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    try:
        script = Path(__file__).parent / "raw.py"
        for i in range(20):
            command = [sys.executable, str(script), served.server.grpc_address]
            client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert client.stdout.readline() == "in flight\n"
            time.sleep(0.02 * i)
            client.send_signal(signal.SIGKILL)
            client.wait()
            client.stdout.close()
        time.sleep(IDLE_TIMEOUT_S + 1)  # then the steady ones get slots for certain
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert outcomes.count("same") == len(outcomes) > 8
    assert served.server.pid == pid
    wait_until_free(served)


def test_1000_dropped_streams_leave_memory_where_it_was(served):
    """Memory settles before it is read: pools of the allocator and of gRPC fill once."""
    assert list(Path("/dev/shm").glob(f"{served.server.name}*")), "measures the right files"
    processes = [psutil.Process(served.server.pid)]
    processes += processes[0].children(recursive=True)

    def drop(count: int) -> None:
        for first in range(0, count, NUM_SLOTS):
            ids = [random_id() for _ in range(min(NUM_SLOTS, count - first))]
            with RawStream(served.server.grpc_address) as stream:
                for id_ in ids:
                    stream.send(id_, pcm(2000, first), start=True, latency_ms=80)
                refused = [answer for _ in ids if (answer := stream.read()).startswith("UNAV")]
            assert not refused
            wait_until_free(served)

    def measure() -> tuple[float, float]:
        rss = sum(p.memory_info().rss for p in processes)
        own = Path("/dev/shm").glob(f"{served.server.name}*")
        shm = sum(f.stat().st_blocks * 512 for f in own)
        return rss / 2**20, shm / 2**20

    drop(200)
    before = measure()
    drop(1000)
    after = measure()
    assert after[0] - before[0] < 24, f"RSS in MiB: {before[0]:.0f} before, {after[0]:.0f} after"
    assert after[1] - before[1] < 1, f"shared memory in MiB: {before[1]:.1f}, {after[1]:.1f}"
