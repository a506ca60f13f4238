"""The two ways of greedy decoding find the same and leave the streams in the same state."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from nemotron_asr import decoding
from nemotron_asr.decoding import greedy_decode, looping_decode, num_looks
from nemotron_asr.model import NemotronAsr


@pytest.fixture(scope="module")
def net(recognizer) -> NemotronAsr:
    return recognizer.net


def joint_inputs(batch: int, num_frames: int, width: int, scale: float = 3.0) -> torch.Tensor:
    """As the encoder of a lively model makes them: see `reference._standardise`."""
    return scale * torch.randn(batch, num_frames, width)


def decode_both(net, f, num_frames, num_slots=None, slots=None, calls=1):
    """Tokens of each row and the states afterwards, of both ways, call after call."""
    results = []
    for decode in (greedy_decode, looping_decode):
        state = net.decoder.fresh(num_slots or len(num_frames))
        tokens = [[] for _ in num_frames]
        for call in range(calls):
            first = [1000 * b + call * f.shape[1] for b in range(len(num_frames))]
            found = decode(net, f.roll(call, dims=1), num_frames, first, state, slots)
            for row, more in zip(tokens, found, strict=True):
                row += more
        results.append((tokens, state))
    return results


def assert_same(greedy, looping) -> None:
    for a, b in zip(greedy[0], looping[0], strict=True):
        assert [(t.id, t.frame) for t in a] == [(t.id, t.frame) for t in b]
        assert [t.confidence for t in a] == pytest.approx([t.confidence for t in b], abs=1e-5)
        assert all(type(x) is y for t in b for x, y in zip(t, (int, int, float), strict=True))
    for a, b in zip(greedy[1], looping[1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_frames", [1, 2, 4, 7, 14, 112])
@pytest.mark.parametrize("batch", range(1, 10))
def test_looping_equals_greedy(recognizers, size, batch, num_frames):
    """Of any lengths, none at all among them, and in slots of any order."""
    net = recognizers(size).net
    torch.manual_seed(1000 * batch + num_frames)
    f = joint_inputs(batch, num_frames, net.config.decoder_hidden_size)
    lengths = torch.randint(0, num_frames + 1, (batch,)).tolist()
    lengths[0] = num_frames
    slots = torch.randperm(batch + 3)[:batch].tolist()
    greedy, looping = decode_both(net, f, lengths, batch + 3, slots, calls=3)
    assert_same(greedy, looping)
    for b, row in enumerate(looping[0]):
        assert all((t.frame - 1000 * b) % num_frames < lengths[b] for t in row)


def test_the_cases_above_have_tokens_blanks_and_forced_advances(net):
    torch.manual_seed(0)
    f = joint_inputs(9, 112, net.config.decoder_hidden_size)
    _, (tokens, _) = decode_both(net, f, [112] * 9)
    most = net.config.max_symbols_per_step
    frames = [[t.frame for t in row] for row in tokens]
    assert len({t.id for row in tokens for t in row}) >= 20
    assert any(row.count(frame) == most for row in frames for frame in row)
    assert all(len(set(row)) < 112 for row in frames), "some frames are blank"


def with_bias_of_blank(net: NemotronAsr, bias: float) -> NemotronAsr:
    """The same network, more or less inclined to say nothing."""
    extra = torch.zeros(net.config.vocab_size)
    extra[net.config.blank_token_id] = bias
    return SimpleNamespace(
        config=net.config, decoder=net.decoder, joint=lambda f, g: net.joint(f, g) + extra
    )


def test_all_blank_leaves_the_state_alone(net):
    torch.manual_seed(0)
    f = joint_inputs(3, 14, net.config.decoder_hidden_size)
    greedy, looping = decode_both(with_bias_of_blank(net, 1e4), f, [14, 5, 0])
    assert looping[0] == [[], [], []]
    assert_same(greedy, looping)
    for x, fresh in zip(looping[1], net.decoder.fresh(3), strict=True):
        assert torch.equal(x, fresh)


@pytest.mark.parametrize("most", [1, 2, 10])
def test_the_most_symbols_on_every_frame(net, most):
    torch.manual_seed(0)
    loud = with_bias_of_blank(net, -1e4)
    loud.config = dataclasses.replace(net.config, max_symbols_per_step=most)
    f = joint_inputs(3, 14, net.config.decoder_hidden_size)
    greedy, looping = decode_both(loud, f, [14, 6, 0])
    assert [len(row) for row in looping[0]] == [14 * most, 6 * most, 0]
    assert_same(greedy, looping)


@pytest.mark.parametrize("joint_rows", [1, 8, 64])
def test_any_window(net, monkeypatch, joint_rows):
    monkeypatch.setattr(decoding, "LOOPING_JOINT_ROWS", joint_rows)
    torch.manual_seed(0)
    f = joint_inputs(5, 40, net.config.decoder_hidden_size)
    assert_same(*decode_both(net, f, [40, 33, 1, 0, 17]))


def test_rows_without_frames_may_share_a_slot_of_any_content(net):
    """So are batches filled up: such rows change nothing and hear nothing, NaN included."""
    torch.manual_seed(0)
    f = joint_inputs(4, 7, net.config.decoder_hidden_size)
    f[2:] = float("nan")
    state = net.decoder.fresh(3)
    for x in state:
        x[2] = float("nan")
    found = looping_decode(net, f, [7, 5, 0, 0], [0] * 4, state, [0, 1, 2, 2])
    alone = net.decoder.fresh(2)
    expected = looping_decode(net, f[:2], [7, 5], [0, 0], alone)
    assert [[t[:2] for t in row] for row in found] == [
        *([t[:2] for t in row] for row in expected), [], [],
    ]  # fmt: skip
    for x, y in zip(state, alone, strict=True):
        assert x[2].isnan().all()
        torch.testing.assert_close(x[:2], y)


def test_the_host_asks_once_in_many_looks(net, monkeypatch):
    asked = []
    collect = decoding.collect
    monkeypatch.setattr(decoding, "collect", lambda *a: asked.append(1) or collect(*a))
    loud = with_bias_of_blank(net, -1e4)
    f = joint_inputs(2, 14, net.config.decoder_hidden_size)
    state = net.decoder.fresh(2)
    tokens = looping_decode(loud, f, [14, 14], [0, 0], state)
    looks = 14 * net.config.max_symbols_per_step
    assert [len(row) for row in tokens] == [looks, looks]
    assert len(asked) == -(-looks // num_looks(14))
