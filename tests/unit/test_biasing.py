"""Phrases and allowed languages in decoding: against a plain loop, live and offline, and alone.

The random model of the tests hears nothing in particular, so phrases of pieces that it emits
anyway, with a strong boost, change much of what it says.
"""

from __future__ import annotations

import gc
import random
import weakref
from types import SimpleNamespace

import pytest
import soundfile
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine_client import Client, packets, pcm
from nemotron_asr import AsrError, decoding, load_checkpoint
from nemotron_asr.biasing import LISTS_KEPT, Bias
from nemotron_asr.decoding import greedy_decode
from nemotron_asr.engine import StreamingEngine
from nemotron_asr.engine.rounds import PlainRounds, ShapedRounds
from nemotron_asr.options import FILE, parse_options
from nemotron_asr.phrase_trie import PhraseTrie, PieceTrie
from nemotron_asr.phrases import parse_phrases

PHRASES = "ba be bi; Boku du; fade; gi gogu; Lale^2; mo"
BOOST = 4.0
BIASED = {"phrases": PHRASES, "boost": BOOST}


@pytest.fixture(scope="module")
def net(recognizer):
    return recognizer.net


def options_for(recognizer, **parameters):
    return parse_options(parameters, recognizer.languages, recognizer.latencies_ms, 320, FILE)


@pytest.fixture
def make_bias(recognizer):
    def make(**parameters) -> Bias | None:
        options = options_for(recognizer, **parameters)
        return recognizer.bias(options, recognizer.prompt_id(options.language))

    return make


def joint_inputs(net, batch: int, num_frames: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(batch, num_frames, net.config.decoder_hidden_size, generator=generator)


def ids_and_frames(rows) -> list[list[tuple[int, int]]]:
    return [[(token.id, token.frame) for token in row] for row in rows]


def expected(recognizer, f: torch.Tensor, phrases: str, boost: float) -> list[tuple[int, int]]:
    """One stream, frame by frame, with a logit for every piece.  f: (E, J)."""
    net, blank = recognizer.net, recognizer.config.blank_token_id
    trie = PhraseTrie(PieceTrie(recognizer.pieces), parse_phrases(phrases))
    walk, state, tokens = trie.START, net.decoder.fresh(1), []
    for frame, x in enumerate(f):
        for _ in range(net.config.max_symbols_per_step):
            logits = net.joint(x[None], state.g)[0]
            if logits.argmax() == blank:
                break
            bonus = torch.zeros_like(logits)
            for id_, worth in trie.fits(walk).items():
                bonus[id_] = boost * worth
            bonus[blank] = float("-inf")
            id_ = int((logits + bonus).argmax())
            tokens.append((id_, frame))
            walk = trie.step(walk, id_)
            state = net.decoder.step(torch.tensor([id_]), state.h, state.c)
    return tokens


@pytest.mark.parametrize("batch", range(1, 9))
@torch.inference_mode()
def test_a_batch_says_what_each_stream_says_in_a_plain_loop(recognizer, make_bias, batch):
    """In calls of some frames each, rows with phrases among rows without."""
    net, rng = recognizer.net, random.Random(batch)
    f = joint_inputs(net, batch, 36, seed=batch)
    totals = [rng.randint(12, 36) for _ in range(batch)]
    boosts = [rng.choice([0.0, 2.0, BOOST]) for _ in range(batch - 1)] + [BOOST]
    biases = [make_bias(phrases=PHRASES, boost=boost) for boost in boosts]
    slots = rng.sample(range(batch + 2), batch)
    state, tokens, done = net.decoder.fresh(batch + 2), [[] for _ in boosts], 0
    while done < 36:
        size = rng.randint(1, 9)
        valid = [max(0, min(size, total - done)) for total in totals]
        part = f[:, done : done + size]
        valid = [min(n, part.shape[1]) for n in valid]
        new = greedy_decode(net, part, valid, [done] * batch, state, slots, biases)
        for row, more in zip(tokens, new, strict=True):
            row += more
        done += size
    phrases = options_for(recognizer, phrases=PHRASES).phrases
    for b, row in enumerate(ids_and_frames(tokens)):
        assert row == expected(recognizer, f[b, : totals[b]], phrases, boosts[b])
        if boosts[b] == BOOST:
            assert row != expected(recognizer, f[b, : totals[b]], phrases, 0.0)
    assert all(0 <= token.confidence <= 1 for row in tokens for token in row)


@torch.inference_mode()
def test_nothing_is_said_where_the_model_says_nothing(net, make_bias):
    f = joint_inputs(net, 4, 30, seed=1)
    extra = torch.zeros(net.config.vocab_size)
    extra[net.config.blank_token_id] = 100.0
    silent = SimpleNamespace(
        config=net.config, decoder=net.decoder, joint=lambda f, g: net.joint(f, g) + extra
    )
    biases = [make_bias(phrases=PHRASES, boost=20) for _ in range(4)]
    tokens = greedy_decode(silent, f, [30] * 4, [0] * 4, net.decoder.fresh(4), None, biases)
    assert tokens == [[]] * 4


@torch.inference_mode()
def test_neighbours_hear_nothing_of_it(net, make_bias):
    """Not in a bit of their posteriors or their states, where the batches are of the same rows."""
    f = joint_inputs(net, 5, 1, seed=2)  # one frame: rows that go on are the same ones
    for rows in range(2, 6):
        found = []
        for bias in (None, make_bias(**BIASED)):
            state = net.decoder.fresh(rows)
            biases = [bias, *[None] * (rows - 1)]
            frames = [1, *[1] * (rows - 1)]
            said = greedy_decode(_once(net), f[:rows], frames, [0] * rows, state, None, biases)
            found.append((said[1:], [x[1:] for x in state]))
        assert found[0][0] == found[1][0]
        assert all(torch.equal(x, y) for x, y in zip(found[0][1], found[1][1], strict=True))


def _once(net):
    """Loud, and one symbol a frame: every row emits once."""
    extra = torch.zeros(net.config.vocab_size)
    extra[net.config.blank_token_id] = -1e4
    return SimpleNamespace(
        config=SimpleNamespace(max_symbols_per_step=1, blank_token_id=net.config.blank_token_id),
        decoder=net.decoder,
        joint=lambda f, g: net.joint(f, g) + extra,
    )


@torch.inference_mode()
def test_neighbours_say_the_same_text(net, make_bias):
    f = joint_inputs(net, 8, 60, seed=3)
    alone = greedy_decode(net, f, [60] * 8, [0] * 8, net.decoder.fresh(8))
    biases = [make_bias(**BIASED) if b % 3 == 0 else None for b in range(8)]
    mixed = greedy_decode(net, f, [60] * 8, [0] * 8, net.decoder.fresh(8), None, biases)
    same = [a == b for a, b in zip(ids_and_frames(alone), ids_and_frames(mixed), strict=True)]
    assert same == [b % 3 != 0 for b in range(8)]


@torch.inference_mode()
def test_on_a_gpu_only_rows_with_a_bias_wait_for_the_host(recognizer, make_bias, monkeypatch):
    """The same on the CPU, made to believe that it is one."""
    net, asked = recognizer.net, []
    f = joint_inputs(net, 6, 40, seed=5)
    frames, first, slots = [40, 0, 33, 40, 17, 1], [0] * 6, [3, 0, 5, 1, 4, 2]
    biased = [0, 2, 5]
    found = []
    for device in (recognizer.device, SimpleNamespace(type="cuda")):
        monkeypatch.setattr(recognizer, "device", torch.device("cpu"))
        biases = [make_bias(**BIASED) if b in biased else None for b in range(6)]
        state = net.decoder.fresh(6)
        monkeypatch.setattr(recognizer, "device", device)
        for name in ("greedy_decode", "looping_decode"):
            decode = getattr(decoding, name)
            monkeypatch.setattr(
                f"nemotron_asr.recognizer.{name}",
                lambda *a, decode=decode: asked.append((decode.__name__, a[2])) or decode(*a),
            )
        tokens = recognizer.decode(f, frames, first, state, slots, biases)
        found.append((ids_and_frames(tokens), state))
    assert asked[1:] == [("greedy_decode", [40, 33, 1]), ("looping_decode", [0, 40, 17])]
    assert found[0][0] == found[1][0]
    for x, y in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(x, y)


class Operations(TorchDispatchMode):
    """What torch is asked to do."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def operations(net, f, biases) -> list[str]:
    frames, state = [f.shape[1]] * len(f), net.decoder.fresh(len(f))
    with Operations() as seen:
        greedy_decode(net, f, frames, [0] * len(f), state, None, biases)
    return seen.names


def test_streams_without_phrases_pay_nothing(net, make_bias, monkeypatch):
    """Not one operation more; once the biased rows of a batch are done, neither do the others."""
    f = joint_inputs(net, 3, 20, seed=4)
    without = operations(net, f, None)
    assert operations(net, f, [None] * 3) == without
    assert make_bias(boost=3.0) is None
    assert make_bias(phrases=PHRASES, boost=0.0) is None
    assert len(operations(net, f, [make_bias(**BIASED), None, None])) > len(without)
    monkeypatch.setattr(decoding, "_choose", lambda *_: pytest.fail("nobody asked for that"))
    operations(net, f, [None] * 3)


# Live and offline


def offline(recognizer, audio, **options) -> str:
    return recognizer.transcribe([audio], **options)[0].text


@pytest.mark.parametrize("largest", [40, 700, 5000, 60_000])
@pytest.mark.parametrize("latency_ms", [80, 320, 1120])
def test_live_equals_offline_for_packets_of_any_size(recognizer, latency_ms, largest):
    client = Client(StreamingEngine(recognizer, num_slots=4))
    audio = pcm(20_000 if largest == 40 else 50_000, seed=latency_ms)
    for id_, extra in enumerate((BIASED, {}, BIASED)):
        client.ask(id_, start=True, latency_ms=latency_ms, **extra)
    for packet in packets(audio, random.Random(largest), largest):
        for id_ in range(3):
            client.send(id_, packet)
        client.settle()
    for id_ in range(3):
        client.ask(id_, end=True)
    biased = offline(recognizer, audio, latency_ms=latency_ms, **BIASED)
    plain = offline(recognizer, audio, latency_ms=latency_ms)
    assert [client.text(id_) for id_ in range(3)] == [biased, plain, biased]
    assert biased != plain


def test_shaped_rounds_say_the_same(recognizer):
    """What a GPU runs as graphs: rows with phrases go by themselves."""
    engines = [StreamingEngine(recognizer, num_slots=6) for _ in range(2)]
    engines[1].rounds = ShapedRounds(recognizer, engines[1].arena, 6)
    texts = []
    for engine in engines:
        client = Client(engine)
        for id_ in range(6):
            client.send(id_, start=True, **(BIASED if id_ in (1, 4) else {}))
            client.send(id_, pcm(40_000, seed=id_), end=True)
        client.settle()
        texts.append([client.text(id_) for id_ in range(6)])
    assert texts[0] == texts[1]
    assert isinstance(engines[0].rounds, PlainRounds)
    for id_ in range(6):
        options = BIASED if id_ in (1, 4) else {}
        assert texts[0][id_] == offline(
            recognizer, pcm(40_000, seed=id_), latency_ms=320, **options
        )


def test_files_of_a_batch_have_their_own(recognizer):
    from nemotron_asr import recordings

    audio = [pcm(n, seed=n) for n in (30_000, 50_000, 40_000, 20_000)]
    wanted = [BIASED, {}, {"phrases": "mo; fade", "boost": 6}, {}]
    mels = [recordings.features(recognizer, a) for a in audio]
    encoded = recordings.encode(recognizer, mels, [len(a) for a in audio], [101] * 4, 3)
    prompt = recognizer.prompt_id("auto")
    biases = [recognizer.bias(options_for(recognizer, **w), prompt) for w in wanted]
    for row, a, options in zip(
        recordings.decode(recognizer, encoded, biases), audio, wanted, strict=True
    ):
        alone = recognizer.transcribe([a], latency_ms=320, **options)[0]
        assert ids_and_frames([row]) == ids_and_frames([alone.tokens])


def test_each_utterance_begins_its_walk_afresh(recognizer):
    client = Client(StreamingEngine(recognizer, num_slots=2))
    audio = [pcm(n, seed=n) for n in (30_000, 44_000, 26_000)]
    client.ask("s", start=True, **BIASED)
    for part in audio:
        client.ask("s", part, finalize=True)
    client.ask("s", end=True)
    texts = [offline(recognizer, part, latency_ms=320, **BIASED) for part in audio]
    assert client.text("s") == " ".join(texts)


def test_a_slot_keeps_nothing_of_the_stream_before(recognizer):
    client = Client(StreamingEngine(recognizer, num_slots=1))
    audio = pcm(50_000, seed=5)
    for id_, options in enumerate((BIASED, {}, BIASED)):
        client.ask(id_, audio, start=True, end=True, **options)
        assert client.text(id_) == offline(recognizer, audio, latency_ms=320, **options)


def test_the_list_may_be_sent_again_with_every_packet(recognizer):
    client = Client(StreamingEngine(recognizer, num_slots=1))
    audio = pcm(50_000, seed=6)
    client.ask("s", audio[:20_000], start=True, **BIASED)
    client.ask("s", audio[20_000:], phrases=PHRASES.split(";"), boost="4")
    assert "phrases" in str(client.ask("s", phrases="ba").error)
    client.ask("s", end=True)
    assert client.text("s") == offline(recognizer, audio, latency_ms=320, **BIASED)


def test_the_bundled_model_finds_no_fewer_of_the_names_that_it_is_told(demo_checkpoint, samples):
    recognizer = load_checkpoint(demo_checkpoint)
    found = {}
    for boost in (0.0, 1.0):
        found[boost] = 0
        for clip in samples:
            said = clip.with_suffix(".txt").read_text().split()
            names = {word.strip(".,?").removesuffix("'s") for word in said if word[0].isupper()}
            audio, _ = soundfile.read(clip, dtype="float32")
            result = recognizer.transcribe([audio], "en-US", phrases=sorted(names), boost=boost)
            found[boost] += sum(name in result[0].text for name in names)
    assert found[1.0] >= found[0.0] > 0


def test_lists_are_made_ready_once(recognizer, make_bias):
    first, second = make_bias(**BIASED), make_bias(**BIASED)
    assert first is not second
    assert first._boost is second._boost
    assert make_bias(phrases=PHRASES, boost=2)._boost is not first._boost


@pytest.fixture
def lists_made(recognizer, monkeypatch) -> weakref.WeakSet:
    """The lists that live; `.count` of them were made."""
    made = weakref.WeakSet()
    made.count = 0

    class Counted(PhraseTrie):
        def __init__(self, *args):
            super().__init__(*args)
            made.add(self)
            made.count += 1

    monkeypatch.setattr("nemotron_asr.biasing.PhraseTrie", Counted)
    return made


def lists(first: str, count: int) -> list[list[str]]:
    """Different ones, which no other test has."""
    return [[f"{first} ba{' be' * i}"] for i in range(count)]


def test_a_stream_s_list_is_made_once_however_many_streams_have_others(recognizer, lists_made):
    """Also when its utterances end again and again, and for another stream with the same."""
    count = LISTS_KEPT + 4
    client = Client(StreamingEngine(recognizer, num_slots=count + 1))
    wanted = lists("mo", count)
    for id_, phrases in enumerate(wanted):
        client.ask(id_, pcm(9000, seed=id_), start=True, phrases=phrases)
    for _ in range(3):
        for id_ in range(count):
            client.ask(id_, pcm(9000, seed=id_), finalize=True)
    client.ask("same", start=True, phrases=wanted[0])
    assert lists_made.count == count


def test_lists_of_streams_that_ended_are_let_go(recognizer, lists_made):
    client = Client(StreamingEngine(recognizer, num_slots=1))
    gc.disable()
    try:
        for phrases in lists("fade", LISTS_KEPT + 4):
            client.ask("s", pcm(9000), start=True, end=True, phrases=phrases)
        assert len(lists_made) <= LISTS_KEPT + 1  # the last answer may still hold one
    finally:
        gc.enable()


def test_a_phrase_that_the_model_cannot_write_is_named(recognizer):
    client = Client(StreamingEngine(recognizer, num_slots=1))
    for phrases in ("ba; b\u00e9b\u00e9", ["q"]):
        error = client.ask("s", start=True, phrases=phrases).error
        assert str(error).startswith("INVALID_ARGUMENT: phrases: ")
        assert "which no piece of this model's vocabulary has" in str(error)
    assert len(client.engine.table) == 0
    with pytest.raises(AsrError, match="'q'"):
        recognizer.transcribe([pcm(100)], phrases="q")


# Languages


@pytest.fixture
def fond_of_tags(recognizer, monkeypatch):
    """A model that ends many a sentence."""
    head = recognizer.net.joint.head
    bias = head.bias.clone()
    for id_, language in recognizer.biases.tags.items():
        bias[id_] += {"en-US": 3.5, "de-DE": 2.0, "fr-FR": 4.0}[language]
    monkeypatch.setattr(head, "bias", bias)
    return recognizer


def tags(recognizer, tokens) -> list[str]:
    return [recognizer.biases.tags[t.id] for t in tokens if t.id in recognizer.biases.tags]


@pytest.mark.parametrize("allowed", ["de-DE,fr-FR", "en-US,fr-FR", "en, de-DE"])
def test_only_allowed_languages_are_detected(fond_of_tags, allowed):
    audio = [pcm(80_000, seed=seed) for seed in range(4)]
    names = {"en": "en-US"}
    wanted = {names.get(name.strip(), name.strip()) for name in allowed.split(",")}
    seen, free = set(), set()
    for plain, kept in zip(
        fond_of_tags.transcribe(audio),
        fond_of_tags.transcribe(audio, languages=allowed),
        strict=True,
    ):
        free |= set(tags(fond_of_tags, plain.tokens))
        seen |= set(tags(fond_of_tags, kept.tokens))
        assert kept.language in wanted
    assert free == {"de-DE", "en-US", "fr-FR"}
    assert seen <= wanted
    assert seen


def test_the_best_allowed_tag_stands_where_another_would(fond_of_tags):
    """Up to the first tag all is the same; that one is at the same place."""
    audio = [pcm(80_000, seed=seed) for seed in range(4)]
    changed = 0
    for plain, kept in zip(
        fond_of_tags.transcribe(audio),
        fond_of_tags.transcribe(audio, languages=["de-DE", "fr-FR"]),
        strict=True,
    ):
        first = next(
            i for i, t in enumerate(plain.tokens) if fond_of_tags.biases.tags.get(t.id) == "en-US"
        )
        assert ids_and_frames([kept.tokens[:first]]) == ids_and_frames([plain.tokens[:first]])
        assert kept.tokens[first].frame == plain.tokens[first].frame
        assert tags(fond_of_tags, [kept.tokens[first]])[0] in ("de-DE", "fr-FR")
        changed += 1
    assert changed == 4


def test_one_language_is_that_language(fond_of_tags):
    audio = [pcm(60_000)]
    alone = fond_of_tags.transcribe(audio, languages="de-DE")
    assert alone == fond_of_tags.transcribe(audio, "de-DE")
    assert alone != fond_of_tags.transcribe(audio)


def test_live_equals_offline_with_languages(fond_of_tags):
    client = Client(StreamingEngine(fond_of_tags, num_slots=4))
    audio, options = pcm(80_000, seed=1), {"languages": "de-DE,fr-FR", **BIASED}
    client.ask("s", start=True, **options)
    for packet in packets(audio, random.Random(0), 5000):
        client.ask("s", packet)
    final = client.ask("s", end=True)
    result = fond_of_tags.transcribe([audio], latency_ms=320, **options)[0]
    assert client.text("s") == result.text
    assert final.language == result.language


def test_a_language_given_in_mid_stream_is_not_held_to_the_list(fond_of_tags):
    """`languages` holds for auto alone."""
    client = Client(StreamingEngine(fond_of_tags, num_slots=4))
    first, second, third = (pcm(60_000, seed=seed) for seed in range(3))
    client.ask("s", start=True, languages="de-DE,fr-FR")
    client.ask("s", first)
    client.ask("s", second, language="en-US")
    client.ask("s", third, language="auto")
    client.ask("s", end=True)
    texts = [
        fond_of_tags.transcribe([audio], language, 320, languages=languages)[0].text
        for audio, language, languages in (
            (first, "auto", "de-DE,fr-FR"),
            (second, "en-US", ""),
            (third, "auto", "de-DE,fr-FR"),
        )
    ]
    assert client.text("s") == " ".join(texts)


def test_aliases_of_a_language_are_one(recognizer):
    en = recognizer.bias(options_for(recognizer, languages="en,fr-FR"), 101)
    allowed, others = ([recognizer.biases.tags[int(i)] for i in ids] for ids in en.tags)
    assert sorted(allowed) == ["en-US", "fr-FR"]
    assert others == ["de-DE"]
    everything = options_for(recognizer, languages="en-US,fr-FR,de-DE")
    assert recognizer.bias(everything, 101) is None
