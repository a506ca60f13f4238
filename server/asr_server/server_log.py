"""The server's log: the few lines that say why it failed, out of the many that do not."""

from __future__ import annotations

import re
from pathlib import Path

MAX_REASONS = 10
TAIL_LINES = 15
_LINE = re.compile(r'^E\d{4} [\d:.]+ \d+ [\w.]+:\d+\] "?(?P<text>.*?)"?$')
_LOAD = re.compile(r"^failed to load '(?P<model>[^']+)' version \d+: (?:\w+: )?(?P<text>.*)$", re.S)
_SIGNAL = re.compile(r"^Signal \((?!15\)|2\))\d+\) received")
_PROTO = re.compile(r"^\[libprotobuf ERROR [^\]]*\] (?P<text>.*)$")
_TRITON = re.compile(r"^[EWI]\d{4} [\d:.]+ \d+ [\w.]+:\d+\] ")
_TRITON_PRINTS = ("error: ", "Error: Failed to initialize NVML", "+-", "| ")
_NOISE = (
    "CudaDriverHelper",  # every start without a GPU
    "Failed to create instance",  # said again, with the model's name, as "failed to load"
    "Exit timeout expired",
)
_CONSEQUENCES = ("which has no loaded version", "error: creating server")


def failure_reasons(log: str) -> list[str]:
    """Why a start failed, most telling first; the last lines where nothing is recognised."""
    found = [reason for line in log.splitlines() if (reason := _reason(line))]
    causes = [r for r in found if not any(mark in r for mark in _CONSEQUENCES)]
    reasons = _without_repeats(causes or found)[:MAX_REASONS]
    if any("is not healthy" in reason for reason in reasons):
        reasons += _printed(log)[-TAIL_LINES:]  # the process died without an exception
    return reasons or log.splitlines()[-TAIL_LINES:]


def waits_only_for(model: str, log: str) -> bool:
    """Whether a server that stops waits for requests of this model and of no other.

    It says each second how many models have some, and names them.
    """
    _, _, last = log.rpartition(": Found ")
    return last.startswith("1 model versions") and f"Model '{model}' " in last


def _without_repeats(reasons: list[str]) -> list[str]:
    """Unique, in order; what several models say alike is said once, of the first."""
    told = {}
    for reason in reasons:
        told.setdefault(re.sub(r"^model \w+: ", "", reason), reason)
    return list(told.values())


def _reason(line: str) -> str | None:
    if proto := _PROTO.match(line):
        return proto["text"]
    if _SIGNAL.match(line):
        return f"the server crashed: {line.strip()}"
    if line.startswith("error: "):
        return line
    if "unrecognized option" in line:
        return line.partition("=")[0]  # its value may be the key of the closed endpoints
    error = _LINE.match(line)
    if not error or any(noise in line for noise in _NOISE):
        return None
    text = error["text"].replace("\\n", "\n")
    if load := _LOAD.match(text):
        return f"model {load['model']}: {_exception(load['text'])}"
    return text.strip()


def _printed(log: str) -> list[str]:
    """Lines that a model or its interpreter wrote, not Triton."""
    mine = (line for line in log.splitlines() if not _TRITON.match(line))
    return [line for line in mine if line.strip() and not line.startswith(_TRITON_PRINTS)]


def _exception(text: str) -> str:
    """A Python exception as the stub reports it: message, and the innermost of its frames."""
    message, _, frames = text.partition("\n\nAt:\n")
    where = frames.strip().splitlines()[:1]
    return "\n  ".join([*message.strip().splitlines(), *(f"at {w.strip()}" for w in where)])


class LogReader:
    """Reads what was appended to a log since the last call, from a file that may be cut back."""

    def __init__(self, path: Path):
        self._path = path
        self._offset = 0

    def new_text(self) -> str:
        """The text since the last call; empty if the file is gone."""
        try:
            with self._path.open("rb") as log:
                if log.seek(0, 2) < self._offset:
                    self._offset = 0
                log.seek(self._offset)
                data = log.read()
        except OSError:
            return ""
        self._offset += len(data)
        return data.decode("utf-8", errors="replace")
