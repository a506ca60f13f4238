"""Nemotron 3.5 ASR in plain PyTorch: model, checkpoints, decoding and the streaming engine.

`load_checkpoint`, `Recognizer` and `StreamingEngine` are imported on first use, so that clients can
read `nemotron_asr.options` without loading torch.
"""

from __future__ import annotations

import importlib
import os

# Read by torch when it first allocates on a CPU: large tensors lie on huge pages, where Linux
# leaves that to programs. Every chunk reads all weights, which is 5 to 10 % faster so.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_HOME = {
    "load_checkpoint": ".checkpoint",
    "Recognizer": ".recognizer",
    "StreamingEngine": ".engine",
    "AsrError": ".errors",
    "CheckpointError": ".errors",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
