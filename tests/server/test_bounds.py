"""One stream that asks for too much is told so, and nobody else notices."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from asr_client import LiveStream
from asr_server import TritonServer
from server.conftest import Served, pcm, settings_for
from server.raw import RawStream, random_id
from server.test_metrics import total

pytestmark = pytest.mark.server
MAX_QUEUED_S = 10
ANSWER_BYTES = 20_000  # what the server may keep for an answer that nobody reads


def start(checkpoint, max_queued_s: int) -> TritonServer:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASR_MAX_QUEUED_S", str(max_queued_s))
        server = TritonServer(settings_for(checkpoint, slots=16))
        server.start()
    return server


@pytest.fixture(scope="module")
def bounded(checkpoints, recognizer):
    """A server on which little audio may wait."""
    server = start(checkpoints("tiny"), MAX_QUEUED_S)
    yield Served(server, recognizer)
    server.stop()


@pytest.fixture(scope="module")
def patient(checkpoints, recognizer):
    """A server on which a day of audio may wait."""
    server = start(checkpoints("tiny"), 86_400)
    yield Served(server, recognizer)
    server.stop()


def test_more_audio_than_may_wait_is_refused_by_number(bounded):
    """What was heard is decoded as if what was refused had never been sent."""
    audio, neighbour = pcm(9 * 16_000, seed=1), pcm(60_000, seed=2)
    id_ = random_id()
    with RawStream(bounded.server.grpc_address) as raw:
        raw.ask(id_, start=True, latency_ms=80)
        for _ in range(40):
            raw.send(id_, audio)
        with LiveStream(bounded.server.grpc_address) as stream:
            stream.send(neighbour)
            assert stream.finish().text == bounded.expected(neighbour).text
        answers = [raw.read() for _ in range(40)]
        refused = [answer for answer in answers if answer.startswith("UNAVAILABLE: ")]
        text = "".join(a for a in answers if a not in refused) + raw.ask(id_, end=True)
    assert refused
    assert all("s of this stream's audio wait to be decoded" in answer for answer in refused)
    heard = np.tile(audio, len(answers) - len(refused))
    assert text == bounded.expected(heard, latency_ms=80).text


def test_a_packet_longer_than_may_wait_is_refused(bounded):
    with RawStream(bounded.server.grpc_address) as raw:
        error = raw.ask(random_id(), pcm(11 * 16_000, seed=3), start=True)
    assert error == "INVALID_ARGUMENT: 11.0 s of audio in a packet; valid: up to 10 s"


def test_our_client_stays_below_the_default_by_itself(checkpoints, recognizer):
    """64 packets of 10 s may be in flight, and after a loss all that is kept for a replay."""
    server = TritonServer(settings_for(checkpoints("tiny")))
    with server, LiveStream(server.grpc_address) as stream:
        assert stream.server["max_queued_s"] > 64 * 10
        assert stream.server["max_queued_s"] > 750 + 10


def test_files_sent_as_fast_as_can_be_share_with_a_live_stream(patient):
    files = [pcm(187 * 1280, seed=10 + i) for i in range(4)]
    live = pcm(20 * 5120, seed=20)

    def whole(audio):
        with LiveStream(patient.server.grpc_address, latency_ms=80) as stream:
            stream.send(audio)
            return stream.finish().text, time.monotonic()

    def spoken():
        with LiveStream(patient.server.grpc_address, progress=True) as stream:
            results = stream.results()
            for at in range(0, len(live), 5120):
                stream.send(live[at : at + 5120])
                next(results)
            return stream.finish().text, time.monotonic()

    with ThreadPoolExecutor(8) as pool:
        fast = [pool.submit(whole, audio) for audio in files]
        text, done_s = pool.submit(spoken).result()
        assert text == patient.expected(live).text
        for audio, file in zip(files, fast, strict=True):
            text, file_done_s = file.result()
            assert text == patient.expected(audio, latency_ms=80).text
            assert file_done_s > done_s, "20 chunks were not kept waiting for 187"


def test_a_killed_client_s_long_queue_is_not_decoded(patient):
    """An hour waits; its slot is free again long before it could have been decoded."""
    before = total(patient.server, "asr_batch_rows_sum")
    script = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from server.conftest import pcm
from server.raw import RawStream, random_id
audio, id_ = pcm(60 * 16_000, seed=1), random_id()
with RawStream({patient.server.grpc_address!r}) as raw:
    raw.ask(id_, start=True, latency_ms=80)
    for _ in range(60):
        raw.send(id_, audio)
    raw.read()
    print("in flight", flush=True)
    time.sleep(600)
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout.readline() == "in flight\n"
        client.kill()
    deadline = time.monotonic() + 120
    while not total(patient.server, "asr_streams_ended_total", reason="cancelled"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert total(patient.server, "asr_batch_rows_sum") - before < 60 * 750 / 2
    audio = pcm(30_000, seed=4)
    with LiveStream(patient.server.grpc_address) as stream:
        stream.send(audio)
        assert stream.finish().text == patient.expected(audio).text


def test_answers_that_nobody_reads_cost_little_and_hold_up_nobody(patient):
    """The server keeps them until the connection ends: their number is what a client sends."""
    process, num_packets = psutil.Process(patient.server.pid), 5000
    audio = pcm(60_000, seed=5)
    with RawStream(patient.server.grpc_address) as deaf:  # gRPC itself reads no more than 64 kB
        id_ = random_id()
        deaf.ask(id_, start=True)
        before = process.memory_info().rss
        handled = total(patient.server, "nv_inference_request_success", model="asr_streaming")
        for _ in range(num_packets):
            deaf.send(id_, audio[:160])
        with LiveStream(patient.server.grpc_address) as stream:
            stream.send(audio)
            assert stream.finish().text == patient.expected(audio).text
        deadline = time.monotonic() + 120
        while (
            total(patient.server, "nv_inference_request_success", model="asr_streaming")
            < handled + num_packets
        ):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        grown = process.memory_info().rss - before
    assert grown < num_packets * ANSWER_BYTES
