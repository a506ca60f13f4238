"""What the clients read out of the real models' answers equals what the library says."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from asr_client import LiveStream, OfflineClient
from asr_client.cli import main

from ..conftest import pcm
from .conftest import cut, wav

pytestmark = pytest.mark.server

AUDIO = pcm(16_000 * 4, seed=3)


def as_tuples(words) -> list[tuple[str, int, int]]:
    return [(word.text, word.start_ms, word.end_ms) for word in words]


def test_live_words_and_language(served):
    expected = served.expected(AUDIO)
    with LiveStream(served.server.grpc_address, words=True) as stream:
        stream.feed(cut(AUDIO, 1000))
        transcript = stream.finish()
    assert transcript.text == expected.text
    assert as_tuples(transcript.words) == as_tuples(expected.words)
    assert transcript.language == expected.language
    assert transcript.audio_processed_ms == 4000


def test_offline_words_and_language(served):
    expected = served.expected(AUDIO, "en-US", 560)
    with OfflineClient(served.server.http_url) as client:
        transcript = client.transcribe(wav(AUDIO), language="en-US", latency_ms=560)
    assert transcript.text == expected.text
    assert as_tuples(transcript.words) == as_tuples(expected.words)
    assert transcript.language == expected.language
    assert transcript.audio_processed_ms == 4000


def test_the_commands_agree(served, tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(AUDIO))
    file = str(tmp_path / "a.wav")
    stream = ["stream", file, "--fast", "--url", served.server.grpc_address]
    transcribe = ["transcribe", file, "--latency-ms", "320", "--url", served.server.http_url]
    outputs = [CliRunner().invoke(main, command).stdout for command in (stream, transcribe)]
    assert outputs[0] == outputs[1] == served.expected(AUDIO).text.strip() + "\n"
