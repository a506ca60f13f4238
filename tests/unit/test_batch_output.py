"""Outputs of batches: a cut anywhere, and what a next run finds."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_batch.errors import BatchError
from asr_batch.manifest import Row
from asr_batch.output import Lines, Output, Parts
from asr_batch.records import failed
from nemotron_asr.errors import invalid

RUN = {"checkpoint": "demo", "options": {}}
NAMES = ("a.wav", "größer/ä\u2028.flac", "", "c" * 300, "d\ne")  # lines end with \n alone


def record(name: str) -> dict:
    return failed(Row(0, name, name, name, {}), invalid(f"{name} is no audio"))


def write_all(store, names) -> None:
    done = set(store.done())
    for name in names:
        if name not in done:
            store.write(record(name))
    store.close()


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def test_a_file_cut_at_any_byte_is_completed(tmp_path):
    whole = tmp_path / "whole.jsonl"
    write_all(Lines(whole), NAMES)
    data = whole.read_bytes()
    for size in range(len(data) + 1):
        path = tmp_path / "cut.jsonl"
        path.write_bytes(data[:size])
        write_all(Lines(path), NAMES)
        assert path.read_bytes() == data, f"cut at byte {size}"


def test_what_was_written_is_there_before_the_file_is_closed(tmp_path):
    lines = Lines(tmp_path / "a.jsonl")
    lines.write(record("a"))
    assert lines_of(tmp_path / "a.jsonl") == [record("a")]
    lines.close()


@pytest.mark.parametrize("line", ["text", "[1]", "{}", ""])
def test_a_whole_line_that_is_no_record(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record("a")) + f"\n{line}\n")
    with pytest.raises(BatchError, match=r"a.jsonl line 2 is no record"):
        list(Lines(path).done())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_parts_killed_at_any_step_have_every_record_once(tmp_path_factory, data):
    """Runs that end anywhere: pending lines cut, a part there but its lines not gone yet."""
    path = tmp_path_factory.mktemp("parts")
    names = [f"file {i}" for i in range(11)]
    for _ in range(data.draw(st.integers(0, 4))):
        store = Parts(path, part_rows=3)
        done = set(store.done())
        todo = [name for name in names if name not in done]
        for name in todo[: data.draw(st.integers(0, 7))]:
            store.write(record(name))
        store._pending.close()  # and no more: killed
        pending = path / "_pending.jsonl"
        if pending.exists():
            content = pending.read_bytes()
            if data.draw(st.booleans()) and content:  # a part was made of them just now
                store = Parts(path, part_rows=3)
                list(store.done())
                store._num_pending and store._seal()
                pending.write_bytes(content)
            pending.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        (path / "_part.tmp").write_bytes(b"PAR1 torn")
    write_all(Parts(path, part_rows=3), names)
    table = pq.read_table(path)
    assert sorted(table["id"].to_pylist()) == sorted(names)
    assert not (path / "_pending.jsonl").exists()


def test_a_stop_while_a_part_is_made(tmp_path, monkeypatch):
    """Between the part, which is there, and its pending lines, which are not gone yet."""
    store = Parts(tmp_path, part_rows=2)
    store.write(record("a"))

    def stop(_lines):
        raise InterruptedError

    with monkeypatch.context() as patched:
        patched.setattr(Lines, "clear", stop)
        with pytest.raises(InterruptedError):
            store.write(record("b"))
        store.close()
    write_all(Parts(tmp_path), "abc")
    assert pq.read_table(tmp_path)["id"].to_pylist() == ["a", "b", "c"]


def test_parquet_holds_what_the_lines_hold(tmp_path):
    word = {"text": "Hallo", "start_ms": 80, "end_ms": 400, "confidence": 0.5}
    segment = {"segment": 0, "text": "Hallo", "words": [word], "start_ms": 80, "end_ms": 400}
    segment |= {"language": "de-DE", "is_final": True, "reason": "endpoint"}
    full = record("a") | {"text": "Hallo", "words": [word], "segments": [segment], "error": None}
    full |= {"language": "de-DE", "duration_s": 1.25}
    with Output(tmp_path / "o.parquet", RUN) as output:
        assert list(output.done()) == []
        output.write(full)
        output.write(record("b"))
    assert pq.read_table(tmp_path / "o.parquet").to_pylist() == [full, record("b")]


def test_records_of_long_recordings_are_sealed_early_and_a_few_at_a_time(tmp_path, monkeypatch):
    size = len(json.dumps(record("a"))) + 1
    monkeypatch.setattr("asr_batch.output.PART_BYTES", 5 * size)
    monkeypatch.setattr("asr_batch.output.GROUP_BYTES", 2 * size)
    write_all(Parts(tmp_path), "abcdefg")
    parts = [pq.ParquetFile(path) for path in sorted(tmp_path.glob("*.parquet"))]
    groups = [[p.metadata.row_group(i).num_rows for i in range(p.num_row_groups)] for p in parts]
    assert groups == [[2, 2, 1], [2]]
    assert pq.read_table(tmp_path)["id"].to_pylist() == list("abcdefg")


def test_an_output_that_failed_before_it_was_read_keeps_its_pending_records(tmp_path):
    path = tmp_path / "o.parquet"
    with Output(path, RUN):
        pass
    (path / "_pending.jsonl").write_text(json.dumps(record("a")) + "\n")
    with Output(path, RUN):
        pass  # the manifest was bad, say
    with Output(path, RUN) as output:
        assert list(output.done()) == ["a"]


def test_a_part_that_is_none(tmp_path):
    with Output(tmp_path / "o.parquet", RUN):
        pass
    (tmp_path / "o.parquet" / "part-000000.parquet").write_bytes(b"text")
    with (
        pytest.raises(BatchError, match=r"part-000000.parquet is no part"),
        Output(tmp_path / "o.parquet", RUN) as output,
    ):
        list(output.done())


@pytest.mark.parametrize("name", ["o.jsonl", "o.parquet"])
def test_one_run_at_a_time(tmp_path, name):
    with (
        Output(tmp_path / name, RUN),
        pytest.raises(BatchError, match="another run writes to"),
        Output(tmp_path / name, RUN),
    ):
        pass
    with Output(tmp_path / name, RUN):
        pass


@pytest.mark.parametrize("name", ["o.jsonl", "o.parquet"])
def test_records_made_otherwise_are_not_mixed(tmp_path, name):
    with Output(tmp_path / name, RUN) as output:
        output.write(record("a"))
    other = {**RUN, "options": {"language": "de-DE"}}
    with (
        pytest.raises(BatchError, match=r"made with options \{\}, not \{'language': 'de-DE'\}"),
        Output(tmp_path / name, other),
    ):
        pass


@pytest.mark.parametrize("name", ["o.jsonl", "o.parquet"])
def test_where_no_records_are_any_run_may_begin(tmp_path, name):
    with Output(tmp_path / name, RUN) as output:
        assert list(output.done()) == []  # the run failed before its first record
    other = {**RUN, "options": {"language": "de-DE"}}
    with Output(tmp_path / name, other) as output:
        output.write(record("a"))
    with pytest.raises(BatchError, match="made with options"), Output(tmp_path / name, RUN):
        pass


def test_records_that_were_taken_away(tmp_path):
    with Output(tmp_path / "o.jsonl", RUN) as output:
        output.write(record("a"))
    (tmp_path / "o.jsonl").unlink()
    with Output(tmp_path / "o.jsonl", {**RUN, "options": {"language": "de-DE"}}):
        pass


def test_a_run_killed_before_it_said_what_it_is(tmp_path):
    (tmp_path / "o.jsonl.run").write_text('{"checkpoi')
    with Output(tmp_path / "o.jsonl", RUN):
        pass
    assert json.loads((tmp_path / "o.jsonl.run").read_text()) == RUN


def test_files_of_others_are_left_alone(tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"id": "a"}\n')
    with (
        pytest.raises(BatchError, match="not the output of a batch"),
        Output(tmp_path / "mine.jsonl", RUN),
    ):
        pass
    assert (tmp_path / "mine.jsonl").read_text() == '{"id": "a"}\n'


def test_names_and_places_that_do_not_work(tmp_path):
    with pytest.raises(BatchError, match=r"'o.txt'; valid: a name in .jsonl or .parquet"):
        Output(type(tmp_path)("o.txt"), RUN)
    (tmp_path / "file").touch()
    with pytest.raises(BatchError, match="cannot write"):
        Output(tmp_path / "file" / "o.jsonl", RUN)


def test_a_full_disk_is_said(tmp_path):
    output = Output(tmp_path / "o.jsonl", RUN)
    output._store._file = open("/dev/full", "ab")  # noqa: SIM115
    with pytest.raises(BatchError, match=r"cannot write .*o.jsonl: No space left on device"):
        output.write(record("a"))
