"""Who may come in, and with how much: API keys, sessions and requests of each.

A key is 32 random bytes, so that a plain hash protects it; the file has hashes alone.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import logging
import os
import secrets
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from .errors import Forbidden, TooMuch, Unauthorized

ANYBODY = "anybody"  # where there are no keys
KEY_PREFIX = "asr-"
RELOAD_S = 2.0  # how often the file is looked at
_SUBPROTOCOL_KEY = "openai-insecure-api-key."  # what browsers can send with a WebSocket

log = logging.getLogger(__name__)


@dataclass
class Caller:
    """One key's name, its limits, and what it uses now."""

    name: str
    max_sessions: int | None = None  # live streams at a time, of each gateway process
    requests_per_minute: float | None = None  # new sessions and files
    sessions: int = 0
    files: int = 0
    _tokens: float = field(default=0.0, repr=False)  # of the bucket that requests are taken from
    _filled_at_s: float | None = field(default=None, repr=False)

    def count_request(self, now: float) -> None:
        """Raises TooMuch."""
        rate = self.requests_per_minute
        if rate is None:
            return
        largest = max(1.0, rate / 6)  # ten seconds' worth at once
        if self._filled_at_s is None:
            self._tokens, self._filled_at_s = largest, now
        self._tokens = min(largest, self._tokens + (now - self._filled_at_s) * rate / 60)
        self._filled_at_s = now
        if self._tokens < 1:
            wait_s = (1 - self._tokens) * 60 / rate
            raise TooMuch(f"more than {rate:g} requests a minute; try in {wait_s:.1f} s", wait_s)
        self._tokens -= 1

    def begin_session(self) -> None:
        """Count a live stream; who ends it takes one off `sessions`.  Raises TooMuch."""
        if self.max_sessions is not None and self.sessions >= self.max_sessions:
            raise TooMuch(f"{self.sessions} of {self.max_sessions} sessions of this key are open")
        self.sessions += 1


class Access:
    """The keys of a file, read again when it changes."""

    def __init__(self, path: Path | None, origins: tuple[str, ...] = ()):
        """Raises ValueError naming what is wrong with the file."""
        self._path, self._origins = path, origins
        self._callers: dict[bytes, Caller] = {}  # by the hash of the key
        self._looked_at_s, self._changed_ns = 0.0, None
        self._trouble: str | None = None  # why the file could not be read last time, once logged
        self._anybody = Caller(ANYBODY)
        if path is not None:
            self._read(path.stat().st_mtime_ns)

    @property
    def has_several_keys(self) -> bool:
        return len(self._callers) > 1

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Whose request it is.  headers: names in lower case.  Raises Unauthorized."""
        if self._path is None:
            return self._anybody
        self._look()
        key = _bearer(headers)
        if not key:
            raise Unauthorized("an API key is needed: Authorization: Bearer KEY")
        digest = hashlib.sha256(key.encode()).digest()
        found = None
        for known, caller in self._callers.items():  # all of them: the time tells nothing
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None:
            raise Unauthorized("this API key is not known")
        return found

    def check_origin(self, headers: Mapping[str, str]) -> None:
        """Let pages of this gateway and of `origins` in, and what is no browser.  Raises Forbidden.

        Any page that somebody looks at could otherwise use a gateway that their machine reaches;
        without keys also by a name of its own that leads there, so that names must be in `origins`.
        """
        origin = headers.get("origin")
        if origin is None or "*" in self._origins or origin in self._origins:
            return
        host = headers.get("host", "")
        named = self._path is None and not _is_address(host)
        if named or origin.partition("://")[2] != host:
            raise Forbidden(f"pages of {origin[:200]} may not use this gateway; see --origin")

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked_at_s > RELOAD_S:
            self._looked_at_s = now
            try:
                changed_ns = self._path.stat().st_mtime_ns
                if changed_ns != self._changed_ns:
                    self._read(changed_ns)
            except (OSError, ValueError) as error:  # the old ones hold
                if str(error) != self._trouble:
                    log.error("keys are not read again: %s", error)
                self._trouble = str(error)

    def _read(self, changed_ns: int) -> None:
        before = {caller.name: caller for caller in self._callers.values()}
        callers = {}
        for row in read_keys(self._path):
            name = row["name"]
            caller = before.get(name) or Caller(name)
            caller.max_sessions = row.get("max_sessions")
            caller.requests_per_minute = row.get("requests_per_minute")
            callers[bytes.fromhex(row["sha256"])] = caller
        self._callers, self._changed_ns, self._trouble = callers, changed_ns, None


def _is_address(host: str) -> bool:
    """Whether a Host header names an address, or localhost, and no other name."""
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _bearer(headers: Mapping[str, str]) -> str:
    kind, _, key = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return key.strip()
    for protocol in headers.get("sec-websocket-protocol", "").split(","):
        if protocol.strip().startswith(_SUBPROTOCOL_KEY):
            return protocol.strip()[len(_SUBPROTOCOL_KEY) :]
    return headers.get("x-api-key", "")


_FIELDS = {"name": str, "sha256": str, "max_sessions": int, "requests_per_minute": (int, float)}


def read_keys(path: Path) -> list[dict]:
    """The rows of a file of keys.  Raises ValueError naming what is wrong, OSError."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["keys"]
        for row in rows:
            if unknown := set(row) - set(_FIELDS):
                raise ValueError(f"{unknown.pop()!r}; valid: {', '.join(_FIELDS)}")
            for name, value in row.items():
                if value is not None and not isinstance(value, _FIELDS[name]):
                    raise ValueError(f"{name} {value!r}")
            if len(bytes.fromhex(row["sha256"])) != hashlib.sha256().digest_size:
                raise ValueError(f"sha256 {row['sha256']!r}")
            if not row.get("name"):
                raise ValueError("a key without a name")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no file of keys: {error}") from None
    return rows


def add_key(
    path: Path, name: str, max_sessions: int | None, requests_per_minute: float | None
) -> str:
    """Make a key and add its hash to the file, which is made if need be.

    Returns the key, which is kept nowhere.  Raises ValueError for a name that is taken.
    """
    rows = read_keys(path) if path.exists() else []
    if any(row["name"] == name for row in rows):
        raise ValueError(f"there is a key named {name!r}")
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    row = {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest()}
    limits = {"max_sessions": max_sessions, "requests_per_minute": requests_per_minute}
    rows.append(row | {name: value for name, value in limits.items() if value is not None})
    beside = path.with_name(path.name + ".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump({"keys": rows}, file, indent=2)
    if path.exists():  # who may read it still may
        before = path.stat()
        os.chmod(beside, stat.S_IMODE(before.st_mode))
        if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(beside, before.st_uid, before.st_gid)
    os.replace(beside, path)
    return key
