"""What a sequence model must withstand: the cases of Triton's own sequence batcher tests, for ours.

Those about one stream's start, end and idle limit are in test_streaming.py.
"""

from __future__ import annotations

import random

import grpc
import httpx
import numpy as np
import pytest
from tritonclient.grpc import service_pb2_grpc

from server.conftest import pcm
from server.raw import RawStream, packet, random_id

pytestmark = pytest.mark.server


@pytest.fixture
def raw(served):
    with RawStream(served.server.grpc_address) as stream:
        yield stream


@pytest.fixture
def unary(served):
    """Requests one by one, each a call of its own."""
    with grpc.insecure_channel(served.server.grpc_address) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer


def ask_http(served, id_, samples=(), start=False, end=False) -> str:
    """One request over HTTP; its text."""
    data = [int(sample) for sample in samples]
    body = {
        "inputs": [{"name": "AUDIO", "shape": [1, len(data)], "datatype": "INT16", "data": data}],
        "outputs": [{"name": "TEXT"}],
        "parameters": {"sequence_id": id_, "sequence_start": start, "sequence_end": end},
    }
    url = f"{served.server.http_url}/v2/models/asr_streaming/infer"
    answer = httpx.post(url, json=body, timeout=60, trust_env=False).raise_for_status()
    return answer.json()["outputs"][0]["data"][0]


def test_a_request_holds_one_packet_of_one_stream(raw):
    request = packet(random_id(), range(200), start=True)
    request.inputs[0].shape[:] = [2, 100]
    raw.put(request)
    assert "batch-size 1" in raw.read()


def test_a_stream_needs_an_id(raw):
    for nobody in (0, ""):
        error = raw.ask(nobody, pcm(100, 0), start=True)
        assert "must specify a non-zero or non-empty correlation ID" in error


def test_a_number_and_a_string_of_its_digits_are_two_streams(served, raw):
    id_ = random_id()
    audio = {id_: pcm(60_000, seed=1), str(id_): pcm(60_000, seed=2)}
    text = {key: raw.ask(key, samples[:30_000], start=True) for key, samples in audio.items()}
    for key, samples in audio.items():
        text[key] += raw.ask(key, samples[30_000:], end=True)
    assert text == {key: served.expected(samples).text for key, samples in audio.items()}


@pytest.mark.parametrize("id_", [(1 << 63) - 1, 1, "a", "x" * 128, "0d0e-äß"])
def test_ids_of_any_kind(served, raw, id_):
    audio = pcm(30_000, seed=3)
    for _ in range(2):
        text = raw.ask(id_, audio[:20_000], start=True) + raw.ask(id_, audio[20_000:], end=True)
        assert text == served.expected(audio).text


def test_many_streams_on_one_connection_with_gaps_and_ragged_packets(served, raw):
    """Every stream sends when it likes, some pause for long, and answers keep the order sent."""
    rng = random.Random(4)
    audio = {random_id(): pcm(rng.randint(20_000, 90_000), seed=i) for i in range(24)}
    at, texts, sent = dict.fromkeys(audio, 0), dict.fromkeys(audio, ""), []
    while at:
        for id_ in rng.sample(list(at), rng.randint(1, len(at))):
            n = rng.randint(0, 12_000)
            done = at[id_] + n >= len(audio[id_])
            raw.send(id_, audio[id_][at[id_] :][:n], start=id_ not in sent, end=done)
            sent.append(id_)
            at[id_] += n
            if done:
                del at[id_]
    for id_ in sent:
        texts[id_] += raw.read()
    assert texts == {id_: served.expected(samples).text for id_, samples in audio.items()}


def test_a_stream_may_change_its_connection_and_protocol(served, unary):
    id_, audio = random_id(), pcm(40_000, seed=5)
    with RawStream(served.server.grpc_address) as first:
        text = first.ask(id_, audio[:12_000], start=True)
    text += ask_http(served, id_, audio[12_000:20_000])
    answer = unary(packet(id_, audio[20_000:30_000]), timeout=60)
    text += answer.raw_output_contents[0][4:].decode()
    with RawStream(served.server.grpc_address) as last:
        text += last.ask(id_, audio[30_000:], end=True)
    assert text == served.expected(audio).text


def test_triton_s_own_parameters_are_no_options(served, raw):
    """Generic clients send them: a timeout of the queue, a priority."""
    id_, audio = random_id(), pcm(30_000, seed=6)
    own = {"timeout": 60_000_000, "priority": 1}
    text = raw.ask(id_, audio, start=True, **own) + raw.ask(id_, end=True, **own)
    assert text == served.expected(audio).text


def test_a_cancelled_call_harms_neither_its_neighbours_nor_the_id_s_next_stream(served, raw):
    rng, mine = random.Random(7), random_id()
    audio, other = pcm(70_000, seed=8), pcm(50_000, seed=9)
    text = raw.ask(mine, audio[:10_000], start=True)
    id_ = random_id()
    for i in range(10):
        with RawStream(served.server.grpc_address) as cancelled:
            cancelled.send(id_, other, start=True)
            for _ in range(rng.randint(0, 20)):
                cancelled.send(id_, other)
            if i % 2:
                cancelled.read()
        part = audio[10_000 + 6000 * i : 16_000 + 6000 * i]
        text += raw.ask(mine, part, end=i == 9)
    assert text == served.expected(audio).text
    again = raw.ask(id_, other[:20_000], start=True) + raw.ask(id_, other[20_000:], end=True)
    assert again == served.expected(other).text


def test_a_call_whose_deadline_passes_leaves_the_stream_usable(served, unary):
    """The client does not know what was heard, so it begins anew under the same id."""
    id_, audio = random_id(), pcm(40_000, seed=10)
    unary(packet(id_, start=True), timeout=60)
    with pytest.raises(grpc.RpcError) as late:
        unary(packet(id_, np.tile(audio, 100)), timeout=0.001)
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    with RawStream(served.server.grpc_address) as raw:
        text = raw.ask(id_, audio, start=True) + raw.ask(id_, end=True)
    assert text == served.expected(audio).text
