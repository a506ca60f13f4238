"""The offline client, against the real server."""

from __future__ import annotations

import httpx
import pytest

from asr_client import InvalidArgument, LiveStream, OfflineClient, ServerUnavailable

from .conftest import PCM, wav

pytestmark = pytest.mark.server


def test_offline_takes_paths_and_bytes_with_options(offline, tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(PCM))
    for audio in (tmp_path / "a.wav", str(tmp_path / "a.wav"), wav(PCM)):
        transcript = offline.transcribe(audio, language="de-DE", latency_ms=560)
        assert transcript.text == "2005 ms, de-DE, 560"
        assert transcript.audio_processed_ms == 2005
        assert [w.text for w in transcript.words] == transcript.text.split()


@pytest.mark.parametrize(
    ("audio", "reason"),
    [(b"hello", "Format not recognised"), (b"", "empty"), ("no/such.wav", "no/such.wav")],
)
def test_bad_files_are_named(offline, audio, reason):
    with pytest.raises(InvalidArgument, match=reason):
        offline.transcribe(audio)


def test_many_files_each_get_their_own_outcome(offline, tmp_path):
    paths = [tmp_path / f"{i}.wav" for i in range(12)]
    for i, path in enumerate(paths):
        path.write_bytes(b"hello" if i == 5 else wav(PCM[: 1600 * (i + 1)]))
    paths.append(tmp_path / "missing.wav")
    outcomes = dict(offline.transcribe_many(paths, concurrency=5))
    assert outcomes.keys() == set(paths)
    for i, path in enumerate(paths):
        if i in (5, 12):
            assert isinstance(outcomes[path], InvalidArgument)
        else:
            assert outcomes[path].text.startswith(f"{100 * (i + 1)} ms")


def test_no_files_no_outcomes(offline):
    assert list(offline.transcribe_many([])) == []


def test_a_raw_http_post_gives_the_same_as_the_client(server, offline):
    answer = httpx.post(
        f"{server.http_url}/v2/models/asr_offline/infer",
        content=wav(PCM),
        headers={
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": "0",
            "language": "de-DE",
            "latency_ms": "560",
        },
        trust_env=False,
    )
    assert offline.transcribe(wav(PCM), language="de-DE", latency_ms=560).text in answer.text


def test_a_model_that_is_not_there_is_an_unavailable_server(server, monkeypatch):
    monkeypatch.setattr("asr_client.offline.PATH", "/v2/models/nothing/infer")
    monkeypatch.setattr("asr_client.wire.MODEL", "nothing")
    with OfflineClient(server.http_url) as client, pytest.raises(ServerUnavailable):
        client.transcribe(wav(PCM))
    with pytest.raises(ServerUnavailable, match="nothing"):
        LiveStream(server.grpc_address)
