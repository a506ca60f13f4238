"""What a door answers when something is wrong, whatever its protocol."""

from __future__ import annotations

import grpc
from starlette.responses import JSONResponse

from asr_client.errors import (
    AtCapacity,
    ClientError,
    InvalidArgument,
    ServerError,
    ServerUnavailable,
    StreamClosed,
    StreamNotFound,
)


class Unauthorized(ClientError):  # noqa: N818  (names of conditions, as in asr_client)
    """No API key, or none that is known."""

    code = "UNAUTHENTICATED"


class Forbidden(ClientError):  # noqa: N818
    """A web page that may not be served."""

    code = "PERMISSION_DENIED"


class TooMuch(ClientError):  # noqa: N818
    """More than the caller's share: later again. `retry_after_s`: when, if that is known."""

    code = "RESOURCE_EXHAUSTED"

    def __init__(self, message: str, retry_after_s: float = 1.0):
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ModelNotFound(ClientError):  # noqa: N818
    """Another model than the one that is served. The code is OpenAI's."""

    code = "model_not_found"


class TooLarge(InvalidArgument):
    """More bytes than are taken at once."""


def invalid(message: str) -> InvalidArgument:
    """The message without its code."""
    return InvalidArgument(f"INVALID_ARGUMENT: {message}")


# error: HTTP status, close code of a WebSocket (RFC 6455, 7.4; 4000 on are free), gRPC status
_STATUS = {
    TooLarge: (413, 1009, grpc.StatusCode.INVALID_ARGUMENT),
    InvalidArgument: (400, 4400, grpc.StatusCode.INVALID_ARGUMENT),
    Unauthorized: (401, 4401, grpc.StatusCode.UNAUTHENTICATED),
    Forbidden: (403, 4403, grpc.StatusCode.PERMISSION_DENIED),
    ModelNotFound: (404, 4404, grpc.StatusCode.NOT_FOUND),
    StreamNotFound: (404, 4404, grpc.StatusCode.NOT_FOUND),
    StreamClosed: (409, 4409, grpc.StatusCode.FAILED_PRECONDITION),
    TooMuch: (429, 4429, grpc.StatusCode.RESOURCE_EXHAUSTED),
    AtCapacity: (503, 1013, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ServerUnavailable: (503, 1013, grpc.StatusCode.UNAVAILABLE),
    ServerError: (500, 1011, grpc.StatusCode.INTERNAL),
    ClientError: (500, 1011, grpc.StatusCode.INTERNAL),
}


def _status(error: ClientError) -> tuple[int, int, grpc.StatusCode]:
    return next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)


def http_status(error: ClientError) -> int:
    return _status(error)[0]


def close_code(error: ClientError) -> int:
    """Of a WebSocket that ends of this error."""
    return _status(error)[1]


def grpc_status(error: ClientError) -> grpc.StatusCode:
    return _status(error)[2]


def http_headers(error: ClientError) -> dict[str, str]:
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, TooMuch):
        return {"Retry-After": f"{max(1, round(error.retry_after_s))}"}
    return {"Retry-After": "1"} if isinstance(error, (AtCapacity, ServerUnavailable)) else {}


def error_response(error: ClientError) -> JSONResponse:
    """In the shape that OpenAI's clients read."""
    status = http_status(error)
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"message": message_of(error), "type": kind, "param": None, "code": error.code}
    return JSONResponse({"error": body}, status, http_headers(error))


def message_of(error: ClientError) -> str:
    """The message with its code before it, once."""
    text = str(error)
    return text if text.startswith(f"{error.code}:") else f"{error.code}: {text}"
