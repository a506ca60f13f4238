"""What a benchmark leaves behind: one JSON schema for all, and tables for people."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console
from rich.table import Table

SCHEMA = 1
KEYS = ("schema", "benchmark", "date", "command", "commit", "hardware", "versions", "settings",
        "method", "rows")  # fmt: skip
ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("torch", "transformers", "nvidia-pytriton", "tritonclient", "grpcio", "numpy")
_MIN_WIDTH = 170  # of tables, also in a pipe
_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile",
          "amx_bf16", "amx_int8")  # fmt: skip


def make_report(benchmark: str, settings: Mapping, rows: Sequence[Mapping], method: str) -> dict:
    """A report of this machine, now.  rows: flat dictionaries of one kind or several."""
    return {
        "schema": SCHEMA,
        "benchmark": benchmark,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["asr", *map(_without_folders, sys.argv[1:])]),
        "commit": _commit(),
        "hardware": hardware(),
        "versions": versions(),
        "settings": {key: _plain(value) for key, value in settings.items()},
        "method": method,
        "rows": [dict(row) for row in rows],
    }


def check_report(report: Mapping) -> None:
    """Raises ValueError for what is missing or of another schema."""
    missing = [key for key in KEYS if key not in report]
    if missing:
        raise ValueError(f"not a benchmark report: no {', '.join(missing)}")
    if report["schema"] != SCHEMA:
        raise ValueError(f"schema {report['schema']!r} is not known; valid: {SCHEMA}")
    if not all(isinstance(row, Mapping) for row in report["rows"]):
        raise ValueError("rows must be objects")


def save_report(report: Mapping, path: Path | None) -> None:
    """Write a report, if there is a path, and say where."""
    check_report(report)
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    say(f"written: {path}")


def read_report(path: Path) -> dict:
    report = json.loads(path.read_text())
    check_report(report)
    return report


def hardware() -> dict:
    """The machine, in what matters for speed."""
    cpuinfo = _read("/proc/cpuinfo")
    fields = dict(
        line.split(":", 1) for line in cpuinfo.splitlines() if ":" in line
    )  # the last core's, which is like the others
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    present = fields.get("flags", "").split()
    return {
        "cpu": fields.get("model name", platform.processor() or platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in _FLAGS if flag in present],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": _gpu(),
        "kernel": platform.release(),
    }


def versions() -> dict:
    """Of Python and of the packages that do the work."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class TextTable:
    """A table for people: titles of columns, lines of values."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Sequence]

    def print(self) -> None:
        table = Table(title=self.title, title_justify="left", title_style="bold")
        for i, column in enumerate(self.columns):
            table.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
        for line in self.lines:
            table.add_row(*map(_cell, line))
        Console(width=max(_MIN_WIDTH, Console().width), highlight=False).print(table)

    def markdown(self) -> str:
        rows = [self.columns, ["---"] + ["---:"] * (len(self.columns) - 1)]
        rows += [[_cell(value) for value in line] for line in self.lines]
        body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        return f"**{self.title}**\n\n{body}\n"


def say(message: str) -> None:
    """Progress, on stderr."""
    print(message, file=sys.stderr, flush=True)


def _cell(value) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def _plain(value):
    """What JSON can hold."""
    if isinstance(value, Path):
        return value.name
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _without_folders(argument: str) -> str:
    """Where things lie on a machine is nobody's business."""
    return Path(argument).name if argument.startswith("/") else argument


def _commit() -> str | None:
    """The checkout's commit, with a + where it has changes."""
    try:
        git = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=10", "--dirty=+"]
        return subprocess.run(git, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None


def _gpu() -> str | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_name()


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
