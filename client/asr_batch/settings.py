"""What a process that transcribes is told."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class WorkerSettings:
    """options: of every recording whose row has no other, as they were given.

    words: whether records keep them.
    threads: of torch on the CPU; 0 leaves the choice to it.
    readers: recordings that are fetched and decoded at a time.
    window_s: seconds of decoded audio held, from which batches of like length are made.
    timeout_s: the longest wait for one file by HTTP.  retries: of a file that could not be read.
    """

    checkpoint: str
    device: str = "auto"
    dtype: str = "float32"
    options: dict[str, object] = field(default_factory=dict)
    words: bool = False
    threads: int = 0
    readers: int = 8
    window_s: float = 1200.0
    max_file_s: float = 7200.0
    timeout_s: float = 300.0
    retries: int = 3
    profanity_file: str = ""
