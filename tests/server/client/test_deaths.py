"""Servers that die under a client."""

from __future__ import annotations

import os
import signal
import time

import pytest

from asr_client import LiveStream, OfflineClient, ServerUnavailable, Transcript
from asr_server.launcher import TritonServer

from .conftest import PCM, settings, wav

pytestmark = pytest.mark.server


def test_a_model_that_dies_is_an_error_in_time():
    with (
        TritonServer(settings()) as dying,
        LiveStream(dying.grpc_address, language="crash", timeout_s=5, reconnect_s=0) as stream,
    ):
        begin_s = time.monotonic()
        stream.send(PCM)
        with pytest.raises(ServerUnavailable):  # Triton itself goes on and answers nothing
            stream.finish()
        assert time.monotonic() - begin_s < 8


def test_a_server_that_dies_is_an_error_at_once():
    with TritonServer(settings()) as dying, OfflineClient(dying.http_url) as client:
        assert isinstance(client.transcribe(wav(PCM)), Transcript)
        stream = LiveStream(dying.grpc_address, reconnect_s=0)
        stream.send(PCM[:5120])
        assert next(stream.results()).text
        os.kill(dying.pid, signal.SIGKILL)
        begin_s = time.monotonic()
        with pytest.raises(ServerUnavailable, match=r"lost the connection to 127\.0\.0\.1"):
            list(stream.results())
        stream.close()
        with pytest.raises(ServerUnavailable, match="connect"):
            client.transcribe(wav(PCM))
        with pytest.raises(ServerUnavailable, match="cannot connect to"):
            LiveStream(dying.grpc_address)
        assert time.monotonic() - begin_s < 8
