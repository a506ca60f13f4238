"""Errors that reach a user: a code first, then the bad value and the valid ones."""

from __future__ import annotations

INVALID_ARGUMENT = "INVALID_ARGUMENT"
NOT_FOUND = "NOT_FOUND"
UNAVAILABLE = "UNAVAILABLE"
INTERNAL = "INTERNAL"


class AsrError(Exception):
    """An error with a code. `str(error)` is the message on the wire: `CODE: what is wrong`."""

    def __init__(self, code: str, message: str):
        super().__init__(f"{code}: {message}")
        self.code = code


def invalid(message: str) -> AsrError:
    """A value that the caller sent is wrong; sending it again will not help."""
    return AsrError(INVALID_ARGUMENT, message)


class CheckpointError(ValueError):
    """A checkpoint that cannot be served; the message names the file and the key."""
