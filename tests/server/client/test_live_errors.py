"""What goes wrong with live streams, on the real server."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from asr_client import (
    AtCapacity,
    InvalidArgument,
    LiveStream,
    OfflineClient,
    ServerError,
    ServerUnavailable,
    StreamClosed,
    StreamNotFound,
    transcribe_live,
)

from .conftest import IDLE_TIMEOUT_S, PCM, SLOTS, cut, expected, wav

pytestmark = pytest.mark.server


def wait_for(condition, limit_s: float = 10.0) -> None:
    give_up_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < give_up_s
        time.sleep(0.02)


def test_refused_options_name_the_valid_ones(url):
    with pytest.raises(InvalidArgument, match=r"'xx'.*valid: auto"):
        LiveStream(url, language="xx")
    with pytest.raises(InvalidArgument, match="latency_ms"):
        LiveStream(url, latency_ms=7)


def test_bad_samples_leave_the_stream_as_it_was(url):
    with LiveStream(url) as stream:
        for bad in (b"odd", np.zeros((1, 2), np.int16), np.array([np.nan])):
            with pytest.raises(InvalidArgument):
                stream.send(bad)
        stream.send(PCM)
        assert stream.finish().text == expected(PCM)


def test_capacity_is_refused_at_once_and_comes_back(url):
    streams = [LiveStream(url) for _ in range(SLOTS)]
    with pytest.raises(AtCapacity) as caught:
        LiveStream(url)
    assert (caught.value.running, caught.value.slots) == (SLOTS, SLOTS)
    for stream in streams:
        stream.finish()
    LiveStream(url).finish()


def test_streams_that_are_given_up_free_their_slots(url):
    def give_up() -> None:
        with LiveStream(url) as stream:
            stream.send(PCM)
            raise KeyError

    for _ in range(3 * SLOTS):
        with pytest.raises(KeyError):
            give_up()


def test_send_waits_for_the_server_when_too_much_is_under_way(url):
    with LiveStream(url, language="slow", max_in_flight=1) as stream:
        begin_s = time.monotonic()
        stream.send(PCM[:8000])
        assert time.monotonic() - begin_s < 0.5
        stream.send(PCM[:8000])  # the stand-in keeps the first for a second
        assert time.monotonic() - begin_s > 0.9


def test_audio_that_waits_for_the_rest_of_its_chunk_holds_up_nobody(url):
    with LiveStream(url, max_in_flight=1) as stream:
        for packet in cut(PCM, 100):
            stream.send(packet)
        assert stream.finish().text == expected(PCM)


def test_an_answer_that_does_not_come_is_an_error(url):
    begin_s = time.monotonic()
    with LiveStream(url, language="slow", timeout_s=0.3, reconnect_s=0) as stream:
        stream.send(PCM[:100])
        with pytest.raises(ServerUnavailable, match=r"no answer from .* for 0\.3 s"):
            stream.finish()
    assert time.monotonic() - begin_s < 5


def test_a_pause_beyond_the_servers_limit_is_an_error_and_keep_alive_prevents_it(url):
    with LiveStream(url, timeout_s=0.3, reconnect_s=0) as stream:
        kept_s = time.monotonic() + IDLE_TIMEOUT_S + 0.5
        while time.monotonic() < kept_s:
            stream.keep_alive()
            time.sleep(0.2)
        begin_s = time.monotonic()
        with pytest.raises(StreamNotFound, match="idle limit"):
            next(stream.results())
        assert time.monotonic() - begin_s > IDLE_TIMEOUT_S - 0.5


def test_an_error_in_mid_stream_comes_out_everywhere_and_harms_nobody(url):
    with LiveStream(url) as neighbour:
        neighbour.send(PCM[:7000])
        with LiveStream(url, language="broken") as stream:
            stream.send(PCM)
            for call in (lambda: next(stream.results()), stream.finish, lambda: stream.send(PCM)):
                with pytest.raises(ServerError, match="broken on purpose"):
                    call()
        neighbour.send(PCM[7000:])
        assert neighbour.finish().text == expected(PCM)


def test_an_error_that_nobody_saw_comes_out_of_the_context(url):
    with pytest.raises(ServerError, match="broken"), LiveStream(url, language="broken") as stream:
        stream.send(PCM)


def test_a_stream_that_ended_takes_no_more(url):
    with LiveStream(url) as stream:
        stream.end()
        with pytest.raises(StreamClosed):
            stream.send(PCM)
    stream = LiveStream(url)
    stream.close()
    with pytest.raises(StreamClosed):
        stream.send(PCM)
    with pytest.raises(StreamClosed):
        stream.finish()


def test_what_the_chunks_raise_comes_out_after_their_text(url):
    def chunks():
        yield PCM[:6000]
        raise OSError("unplugged")

    texts = []
    with pytest.raises(OSError, match="unplugged"):
        texts.extend(r.text for r in transcribe_live(chunks(), url=url))
    stream = LiveStream(url)
    stream.feed(chunks())
    with pytest.raises(OSError, match="unplugged"):
        stream.finish()


def test_leaving_the_context_cuts_an_endless_feed(url):
    def microphone():
        while True:
            time.sleep(0.01)
            yield PCM[:1000]

    with LiveStream(url) as stream:
        stream.feed(microphone())
        assert next(stream.results()).text
    assert list(stream.results())[-1].is_final


def test_no_thread_outlives_its_stream(url):
    before = threading.active_count()
    for _ in range(3):
        for _result in transcribe_live(cut(PCM, 1600), url=url):
            break  # and abandon the rest
        with pytest.raises(InvalidArgument):
            LiveStream(url, language="xx")
    wait_for(lambda: threading.active_count() <= before)


def test_a_proxy_of_the_environment_is_not_asked_for_loopback(server, monkeypatch):
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert LiveStream(server.grpc_address).finish().text == ""
    with OfflineClient(server.http_url) as client:
        assert client.transcribe(wav(PCM)).text
