"""Clients of the speech server: live streams over gRPC, whole files over HTTP, a command line.

The streaming client is imported on first use, so that `asr --help` does not wait for gRPC.
"""

from __future__ import annotations

import importlib

_HOME = {
    "LiveStream": ".live",
    "transcribe_live": ".live",
    "OfflineClient": ".offline",
    "Result": ".results",
    "Transcript": ".results",
    "Word": ".results",
    "ClientError": ".errors",
    "InvalidArgument": ".errors",
    "AtCapacity": ".errors",
    "StreamNotFound": ".errors",
    "StreamClosed": ".errors",
    "ServerUnavailable": ".errors",
    "ServerError": ".errors",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
