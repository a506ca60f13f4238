"""Requests and answers of a stream, without a connection."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from asr_client import wire
from asr_client.errors import ServerError, StreamNotFound
from asr_client.results import Word
from asr_client.session import AUDIO, END, START, StreamSession

OPTIONS = {"language": "en-US", "latency_ms": 320, "sample_rate": 16_000}


def session(**kwargs) -> StreamSession:
    return StreamSession(OPTIONS, **{"words": False, "progress": False, **kwargs})


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
    start, audio, end = (stream.request(kind) for kind in (START, AUDIO, END))
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
    request = session().request(AUDIO, np.array([1, -2], np.int16))
    assert request.raw_input_contents[0] == b"\x01\x00\xfe\xff"
    assert list(request.inputs[0].shape) == [1, 2]


@pytest.mark.parametrize(("words", "asked"), [(False, ["TEXT"]), (True, ["TEXT", "RESULT"])])
def test_result_is_asked_for_only_where_it_is_used(words, asked):
    stream = session(words=words)
    outputs = {k: [o.name for o in stream.request(k).outputs] for k in (START, AUDIO, END)}
    assert outputs == {START: ["TEXT", "RESULT"], AUDIO: asked, END: ["TEXT", "RESULT"]}


def test_ids_are_random_63_bit_numbers():
    ids = {wire.new_sequence_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(0 < i < 2**63 for i in ids)
    assert max(ids) > 2**60


def test_text_words_and_language_add_up():
    stream = session(words=True)
    word = {"text": "hi", "start_ms": 0, "end_ms": 80, "confidence": 0.5, "new_field": 1}
    for kind in (START, AUDIO, AUDIO, AUDIO, END):
        stream.request(kind)
    stream.accept(response("", server={"slots": 3, "idle_timeout_s": 9}))
    assert stream.started
    stream.accept(response("h", words=[]))
    stream.accept(response("", words=[]))
    stream.accept(response("i", words=[word], language="en-US", audio_processed_ms=80))
    stream.accept(response(" there", words=[], language="en-US", audio_processed_ms=160))
    assert stream.done
    assert not stream.in_flight
    assert [r.text for r in stream.results] == ["h", "i", " there"]
    assert [r.is_final for r in stream.results] == [False, False, True]
    transcript = stream.transcript()
    assert transcript.text == "hi there"
    assert transcript.words == (Word("hi", 0, 80, 0.5),)
    assert (transcript.language, transcript.audio_processed_ms) == ("en-US", 160)
    assert (stream.server["slots"], stream.idle_timeout_s) == (3, 9)


def test_progress_keeps_a_result_for_every_packet():
    stream = session(progress=True)
    for kind in (START, AUDIO, AUDIO, END):
        stream.request(kind)
    stream.accept(response("", server={}))
    for _ in range(2):
        stream.accept(response(""))
    stream.accept(response("", words=[]))
    assert [r.is_final for r in stream.results] == [False, False, True]


def test_an_error_is_raised_and_counted_as_an_answer():
    stream = session()
    stream.request(START)
    stream.request(AUDIO)
    with pytest.raises(StreamNotFound):
        stream.accept(refusal("NOT_FOUND: no stream"))
    assert list(stream.in_flight) == [AUDIO]
    assert not stream.started


def test_an_answer_without_text_is_an_error():
    with pytest.raises(ServerError, match="no TEXT"):
        wire.parse_response(service_pb2.ModelStreamInferResponse())


def test_bytes_tensors_of_several_elements():
    raw = b"".join(struct.pack("<I", len(e)) + e for e in (b"a", b"", b"bcd"))
    assert list(wire.iter_bytes_tensor(raw)) == [b"a", b"", b"bcd"]
