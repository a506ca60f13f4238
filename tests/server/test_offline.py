"""Files on the real server: the ensemble gives the library's result, errors reach the right one."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import soundfile
from safetensors.torch import load_file, save_file

from asr_client import OfflineClient
from asr_client.errors import InvalidArgument
from asr_server.errors import ServerError
from asr_server.launcher import TritonServer
from nemotron_asr.audio import decode_audio
from server.conftest import pcm, settings_for, wav

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def client(served):
    with OfflineClient(served.server.http_url) as client:
        yield client


def test_the_ensemble_gives_the_library_s_result(served, client):
    for i, length in enumerate((0, 100, 1000, 50_077, 200_000)):
        audio = pcm(length, seed=i)
        for language, latency_ms in (("auto", 1120), ("de-DE", 80)):
            got = client.transcribe(wav(audio), language=language, latency_ms=latency_ms)
            expected = served.expected(audio, language, latency_ms)
            assert got.text == expected.text
            assert got.language == expected.language
            times = [(w.text, w.start_ms, w.end_ms) for w in got.words]
            assert times == [(w.text, w.start_ms, w.end_ms) for w in expected.words]


def test_a_file_s_utterances_are_parted_at_pauses(served, client):
    audio = pcm(200_000, seed=3)
    got = client.transcribe(wav(audio), language="de-DE", endpoint_ms=240)
    assert got.text == served.expected(audio, "de-DE", 1120).text
    assert len(got.segments) > 1
    assert sum((segment.words for segment in got.segments), ()) == got.words
    for before, after in itertools.pairwise(got.segments):
        assert after.start_ms - before.end_ms >= 240
    assert not client.transcribe(wav(audio), language="de-DE").segments


def test_many_files_at_once_with_different_options(served, client):
    jobs = [(pcm(4000 * i, seed=i), ["auto", "fr-FR"][i % 2], [320, 560][i % 3 == 0])
            for i in range(24)]  # fmt: skip
    with ThreadPoolExecutor(12) as pool:
        got = list(
            pool.map(lambda j: client.transcribe(wav(j[0]), language=j[1], latency_ms=j[2]), jobs)
        )
    assert [g.text for g in got] == [served.expected(*job).text for job in jobs]


@pytest.mark.parametrize("format", ["FLAC", "OGG", "MP3"])
def test_other_formats_and_rates(served, client, format):
    out = io.BytesIO()
    stereo = np.repeat(pcm(100_000, 3)[:, None], 2, axis=1)
    soundfile.write(out, stereo, 44100, format=format)
    data = out.getvalue()
    expected = served.recognizer.transcribe([decode_audio(data)])[0]
    assert client.transcribe(data, latency_ms=1120).text == expected.text


def test_curl_alone_transcribes_a_file(served, tmp_path):
    audio = pcm(60_000, seed=2)
    (tmp_path / "f.wav").write_bytes(wav(audio))
    answer = subprocess.run(
        ["curl", "--silent", "--data-binary", f"@{tmp_path / 'f.wav'}",
         "-H", "Content-Type: application/octet-stream",
         "-H", "Inference-Header-Content-Length: 0", "-H", "language: de-DE",
         f"{served.server.http_url}/v2/models/asr_offline/infer"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    expected = served.expected(audio, "de-DE", 1120)
    assert expected.text
    assert expected.text.encode() in answer
    assert json.dumps(expected.as_dict()["text"]).encode() in answer


def test_errors_name_the_value_and_harm_no_neighbour(served, client):
    nan = np.zeros(16_000, np.float32)
    nan[8000] = np.nan
    out = io.BytesIO()
    soundfile.write(out, nan, 16000, format="WAV", subtype="FLOAT")
    bad = [
        ((b"MZ this is no audio", {}), "cannot read the audio"),
        ((b"", {}), "empty"),
        ((wav(pcm(9000, 1))[:20], {}), "cannot read the audio"),
        ((out.getvalue(), {}), "not a finite number at 0.500 s"),
        ((wav(pcm(9000, 1)), {"language": "xx"}), "language 'xx' is not supported; valid: auto"),
        ((wav(pcm(9000, 1)), {"latency_ms": 7}), "is not supported; valid: 80, 160"),
    ]
    audio = pcm(70_000, seed=4)

    def run(job):
        (data, options), _ = job
        try:
            return client.transcribe(data, **options).text
        except InvalidArgument as error:
            return str(error)

    jobs = [job for pair in zip(bad, [((wav(audio), {}), None)] * 6, strict=True) for job in pair]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(run, jobs))
    good = served.expected(audio, latency_ms=1120).text
    for (_, words), answer in zip(jobs, answers, strict=True):
        assert (answer == good) if words is None else (words in answer), (words, answer)


def test_clipped_silent_and_long_audio(served, client):
    loud = np.where(pcm(80_000, 5) > 0, 32767, -32768).astype(np.int16)
    silence = np.zeros(16_000 * 60, np.int16)
    long = np.tile(pcm(160_000, 6), 12)  # two minutes
    for audio in (loud, silence, long):
        expected = served.expected(audio, latency_ms=1120).text
        assert client.transcribe(wav(audio), latency_ms=1120).text == expected


def test_two_files_in_one_request_are_refused(served):
    body = {"inputs": [{"name": "AUDIO", "shape": [2, 1], "datatype": "BYTES", "data": ["a", "b"]}]}
    url = f"{served.server.http_url}/v2/models/asr_offline/infer"
    answer = httpx.post(url, json=body)
    assert "INVALID_ARGUMENT: AUDIO has 2 files; valid: 1 a request" in answer.text


def test_administrative_endpoints_are_closed(served):
    base = served.server.http_url
    assert httpx.get(f"{base}/v2/health/ready").status_code == 200
    assert httpx.get(f"{base}/v2/models/asr_streaming").status_code == 200
    for path in ("v2/models/asr_streaming/config", "v2/models/stats", "v2/trace/setting"):
        assert httpx.get(f"{base}/{path}").status_code == 403
    assert httpx.post(f"{base}/v2/repository/index").status_code == 403


def test_a_wrong_checkpoint_fails_at_start_by_file_and_key(checkpoints, tmp_path):
    broken = shutil.copytree(checkpoints("tiny"), tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    del tensors["joint.head.bias"]
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(ServerError, match=r"missing tensor 'joint.head.bias'") as caught:
        TritonServer(settings_for(broken)).start()
    assert "broken/model.safetensors" in str(caught.value)
