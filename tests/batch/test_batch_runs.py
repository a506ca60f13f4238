"""`asr batch` on one machine: killed, stopped, and with files that kill."""

from __future__ import annotations

import json
import os
import signal

import psutil
import pyarrow.parquet as pq
import pytest

from batch.conftest import records_of

SLOWLY = ("--window-s", "6", "--readers", "1")  # batches of one or two clips


def check(clips, records, bad=()) -> None:
    """Exactly one record of every clip, with the library's text."""
    assert sorted(one["id"] for one in records) == sorted([*clips.texts, *bad])
    texts = {one["id"]: one["text"] for one in records if one["error"] is None}
    assert texts == clips.texts


def test_a_manifest_with_bad_files(clips, start, tmp_path):
    (clips.folder / "text.txt").write_text("no audio")
    manifest = clips.manifest("bad.jsonl", "none.wav", "text.txt")
    code, said = start(manifest, "-o", tmp_path / "o.jsonl", "--words").finish()
    assert code == 0, said
    total = len(clips.texts) + 2
    assert f"{total} files in " in said
    assert "times real time, 2 failed" in said
    records = records_of(tmp_path / "o.jsonl")
    check(clips, records, bad=("none.wav", "text.txt"))
    errors = {one["id"]: one["error"]["code"] for one in records if one["error"]}
    assert errors == {"none.wav": "NOT_FOUND", "text.txt": "INVALID_ARGUMENT"}
    assert any(one["words"] for one in records)
    code, said = start(manifest, "-o", tmp_path / "o.jsonl", "--words").finish()
    assert code == 0
    assert f"0 files in 0.0 s, 0.000 h of audio, 0.0 times real time, 0 failed; {total} " in said


@pytest.mark.parametrize("name", ["o.jsonl", "o.parquet"])
def test_killed_midway_and_resumed(clips, gate, start, tmp_path, name):
    manifest, output = clips.manifest("held.jsonl", gate=gate.url), tmp_path / name
    lines = output / "_pending.jsonl" if name == "o.parquet" else output
    arguments = (manifest, "-o", output, "--workers", "2", *SLOWLY)
    run = start(*arguments)
    run.wait_for_records(lines, 5)
    workers = run.children()
    run.process.send_signal(signal.SIGKILL)
    run.finish()
    gone, alive = psutil.wait_procs(workers, timeout=60)
    assert len(gone) == 2
    assert not alive, "workers outlive the run"
    done = lines.read_bytes().count(b"\n")
    assert 5 <= done < len(clips.texts)
    with lines.open("ab") as file:
        file.write(b'{"id": "pico_us-0.flac", "te')  # and the kill was in the middle of a line
    gate.open()
    code, said = start(*arguments).finish()
    assert code == 0, said
    assert f"{done} were done before" in said
    records = records_of(output) if name == "o.jsonl" else pq.read_table(output).to_pylist()
    check(clips, records)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_and_resumed(clips, gate, start, tmp_path, number, code):
    """By a signal to every process, as a terminal and init systems send it."""
    manifest = clips.manifest("held.jsonl", gate=gate.url)
    arguments = (manifest, "-o", tmp_path / "o.jsonl", *SLOWLY)
    run = start(*arguments)
    run.wait_for_records(tmp_path / "o.jsonl", 2)
    workers = run.children()
    os.killpg(run.process.pid, number)
    ended, said = run.finish()
    assert ended == code
    assert said.endswith("stopped; the same command goes on from here\n")
    assert "Traceback" not in said
    assert "times real time" in said
    assert "died" not in said
    assert not psutil.wait_procs(workers, timeout=60)[1]
    done = len(records_of(tmp_path / "o.jsonl"))
    assert done < len(clips.texts)
    gate.open()
    assert start(*arguments).finish()[0] == 0
    check(clips, records_of(tmp_path / "o.jsonl"))


def test_a_worker_killed_midway(clips, gate, start, tmp_path):
    manifest = clips.manifest("held.jsonl", gate=gate.url)
    run = start(manifest, "-o", tmp_path / "o.jsonl", "--workers", "2", *SLOWLY)
    run.wait_for_records(tmp_path / "o.jsonl", 4)
    run.children()[0].kill()
    gate.open()
    code, said = run.finish()
    assert code == 0, said
    assert "died of signal 9" in said
    check(clips, records_of(tmp_path / "o.jsonl"))


def test_a_file_that_kills_its_reader_is_recorded_and_no_other(clips, start, killer, tmp_path):
    manifest = clips.folder / "killers.jsonl"
    names = list(clips.texts)
    names[3:3] = ["killer://a"]
    names[9:9] = ["killer://b"]
    manifest.write_text("".join(json.dumps({"audio": one}) + "\n" for one in names))
    code, said = start(manifest, "-o", tmp_path / "o.jsonl", env=killer).finish()
    assert code == 0, said
    records = records_of(tmp_path / "o.jsonl")
    check(clips, records, bad=("killer://a", "killer://b"))
    message = "the process died of signal 9 each time it had this file"
    assert {one["id"]: one["error"] for one in records if one["error"]} == {
        name: {"code": "INTERNAL", "message": message} for name in ("killer://a", "killer://b")
    }


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--checkpoint", "no/such"), "no such checkpoint directory or .nemo file"),
        (("--language", "xx-XX"), "INVALID_ARGUMENT: language 'xx-XX' is not supported; valid: "),
    ],
)
def test_what_no_file_can_have_fails_the_run(clips, start, tmp_path, arguments, reason):
    manifest, output = clips.manifest("all.jsonl"), tmp_path / "o.jsonl"
    code, said = start(manifest, "-o", output, *arguments).finish()
    assert code == 1
    assert reason in said
    assert not output.exists()
