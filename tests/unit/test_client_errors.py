"""Messages of the server become exceptions; addresses are read as people write them."""

from __future__ import annotations

import pytest

from asr_client import errors
from asr_client.address import grpc_target, http_base, is_loopback
from asr_client.errors import error_from_message


@pytest.mark.parametrize(
    ("message", "kind", "text"),
    [
        (
            "INVALID_ARGUMENT: language 'x'",
            errors.InvalidArgument,
            "INVALID_ARGUMENT: language 'x'",
        ),
        ("UNAVAILABLE: at capacity (4/4)", errors.AtCapacity, "UNAVAILABLE: at capacity (4/4)"),
        ("UNAVAILABLE: shutting down", errors.ServerUnavailable, "UNAVAILABLE: shutting down"),
        ("NOT_FOUND: no stream 7", errors.StreamNotFound, "NOT_FOUND: no stream 7"),
        ("INTERNAL: out of memory", errors.ServerError, "INTERNAL: out of memory"),
        (
            "in ensemble 'asr_offline', INVALID_ARGUMENT: cannot decode\nat all",
            errors.InvalidArgument,
            "INVALID_ARGUMENT: cannot decode\nat all",
        ),
        ("Failed to process the request", errors.ServerError, "Failed to process the request"),
        (
            "Request for unknown model: 'asr_streaming' is not found",
            errors.ServerUnavailable,
            "Request for unknown model: 'asr_streaming' is not found",
        ),
        (
            "Stub process 'asr_streaming_0_0' is not healthy.",
            errors.ServerUnavailable,
            "Stub process 'asr_streaming_0_0' is not healthy.",
        ),
        (
            "Failed to increase the shared memory pool size: No space left on device",
            errors.ServerUnavailable,
            "Failed to increase the shared memory pool size: No space left on device",
        ),
    ],
)
def test_message_to_error(message, kind, text):
    error = error_from_message(message)
    assert type(error) is kind
    assert str(error) == text
    assert isinstance(error, errors.ClientError)


def test_an_id_that_triton_does_not_know_is_a_stream_not_found():
    error = error_from_message(
        "inference request for sequence 7 to model 'asr_streaming' must specify the START flag on "
        "the first request of the sequence"
    )
    assert type(error) is errors.StreamNotFound
    assert error.code == "NOT_FOUND"


def test_capacity_is_readable():
    error = error_from_message("UNAVAILABLE: at capacity (12/64)")
    assert (error.running, error.slots, error.code) == (12, 64, "UNAVAILABLE")


def test_a_bad_value_is_a_value_error_too():
    with pytest.raises(ValueError, match="no address"):
        grpc_target("")


@pytest.mark.parametrize("url", ["host:1", "grpc://host:1", "http://host:1"])
def test_grpc_addresses(url):
    assert grpc_target(url) == "host:1"


@pytest.mark.parametrize(
    "url", ["host", "host:x", ":1", "host:99999", "https://host:1", "ftp://h:1"]
)
def test_bad_grpc_addresses_are_named(url):
    with pytest.raises(errors.InvalidArgument, match=url):
        grpc_target(url)


def test_http_addresses():
    assert http_base("host:8000") == "http://host:8000"
    assert http_base("https://host/triton/") == "https://host/triton"
    with pytest.raises(errors.InvalidArgument, match="ftp"):
        http_base("ftp://host")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("127.0.0.1:1", True),
        ("http://localhost:1", True),
        ("[::1]:1", True),
        ("10.0.0.1:1", False),
        ("example.org:1", False),
    ],
)
def test_loopback(url, expected):
    assert is_loopback(url) is expected
