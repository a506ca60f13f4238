"""Nothing is lost when a process dies: streams outlive the servers that hold them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from asr_client import AtCapacity, LiveStream, ServerUnavailable, StreamNotFound
from asr_server import TritonServer
from asr_server.supervisor import RestartPolicy, Supervisor
from server.conftest import pcm, settings_for

pytestmark = pytest.mark.server
LIMIT_S = 180  # for anything on a busy machine
SLOTS = 8
PAUSE = {"endpoint_ms": 400}


class Supervised:
    """A supervised server in this process, whose processes can be killed."""

    def __init__(self, settings):
        self.said: list[str] = []
        policy = RestartPolicy(backoff_s=0.1, max_backoff_s=0.1)
        self.supervisor = Supervisor(settings, policy, say=self.said.append)
        self.server = self.supervisor.server
        self.url = self.server.grpc_address
        self.thread = threading.Thread(target=self.supervisor.run)
        self.thread.start()
        self.wait_until_ready(1)

    @property
    def times_ready(self) -> int:
        return sum(line.startswith("serving ") for line in self.said)

    def wait_until_ready(self, times: int) -> None:
        wait_for(lambda: self.times_ready >= times)

    def kill(self, what: str) -> None:
        os.kill(self.server.pid if what == "server" else stub_of(self.server), signal.SIGKILL)

    def stop(self) -> None:
        self.supervisor.stop()
        self.thread.join()


def stub_of(server: TritonServer) -> int:
    """The process that holds the model."""
    children = psutil.Process(server.pid).children(recursive=True)
    return next(p.pid for p in children if p.cmdline()[:1] and "stub" in p.cmdline()[0])


def wait_for(condition, limit_s: float = LIMIT_S) -> None:
    give_up_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < give_up_s
        time.sleep(0.02)


@pytest.fixture(scope="module")
def settings(pausing_checkpoint, live_repository):
    def make(**changes):
        return settings_for(pausing_checkpoint, model_repository=live_repository, **changes)

    return make


@pytest.fixture(scope="module")
def supervised(settings):
    running = Supervised(settings(slots=SLOTS))
    yield running
    running.stop()


class Speaker:
    """One stream: packets of any size, at times finalize or another language."""

    def __init__(self, url: str, seed: int, num_samples: int = 16_000 * 14):
        rng = random.Random(seed)
        audio, at = pcm(num_samples, seed), 0
        self.steps = []
        while at < num_samples:
            size = rng.choice([37, 1280, 5000, rng.randint(1, 20_000)])
            self.steps.append(audio[at : at + size])
            at += size
            if rng.random() < 0.08:
                self.steps.append(rng.choice(["finalize", "de-DE", "fr-FR"]))
        self.options = {**PAUSE, "latency_ms": rng.choice([80, 320, 1120]), "url": url}
        self.results = []

    def speak(self, begin: float, end: float) -> None:
        """The steps from one part of the audio to another, 0 to 1."""
        first, last = (round(part * len(self.steps)) for part in (begin, end))
        for step in self.steps[first:last]:
            if isinstance(step, str):
                self.stream.finalize() if step == "finalize" else self.stream.set_language(step)
            else:
                self.stream.send(step)

    def talk(self, wait_before=lambda part: None, parts: int = 1):
        """The whole stream.  Returns its transcript; what was read of results is kept."""
        with LiveStream(**self.options, reconnect_s=LIMIT_S) as self.stream:
            reader = threading.Thread(target=lambda: self.results.extend(self.stream.results()))
            reader.start()
            for part in range(parts):
                wait_before(part)
                self.speak(part / parts, (part + 1) / parts)
            transcript = self.stream.finish()
            reader.join()
        return transcript


def assert_same(got, expected, speaker: Speaker) -> None:
    assert got.text == expected.text
    assert "".join(r.text for r in speaker.results) == expected.text
    for a, b in zip(
        [*got.words, *got.segments], [*expected.words, *expected.segments], strict=True
    ):
        assert a.text == b.text
        assert abs(a.start_ms - b.start_ms) <= 1  # of rounding
        assert abs(a.end_ms - b.end_ms) <= 1
    assert [(s.segment, s.reason, s.language) for s in got.segments] == [
        (s.segment, s.reason, s.language) for s in expected.segments
    ]


KILLS = ["stub", "server", "stub", "server"]


def test_streams_go_on_over_servers_that_are_killed_at_random_moments(supervised):
    """While streams speak, and again while what was lost is sent again."""
    calm = [Speaker(supervised.url, seed).talk() for seed in range(6)]
    assert all(len(transcript.segments) > 5 for transcript in calm)
    speakers = [Speaker(supervised.url, seed) for seed in range(6)]
    parts = [threading.Event() for _ in range(len(KILLS) + 1)]
    rng, ready = random.Random(7), supervised.times_ready

    def wait_before(part: int) -> None:
        assert parts[part].wait(LIMIT_S)

    with ThreadPoolExecutor(len(speakers)) as pool:
        talks = [pool.submit(s.talk, wait_before, len(parts)) for s in speakers]
        for number, what in enumerate(KILLS):
            parts[number].set()
            time.sleep(rng.uniform(0, 0.6))
            supervised.kill(what)
            supervised.wait_until_ready(ready + number + 1)
        parts[-1].set()
        transcripts = [talk.result(LIMIT_S) for talk in talks]
    for got, expected, speaker in zip(transcripts, calm, speakers, strict=True):
        assert_same(got, expected, speaker)


@pytest.mark.parametrize("what", ["stub", "server"])
def test_a_silent_stream_survives_too(supervised, what):
    audio = pcm(100_000, seed=4)
    with LiveStream(supervised.url, **PAUSE) as stream:
        stream.send(audio)
        expected = stream.finish()
    ready = supervised.times_ready
    with LiveStream(supervised.url, **PAUSE, reconnect_s=LIMIT_S) as stream:
        stream.send(audio[:60_000])
        wait_for(lambda: not stream._session.unanswered)
        supervised.kill(what)
        supervised.wait_until_ready(ready + 1)
        stream.send(audio[60_000:])
        assert stream.finish().text == expected.text


def test_asr_serve_brings_lost_streams_back(pausing_checkpoint, live_repository):
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
    paths = ["--checkpoint", pausing_checkpoint, "--model-repository", live_repository]
    command = [sys.executable, "-m", "asr_server.cli", "--device", "cpu", *ports, *map(str, paths)]
    serve = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with serve:
        try:
            ready = serve.stdout.readline()
            url = ready.partition("grpc ")[2].split()[0]
            calm = Speaker(url, 3).talk()
            speaker = Speaker(url, 3)

            def kill_triton(part: int) -> None:
                if part == 1:
                    children = psutil.Process(serve.pid).children(recursive=True)
                    next(p for p in children if p.name() == "tritonserver").kill()

            assert_same(speaker.talk(kill_triton, parts=2), calm, speaker)
            assert serve.stdout.readline() == ready, "restarted"
        finally:
            serve.send_signal(signal.SIGTERM)
            assert serve.wait(LIMIT_S) == 0


# --- what cannot be mended ---


@pytest.mark.parametrize("reconnect_s", [0, 3])
def test_a_server_that_stays_away_is_an_error_in_the_end(settings, reconnect_s):
    with TritonServer(settings(slots=2)) as server:
        stream = LiveStream(server.grpc_address, reconnect_s=reconnect_s)
        stream.send(pcm(30_000, seed=1))
        assert next(stream.results()).text
        begin_s = time.monotonic()
        server.stop(at_once=True)
        with pytest.raises(ServerUnavailable):
            for _ in stream.results():
                pass
        assert time.monotonic() - begin_s >= reconnect_s
        for call in (stream.finish, lambda: stream.send(b""), stream.finalize):
            with pytest.raises(ServerUnavailable):
                call()
        stream.close()


def test_a_stub_that_nobody_restarts_is_an_error_in_the_end(settings):
    """Triton without a supervisor goes on, and answers nothing or that the model is gone."""
    with TritonServer(settings(slots=2)) as server:
        stream = LiveStream(server.grpc_address, reconnect_s=4, timeout_s=2)
        stream.send(pcm(30_000, seed=1))
        assert next(stream.results()).text
        os.kill(stub_of(server), signal.SIGKILL)
        stream.send(pcm(30_000, seed=2))
        with pytest.raises(ServerUnavailable):
            stream.finish()
        stream.close()


def test_sending_does_not_wait_while_a_server_is_away_and_what_is_kept_is_bounded(settings):
    """Up to max_replay_s of audio at once, then it waits for the server, or for the error."""
    second = pcm(16_000, seed=1)
    with TritonServer(settings(slots=2)) as server:
        stream = LiveStream(
            server.grpc_address, reconnect_s=6, max_replay_s=20, max_in_flight=4, timeout_s=LIMIT_S
        )
        server.stop(at_once=True)
        wait_for(lambda: stream._link._patience._lost_at_s is not None)
        sent = []

        def send_for_ever() -> None:
            while True:
                stream.send(second)
                sent.append(len(second))

        with pytest.raises(ServerUnavailable):
            send_for_ever()
        assert sum(sent) == 20 * 16_000
        stream.close()


# --- a server that is there ---


def test_a_pause_beyond_the_idle_limit(settings):
    audio = pcm(80_000, seed=6)
    idle_s = 4.0
    with TritonServer(settings(slots=SLOTS, idle_timeout_s=idle_s)) as server:
        url = server.grpc_address
        with LiveStream(url, **PAUSE) as stream:
            stream.send(audio)
            expected = stream.finish()

        def halves(pause, **options):
            with LiveStream(url, **PAUSE, **options) as stream:
                first = stream._session._sequence_id
                stream.send(audio[:45_000])
                pause(stream)
                stream.send(audio[45_000:])
                return stream.finish(), stream._session._sequence_id == first

        def silent(stream) -> None:
            time.sleep(idle_s + 2)

        def kept_alive(stream) -> None:
            for _ in range(24):
                time.sleep((idle_s + 2) / 24)
                stream.keep_alive()

        assert halves(silent) == (expected, False)  # forgotten, and sent again
        assert halves(kept_alive, reconnect_s=0) == (expected, True)
        with pytest.raises(StreamNotFound):
            halves(silent, reconnect_s=0)


def test_a_full_server_is_asked_again_until_there_is_room_or_the_time_is_over(settings):
    """Both streams are forgotten in a pause; somebody else takes their slots meanwhile."""
    audio = pcm(60_000, seed=8)
    idle_s = 4.0
    with TritonServer(settings(slots=2, idle_timeout_s=idle_s)) as server:
        url = server.grpc_address
        patient = LiveStream(url, reconnect_s=LIMIT_S)
        patient.send(audio[:30_000])
        hasty = LiveStream(url, reconnect_s=1)
        with pytest.raises(AtCapacity):
            LiveStream(url)
        time.sleep(idle_s + 2)
        others = [LiveStream(url, reconnect_s=0) for _ in range(2)]

        stop = threading.Event()

        def hold() -> None:
            while not stop.wait(0.5):
                for other in others:
                    other.keep_alive()

        holding = threading.Thread(target=hold)
        holding.start()
        try:
            patient.send(audio[30_000:])
            hasty.send(audio)
            with pytest.raises(AtCapacity, match=r"at capacity \(2/2\)"):
                hasty.finish()
            hasty.close()
            assert not patient._session.started
        finally:
            stop.set()
            holding.join()
        for other in others:
            other.finish()
        text = patient.finish().text
        with LiveStream(url) as stream:
            stream.send(audio)
            assert stream.finish().text == text
