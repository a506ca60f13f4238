"""Recordings from paths, HTTP and S3: what is read, tried again, and said of what is not."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import numpy as np
import pytest
import soundfile

from asr_batch import reading
from asr_batch.manifest import Row
from asr_batch.reading import read_recording
from asr_batch.settings import WorkerSettings
from nemotron_asr.audio import decode_audio
from nemotron_asr.errors import AsrError
from nemotron_asr.options import Options

SETTINGS = WorkerSettings(checkpoint="", timeout_s=5.0, retries=2)
OPTIONS = Options(latency_ms=1120)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(reading, "FIRST_PAUSE_S", 0.01)


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.wav"
    noise = np.random.default_rng(0).normal(0, 0.1, (24_000, 2))
    soundfile.write(path, noise, 8_000)
    return path


def read(location, settings=SETTINGS, options=OPTIONS, room=None):
    row = Row(0, "x", str(location), str(location), {})
    return read_recording(row, options, settings, (room if room is not None else []).append)


def refusal(location, settings=SETTINGS) -> str:
    with pytest.raises(AsrError) as caught:
        read(location, settings)
    return str(caught.value)


@contextmanager
def http_server(answer):
    """answer(handler, number of the request from 0) writes the response."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            answer(self, len(asked) - 1)

        def log_message(self, *_arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def send(handler, status: int, body: bytes = b"", length: int | None = None) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


def test_a_path_is_what_the_library_decodes_and_asks_for_its_room(clip):
    room = []
    samples = read(clip, room=room)
    np.testing.assert_array_equal(samples, decode_audio(clip.read_bytes()))
    assert room == [3.0]
    left = read(clip, options=Options(latency_ms=1120, channel=0))
    assert not np.array_equal(left, samples)


def test_room_of_what_only_ffmpeg_reads_is_a_guess_within_the_limit(tmp_path):
    path = tmp_path / "a.webm"
    path.write_bytes(bytes(40_000))
    room = []
    with pytest.raises(AsrError):
        read(path, room=room)
    with pytest.raises(AsrError):
        read(path, replace(SETTINGS, max_file_s=2.0), room=room)
    assert room == [10.0, 2.0]


def test_files_that_are_none(tmp_path, clip):
    empty = tmp_path / "empty.wav"
    empty.touch()
    text = tmp_path / "text.wav"
    text.write_text("no audio")
    short = tmp_path / "short.flac"
    soundfile.write(short, soundfile.read(clip)[0], 8_000)
    short.write_bytes(short.read_bytes()[:20_000])
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    assert refusal(tmp_path / "none.wav") == f"NOT_FOUND: {tmp_path}/none.wav: no such file"
    assert refusal(empty) == "INVALID_ARGUMENT: the audio is empty (0 bytes)"
    assert refusal(text).startswith(f"INVALID_ARGUMENT: cannot read {text}: ")
    assert refusal(short).startswith(f"INVALID_ARGUMENT: cannot read {short}: ")
    assert "not a regular file" in refusal(pipe)
    assert refusal(tmp_path).startswith("INVALID_ARGUMENT: cannot read")
    assert refusal("a\0b").startswith("INVALID_ARGUMENT: ")
    assert "lasts 3 s; valid: at most 2 s" in refusal(clip, replace(SETTINGS, max_file_s=2.0))


def test_http(clip):
    with http_server(lambda handler, _: send(handler, 200, clip.read_bytes())) as (url, asked):
        np.testing.assert_array_equal(read(f"{url}/a b.wav?x=1"), read(clip))
    assert asked == ["/a%20b.wav?x=1"]


@pytest.mark.parametrize(
    ("status", "code", "tries"),
    [
        (404, "NOT_FOUND", 1),
        (410, "NOT_FOUND", 1),
        (403, "UNAVAILABLE", 1),
        (429, "UNAVAILABLE", 3),
        (503, "UNAVAILABLE", 3),
    ],
)
def test_http_errors(status, code, tries):
    with http_server(lambda handler, _: send(handler, status)) as (url, asked):
        said = refusal(f"{url}/a.wav")
    assert said.startswith(f"{code}: ")
    assert f"{url}/a.wav" in said
    assert len(asked) == tries


def test_http_that_fails_at_first(clip):
    """A refusal, then an answer that breaks off, then the file."""
    data = clip.read_bytes()

    def answer(handler, number):
        if number == 0:
            send(handler, 500)
        elif number == 1:
            send(handler, 200, data[:5_000], length=len(data))
            handler.close_connection = True
        else:
            send(handler, 200, data)

    with http_server(answer) as (url, asked):
        np.testing.assert_array_equal(read(f"{url}/a.wav"), read(clip))
    assert len(asked) == 3


def test_http_that_never_answers():
    over = threading.Event()
    with http_server(lambda *_: over.wait(60)) as (url, _):
        started = time.monotonic()
        said = refusal(f"{url}/a.wav", replace(SETTINGS, timeout_s=0.3, retries=1))
        assert time.monotonic() - started < 30
        over.set()
    assert said.startswith("UNAVAILABLE: ")
    assert said.endswith("(2 tries)")


def test_nobody_listens():
    assert refusal("http://127.0.0.1:1/a.wav").startswith("UNAVAILABLE: cannot read http://127")


def test_any_file_system_of_fsspec(clip):
    with fsspec.open("memory://set/a.wav", "wb") as file:
        file.write(clip.read_bytes())
    np.testing.assert_array_equal(read("memory://set/a.wav"), read(clip))
    assert refusal("memory://set/none.wav").startswith("NOT_FOUND")
    assert refusal("nosuch://a.wav") == (
        "INVALID_ARGUMENT: cannot read nosuch://a.wav: ValueError: Protocol not known: nosuch"
    )


def test_downloads_have_a_limit(clip, monkeypatch):
    """Said by its header, or endless."""
    monkeypatch.setattr(reading, "_MORE_BYTES", 100_000)
    settings = replace(SETTINGS, max_file_s=0.5, timeout_s=20.0)  # 868 kB

    def endless(handler, _):
        handler.send_response(200)
        handler.end_headers()
        with suppress(OSError):
            while True:
                handler.wfile.write(bytes(100_000))

    for answer in (endless, lambda handler, _: send(handler, 200, length=10**12)):
        with http_server(answer) as (url, asked):
            said = refusal(f"{url}/a.wav", settings)
        assert said == "INVALID_ARGUMENT: the file is too large; valid: at most 868000 bytes"
        assert len(asked) == 1


def test_pauses_have_a_limit(monkeypatch):
    pauses = []
    monkeypatch.setattr(reading, "FIRST_PAUSE_S", 0.5)
    monkeypatch.setattr(reading.time, "sleep", pauses.append)
    with http_server(lambda handler, _: send(handler, 503)) as (url, _):
        refusal(f"{url}/a.wav", replace(SETTINGS, retries=10))
    assert pauses == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_copies_have_no_name_that_could_be_left(clip, tmp_path, monkeypatch):
    """However the process ends while it has them."""
    seen, fetched = [], reading._fetch

    def fetch(*arguments):
        fetched(*arguments)
        seen.append(list((tmp_path / "copies").iterdir()))

    monkeypatch.setattr(reading, "_fetch", fetch)
    monkeypatch.setattr(reading.tempfile, "tempdir", str(tmp_path / "copies"))
    (tmp_path / "copies").mkdir()
    with fsspec.open("memory://set/a.wav", "wb") as file:
        file.write(clip.read_bytes())
    np.testing.assert_array_equal(read("memory://set/a.wav"), read(clip))
    refusal("memory://set/none.wav")
    assert seen == [[]]
    assert list((tmp_path / "copies").iterdir()) == []


def test_s3(clip, monkeypatch):
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        files = fsspec.filesystem("s3", skip_instance_cache=True)
        files.mkdir("recordings")
        files.pipe("recordings/de/a b.wav", clip.read_bytes())
        np.testing.assert_array_equal(read("s3://recordings/de/a b.wav"), read(clip))
        assert refusal("s3://recordings/none.wav").startswith("NOT_FOUND: s3://recordings/none")
        assert refusal("s3://nobucket/a.wav").startswith("NOT_FOUND: ")
    finally:
        server.stop()
