"""The command line's own errors, without a server."""

from __future__ import annotations

import inspect
import itertools
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from asr_client import LiveStream, OfflineClient, wire
from asr_client.cli import main
from nemotron_asr.options import FILE, LIVE, option_table

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
        (["stream", "CLIP", "--latency-ms", "81"], "valid: 80, 160, 320, 560, 1120"),
        (["stream", "-", "--rate", "8001"], "valid: 8000, 11025"),
        (["stream", "-", "--channels", "9"], "valid: 1, 2, 3"),
        (["stream", "-", "--encoding", "opus"], "'alaw'"),
        (["stream", "CLIP", "--rate", "8000"], "not a FILE"),
        (["stream", "--mic", "--encoding", "mulaw"], "stdin"),
        (["stream", "CLIP", "--channel", "1"], "No such option"),
        (["stream", "CLIP", "--unknown"], "--unknown"),
        (["transcribe", "CLIP", "--profanity", "bleep"], "valid: keep, mask"),
        (["transcribe", "CLIP", "--channel", "left"], "valid: mix, 0, 1"),
        (["transcribe", "CLIP", "--rate", "8000"], "No such option"),
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


class Given(Exception):  # noqa: N818
    """Ends a command where the client would connect; its arguments are what was asked for."""


def given(monkeypatch, target: str, *arguments: str, stdin: bytes = b"") -> dict:
    def give(*_args, **options):
        raise Given(options)

    monkeypatch.setattr(target, give)
    result = asr(*arguments, stdin=stdin)
    assert isinstance(result.exception, Given), result.output
    return result.exception.args[0]


TEXT = ("--no-punctuation", "--no-capitals", "--profanity", "mask")
TEXT_OPTIONS = {"punctuation": False, "capitals": False, "profanity": "mask"}


def test_stream_passes_its_options_on(monkeypatch, clip):
    live = "asr_client.stream_command.LiveStream"
    raw = ("stream", "-", "--rate", "8000", "--channels", "2", "--encoding", "alaw", *TEXT)
    options = given(monkeypatch, live, *raw, stdin=b"abcd")
    assert options.items() >= {"sample_rate": 8000, "channels": 2, **TEXT_OPTIONS}.items()
    usual = given(monkeypatch, live, "stream", clip)
    assert wire.unusual(**{name: usual[name] for name in (*TEXT_OPTIONS, "channels")}) == {}
    assert (usual["language"], usual["latency_ms"], usual["endpoint_ms"]) == ("auto", 320, 0)


def test_lists_and_decimals_go_as_text():
    assert wire.unusual(phrases=["\u00c5sa^2"], languages=("de-DE",), boost=2.5) == {
        "phrases": '["\\u00c5sa^2"]',
        "languages": '["de-DE"]',
        "boost": "2.5",
    }
    assert wire.unusual(phrases="", languages="", boost=1) == {}


@pytest.mark.parametrize(
    ("flags", "endpoint_ms"),
    [((), 800), (("--endpoint-ms", "500"), 500), (("--endpoint-ms", "0"), 0)],
)
def test_a_microphone_ends_utterances_by_itself(monkeypatch, flags, endpoint_ms):
    packets = iter([np.zeros(1600, np.int16)])
    monkeypatch.setattr("asr_client.audio.microphone_packets", lambda *_: packets)
    options = given(monkeypatch, "asr_client.stream_command.LiveStream", "stream", "--mic", *flags)
    assert (options["endpoint_ms"], options["reconnect_s"]) == (endpoint_ms, 120)


def test_transcribe_passes_its_options_on(monkeypatch, clip):
    target = "asr_client.transcribe_command.OfflineClient.transcribe_many"
    options = given(monkeypatch, target, "transcribe", clip, "--channel", "1", *TEXT)
    assert options.items() >= {"channel": 1, "latency_ms": 1120, **TEXT_OPTIONS}.items()


@pytest.mark.parametrize(
    ("of", "command", "call"),
    [(LIVE, "stream", LiveStream), (FILE, "transcribe", OfflineClient.transcribe)],
)
def test_every_option_of_the_server_is_a_flag_and_an_argument(of, command, call):
    text = asr(command, "--help").output
    for option in option_table(("auto",), (320,)).values():
        flag = {"sample_rate": "rate"}.get(option.name, option.name).replace("_", "-")
        assert (f"--{flag} " in text) == (of in option.of)
        assert (option.name in inspect.signature(call).parameters) == (of in option.of)


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
