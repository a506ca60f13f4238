"""Rows to records in one process: what the library says, for every file that can be read."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from asr_batch.manifest import Manifest
from asr_batch.settings import WorkerSettings
from asr_batch.transcriber import Transcriber
from nemotron_asr import AsrError, CheckpointError
from nemotron_asr.audio import decode_audio

RATE = 16_000


@pytest.fixture(scope="module")
def settings(checkpoints):
    return WorkerSettings(str(checkpoints("tiny")), device="cpu", words=True, readers=3)


@pytest.fixture(scope="module")
def transcriber(settings):
    return Transcriber(settings)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Twenty-three noises of many lengths, two channels, in a folder."""
    folder = tmp_path_factory.mktemp("clips")
    random = np.random.default_rng(3)
    for i in range(23):
        length = int(random.integers(0, 6 * RATE)) if i else 0
        noise = random.normal(0, 0.1 + 0.05 * (i % 3), (length, 2))
        soundfile.write(folder / f"{i}.wav", noise, RATE)
    return folder


def records_of(transcriber, folder, rows) -> dict[str, dict]:
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = Manifest(str(path))
    ids = manifest.scan()
    found = [one for some in transcriber.run(manifest.rows(ids, ids == ids)) for one in some]
    assert sorted(index for index, _ in found) == list(range(len(rows)))
    return {record["id"]: record for _, record in found}


def spans(segments: list[dict] | None):
    """Confidences are rounded to a digit that depends on the batch."""
    return segments and [(one["text"], one["start_ms"], one["end_ms"]) for one in segments]


def test_records_are_what_the_library_says(transcriber, clips):
    """Neighbours in a batch, their lengths and their options change nothing."""
    kinds = [
        {},
        {"language": transcriber.recognizer.languages[1]},
        {"latency_ms": 80},
        {"endpoint_ms": 200},
    ]
    rows = [
        {"audio": f"{i}.wav", "id": f"{i} {k}", **kind}
        for i in range(23)
        for k, kind in enumerate(kinds)
    ]
    records = records_of(transcriber, clips, rows)
    texts = set()
    for row in rows:
        samples = decode_audio((clips / row["audio"]).read_bytes())
        options = {name: value for name, value in row.items() if name not in ("id", "audio")}
        (expected,) = transcriber.recognizer.transcribe([samples], **options)
        record = records[row["id"]]
        assert record["error"] is None
        assert record["text"] == expected.text
        assert record["language"] == expected.language
        assert record["duration_s"] == round(len(samples) / RATE, 3)
        assert spans(record["segments"]) == spans(expected.as_dict().get("segments"))
        times = [(word["text"], word["start_ms"], word["end_ms"]) for word in record["words"]]
        assert times == [word[:3] for word in expected.words]
        texts.add(record["text"])
    assert len(texts) > 20


def test_options_of_the_run_and_of_the_row(settings, clips):
    given = {"capitals": False, "latency_ms": 560, "channel": 1}
    transcriber = Transcriber(WorkerSettings(settings.checkpoint, device="cpu", options=given))
    rows = [{"audio": "9.wav"}, {"audio": "9.wav", "id": "own", "capitals": True, "channel": "mix"}]
    records = records_of(transcriber, clips, rows)
    data, recognizer = (clips / "9.wav").read_bytes(), transcriber.recognizer
    (run,) = recognizer.transcribe([decode_audio(data, channel=1)], latency_ms=560)
    (own,) = recognizer.transcribe([decode_audio(data)], latency_ms=560)
    assert run.text.lower() != own.text.lower()
    assert records["9.wav"]["text"] == run.text.lower()
    assert records["own"]["text"] == own.text
    assert records["own"]["words"] is None


def test_bad_rows_have_their_reason_and_harm_no_other(transcriber, clips):
    (clips / "text.wav").write_text("no audio")
    (clips / "empty.wav").touch()
    rows = [
        {"audio": "none.wav"},
        {"audio": "text.wav"},
        {"audio": "empty.wav"},
        {"audio": "1.wav", "id": "language", "language": "xx-XX"},
        {"audio": "1.wav", "id": "latency", "latency_ms": 81},
        {"audio": "1.wav", "id": "channel", "channel": 5},
        {"audio": "1.wav", "id": "languages", "languages": "yy"},
        {"audio": "1.wav", "id": "phrases", "phrases": "☃ snowman"},
        {"audio": "1.wav", "id": "fine"},
        {"audio": "2.wav"},
    ]
    records = records_of(transcriber, clips, rows)
    codes = {name: (record["error"] or {}).get("code") for name, record in records.items()}
    assert codes.pop("none.wav") == "NOT_FOUND"
    assert codes.pop("fine") is None
    assert codes.pop("2.wav") is None
    assert set(codes.values()) == {"INVALID_ARGUMENT"}
    said = {name: record["error"]["message"] for name, record in records.items() if record["error"]}
    assert said["language"].startswith("language 'xx-XX' is not supported; valid: ")
    assert said["latency"].startswith("latency_ms 81 is not supported; valid: 80, ")
    assert "no channel 5; valid: mix, 0, 1" in said["channel"]
    assert "☃" in said["phrases"]
    for name, record in records.items():
        if name in said:
            assert (record["text"], record["words"], record["duration_s"]) == (None, None, None)


def test_a_recording_that_the_model_fails_on_is_alone_with_it(transcriber, clips, monkeypatch):
    """As where a GPU has no room for the longest: its neighbours are tried without it."""
    calls = []

    def transcribe(batch):
        calls.append(len(batch))
        if any(one.row.id == "7.wav" for one in batch):
            raise RuntimeError("out of memory")
        return works(batch)

    works = transcriber._transcribe
    monkeypatch.setattr(transcriber, "_transcribe", transcribe)
    records = records_of(transcriber, clips, [{"audio": f"{i}.wav"} for i in range(1, 12)])
    failed = {name: record["error"] for name, record in records.items() if record["error"]}
    assert failed == {
        "7.wav": {"code": "INTERNAL", "message": "RuntimeError: out of memory"},
    }
    assert max(calls) > 1


def test_an_error_after_which_a_gpu_is_of_no_more_use_is_no_record(transcriber, clips, monkeypatch):
    def transcribe(_batch):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(transcriber, "_transcribe", transcribe)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        records_of(transcriber, clips, [{"audio": f"{i}.wav"} for i in range(1, 4)])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"language": "xx-XX"}, "language 'xx-XX' is not supported; valid: "),
        ({"phrases": "☃"}, "☃"),
        ({"languages": "de-DE", "language": "en-US"}, "is not among languages"),
    ],
)
def test_options_that_no_recording_can_have_end_it_at_once(checkpoints, options, reason):
    with pytest.raises(AsrError, match=reason):
        Transcriber(WorkerSettings(str(checkpoints("tiny")), device="cpu", options=options))


def test_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        Transcriber(WorkerSettings(str(tmp_path / "none"), device="cpu"))
