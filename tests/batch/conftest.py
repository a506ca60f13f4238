"""Short clips of the bundled recordings, their texts, and the command as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
import soundfile

from nemotron_asr import load_checkpoint

CLIP_SAMPLES = 40_000
NUM_HELD = 6  # blocks of two actors of Ray
TIMEOUT_S = 240.0
# Loaded by every Python below `asr batch`: files that kill the process that reads them.
KILLER = """
import os
import fsspec
from fsspec.implementations.local import LocalFileSystem

class Killer(LocalFileSystem):
    protocol = "killer"

    def get_file(self, path, local, **_):
        os.kill(os.getpid(), 9)

fsspec.register_implementation("killer", Killer)
"""


@dataclass(frozen=True)
class Clips:
    folder: Path
    texts: dict[str, str]  # by the name of the file

    def manifest(self, name: str, *others: str, gate: str = "") -> Path:
        """Every clip, and other files.  gate: a URL of NUM_HELD of them, the last."""
        path = self.folder / name
        rows = [{"audio": one} for one in [*others, *self.texts]]
        if gate:
            rows[-NUM_HELD:] = [
                {"audio": f"{gate}/{row['audio']}", "id": row["audio"]} for row in rows[-NUM_HELD:]
            ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path


@pytest.fixture(scope="session")
def clips(samples, demo_checkpoint, tmp_path_factory) -> Clips:
    folder = tmp_path_factory.mktemp("clips")
    audio = {}
    for path in samples:
        recording, rate = soundfile.read(path, dtype="int16")
        for start in range(0, len(recording) - CLIP_SAMPLES // 2, CLIP_SAMPLES // 2):
            name = f"{path.stem}-{start}.flac"
            audio[name] = recording[start : start + CLIP_SAMPLES]
            soundfile.write(folder / name, audio[name], rate)
    assert rate == 16_000
    recognizer = load_checkpoint(demo_checkpoint)
    results = recognizer.transcribe(list(audio.values()))
    return Clips(folder, {name: one.text for name, one in zip(audio, results, strict=True)})


class Gate:
    """Gives out the clips by HTTP, but not before it is opened: no run ends meanwhile."""

    def __init__(self, folder: Path):
        opened = threading.Event()

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self):
                opened.wait(TIMEOUT_S)
                with suppress(OSError):  # who asked was killed
                    super().do_GET()

            def log_message(self, *_arguments):
                pass

        handler = partial(Handler, directory=folder)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.open = opened.set


@pytest.fixture
def gate(clips):
    gate = Gate(clips.folder)
    threading.Thread(target=gate.server.serve_forever, daemon=True).start()
    yield gate
    gate.open()
    gate.server.shutdown()
    gate.server.server_close()


class Run:
    """`asr batch`, while it runs."""

    def __init__(self, *arguments: str | Path, env: dict[str, str] | None = None):
        command = [sys.executable, "-m", "asr_client.cli", "batch", *map(str, arguments)]
        env = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
        self.process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def finish(self) -> tuple[int, str]:
        """The exit code and what it said."""
        out, err = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, out + err

    def children(self) -> list[psutil.Process]:
        """The workers, in the order in which they were started."""
        found = psutil.Process(self.process.pid).children()
        workers = [one for one in found if "spawn_main" in " ".join(one.cmdline())]
        return sorted(workers, key=lambda one: one.create_time())

    def wait_for_records(self, path: Path, count: int) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not path.exists() or path.read_bytes().count(b"\n") < count:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture
def start():
    """Start a run, killed at the end of the test."""
    runs = []

    def make(*arguments, **options) -> Run:
        runs.append(Run(*arguments, **options))
        return runs[-1]

    yield make
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()


@pytest.fixture
def killer(tmp_path) -> dict[str, str]:
    """An environment in which killer://x kills its reader."""
    folder = tmp_path / "killer"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(KILLER)
    return {"PYTHONPATH": str(folder)}


def records_of(path: Path) -> list[dict]:
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == "", "the last line is cut"
    return [json.loads(line) for line in lines]
