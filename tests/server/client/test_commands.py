"""The command line, against the real server."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from asr_client.cli import main

from .conftest import PCM, expected, wav

pytestmark = pytest.mark.server

ASR = [sys.executable, "-c", "from asr_client.cli import main; main()"]


def asr(*arguments: object, stdin: bytes = b""):
    return CliRunner().invoke(main, [str(a) for a in arguments], input=stdin)


def test_stream_prints_the_transcript_and_nothing_else(url, clip):
    result = asr("stream", clip, "--fast", "--url", url)
    assert result.exit_code == 0, result.output
    assert result.stdout == expected(PCM) + "\n"
    assert "en-US" in result.stderr


def test_stream_keeps_real_time(url, clip):
    begin_s = time.monotonic()
    assert asr("stream", clip, "--url", url, "--packet-ms", 300).exit_code == 0
    assert time.monotonic() - begin_s >= len(PCM) / 16_000


def test_stream_json_is_a_line_per_result(url, clip):
    result = asr("stream", clip, "--fast", "--json", "--latency-ms", 560, "--url", url)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert "".join(line["text"] for line in lines) == expected(PCM, 560)
    assert sum(len(line["words"]) for line in lines) == 4
    assert [line["is_final"] for line in lines][-2:] == [False, True]


def test_stream_reads_raw_pcm_from_stdin(url):
    result = asr("stream", "-", "--fast", "--url", url, stdin=PCM.tobytes() + b"x")
    assert result.stdout == expected(PCM) + "\n"


def test_stream_errors_of_the_server_are_shown(url, clip):
    result = asr("stream", clip, "--language", "xx", "--url", url)
    assert result.exit_code == 1
    assert "valid: auto" in result.stderr


def spawn(*arguments: object, **kwargs) -> subprocess.Popen:
    return subprocess.Popen(
        [*ASR, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **kwargs,
    )


def test_ctrl_c_ends_the_stream_and_prints_the_rest(url):
    process = spawn("stream", "-", "--url", url, stdin=subprocess.PIPE)
    process.stdin.write(PCM[:8000].tobytes())
    process.stdin.flush()  # and stays open, as a microphone does
    first = process.stdout.read(len(expected(PCM[:5120])))
    time.sleep(6)  # until the packets of all 500 ms are due, on a busy machine too
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=20)
    # 8000 samples are 6.25 packets: the quarter was not complete when Ctrl-C came
    assert (first + rest).decode() == expected(PCM[:7680]) + "\n"
    assert process.returncode == 0
    assert b"Traceback" not in errors
    assert b"Fatal" not in errors


def test_a_closed_pipe_is_quiet(url, clip):
    process = spawn("stream", clip, "--url", url, "--json")
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    process.wait(timeout=20)
    assert b"Traceback" not in errors
    assert b"Exception" not in errors


def test_transcribe_prints_one_file_or_many(server, clip, tmp_path):
    other = tmp_path / "other.wav"
    other.write_bytes(wav(PCM[:1600]))
    one = asr("transcribe", clip, "--url", server.http_url)
    assert one.stdout == "2005 ms, auto, 1120\n"
    two = asr("transcribe", clip, other, "--url", server.http_url, "--language", "de-DE")
    assert two.stdout == f"{clip}: 2005 ms, de-DE, 1120\n{other}: 100 ms, de-DE, 1120\n"
    lines = asr("transcribe", clip, other, "--url", server.http_url, "--format", "json").stdout
    assert [json.loads(line)["file"] for line in lines.splitlines()] == [str(clip), str(other)]


def test_the_progress_bar_leaves_a_redirected_stdout_alone(server, clip):
    terminal, stderr = pty.openpty()
    process = subprocess.Popen(
        [*ASR, "transcribe", str(clip), "--url", server.http_url],
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(stderr)
    stdout, _ = process.communicate(timeout=30)
    shown = os.read(terminal, 10_000)
    os.close(terminal)
    assert stdout == b"2005 ms, auto, 1120\n"
    assert b"transcribing" in shown


@pytest.mark.parametrize(
    ("format_name", "extension", "begin"),
    [("srt", "srt", "1\n00:00:00,000 --> "), ("vtt", "vtt", "WEBVTT\n"), ("text", "txt", "2005")],
)
def test_transcribe_writes_files_and_goes_on_after_a_bad_one(
    server, clip, tmp_path, format_name, extension, begin
):
    bad, out = tmp_path / "bad.wav", tmp_path / "new" / "out"
    bad.write_bytes(b"hello")
    files = (bad, clip, tmp_path / "missing.wav")
    result = asr(
        "transcribe", *files, "--url", server.http_url, "--format", format_name, "--output-dir", out
    )
    assert result.exit_code == 1
    assert f"{bad}: INVALID_ARGUMENT" in result.stderr
    assert "missing.wav" in result.stderr
    assert [path.name for path in out.iterdir()] == [f"clip.{extension}"]
    assert (out / f"clip.{extension}").read_text().startswith(begin)
