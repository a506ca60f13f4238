"""Settings of the served models: default < config.pbtxt parameters < environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

DEVICES = ("auto", "cpu", "cuda")  # auto: a GPU where there is one
DTYPES = ("float32", "bfloat16", "float16", "int8")  # float16: GPU; int8: weights, on a CPU
MAX_SLOTS = 16_384  # far below the sequence batcher's max_candidate_sequences
MIN_IDLE_TIMEOUT_S = 0.1
MAX_IDLE_TIMEOUT_S = 300.0  # the sequence batcher's own idle limit is a little longer


SPINS = "10000"  # some 0.3 ms


def let_threads_spin() -> None:
    """Let torch's threads look for work for a moment before they sleep; call before it is imported.

    A round has some hundred small parts: to wake the threads for each takes longer than the parts
    do. For one process of a machine alone: those that spin take the cores from one another.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


@dataclass(frozen=True)
class Settings:
    """Each field is set by the environment variable ASR_<FIELD IN CAPITALS>."""

    checkpoint: str = ""  # directory or .nemo file
    device: str = "auto"  # auto, cpu, cuda
    dtype: str = "float32"
    slots: int = 64  # live streams at a time
    idle_timeout_s: float = 30.0  # a live stream without a packet for longer is ended
    max_queued_s: float = 900.0  # audio of one live stream that may wait to be decoded
    max_file_s: float = 7200.0  # longest recording that asr_offline takes
    profanity_file: str = ""  # words that `profanity=mask` masks, one a line; bundled ones if empty
    control_dir: str = ""  # where `asr serve` says that it is about to stop
    threads: int = 0  # of torch on the CPU; 0 = all cores, shared by a model's instances

    def __post_init__(self):
        if not self.checkpoint:
            raise ValueError("no checkpoint: set ASR_CHECKPOINT to a directory or a .nemo file")
        if self.dtype not in DTYPES:
            raise ValueError(f"ASR_DTYPE is {self.dtype!r}; valid: {', '.join(DTYPES)}")
        _check_range("slots", self.slots, 1, MAX_SLOTS)
        _check_range("idle_timeout_s", self.idle_timeout_s, MIN_IDLE_TIMEOUT_S, MAX_IDLE_TIMEOUT_S)
        _check_range("max_queued_s", self.max_queued_s, 10, 86_400)
        _check_range("max_file_s", self.max_file_s, 1, 86_400)
        _check_range("threads", self.threads, 0, 1024)


def read_settings(
    parameters: Mapping[str, str], environment: Mapping[str, str] = os.environ
) -> Settings:
    """Read settings. Raises ValueError naming the setting, its value and the valid ones."""
    known = [field.name for field in fields(Settings)]
    for name in parameters:
        if name not in known and not name.isupper():  # capitals are the Python backend's own
            raise ValueError(
                f"config.pbtxt parameter {name!r} is unknown; valid: {', '.join(known)}"
            )
    values = {}
    for field in fields(Settings):
        name = f"ASR_{field.name.upper()}"
        text = environment.get(name) or parameters.get(field.name)
        if text is None:
            continue
        kind = {"int": int, "float": float, "str": str}[field.type]
        try:
            values[field.name] = kind(text)
        except ValueError as error:
            raise ValueError(f"{name} is {text!r}; valid: a number") from error
    return Settings(**values)


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"ASR_{name.upper()} is {value}; valid: {low} to {high}")
