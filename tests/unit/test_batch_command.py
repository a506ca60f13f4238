"""`asr batch`'s own part: what is written of what workers say, what it says, and usage errors."""

from __future__ import annotations

import io
import json
import signal
import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner
from rich.console import Console

from asr_batch.command import MAX_FAILURES, Stopped, run, stoppable
from asr_batch.errors import BatchError
from asr_batch.manifest import Manifest, Row
from asr_batch.progress import LINE_EVERY_S, Report
from asr_batch.records import failed
from asr_batch.settings import WorkerSettings
from asr_client.cli import main
from nemotron_asr.errors import NOT_FOUND, UNAVAILABLE, AsrError, invalid

SETTINGS = WorkerSettings("checkpoints/demo")


class Workers:
    """Says of the rows what a test wants.  times: id -> how many times its record comes."""

    def __init__(self, times, error=None):
        self._times = times
        self._error = error
        self.rows = []

    def __call__(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        pass

    def run(self, rows, _num_rows):
        for row in rows:
            self.rows.append(row.id)
            for number in range(self._times(row.id)):
                yield row.index, failed(row, self._error or invalid(f"time {number}"))


@pytest.fixture
def manifest(tmp_path):
    (tmp_path / "m.txt").write_text("".join(f"{name}\n" for name in "abcdef"))
    return Manifest(str(tmp_path / "m.txt"))


def records_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_record_that_comes_twice_is_written_once(manifest, tmp_path):
    run(manifest, tmp_path / "o.jsonl", SETTINGS, Workers(lambda _: 3))
    records = records_of(tmp_path / "o.jsonl")
    assert [one["id"] for one in records] == list("abcdef")
    assert {one["error"]["message"] for one in records} == {"time 0"}


def test_rows_without_a_record_fail_the_run_and_are_done_by_the_next(manifest, tmp_path):
    path = tmp_path / "o.jsonl"
    with pytest.raises(BatchError, match="2 rows have no record"):
        run(manifest, path, SETTINGS, Workers(lambda name: name not in "be"))
    workers = Workers(lambda _: 1)
    run(manifest, path, SETTINGS, workers)
    assert workers.rows == ["b", "e"]
    assert sorted(one["id"] for one in records_of(path)) == list("abcdef")


def test_a_manifest_that_grew_or_was_shuffled_goes_on(manifest, tmp_path):
    run(manifest, tmp_path / "o.jsonl", SETTINGS, Workers(lambda _: 1))
    (tmp_path / "m.txt").write_text("new\nc\na\n")
    workers = Workers(lambda _: 1)
    run(manifest, tmp_path / "o.jsonl", SETTINGS, workers)
    assert workers.rows == ["new"]


def test_the_same_names_in_another_folder_are_other_files(manifest, tmp_path):
    run(manifest, tmp_path / "o.jsonl", SETTINGS, Workers(lambda _: 1))
    other = tmp_path / "other" / "m.txt"
    other.parent.mkdir()
    other.write_text("a\n")
    with pytest.raises(BatchError, match=r"made with manifest_folder '.*', not '.*other'"):
        run(Manifest(str(other)), tmp_path / "o.jsonl", SETTINGS, None)


def test_another_list_of_words_is_another_run(manifest, tmp_path):
    words = tmp_path / "words.txt"
    settings = replace(SETTINGS, profanity_file=str(words))
    with pytest.raises(BatchError, match=r"words.txt: No such file"):
        run(manifest, tmp_path / "o.jsonl", settings, None)
    words.write_text("darn\n")
    run(manifest, tmp_path / "o.jsonl", settings, Workers(lambda _: 1))
    words.write_text("heck\n")
    with pytest.raises(BatchError, match="made with profanity_sha256"):
        run(manifest, tmp_path / "o.jsonl", settings, None)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("CUDA"), "INTERNAL, the last '{last}': RuntimeError: CUDA"),
        (AsrError(UNAVAILABLE, "expired"), "UNAVAILABLE, the last '{last}': expired"),
        (AsrError(NOT_FOUND, "unmounted"), "NOT_FOUND, the last '{last}': unmounted"),
    ],
)
def test_many_failures_in_a_row_end_the_run_and_are_tried_again(tmp_path, error, said):
    (tmp_path / "m.txt").write_text("".join(f"{i}\n" for i in range(3 * MAX_FAILURES)))
    manifest, path = Manifest(str(tmp_path / "m.txt")), tmp_path / "o.jsonl"
    said = f"{MAX_FAILURES} files in a row failed, {said.format(last=MAX_FAILURES - 1)}"
    for _ in range(2):
        with pytest.raises(BatchError, match=said):
            run(manifest, path, SETTINGS, Workers(lambda _: 1, error))
        assert not path.exists()
    run(manifest, path, SETTINGS, Workers(lambda _: 1))  # files that are none are no such failure
    assert len(records_of(path)) == 3 * MAX_FAILURES


@pytest.mark.parametrize("max_failures", [0, 7])
def test_files_that_are_gone_get_their_record(manifest, tmp_path, max_failures):
    """Where they are fewer, or as many as may be."""
    workers = Workers(lambda _: 1, AsrError(NOT_FOUND, "no such file"))
    run(manifest, tmp_path / "o.jsonl", SETTINGS, workers, max_failures)
    assert [one["id"] for one in records_of(tmp_path / "o.jsonl")] == list("abcdef")


def test_failures_are_counted_anew_after_one_that_is_none(manifest, tmp_path):
    class Mixed(Workers):
        def run(self, rows, _num_rows):
            for row in rows:
                gone = AsrError(NOT_FOUND, "gone")
                yield row.index, failed(row, invalid("no audio") if row.id == "c" else gone)

    with pytest.raises(BatchError, match="3 files in a row failed, NOT_FOUND, the last 'f'"):
        run(manifest, tmp_path / "o.jsonl", SETTINGS, Mixed(None), max_failures=3)
    assert [one["id"] for one in records_of(tmp_path / "o.jsonl")] == ["a", "b", "c"]


def test_nothing_to_do_starts_nobody(manifest, tmp_path):
    run(manifest, tmp_path / "o.jsonl", SETTINGS, Workers(lambda _: 1))
    run(manifest, tmp_path / "o.jsonl", SETTINGS, None)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_and_their_handlers_come_back(number):
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as stopped, stoppable():
        signal.raise_signal(number)
    assert stopped.value.number == number
    assert signal.getsignal(number) is before


def test_lines_of_progress_and_a_summary():
    out, now = io.StringIO(), [0.0]
    console = Console(file=out, force_terminal=False, width=200)
    with Report(100, 10, console, clock=lambda: now[0]) as report:
        for error in (None, None, {"code": "NOT_FOUND", "message": "gone"}):
            now[0] += LINE_EVERY_S / 2
            report.add({"error": error, "duration_s": None if error else 1800.0})
    assert out.getvalue() == (
        "12 of 100 files, 1.000 h of audio, 60.0 times real time, 0 failed, 2640 s left\n"
    )
    assert report.summary() == (
        "3 files in 90.0 s, 1.000 h of audio, 40.0 times real time, 1 failed; 10 were done before"
    )


def test_failures_nobody_expected_have_a_code():
    row = Row(0, "a", "a", "/a", {})
    assert failed(row, KeyError("x"))["error"] == {"code": "INTERNAL", "message": "KeyError: 'x'"}
    error = AsrError("UNAVAILABLE", "UNAVAILABLE: twice")
    assert failed(row, error)["error"]["message"] == "UNAVAILABLE: twice"


def test_what_is_no_text_in_an_error_can_be_written(manifest, tmp_path):
    reason = b"caf\xe9".decode(errors="surrogateescape")  # so HTTP's may come
    run(manifest, tmp_path / "o.jsonl", SETTINGS, Workers(lambda _: 1, invalid(reason)))
    messages = {one["error"]["message"] for one in records_of(tmp_path / "o.jsonl")}
    assert messages == {"caf?"}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "MANIFEST"),
        (["m.txt"], "--output"),
        (["m.txt", "-o", "o.csv"], "valid: a name in .jsonl or .parquet"),
        (["none.txt", "-o", "o.jsonl"], "cannot read the manifest none.txt"),
        (["m.txt", "-o", "o.jsonl", "--latency-ms", "81"], "valid: 80, 160"),
        (["m.txt", "-o", "o.jsonl", "--rate", "8000"], "No such option"),
        (["m.txt", "-o", "o.jsonl", "--workers", "0"], "--workers"),
        (["m.txt", "-o", "o.jsonl", "--device", "tpu"], "tpu"),
    ],
)
def test_usage(arguments, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.txt").write_text("a.wav\n")
    result = CliRunner().invoke(main, ["batch", *arguments])
    assert result.exit_code in (1, 2)
    assert reason in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("module", "arguments", "hint"),
    [
        ("ray", ["--ray=auto"], "[ray]"),
        ("pyarrow.parquet", [], "[batch]"),
    ],
)
def test_extras_that_are_missing(module, arguments, hint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "asr_batch.ray_runner", raising=False)
    (tmp_path / "m.txt").write_text("a.wav\n")
    files = [str(tmp_path / "m.txt"), "-o", str(tmp_path / "o.parquet")]
    if module == "ray":
        files[-1] = str(tmp_path / "o.jsonl")
    result = CliRunner().invoke(main, ["batch", *files, *arguments])
    assert result.exit_code == 1
    assert f'pip install -e ".{hint}"' in result.output
