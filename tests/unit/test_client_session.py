"""Requests and answers of a stream, without a connection."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from asr_client import wire
from asr_client.audio import AudioFormat
from asr_client.errors import ServerError, StreamNotFound
from asr_client.replay import AUDIO, END, SILENCE
from asr_client.results import Word
from asr_client.session import StreamSession

OPTIONS = {"language": "en-US", "latency_ms": 320, "sample_rate": 16_000}


def session(**kwargs) -> StreamSession:
    return StreamSession(OPTIONS, **{"details": False, "progress": False, **kwargs})


def sent(stream: StreamSession, *kinds: str, pcm=SILENCE) -> list:
    """The requests of a stream that begins with packets of these kinds, its START answered."""
    requests = list(stream.requests())
    stream.accept(response("", server={"slots": 3, "idle_timeout_s": 9}))
    for kind in kinds:
        stream.put(kind, pcm)
    return requests + list(stream.requests())


def response(text: str, **result) -> service_pb2.ModelStreamInferResponse:
    """An answer; with RESULT where fields of it are given."""
    answer = service_pb2.ModelStreamInferResponse()
    outputs = {"RESULT": json.dumps({"text": text, **result})} if result else {}
    for name, value in {**outputs, "TEXT": text}.items():
        answer.infer_response.outputs.add(name=name, datatype="BYTES", shape=[1, 1])
        data = value.encode()
        answer.infer_response.raw_output_contents.append(struct.pack("<I", len(data)) + data)
    return answer


def refusal(message: str) -> service_pb2.ModelStreamInferResponse:
    return service_pb2.ModelStreamInferResponse(error_message=message)


def test_requests_carry_audio_flags_and_options_once():
    stream = session()
    start, audio, end = sent(stream, AUDIO, END)
    flags = [
        (r.parameters["sequence_start"].bool_param, r.parameters["sequence_end"].bool_param)
        for r in (start, audio, end)
    ]
    assert flags == [(True, False), (False, False), (False, True)]
    ids = {r.parameters["sequence_id"].int64_param for r in (start, audio, end)}
    assert len(ids) == 1
    assert start.parameters["language"].string_param == "en-US"
    assert start.parameters["latency_ms"].int64_param == 320
    assert "language" not in audio.parameters
    assert "language" not in end.parameters
    assert list(start.inputs[0].shape) == [1, 0]
    assert start.raw_input_contents[0] == b""


def test_audio_is_little_endian_pcm16():
    _start, request = sent(session(), AUDIO, pcm=np.array([1, -2], np.int16))
    assert request.raw_input_contents[0] == b"\x01\x00\xfe\xff"
    assert list(request.inputs[0].shape) == [1, 2]


@pytest.mark.parametrize(("details", "asked"), [(False, ["TEXT"]), (True, ["TEXT", "RESULT"])])
def test_result_is_asked_for_only_where_it_is_used(details, asked):
    stream = session(details=details)
    requests = sent(stream, AUDIO)
    stream.put(AUDIO, finalize=True)
    stream.put(AUDIO, language="de-DE")
    stream.put(END)
    outputs = [[o.name for o in r.outputs] for r in [*requests, *stream.requests()]]
    both = ["TEXT", "RESULT"]
    assert outputs == [both, asked, both, both, both]


def test_ids_are_random_63_bit_numbers():
    ids = {wire.new_sequence_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(0 < i < 2**63 for i in ids)
    assert max(ids) > 2**60


def test_text_words_and_language_add_up():
    stream = session(details=True)
    word = {"text": "hi", "start_ms": 0, "end_ms": 80, "confidence": 0.5, "new_field": 1}
    sent(stream, AUDIO, AUDIO, AUDIO, END)
    assert stream.started
    stream.accept(response("h", words=[]))
    stream.accept(response("", words=[]))
    stream.accept(response("i", words=[word], language="en-US", audio_processed_ms=80))
    stream.accept(response(" there", words=[], language="en-US", audio_processed_ms=160))
    assert stream.done
    assert not stream.unanswered
    assert [r.text for r in stream.results] == ["h", "i", " there"]
    assert [r.is_final for r in stream.results] == [False, False, True]
    transcript = stream.transcript()
    assert transcript.text == "hi there"
    assert transcript.words == (Word("hi", 0, 80, 0.5),)
    assert (transcript.language, transcript.audio_processed_ms) == ("en-US", 160)
    assert (stream.server["slots"], stream.idle_timeout_s) == (3, 9)


def test_progress_keeps_a_result_for_every_packet():
    stream = session(progress=True)
    sent(stream, AUDIO, AUDIO, END)
    for _ in range(2):
        stream.accept(response(""))
    stream.accept(response("", words=[]))
    assert [r.is_final for r in stream.results] == [False, False, True]


def test_nothing_is_sent_before_the_start_is_answered():
    stream = session()
    stream.put(AUDIO)
    assert len(list(stream.requests())) == 1
    assert not list(stream.requests())
    stream.accept(response("", server={}))
    assert len(list(stream.requests())) == 1


def test_no_more_audio_is_under_way_than_half_of_what_the_server_lets_wait():
    stream, second = session(), np.zeros(16_000, np.int16)
    for _ in range(9):
        stream.put(AUDIO, second)
    list(stream.requests())
    stream.accept(response("", server={"max_queued_s": 10}))
    assert len(list(stream.requests())) == 5
    assert not list(stream.requests())
    for _ in range(2):
        stream.accept(response(""))
    assert len(list(stream.requests())) == 2
    assert (len(stream.in_flight), stream.unanswered) == (5, 7)
    stream.put(AUDIO, np.zeros(160_000, np.int16))
    for _ in range(7):
        stream.accept(response(""))
        list(stream.requests())
    assert len(stream.in_flight) == 1, "what is larger goes alone"


def test_an_error_is_raised_and_counted_as_an_answer():
    stream = session()
    stream.put(AUDIO)
    list(stream.requests())
    with pytest.raises(StreamNotFound):
        stream.accept(refusal("NOT_FOUND: no stream"))
    assert not stream.in_flight
    assert not stream.started


def test_pieces_become_segments():
    stream = session(details=True)
    sent(stream, AUDIO, AUDIO, END)
    piece = {"segment": 0, "words": [], "language": "en-US"}
    ended = {"is_final": True, "start_ms": 0, "end_ms": 800, "reason": "endpoint"}
    more = {**piece, "segment": 1, "text": " more", "is_final": False}
    stream.accept(response("one", segment=0))
    both = [{**piece, "text": " two", **ended}, more]
    stream.accept(response(" two more", segment=1, segments=both))
    assert [(s.segment, s.text) for s in stream.results[1].segments] == [(0, " two"), (1, " more")]
    assert (stream.results[1].segment, stream.transcript().segments[0].text) == (1, "one two")
    last = {**piece, **ended, "segment": 1, "text": "", "start_ms": 800, "end_ms": 900}
    stream.accept(response("", segment=1, segments=[{**last, "reason": "end"}]))
    assert [s.text for s in stream.transcript().segments] == ["one two", "more"]
    assert [s.reason for s in stream.transcript().segments] == ["endpoint", "end"]
    assert [r.segment for r in stream.results] == [0, 1, 1]


def test_an_answer_without_text_is_an_error():
    with pytest.raises(ServerError, match="no TEXT"):
        wire.parse_response(service_pb2.ModelStreamInferResponse())


def test_bytes_tensors_of_several_elements():
    raw = b"".join(struct.pack("<I", len(e)) + e for e in (b"a", b"", b"bcd"))
    assert list(wire.iter_bytes_tensor(raw)) == [b"a", b"", b"bcd"]


def merging(**kwargs) -> StreamSession:
    """A stream that sends no more packets than it must, its START answered: 3000 are missing."""
    stream = session(merge=True, details=True, **kwargs)
    list(stream.requests())
    stream.accept(response("", server={}, missing_samples=3000))
    return stream


def put(stream: StreamSession, *lengths: int) -> list[int]:
    """Audio of these lengths, one after another.  Returns those of the requests."""
    went = []
    for length in lengths:
        stream.put(AUDIO, np.zeros(length, np.int16))
        went += [r.inputs[0].shape[1] for r in stream.requests()]
    return went


def test_audio_waits_for_the_rest_of_its_chunk():
    stream = merging()
    assert put(stream, 1000, 1000, 999) == []
    assert put(stream, 1) == [3000]
    assert put(stream, 5119) == []  # the next chunk, before the server says anything
    assert put(stream, 500) == [5619]
    stream.accept(response("a", missing_samples=1))  # counts from another sample on
    assert put(stream, 4619) == []
    stream.accept(response("b", missing_samples=4700))  # an utterance ended: chunks begin elsewhere
    assert put(stream, 80) == []
    assert put(stream, 1) == [4700]
    assert stream.tape.end == 3000 + 5619 + 4700


def test_what_does_not_wait_takes_the_audio_before_it_along():
    stream = merging()
    assert put(stream, 100) == []
    stream.put(AUDIO, finalize=True)
    assert [r.inputs[0].shape[1] for r in stream.requests()] == [100, 0]
    for _ in range(2):
        stream.accept(response("", missing_samples=3000))
    assert put(stream, 100, 0) == [100, 0]  # keep-alive
    for _ in range(2):
        stream.accept(response("", missing_samples=2900))
    assert put(stream, 100) == []
    stream.put(END)
    assert [r.inputs[0].shape[1] for r in stream.requests()] == [100, 0]


def test_packets_behind_two_without_an_answer_go_as_one():
    stream = merging(format=AudioFormat(8_000))
    assert put(stream, 3000) == [3000]
    assert put(stream, 10, 10, 10) == [10]  # resampled: what is missing is known from answers alone
    stream.accept(response("", missing_samples=99))
    assert put(stream, 10) == [30]


def test_a_server_that_tells_nothing_gets_every_packet():
    stream = session(merge=True)
    sent(stream)
    assert put(stream, 10) == [10]
    stream.accept(response(""))
    assert put(stream, 10) == [10]


def test_merged_audio_is_sent_again_whole():
    stream = merging(replay=True)
    put(stream, 1000, 1000, 1500)
    stream.restart()
    assert len(list(stream.requests())) == 1
    stream.accept(response("", server={}, missing_samples=3000))
    assert [r.inputs[0].shape[1] for r in stream.requests()] == [3500]


@pytest.mark.parametrize("progress", [False, True])
def test_what_was_answered_is_kept_in_few_packets(progress):
    """Keep-alives, and audio of a sample each."""
    stream = session(details=True, replay=True, merge=not progress, progress=progress)
    sent(stream)
    for length in (0, 1) * 500:
        assert put(stream, length) == [length]
        stream.accept(response("", segment_start_sample=0))
    assert len(list(stream.tape)) == 2
    assert len(stream.results) == (1000 if progress else 0)
    stream.restart()
    again = sent(stream)
    assert [request.inputs[0].shape[1] for request in again] == [0, 500]


def test_a_finalize_is_told_once():
    """Also of a server that does not say where the segment behind it begins."""
    stream = session(replay=True)
    sent(stream, AUDIO, pcm=np.zeros(1000, np.int16))
    stream.put(AUDIO, finalize=True)
    list(stream.requests())
    stream.restart()  # before its answer, and behind it
    for _ in range(2):
        sent(stream)
        stream.accept(response(""))
        stream.accept(response("", segment=0))
        stream.restart()
    assert [result.finalized for result in stream.results] == [True]


def test_a_stream_that_keeps_nothing_says_the_same():
    said = []
    for keep in (True, False):
        stream = session(details=True, keep=keep)
        sent(stream, AUDIO, AUDIO)
        for i, text in enumerate(("one", " two")):
            segment = {
                "segment": i, "text": text, "words": [], "is_final": True, "start_ms": 0,
                "end_ms": 80, "reason": "endpoint",
            }  # fmt: skip
            stream.accept(response(text, segments=[segment], audio_processed_ms=80 * (i + 1)))
        said.append(list(stream.results))
        assert stream.transcript().text == ("one two" if keep else "")
        assert len(stream.transcript().segments) == (2 if keep else 0)
    assert said[0] == said[1]
