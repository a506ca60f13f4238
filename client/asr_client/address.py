"""Addresses of servers, as people write them."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from .errors import InvalidArgument


def grpc_target(url: str) -> str:
    """`host:port` out of `host:port` or `grpc://host:port`.  Raises InvalidArgument."""
    parts = _split(url, "grpc")
    if parts.scheme not in ("grpc", "http"):
        raise InvalidArgument(f"INVALID_ARGUMENT: {url!r} is no gRPC address; write host:port")
    if parts.port is None:
        raise InvalidArgument(f"INVALID_ARGUMENT: {url!r} has no port; write host:port")
    return parts.netloc


def http_base(url: str) -> str:
    """`http://host:port` out of that or `host:port`.  Raises InvalidArgument."""
    parts = _split(url, "http")
    if parts.scheme not in ("http", "https"):
        raise InvalidArgument(
            f"INVALID_ARGUMENT: {url!r} is no HTTP address; write http://host:port"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def is_loopback(url: str) -> bool:
    """Whether a proxy from the environment must be left out: it could not reach this address."""
    host = _split(url, "http").hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split(url: str, default_scheme: str):
    parts = urlsplit(url if "://" in url else f"{default_scheme}://{url}")
    try:
        valid = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise InvalidArgument(f"INVALID_ARGUMENT: {url!r} is no address; write host:port")
    return parts
