"""Where records go. What is there tells what is done, however the last run ended.

OUT.jsonl is one file that is only appended to. OUT.parquet is a folder of parts: records wait in
`_pending.jsonl`, which is such a file too, until they are enough for a part.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .errors import BatchError
from .records import Record, schema

PART_ROWS = 10_000
PART_BYTES = 256 << 20  # of records as JSON: words of long recordings are many
GROUP_BYTES = 8 << 20  # that are held as Python's objects at a time, some 64 MB
FORMATS = (".jsonl", ".parquet")


class Lines:
    """JSON lines.  A last line that a kill cut off is taken away when the file is read."""

    def __init__(self, path: Path):
        self.path = path
        self._file: BinaryIO | None = None

    def groups(self, num_bytes: int) -> Iterator[list[Record]]:
        """All records, in lists whose lines have so many bytes or a little more.

        Raises BatchError for a whole line that is no record.
        """
        if not self.path.exists():
            return
        whole, group, begin = 0, [], 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                group.append(self._record(number, line))
                if whole - begin >= num_bytes:
                    yield group
                    group, begin = [], whole
        if group:
            yield group
        if whole < self.path.stat().st_size:
            os.truncate(self.path, whole)

    def _record(self, number: int, line: bytes) -> Record:
        try:
            record = json.loads(line)
            record["id"]
        except (ValueError, TypeError, KeyError) as error:
            raise BatchError(f"{self.path} line {number} is no record of a batch") from error
        return record

    def done(self) -> Iterator[str]:
        """The ids of all records.  To be exhausted before the first `write`."""
        for group in self.groups(GROUP_BYTES):
            yield from (record["id"] for record in group)

    def write(self, record: Record) -> int:
        """How many bytes the file has then."""
        self._file = self._file or self.path.open("ab")
        self._file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        # The kernel has it, so that it outlives this process; a disk that is full says so here.
        self._file.flush()
        return self._file.tell()

    def is_empty(self) -> bool:
        return not self.path.exists() or not self.path.stat().st_size

    def clear(self) -> None:
        self.close()
        os.truncate(self.path, 0)

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


class Parts:
    """A folder of Parquet files, each there as a whole or not at all."""

    def __init__(self, path: Path, part_rows: int = PART_ROWS):
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            install = 'pip install -e ".[batch]"'
            raise BatchError(f"Parquet needs pyarrow ({error}): {install}") from error
        self.path = path
        self._pending = Lines(path / "_pending.jsonl")
        self._num_pending = 0
        self._part_rows = part_rows
        self._sealing = False  # also where that was interrupted

    def done(self) -> Iterator[str]:
        """The ids of all records.  To be exhausted before the first `write`."""
        import pyarrow.parquet as pq

        in_parts: set[str] = set()
        for part in self._parts():
            try:
                in_parts = set(pq.read_table(part, columns=["id"])["id"].to_pylist())
            except (OSError, ValueError, KeyError) as error:
                raise BatchError(f"{part} is no part of a batch: {error}") from error
            yield from in_parts
        pending = list(self._pending.done())
        if pending and pending[0] in in_parts:  # killed when the last part was there
            self._pending.clear()
            return
        self._num_pending = len(pending)
        yield from pending

    def write(self, record: Record) -> None:
        num_bytes = self._pending.write(record)
        self._num_pending += 1
        if self._num_pending >= self._part_rows or num_bytes >= PART_BYTES:
            self._seal()

    def close(self) -> None:
        self._pending.close()
        if self._sealing:
            return  # the next run sees whether the part is there
        if self._num_pending:
            self._seal()
        if self._pending.is_empty():
            self._pending.path.unlink(missing_ok=True)

    def is_empty(self) -> bool:
        return not self._parts() and self._pending.is_empty()

    def _seal(self) -> None:
        """Pending records become a part."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._sealing = True
        self._pending.close()
        parts = self._parts()
        number = int(parts[-1].stem.removeprefix("part-")) + 1 if parts else 0
        new = self.path / "_part.tmp"
        with new.open("wb") as file:
            with pq.ParquetWriter(file, schema()) as writer:
                for group in self._pending.groups(GROUP_BYTES):
                    writer.write_table(pa.Table.from_pylist(group, schema=schema()))
            file.flush()
            os.fsync(file.fileno())  # or the name may outlive a power cut and the content not
        new.rename(self.path / f"part-{number:06}.parquet")
        self._pending.clear()
        self._num_pending = 0
        self._sealing = False

    def _parts(self) -> list[Path]:
        return sorted(self.path.glob("part-*.parquet"))


class Output:
    """The output of a run, which no other run writes to meanwhile.  Use as a context manager.

    path: OUT.jsonl or OUT.parquet.  run: what all of its records have in common.
    Raises BatchError for another suffix, where another run's records are, or one that goes on.
    """

    def __init__(self, path: Path, run: dict[str, object]):
        if path.suffix not in FORMATS:
            raise BatchError(f"output {str(path)!r}; valid: a name in {' or '.join(FORMATS)}")
        self.path = path
        self._lock: BinaryIO | None = None
        try:
            if path.suffix == ".parquet":
                path.mkdir(parents=True, exist_ok=True)
                self._store, about = Parts(path), path / "_run.json"
                is_new = not any(path.iterdir())
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._store, about = Lines(path), path.with_name(f"{path.name}.run")
                is_new = not path.exists()
            if not is_new and not about.exists():
                raise BatchError(f"{path} is there and not the output of a batch: {about} is not")
            self._lock = about.open("a+b")
            self._check(run)
        except OSError as error:
            raise BatchError(f"cannot write {error.filename}: {error.strerror}") from error

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_exc) -> None:
        try:
            self._store.close()
        except OSError as error:
            raise self._cannot_write(error) from error
        finally:
            self._lock.close()

    def done(self) -> Iterator[str]:
        """The ids of all records.  To be exhausted before the first `write`."""
        return self._store.done()

    def write(self, record: Record) -> None:
        try:
            self._store.write(record)
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> BatchError:
        return BatchError(f"cannot write {self.path}: {error.strerror}; what is there is kept")

    def _check(self, run: dict[str, object]) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BatchError(f"another run writes to {self.path}") from error
        self._lock.seek(0)
        try:
            other = json.loads(self._lock.read() or b"null")
        except ValueError:  # cut off: that run had no time to write a record
            other = None
        if other is None or self._store.is_empty():
            self._lock.truncate(0)
            self._lock.write(json.dumps(run).encode())
            self._lock.flush()
            return
        for name in sorted({*run, *other}):
            if run.get(name) != other.get(name):
                raise BatchError(
                    f"{self.path} has records made with {name} {other.get(name)!r}, not "
                    f"{run.get(name)!r}; go on with the same, or choose another --output"
                )
