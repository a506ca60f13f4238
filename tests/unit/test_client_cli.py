"""The command line's own errors, without a server."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from asr_client.cli import main

NOBODY = "127.0.0.1:1"  # a port on which nothing listens


def asr(*arguments: str, stdin: bytes = b""):
    return CliRunner().invoke(main, list(arguments), input=stdin)


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.zeros(1600, np.int16), 16_000)
    return str(path)


def test_help_names_the_commands():
    result = asr("--help")
    assert result.exit_code == 0
    for command in ("serve", "stream", "transcribe"):
        assert command in result.output


@pytest.mark.parametrize("command", ["stream", "transcribe"])
def test_every_command_has_help(command):
    result = asr(command, "--help")
    assert result.exit_code == 0
    assert "--url" in result.output


@pytest.mark.parametrize("command", ["stream", "transcribe"])
def test_no_server_is_said_with_its_address(command, clip):
    result = asr(command, clip, "--url", NOBODY)
    assert result.exit_code == 1
    assert "cannot connect to" in result.stderr
    assert NOBODY in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stream"], "--mic"),
        (["stream", "x.wav", "--mic"], "--mic"),
        (["stream", "no/such.wav"], "no/such.wav"),
        (["stream", "CLIP", "--packet-ms", "1"], "packet-ms"),
        (["stream", "CLIP", "--latency-ms", "fast"], "fast"),
        (["stream", "CLIP", "--unknown"], "--unknown"),
        (["transcribe"], "FILE"),
        (["transcribe", "CLIP", "--format", "doc"], "'srt', 'vtt'"),
        (["transcribe", "CLIP", "CLIP2", "--format", "srt"], "--output-dir"),
        (["transcribe", "a.wav", "b/a.wav", "--output-dir", "DIR"], "would both be written"),
        (["transcribe", "CLIP", "--output-dir", "CLIP"], "is a file"),
        (["nonsense"], "nonsense"),
    ],
)
def test_bad_arguments_are_named(arguments, message, clip, tmp_path):
    places = {"CLIP": clip, "CLIP2": f"{clip}2", "DIR": str(tmp_path / "out")}
    result = asr(*[places.get(argument, argument) for argument in arguments])
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "url"),
    [
        ("stream", "nohost"),  # an HTTP address needs no port
        *itertools.product(["stream", "transcribe"], ["x:y", "ftp://host:1"]),
    ],
)
def test_a_bad_address_is_named(command, url, clip):
    result = asr(command, clip, "--url", url)
    assert result.exit_code == 1
    assert url in result.stderr


def test_audio_is_checked_before_a_stream_is_opened(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"hello")
    result = asr("stream", str(tmp_path / "a.wav"), "--url", NOBODY)
    assert "Format not recognised" in result.stderr
    result = asr("stream", "-", "--url", NOBODY, stdin=b"RIFF....WAVE")
    assert "WAV" in result.stderr


def test_missing_files_are_named_and_the_exit_code_is_1():
    result = asr("transcribe", "no/such.wav", "nor/this.wav", "--url", NOBODY)
    assert result.exit_code == 1
    assert "no/such.wav" in result.stderr
    assert "nor/this.wav" in result.stderr


def test_serve_without_the_server_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "asr_server.cli", None)
    result = asr("serve", "--slots", "3")
    assert result.exit_code == 1
    assert "[serve]" in result.stderr
    assert asr("--help").exit_code == 0


def test_the_package_loads_no_grpc_until_it_is_used():
    check = (
        "import sys, asr_client; assert 'grpc' not in sys.modules\n"
        "asr_client.LiveStream; assert 'grpc' in sys.modules\n"
        "for name in asr_client.__all__: getattr(asr_client, name)"
    )
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)
