"""What can go wrong, as exceptions. `str(error)` is the server's message: `CODE: what is wrong`."""

# ruff: noqa: N818  (names of conditions, as the codes on the wire are)

from __future__ import annotations

import re

_CODED = re.compile(r"\b(INVALID_ARGUMENT|UNAVAILABLE|NOT_FOUND|INTERNAL): .*", re.DOTALL)
_CAPACITY = re.compile(r"at capacity \((\d+)/(\d+)\)")
_UNKNOWN_STREAM = "must specify the START flag"  # Triton's words for an id that it does not know
_UNAVAILABLE = (  # of Triton itself: the model is away, or there is no room for a while
    "unknown model",
    "is not ready",
    "stub process",
    "not healthy",
    "is shutting down",
    "shared memory pool",
)


class ClientError(Exception):
    """Base of every error that this package raises. `code` is the machine-readable part."""

    code = "INTERNAL"


class InvalidArgument(ClientError, ValueError):
    """A value is wrong; sending it again will not help. The message names the valid ones."""

    code = "INVALID_ARGUMENT"


class AtCapacity(ClientError):
    """Every slot of the server is taken: try later. `running` and `slots` are counts of streams."""

    code = "UNAVAILABLE"

    def __init__(self, message: str):
        super().__init__(message)
        found = _CAPACITY.search(message)
        self.running, self.slots = map(int, found.groups()) if found else (None, None)


class StreamNotFound(ClientError):
    """The server does not know this stream: it ended, or it was silent past the idle limit."""

    code = "NOT_FOUND"


class StreamClosed(ClientError):
    """The stream was ended or cancelled by this client, and takes no more audio."""

    code = "FAILED_PRECONDITION"


class ServerUnavailable(ClientError):
    """No connection, a connection that broke, no answer in time, or a model that is not there."""

    code = "UNAVAILABLE"


class ServerError(ClientError):
    """The server failed on this request, for a reason that is not the caller's."""


_BY_CODE = {
    "INVALID_ARGUMENT": InvalidArgument,
    "NOT_FOUND": StreamNotFound,
    "UNAVAILABLE": ServerUnavailable,
    "INTERNAL": ServerError,
}


def error_from_message(message: str) -> ClientError:
    """The exception for an error message of the server, whatever Triton wrote around the code."""
    if _UNKNOWN_STREAM in message:
        return StreamNotFound(
            "NOT_FOUND: the server does not know this stream; it may have expired"
        )
    found = _CODED.search(message)
    if found is None:
        passes = any(sign in message.lower() for sign in _UNAVAILABLE)
        return ServerUnavailable(message) if passes else ServerError(message)
    coded, code = found.group(0), found.group(1)
    if code == "UNAVAILABLE" and "at capacity" in coded:
        return AtCapacity(coded)
    return _BY_CODE[code](coded)
