"""`asr serve` told to stop: live streams end as they would, new ones are refused at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from asr_client import LiveStream
from asr_client.errors import ServerUnavailable
from asr_server.supervisor import Supervisor
from server.conftest import ROOT, pcm, settings_for
from server.raw import RawStream, random_id

pytestmark = pytest.mark.server
DRAINING = "UNAVAILABLE: draining"


def start_cli(checkpoint, *options: str) -> tuple[subprocess.Popen, str]:
    """`asr serve` in a process of its own, ready, and its gRPC address."""
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
    paths = [f"--checkpoint={checkpoint}", f"--model-repository={ROOT / 'model_repository'}"]
    command = [sys.executable, "-m", "asr_server.cli", *ports, *paths, "--device=cpu", *options]
    serve = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return serve, serve.stdout.readline().partition(": grpc ")[2].split()[0]


def refusal(address: str) -> str:
    """What a new stream is told, once the server drains."""
    deadline = time.monotonic() + 60
    while True:
        try:
            LiveStream(address, reconnect_s=0).finish()
        except ServerUnavailable as error:
            return str(error)
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("instances", [1, 2])
def test_a_stream_that_lives_loses_nothing_and_new_ones_are_refused(
    checkpoints, recognizer, instances
):
    options = f"--instances={instances}", "--drain-timeout-s=200"
    serve, address = start_cli(checkpoints("tiny"), *options)
    audio = [pcm(90_000, seed=60 + i) for i in range(2)]
    with serve:
        streams = [LiveStream(address, reconnect_s=0) for _ in audio]
        for stream, samples in zip(streams, audio, strict=True):
            stream.send(samples[:40_000])
        serve.send_signal(signal.SIGTERM)
        assert refusal(address).startswith(DRAINING)
        for stream, samples in zip(streams, audio, strict=True):
            for at in range(40_000, len(samples), 3000):
                stream.send(samples[at : at + 3000])
            assert serve.poll() is None
            assert stream.finish().text == recognizer.transcribe([samples], latency_ms=320)[0].text
        assert serve.wait(60) == 0


def test_a_second_signal_ends_live_streams_with_an_error(checkpoints):
    serve, address = start_cli(checkpoints("tiny"), "--drain-timeout-s=500")
    with serve, LiveStream(address, reconnect_s=0) as stream:
        serve.send_signal(signal.SIGINT)
        assert refusal(address).startswith(DRAINING)
        serve.send_signal(signal.SIGINT)
        assert serve.wait(60) == 0
        with pytest.raises(ServerUnavailable):
            stream.finish()


def test_abandoned_streams_hold_a_stop_up_no_longer_than_asked(checkpoints):
    """Triton would wait for them: here its exit timeout is much longer than what the stop takes."""
    settings = settings_for(
        checkpoints("tiny"), idle_timeout_s=300, drain_timeout_s=2, exit_timeout_s=120
    )
    ready = threading.Event()
    supervisor = Supervisor(settings, say=lambda line: line.startswith("serving ") and ready.set())
    codes = []
    thread = threading.Thread(target=lambda: codes.append(supervisor.run()))
    thread.start()
    try:
        assert ready.wait(300)
        with RawStream(supervisor.server.grpc_address) as raw:
            for _ in range(5):
                raw.ask(random_id(), pcm(8000, 1), start=True)
        with RawStream(supervisor.server.grpc_address) as raw:
            id_ = random_id()
            raw.ask(id_, start=True)
            began_s = time.monotonic()
            supervisor.stop()
            while not (answer := raw.ask(id_)):
                time.sleep(0.05)
            assert answer.startswith("UNAVAILABLE: the server is shutting down")
        thread.join(100)
        assert codes == [0]
        assert time.monotonic() - began_s < 60
    finally:
        supervisor.stop()
        supervisor.stop()
        thread.join(150)
