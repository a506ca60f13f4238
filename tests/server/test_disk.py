"""A full disk, and full shared memory: who runs goes on, and all is well once there is room again.

The server runs in a mount namespace of its own, with a small file system of its own for its files
and another for shared memory. Both are reached through /proc.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from asr_client import LiveStream, OfflineClient
from asr_client.errors import ServerUnavailable
from asr_server import ServerError, StartCancelled
from asr_server.supervisor import RestartPolicy, Supervisor
from nemotron_asr import load_checkpoint
from nemotron_asr.audio import decode_audio
from server.conftest import ROOT, settings_for, wav
from server.raw import RawStream, random_id
from server.test_drain import DRAINING, refusal

pytestmark = pytest.mark.server
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]
MOUNT = """
mount -t tmpfs -o size=4m,nr_inodes=400 disk "$TMPDIR" &&
mount -t tmpfs -o size=64m shm /dev/shm && exec "$@"
"""
NO_SHM = "Failed to increase the shared memory pool size .* No space left on device"
PART = 40_000  # samples: half of a recording


def why_not(directory: Path) -> str | None:
    """Why there can be no such namespace here."""
    command = [*UNSHARE, "sh", "-c", MOUNT, "sh", "true"]
    env = os.environ | {"TMPDIR": str(directory)}
    try:
        tried = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
    except OSError as error:
        return str(error)
    return tried.stderr.strip() or None if tried.returncode else None


class Volume:
    """A small file system of the server's."""

    def __init__(self, path: Path):
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """To the last byte, and the last file where their number is limited."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                with suppress(OSError):
                    while True:
                        file.write(b"\0" * size)
        with suppress(OSError):
            for number in range(1000):
                (self.path / f"file{number}").touch()
        assert not os.statvfs(self.path).f_bavail

    def clear(self) -> None:
        for file in [self._ballast, *self.path.glob("file*")]:
            file.unlink(missing_ok=True)


class Confined:
    """`asr serve` with little room."""

    def __init__(self, checkpoint: Path, directory: Path):
        ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
        serve = [sys.executable, "-m", "asr_server.cli", *ports, f"--checkpoint={checkpoint}"]
        serve += [f"--model-repository={ROOT / 'model_repository'}", "--device=cpu", "--slots=8"]
        self.process = subprocess.Popen(
            [*UNSHARE, "sh", "-c", MOUNT, "sh", *serve],
            env=os.environ | {"TMPDIR": str(directory)},
            stdout=subprocess.PIPE,
            text=True,
        )
        ready = self.process.stdout.readline()
        self.grpc, http = re.search(r"grpc (\S+)  http (\S+)", ready).groups()
        self.files = OfflineClient(f"http://{http}")
        root = Path(f"/proc/{self.process.pid}/root")
        self.disk = Volume(root / directory.relative_to("/"))
        self.shm = Volume(root / "dev/shm")

    def kill_model(self) -> None:
        """End the process that holds the live streams."""
        processes = psutil.Process(self.process.pid).children(recursive=True)
        model = next(p for p in processes if "asr_streaming/1" in " ".join(p.cmdline()))
        os.kill(model.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def confined(demo_checkpoint, tmp_path_factory):
    directory = tmp_path_factory.mktemp("disk")
    if reason := why_not(directory):
        pytest.skip(f"needs namespaces of a user's own: {reason}")
    server = Confined(demo_checkpoint, directory)
    yield server
    server.files.close()
    for _ in range(2):  # the second ends streams that a failed test has left
        server.process.terminate()
    server.process.wait(60)


@pytest.fixture(scope="module")
def recordings(samples, demo_checkpoint):
    """Samples of each (int16), the file, its text live and offline."""
    recognizer = load_checkpoint(demo_checkpoint)
    found = []
    for path in samples:
        file = path.read_bytes()
        audio = (decode_audio(file) * 32768).round().astype(np.int16)
        live, offline = (recognizer.transcribe([audio], latency_ms=ms)[0] for ms in (320, None))
        found.append((audio, file, live.text, offline.text))
    return found


def live(server: Confined, audio: np.ndarray) -> str:
    with LiveStream(server.grpc) as stream:
        for at in range(0, len(audio), 1600):
            stream.send(audio[at : at + 1600])
        return stream.finish().text


def check_all(server: Confined, recordings) -> None:
    """Everything is served, live and offline."""
    for audio, file, live_text, offline_text in recordings:
        assert live(server, audio) == live_text
        assert server.files.transcribe(file).text == offline_text


def flood(server: Confined, audio: np.ndarray, packets: int) -> str:
    """A stream with far more audio at once than fits shared memory; its text."""
    with RawStream(server.grpc) as raw:
        id_ = random_id()
        raw.send(id_, start=True)
        for _ in range(packets):
            raw.send(id_, audio)
        raw.send(id_, end=True)
        return "".join(raw.read() for _ in range(packets + 2))


def test_full_shared_memory_refuses_what_needs_more_of_it(confined, recordings):
    """A long file is refused by a clear error; streams and short files do not notice."""
    audio, _, text, _ = recordings[0]
    long = wav(np.tile(audio, 20))
    with LiveStream(confined.grpc, reconnect_s=0) as stream:
        stream.send(audio[:PART])
        confined.shm.fill()
        try:
            with pytest.raises(ServerUnavailable, match=NO_SHM):
                confined.files.transcribe(long)
            check_all(confined, recordings)  # all, live and offline
            stream.send(audio[PART:])
            assert stream.finish().text == text
        finally:
            confined.shm.clear()
    assert confined.files.transcribe(long).text


def test_audio_that_waits_takes_no_shared_memory(confined, recordings):
    """5 minutes, 9.6 MB, wait where the model's share is 4 MB."""
    audio, neighbour = recordings[0][0][:80_000], recordings[1]
    confined.shm.fill()
    try:
        with ThreadPoolExecutor(1) as pool:
            flooding = pool.submit(flood, confined, audio, 60)
            assert live(confined, neighbour[0]) == neighbour[2]
            assert not flooding.done()
            assert "Failed" not in flooding.result()
    finally:
        confined.shm.clear()


def test_a_full_disk_costs_the_log_alone(confined, recordings):
    """Also when a process dies: the stream that it held is replayed to the next."""
    audio, _, text, _ = recordings[0]
    confined.disk.fill()
    try:
        check_all(confined, recordings[:2])
        with LiveStream(confined.grpc, reconnect_s=180) as stream:
            stream.send(audio[:PART])
            confined.kill_model()
            assert confined.process.stdout.readline().startswith("serving ")
            confined.disk.fill()  # what the dead one left room for
            stream.send(audio[PART:])
            assert stream.finish().text == text
        check_all(confined, recordings[:2])
    finally:
        confined.disk.clear()


def test_a_server_drains_on_a_full_disk(confined, recordings):
    audio, _, text, _ = recordings[0]
    confined.disk.fill()
    with LiveStream(confined.grpc, reconnect_s=0) as stream:
        stream.send(audio[:PART])
        confined.process.terminate()
        assert refusal(confined.grpc).startswith(DRAINING)
        stream.send(audio[PART:])
        assert stream.finish().text == text
    assert confined.process.wait(60) == 0


@pytest.mark.parametrize(("reason", "code"), [("No space left on device", 0), ("something", 1)])
def test_a_restart_is_tried_for_as_long_as_there_is_no_room(demo_checkpoint, reason, code):
    policy = RestartPolicy(backoff_s=0, max_backoff_s=0)
    supervisor = Supervisor(settings_for(demo_checkpoint), policy, say=lambda _: None)
    outcomes = iter([None] + [ServerError(f"cannot start: {reason}")] * 20)  # it dies at once

    def start(should_stop) -> None:
        if (error := next(outcomes, StartCancelled())) is not None:
            raise error

    supervisor.server.start = start
    assert supervisor.run() == code
