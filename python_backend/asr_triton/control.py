"""How `asr serve` tells the processes of the streaming model to stop, and learns that they have.

By files in a directory of its own: nothing that a client sends can be taken for them, and every
instance sees them. The server names one `drain` (no new streams) or `stop` (end those that live);
each process has a file `NAME.serving` there until no stream is left in it.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from nemotron_asr.engine import StreamingEngine

POLL_S = 0.1


class Controlled(threading.Thread):
    """Does what the files say.  name: of this process, unique in the server."""

    def __init__(self, engine: StreamingEngine, directory: str, name: str):
        super().__init__(name="control", daemon=True)
        self._engine = engine
        self._directory = Path(directory)
        self._serving = self._directory / f"{name}.serving"
        self._serving.touch()

    def run(self) -> None:
        while not self._engine.is_drained:
            if (self._directory / "stop").exists():
                self._engine.stop()
                break
            if (self._directory / "drain").exists():
                self._engine.drain()
            time.sleep(POLL_S)
        self._serving.unlink(missing_ok=True)
