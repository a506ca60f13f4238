"""Manifests: which recordings there are, read twice and never held in memory.

JSON lines, CSV with a header (by its suffix), or one path or URL a line; through fsspec, compressed
or not.
"""

from __future__ import annotations

import csv
import json
from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import numpy as np

from nemotron_asr.config import LOOKAHEAD_BY_LATENCY_MS
from nemotron_asr.options import AUTO, FILE, option_table

from .errors import BatchError

AUDIO = ("audio", "audio_filepath")  # the second is NeMo's name
_NOT_USED = ("duration", "text")  # of NeMo's manifests; how long a file is, it tells itself
OPTIONS = tuple(
    name
    for name, option in option_table((AUTO,), LOOKAHEAD_BY_LATENCY_MS).items()
    if FILE in option.of
)
FIELDS = (*AUDIO, "id", *OPTIONS, *_NOT_USED)


@dataclass(frozen=True)
class Row:
    """One recording that is to be transcribed."""

    index: int  # its place in the manifest, from 0
    id: str
    audio: str  # as the manifest has it
    location: str  # absolute path or URL
    options: dict[str, object]  # those of its own, not read yet


class Manifest:
    """A manifest.  path: a path or URL.  ignored: fields of its rows to pass over.

    Reading raises BatchError that names the line.
    """

    def __init__(self, path: str, ignored: Collection[str] = ()):
        self.path = path
        self._ignored = {*ignored, *_NOT_USED}
        self.folder = path.rpartition("/")[0] if is_url(path) else str(Path(path).parent.resolve())

    def scan(self) -> np.ndarray:
        """Check every row.  Returns their ids as (n,) int64 hashes, valid in this process alone.

        Raises BatchError also for an id that two rows have.
        """
        ids = array("q")
        for _, row in self._rows():
            ids.append(hash(row.id))
        ids = np.frombuffer(ids, np.int64) if ids else np.zeros(0, np.int64)
        in_order = np.sort(ids)
        twice = in_order[1:][in_order[1:] == in_order[:-1]]
        if len(twice):
            self._refuse_twice(set(twice.tolist()))
        return ids

    def rows(self, ids: np.ndarray, wanted: np.ndarray) -> Iterator[Row]:
        """Rows where `wanted`, (n,) bool, is true at the time they are read.  ids: of the scan."""
        for number, row in self._rows():
            if row.index >= len(ids) or hash(row.id) != ids[row.index]:
                raise BatchError(f"{self.path} line {number}: the manifest changed meanwhile")
            if wanted[row.index]:
                yield row

    def _refuse_twice(self, suspects: set[int]) -> None:
        first: dict[str, int] = {}
        for number, row in self._rows():
            if hash(row.id) in suspects and first.setdefault(row.id, number) != number:
                raise BatchError(
                    f"{self.path} line {number}: id {row.id!r} is that of line {first[row.id]} too;"
                    " valid: one row for each id (by default the audio as it is written)"
                )

    def _rows(self) -> Iterator[tuple[int, Row]]:
        """(number of the line from 1, row)"""
        for index, (number, fields) in enumerate(self._fields()):
            try:
                yield number, self._row(index, fields)
            except ValueError as error:
                raise BatchError(f"{self.path} line {number}: {error}") from error

    def _row(self, index: int, fields: dict) -> Row:
        """Raises ValueError naming the field."""
        fields = {k: v for k, v in fields.items() if v is not None and k not in self._ignored}
        for name in fields:
            if name not in FIELDS:
                valid = ", ".join(FIELDS)
                raise ValueError(f"unknown field {name!r}; valid: {valid}; or --ignore {name}")
        audio = [fields[name] for name in AUDIO if name in fields]
        if len(audio) != 1 or not isinstance(audio[0], str) or not audio[0]:
            raise ValueError(f"audio is {audio}; valid: one path or URL")
        row_id = fields.get("id", audio[0])
        if not isinstance(row_id, (str, int)) or row_id == "":
            raise ValueError(f"id {row_id!r}; valid: a text that is not empty, or a whole number")
        f"{row_id}{audio[0]}".encode()  # what JSON can escape but no file can hold is refused
        options = {name: fields[name] for name in OPTIONS if name in fields}
        return Row(index, str(row_id), audio[0], self._location(audio[0]), options)

    def _location(self, audio: str) -> str:
        if is_url(audio) or audio.startswith("/"):
            return audio
        return f"{self.folder}/{audio}"

    def _fields(self) -> Iterator[tuple[int, dict]]:
        """(number of the line, its fields by name), without empty lines."""
        try:
            with fsspec.open(self.path, "rb", compression="infer") as file:
                lines = self._decoded(file)
                name = self.path.removesuffix(".gz").lower()
                if name.endswith(".csv"):
                    yield from self._csv(lines)
                else:
                    yield from self._lines(lines)
        except BatchError:
            raise
        except Exception as error:  # every file system and compression has its own
            reason = str(error) or type(error).__name__
            raise BatchError(
                f"cannot read the manifest {self.path}: {reason}; valid: a list of recordings"
            ) from error

    def _decoded(self, file: Iterable[bytes]) -> Iterator[str]:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise BatchError(
                    f"{self.path} line {number}: {error}; valid: a list of recordings, in UTF-8"
                ) from error

    def _csv(self, lines: Iterable[str]) -> Iterator[tuple[int, dict]]:
        reader = csv.DictReader(lines, restkey="more cells than the header")
        try:
            for fields in reader:
                yield reader.line_num, {name: cell for name, cell in fields.items() if cell != ""}
        except csv.Error as error:
            raise BatchError(f"{self.path} line {reader.reader.line_num}: {error}") from error

    def _lines(self, lines: Iterable[str]) -> Iterator[tuple[int, dict]]:
        is_json = None
        for number, line in enumerate(lines, start=1):
            line = line.strip()
            if not line:
                continue
            if is_json is None:
                is_json = line.startswith("{")
            yield number, self._parsed(number, line) if is_json else {"audio": line}

    def _parsed(self, number: int, line: str) -> dict:
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise BatchError(f"{self.path} line {number}: no JSON: {error}") from error
        if not isinstance(fields, dict):
            raise BatchError(f"{self.path} line {number}: {line[:80]!r}; valid: a JSON object")
        return fields


def is_url(path: str) -> bool:
    return "://" in path
