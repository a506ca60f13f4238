"""API keys, limits and origins: decisions without a network."""

from __future__ import annotations

import json
import os
import stat

import pytest

from asr_gateway.access import Access, Caller, add_key, read_keys
from asr_gateway.errors import Forbidden, TooMuch, Unauthorized, http_headers, http_status


@pytest.fixture
def keys(tmp_path):
    return tmp_path / "keys.json"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_a_key_lets_in_and_is_kept_nowhere(keys):
    key = add_key(keys, "one", 3, 60)
    other = add_key(keys, "two", None, None)
    assert key not in keys.read_text()
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    access = Access(keys)
    caller = access.caller(bearer(key))
    assert (caller.name, caller.max_sessions, caller.requests_per_minute) == ("one", 3, 60)
    assert access.caller({"x-api-key": other}).name == "two"
    protocols = {"sec-websocket-protocol": f"asr, openai-insecure-api-key.{other}"}
    assert access.caller(protocols).name == "two"


@pytest.mark.parametrize(
    "headers", [{}, bearer(""), bearer("asr-wrong"), {"authorization": "Basic eDp5"}]
)
def test_others_are_not_let_in(keys, headers):
    add_key(keys, "one", None, None)
    with pytest.raises(Unauthorized) as refused:
        Access(keys).caller(headers)
    assert http_status(refused.value) == 401
    assert http_headers(refused.value) == {"WWW-Authenticate": "Bearer"}


def test_without_keys_everybody_comes_in():
    assert Access(None).caller({}).name == "anybody"


def test_a_file_that_changes_is_read_again_and_a_broken_one_is_not(keys, monkeypatch, caplog):
    monkeypatch.setattr("asr_gateway.access.RELOAD_S", 0)
    first = add_key(keys, "one", 1, None)
    access = Access(keys)
    access.caller(bearer(first)).begin_session()
    second = add_key(keys, "two", None, None)
    assert access.caller(bearer(second)).name == "two"
    assert access.caller(bearer(first)).sessions == 1  # what it uses is not forgotten
    keys.write_text("{")
    for _ in range(3):
        assert access.caller(bearer(first)).name == "one"
    assert len(caplog.records) == 1
    assert "keys.json is no file of keys" in caplog.text
    keys.write_text('{"keys": []}')
    with pytest.raises(Unauthorized):
        access.caller(bearer(first))


def test_who_may_read_the_file_still_may_when_a_key_is_added(keys):
    add_key(keys, "one", None, None)
    keys.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(keys, 10001, 10001)
    before = keys.stat()
    add_key(keys, "two", None, None)
    after = keys.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid) == (before.st_mode, before.st_uid)


@pytest.mark.parametrize(
    "row",
    [
        {"name": "x"},
        {"name": "x", "sha256": "abc"},
        {"name": "x", "sha256": "ab"},
        {"name": "", "sha256": "ab" * 32},
        {"name": "x", "sha256": "ab" * 32, "max_sessions": "3"},
        {"name": "x", "sha256": "ab" * 32, "colour": "red"},
    ],
)
def test_a_bad_file_of_keys_is_named(keys, row):
    keys.write_text(json.dumps({"keys": [row]}))
    with pytest.raises(ValueError, match=r"keys\.json is no file of keys"):
        Access(keys)


def test_a_name_is_taken_once(keys):
    add_key(keys, "one", None, None)
    with pytest.raises(ValueError, match="'one'"):
        add_key(keys, "one", None, None)
    assert len(read_keys(keys)) == 1
    assert os.listdir(keys.parent) == ["keys.json"]


def test_sessions_of_a_key_are_limited():
    caller = Caller("one", max_sessions=2)
    for _ in range(2):
        caller.begin_session()
    with pytest.raises(TooMuch, match="2 of 2"):
        caller.begin_session()
    assert caller.sessions == 2
    caller.sessions -= 1
    caller.begin_session()


def test_requests_of_a_key_are_limited_by_the_minute():
    caller = Caller("one", requests_per_minute=60)
    for _ in range(10):  # ten seconds' worth at once
        caller.count_request(now=100.0)
    with pytest.raises(TooMuch) as refused:
        caller.count_request(now=100.0)
    assert refused.value.retry_after_s == pytest.approx(1.0)
    assert http_headers(refused.value) == {"Retry-After": "1"}
    caller.count_request(now=101.0)
    with pytest.raises(TooMuch):
        caller.count_request(now=101.5)
    for _ in range(10):
        caller.count_request(now=1000.0)
    with pytest.raises(TooMuch):
        caller.count_request(now=1000.0)


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("http://127.0.0.1:8080", True),
        ("https://friend.example", True),
        ("https://evil.example", False),
        ("http://127.0.0.1", False),
        ("null", False),
    ],
)
def test_pages_of_others_are_not_let_in(origin, allowed):
    access = Access(None, ("https://friend.example",))
    headers = {"host": "127.0.0.1:8080"} | ({"origin": origin} if origin else {})
    if allowed:
        access.check_origin(headers)
    else:
        with pytest.raises(Forbidden):
            access.check_origin(headers)
    Access(None, ("*",)).check_origin(headers)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [("localhost:8080", True), ("[::1]:8080", True), ("evil.example:8080", False), ("", False)],
)
def test_a_name_that_leads_here_is_not_enough_without_keys(keys, host, allowed):
    headers = {"host": host, "origin": f"http://{host}"}
    access = Access(None)
    if allowed:
        access.check_origin(headers)
    else:
        with pytest.raises(Forbidden):
            access.check_origin(headers)
    add_key(keys, "one", None, None)
    if host:
        Access(keys).check_origin(headers)
        Access(None, (f"http://{host}",)).check_origin(headers)
