"""Two processes for live streams: both serve, each has its slots, killed clients harm nobody."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from asr_client import AtCapacity, LiveStream
from asr_server import SettingsError, TritonServer
from server.conftest import IDLE_TIMEOUT_S, Served, pcm, settings_for

pytestmark = pytest.mark.server
SLOTS = 4


@pytest.fixture(scope="module")
def two(checkpoints, recognizer):
    settings = settings_for(
        checkpoints("tiny"), instances=2, slots=SLOTS, idle_timeout_s=IDLE_TIMEOUT_S
    )
    with TritonServer(settings) as server:
        yield Served(server, recognizer)


def test_streams_land_on_both_and_a_full_server_says_so(two):
    """8 streams at a time need both instances: each has 4 slots."""
    with ThreadPoolExecutor(2 * SLOTS) as pool:
        streams = list(pool.map(lambda _: LiveStream(two.server.grpc_address), range(2 * SLOTS)))
        with pytest.raises(AtCapacity, match=rf"at capacity \({SLOTS}/{SLOTS}\)"):
            LiveStream(two.server.grpc_address)
        audio = [pcm(40_000 + 9000 * i, seed=50 + i) for i in range(2 * SLOTS)]

        def talk(stream, samples):
            with stream:
                for at in range(0, len(samples), 3000):
                    stream.send(samples[at : at + 3000])
                return stream.finish().text

        texts = list(pool.map(talk, streams, audio))
    assert texts == [two.expected(samples).text for samples in audio]
    assert len(set(texts)) > SLOTS


def test_a_killed_client_harms_nobody(two):
    audio = pcm(90_000, seed=70)
    pid = two.server.pid
    script = Path(__file__).parent / "raw.py"
    with LiveStream(two.server.grpc_address) as stream:
        for at in range(0, len(audio), 30_000):
            command = [sys.executable, str(script), two.server.grpc_address]
            client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert client.stdout.readline() == "in flight\n"
            stream.send(audio[at : at + 30_000])
            client.send_signal(signal.SIGKILL)
            client.wait()
            client.stdout.close()
        assert stream.finish().text == two.expected(audio).text
    assert two.server.pid == pid
    assert two.server.trouble() is None


def test_each_instance_is_a_process(two):
    commands = [p.cmdline() for p in psutil.Process(two.server.pid).children()]
    models = [Path(c[1]).parts[-3] for c in commands if len(c) > 1]
    assert models.count("asr_streaming") == 2
    assert models.count("encoder") == 1


def test_a_repository_without_live_streams_is_refused(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.pbtxt").write_text('name: "other"')
    settings = replace(settings_for(tmp_path, instances=2), model_repository=tmp_path)
    with pytest.raises(SettingsError, match=r"instances 2: no model asr_streaming in .*valid: 1"):
        TritonServer(settings).start()
