"""What benchmarks leave behind: JSON of one schema, tables, plots; and what they read."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr_bench import capacity, packets, report, wer
from asr_bench.capacity import summarise
from asr_bench.live_load import LoadResult, LoadSpec, completing_packets, split
from asr_bench.manifests import Utterance, normalise, read_manifest
from asr_bench.plots import plot


def test_report_has_the_schema_and_says_nothing_of_folders(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["asr", "bench", "packets", "--json", "/somewhere/x.json"])
    made = report.make_report("packets", {"checkpoint": Path("/models/demo")}, [{"a": 1}], "how")
    report.save_report(made, tmp_path / "new" / "x.json")
    read = report.read_report(tmp_path / "new" / "x.json")
    assert read == json.loads(json.dumps(made))
    assert tuple(read) == report.KEYS
    assert read["settings"] == {"checkpoint": "demo"}
    assert "/somewhere" not in json.dumps(read)
    assert read["hardware"]["cores"] >= 1
    assert "torch" in read["versions"]


def test_report_of_another_schema_is_refused():
    made = report.make_report("packets", {}, [], "how")
    with pytest.raises(ValueError, match="schema 9 is not known; valid: 1"):
        report.check_report({**made, "schema": 9})
    with pytest.raises(ValueError, match="no rows"):
        report.check_report({k: v for k, v in made.items() if k != "rows"})


@pytest.mark.parametrize(("packet_ms", "latency_ms"), [(80, 80), (320, 320), (20, 320), (20, 1120)])
def test_every_chunk_is_completed_by_one_packet(packet_ms, latency_ms):
    spec = LoadSpec("", 1, latency_ms, packet_ms, duration_s=11.2)
    flags = completing_packets(spec)
    assert len(flags) == spec.num_packets
    assert sum(flags) == 11_200 // latency_ms
    if packet_ms == latency_ms:
        assert all(flags)
    else:  # the model hears 67.5 ms less than whole chunks: 3 packets of 20 ms
        assert flags.index(True) == (latency_ms - 68) // packet_ms


def test_silent_packets_complete_nothing():
    assert not any(completing_packets(LoadSpec("", 1, 80, 80, 2.0, silent=True)))


def test_load_is_split_into_like_shares():
    shares = split(LoadSpec("", 10), 4)
    assert [share.num_streams for share in shares] == [2, 3, 2, 3]
    assert [share.first_stream for share in shares] == [0, 2, 5, 7]
    assert {share.all_streams for share in shares} == {10}
    assert len(split(LoadSpec("", 2), 8)) == 2


def test_capacity_counts_late_missing_and_failed():
    spec = LoadSpec("", 2, latency_ms=320)
    good = LoadResult(chunk_lags_s=[0.1] * 1000, final_lags_s=[0.2, 0.9], send_lags_s=[0.0])
    assert summarise(spec, good)["passes"]
    late = LoadResult(chunk_lags_s=[0.1] * 998 + [0.4] * 2, final_lags_s=[0.2], send_lags_s=[0.0])
    assert summarise(spec, late)["late_share"] == 0.002
    assert not summarise(spec, late)["passes"]
    slow = LoadResult(chunk_lags_s=[0.1] * 1000, final_lags_s=[0.2, 1.1], send_lags_s=[0.0])
    missing = LoadResult(chunk_lags_s=[0.1] * 900, final_lags_s=[0.2], missing=100)
    failed = LoadResult(chunk_lags_s=[0.1], final_lags_s=[0.2], errors=["refused"])
    for result in (slow, missing, failed, LoadResult()):
        assert not summarise(spec, result)["passes"]


def _capacity_report() -> dict:
    result = LoadResult(chunk_lags_s=[0.1, 0.2], final_lags_s=[0.2], send_lags_s=[0.0])
    cores = {
        "tritonserver": 0.1,
        "machine": 0.5,
        "stolen": 0.0,
        "load generator": 0.2,
        "other processes": 0.0,
    }
    row = {"kind": "run", "streams": 2, "duration_s": 1.0, "cores": cores, "disturbed": False}
    row.update(summarise(LoadSpec("", 2), result))
    settings = {"latency_ms": 320, "packet_ms": 20, "dtype": "float32", "c120": 2}
    return report.make_report("capacity", settings, [row], "how")


def test_tables_and_plots_are_made_from_reports(tmp_path, capsys):
    made = _capacity_report()
    table = capacity.table(made)
    table.print()
    assert "C120 = 2" in capsys.readouterr().out
    lines = table.markdown().splitlines()
    assert len({line.count("|") for line in lines[2:]}) == 1
    plot(made, tmp_path / "capacity.png")
    assert (tmp_path / "capacity.png").stat().st_size > 1000
    row = {"case": "0 samples", "packets": 9, "packets_per_s": 1.0, "server_ms": 0.1,
           "python_ms": 0.2, "generator_ms": 0.3}  # fmt: skip
    packets.table(report.make_report("packets", {}, [row], "how")).print()
    plot(report.make_report("packets", {}, [row], "how"), tmp_path / "packets.png")
    assert not (tmp_path / "packets.png").exists(), "nothing to draw"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World! <en-US>", "hello world"),
        ("It\u2019s 'quoted' -- Rock-n-roll.", "it's quoted rock n roll"),
        ("\u00dcBER Stra\u00dfe, caf\u00e9", "\u00fcber strasse caf\u00e9"),
        ("\u043f\u0440\u0438, 12.5 %", "\u043f\u0440\u0438 12 5"),
        ("...", ""),
    ],
)  # fmt: skip
def test_normaliser(text, expected):
    assert normalise(text) == expected


def test_manifests_of_files_and_of_pcm(tmp_path):
    pcm = np.arange(3000, dtype="<i2")
    pcm.tofile(tmp_path / "spoken.pcm")
    rows = [{"text": "One two.", "language": "de-DE", "start": 1000, "num_samples": 500},
            {"text": "...", "language": "de-DE", "start": 0, "num_samples": 500}]  # fmt: skip
    (tmp_path / "spoken.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (only,) = read_manifest(tmp_path / "spoken.jsonl")  # the other has no words
    assert (only.set_name, only.language) == ("spoken", "de-DE")
    assert np.array_equal(only.samples(), pcm[1000:1500])
    assert only.duration_s() == 500 / 16_000

    soundfile.write(tmp_path / "a.flac", pcm, 16_000)
    (tmp_path / "files.jsonl").write_text(json.dumps({"text": "Yes", "audio": "a.flac"}))
    (file,) = read_manifest(tmp_path / "files.jsonl")
    assert (file.language, len(file.samples())) == ("en-US", 3000)


def test_manifest_of_a_folder_and_a_limit(samples):
    clips = read_manifest(samples[0].parent)
    assert {clip.path for clip in clips} == set(samples)
    assert len(read_manifest(samples[0].parent, limit=2)) == 2


def test_score_counts_words_and_languages(tmp_path):
    said = [Utterance("s", "one two three four", "en-US", tmp_path, 0, 16_000),
            Utterance("s", "five six", "en-GB", tmp_path, 0, 16_000)]  # fmt: skip
    heard = [wer.Heard("One three four. Five", "en-US"), wer.Heard("five six", "de-DE")]
    scores = wer.score(said, heard)
    assert (scores["utterances"], scores["words"], scores["seconds"]) == (2, 6, 2.0)
    assert scores["wer"] == pytest.approx(2 / 6, abs=1e-5)
    assert scores["wer_low"] <= scores["wer"] <= scores["wer_high"]
    assert scores["language_accuracy"] == 0.5


def test_ragged_packets_lose_nothing():
    pcm = np.arange(30_000, dtype=np.int16)
    parts = list(wer.ragged(pcm, seed=1))
    assert np.array_equal(np.concatenate(parts), pcm)
    assert len({len(part) for part in parts}) > 1
