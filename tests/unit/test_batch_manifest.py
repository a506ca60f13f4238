"""Manifests of batches: what is read, and what is refused with its line."""

from __future__ import annotations

import gzip
import json

import fsspec
import numpy as np
import pytest

from asr_batch.errors import BatchError
from asr_batch.manifest import Manifest


def write(path, *rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Manifest(str(path))


def rows_of(manifest):
    ids = manifest.scan()
    return list(manifest.rows(ids, np.ones(len(ids), bool)))


def test_json_lines_with_options_of_their_own(tmp_path):
    manifest = write(
        tmp_path / "m.jsonl",
        {"audio": "a.wav", "id": 7, "language": "de-DE", "latency_ms": 320, "text": "reference"},
        "",
        {"audio_filepath": "/data/b.wav", "duration": 2.5, "endpoint_ms": None},
    )
    first, second = rows_of(manifest)
    assert (first.id, first.audio, first.location) == ("7", "a.wav", f"{tmp_path}/a.wav")
    assert first.options == {"language": "de-DE", "latency_ms": 320}
    assert (second.id, second.location, second.options) == ("/data/b.wav", "/data/b.wav", {})
    assert (first.index, second.index) == (0, 1)


def test_a_path_or_url_a_line(tmp_path):
    manifest = write(tmp_path / "list", "\ufeffa b.wav", "", "s3://bucket/c.flac", "/d.mp3")
    assert [row.location for row in rows_of(manifest)] == [
        f"{tmp_path}/a b.wav",
        "s3://bucket/c.flac",
        "/d.mp3",
    ]


def test_csv_with_empty_cells(tmp_path):
    manifest = write(tmp_path / "m.csv", "id,audio,language", 'x,"a, b.wav",', "y,c.wav,fr-FR")
    first, second = rows_of(manifest)
    assert (first.id, first.audio, first.options) == ("x", "a, b.wav", {})
    assert second.options == {"language": "fr-FR"}


def test_compressed(tmp_path):
    (tmp_path / "m.csv.gz").write_bytes(gzip.compress(b"audio\na.wav\n"))
    (row,) = rows_of(Manifest(str(tmp_path / "m.csv.gz")))
    assert row.location == f"{tmp_path}/a.wav"


def test_relative_to_the_manifest_also_where_that_is_a_url():
    with fsspec.open("memory://sets/m.txt", "wb") as file:
        file.write(b"a.wav\n")
    (row,) = rows_of(Manifest("memory://sets/m.txt"))
    assert row.location == "memory://sets/a.wav"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"audio": "a", "langauge": "de-DE"}', "unknown field 'langauge'; valid: audio,"),
        ('{"audio": "a", "offset": 3}', "--ignore offset"),
        ('{"id": "x"}', r"audio is \[\]; valid: one path or URL"),
        ('{"audio": "a", "audio_filepath": "b"}', "valid: one path or URL"),
        ('{"audio": 3}', "valid: one path or URL"),
        ('{"audio": "a", "id": ""}', "id ''; valid"),
        ('{"audio": "a", "id": [1]}', r"id \[1\]; valid"),
        ('{"audio": "\\ud800"}', "surrogates not allowed"),
        ('{"audio": ', "no JSON"),
        ("a.wav", "no JSON"),
    ],
)
def test_bad_rows_are_named_by_their_line(tmp_path, line, reason):
    manifest = write(tmp_path / "m.jsonl", {"audio": "fine.wav"}, "", line)
    with pytest.raises(BatchError, match=rf"m.jsonl line 3: .*{reason}"):
        manifest.scan()


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "m.txt").write_bytes(b"a.wav\n\xff.wav\n")
    with pytest.raises(BatchError, match=r"line 2: .*valid: a list of recordings, in UTF-8"):
        Manifest(str(tmp_path / "m.txt")).scan()


def test_no_manifest(tmp_path):
    with pytest.raises(BatchError, match=r"cannot read the manifest .*none.jsonl"):
        Manifest(str(tmp_path / "none.jsonl")).scan()


def test_manifests_that_cannot_be_read(tmp_path):
    write(tmp_path / "m.csv", "audio", "x" * 200_000)
    with pytest.raises(BatchError, match=r"m.csv line 2: field larger than field limit"):
        Manifest(str(tmp_path / "m.csv")).scan()
    data = bytearray(gzip.compress(b"a.wav\n" * 1000))
    data[12] ^= 0xFF
    (tmp_path / "m.txt.gz").write_bytes(data)
    for path in (str(tmp_path / "m.txt.gz"), "foo://x", "http://127.0.0.1:1/m.txt"):
        with pytest.raises(BatchError, match=f"cannot read the manifest {path}: ."):
            Manifest(path).scan()


def test_the_same_id_twice_names_both_rows(tmp_path):
    manifest = write(tmp_path / "m.txt", "a.wav", "b.wav", "", "a.wav")
    with pytest.raises(BatchError, match=r"line 4: id 'a.wav' is that of line 1 too"):
        manifest.scan()


def test_the_same_audio_twice_with_ids(tmp_path):
    rows = [{"audio": "a.wav", "id": name, "channel": i} for i, name in enumerate("xy")]
    assert [row.options for row in rows_of(write(tmp_path / "m.jsonl", *rows))] == [
        {"channel": 0},
        {"channel": 1},
    ]


def test_fields_that_are_ignored(tmp_path):
    path = tmp_path / "m.jsonl"
    write(path, {"audio": "a.wav", "speaker": "x", "language": "yy"})
    (row,) = rows_of(Manifest(str(path), ["speaker", "language"]))
    assert row.options == {}


def test_only_wanted_rows_come_as_they_are_wanted_then(tmp_path):
    manifest = write(tmp_path / "m.txt", *"abcd")
    ids = manifest.scan()
    wanted = np.array([True, False, True, True])
    rows = manifest.rows(ids, wanted)
    assert next(rows).id == "a"
    wanted[2] = False
    assert [row.id for row in rows] == ["d"]


def test_a_manifest_that_changes_meanwhile(tmp_path):
    manifest = write(tmp_path / "m.txt", *"ab")
    ids = manifest.scan()
    write(tmp_path / "m.txt", *"ba")
    with pytest.raises(BatchError, match="line 1: the manifest changed"):
        next(manifest.rows(ids, np.ones(2, bool)))
