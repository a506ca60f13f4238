"""The demo as a newcomer runs it, and the bundled model behind the real server."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from asr_client import LiveStream, OfflineClient
from asr_client.audio import file_packets
from conftest import ROOT
from nemotron_asr import load_checkpoint
from server.conftest import wav

pytestmark = pytest.mark.server


@pytest.mark.parametrize("clip", [None, -1])
def test_the_demo_streams_compares_and_stops(samples, clip):
    """With its own recording, and with another held-out one in its place."""
    command = [sys.executable, str(ROOT / "scripts" / "demo.py"), "--fast"]
    if clip is not None:
        command.append(str(samples[clip]))
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "live and offline agree" in done.stdout
    assert re.search(r"word error rate \d+\.\d%", done.stdout)
    assert "server stopped" in done.stdout


def test_a_missing_recording_is_named(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "demo.py"), str(tmp_path / "nope.wav")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "nope.wav" in done.stderr


def test_speech_behind_an_hour_of_silence(demo_server, demo_checkpoint, samples):
    """115 MB of WAV through HTTP, shared memory and all three steps of the ensemble."""
    speech, _ = soundfile.read(samples[0], dtype="int16")
    audio = np.concatenate([np.zeros(3600 * 16_000 - len(speech), np.int16), speech])
    with OfflineClient(demo_server.http_url, timeout_s=500) as client:
        got = client.transcribe(wav(audio))
    expected = load_checkpoint(demo_checkpoint).transcribe([audio])[0]
    assert got.text == expected.text
    assert got.audio_processed_ms == 3_600_000
    assert got.words[-1].end_ms > 3_590_000


def test_every_sample_live_offline_and_by_the_library(demo_server, demo_checkpoint, samples):
    recognizer = load_checkpoint(demo_checkpoint)
    with OfflineClient(demo_server.http_url) as client:
        for clip in samples:
            with LiveStream(demo_server.grpc_address, latency_ms=560) as stream:
                stream.feed(file_packets(clip, 70))
                live = stream.finish()
            offline = client.transcribe(clip, latency_ms=560)
            audio, _ = soundfile.read(clip, dtype="float32")
            expected = recognizer.transcribe([audio], latency_ms=560)[0]
            assert live.text == offline.text == expected.text
            assert live.language == offline.language == expected.language
            assert expected.language in ("en-US", "en-GB")
