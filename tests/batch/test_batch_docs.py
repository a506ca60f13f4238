"""What docs/batch.md shows: each example runs, or at least its command line is one."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from asr_batch.command import batch
from asr_batch.manifest import Manifest
from batch.conftest import TIMEOUT_S
from conftest import ROOT, blocks
from nemotron_asr.errors import INTERNAL, INVALID_ARGUMENT, NOT_FOUND, UNAVAILABLE

PATH = ROOT / "docs" / "batch.md"
PAGE = PATH.read_text(encoding="utf-8")
ASR = f"{shlex.quote(sys.executable)} -m asr_client.cli"


def execute(*command: str, folder) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_run_in_order(samples, tmp_path):
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    _install, first, again, _ray = blocks(PATH, "sh")
    jsonl, parquet = blocks(PATH, "python")
    execute("bash", "-ec", first.replace(".venv/bin/asr", ASR), folder=tmp_path)
    shown = execute(sys.executable, "-c", jsonl, folder=tmp_path)
    assert shown.count(".flac ") == len(samples)
    shown = execute(sys.executable, "-c", parquet, folder=tmp_path)
    assert shown.startswith(f"{len(samples)} [")

    lines = (tmp_path / "transcripts.jsonl").read_text().splitlines(keepends=True)
    failed = json.loads(lines[1]) | {"text": None, "error": {"code": "UNAVAILABLE", "message": ""}}
    lines[1] = json.dumps(failed) + "\n"
    (tmp_path / "transcripts.jsonl").write_text("".join(lines))
    execute("bash", "-ec", again.replace(".venv/bin/asr", ASR), folder=tmp_path)
    records = [json.loads(one) for one in (tmp_path / "transcripts.jsonl").open()]
    assert sorted(Path(one["id"]).name for one in records) == sorted(one.name for one in samples)
    assert not any(one["error"] for one in records)

    table = re.search(r"\| field \| \|\n\|---\|---\|\n(.*?)\n\n", PAGE, re.DOTALL)[1]
    fields = [
        name for row in table.splitlines() for name in re.findall("`(.*?)`", row.split("|")[1])
    ]
    assert fields == list(records[0])
    assert fields == pq.read_table(tmp_path / "transcripts.parquet").column_names


def test_command_lines_for_ray_are_valid():
    *_, ray = blocks(PATH, "sh")
    addresses = []
    for line in ray.splitlines():
        _asr, _batch, *arguments = shlex.split(line, comments=True)
        addresses.append(batch.make_context("batch", arguments).params["ray_address"])
    assert addresses == ["auto", "10.0.0.1:6379", "local"]


def test_the_manifest_is_one(tmp_path):
    (snippet,) = blocks(PATH, "json")
    (tmp_path / "m.jsonl").write_text(snippet)
    assert len(Manifest(str(tmp_path / "m.jsonl")).scan()) == 3


def test_names_are_those_of_the_code():
    flags = {flag for parameter in batch.params for flag in getattr(parameter, "opts", ())}
    assert set(re.findall(r"`(--[a-z-]+)", PAGE)) <= flags
    for code in (INTERNAL, INVALID_ARGUMENT, NOT_FOUND, UNAVAILABLE):
        assert f"| `{code}` |" in PAGE
