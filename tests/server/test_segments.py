"""Utterances, finalize and a language changed in mid-stream: the client, on the real server."""

from __future__ import annotations

import itertools
import json
import random

import pytest
import soundfile
from click.testing import CliRunner

from asr_client import InvalidArgument, LiveStream, StreamClosed
from asr_client.cli import main
from asr_server import TritonServer
from nemotron_asr import load_checkpoint
from server.conftest import Served, pcm, settings_for

pytestmark = pytest.mark.server
PAUSE_MS = 400
AUDIO = pcm(16_000 * 15, seed=5)


@pytest.fixture(scope="module")
def pausing(pausing_checkpoint, live_repository):
    """A server of live streams whose model falls silent at times."""
    settings = settings_for(pausing_checkpoint, model_repository=live_repository, slots=16)
    with TritonServer(settings) as server:
        yield Served(server, load_checkpoint(pausing_checkpoint))


def packets(audio, seed: int, largest: int = 6000):
    rng, at = random.Random(seed), 0
    while at < len(audio):
        size = rng.randint(1, largest)
        yield audio[at : at + size]
        at += size


def live(served, audio, seed=0, **options):
    """The transcript of a whole stream, and its results."""
    with LiveStream(served.server.grpc_address, **options) as stream:
        stream.feed(packets(audio, seed))
        return stream.finish(), list(stream.results())


def test_pieces_of_results_make_up_the_segments_of_the_transcript(pausing):
    transcript, results = live(pausing, AUDIO, endpoint_ms=PAUSE_MS)
    segments = transcript.segments
    assert len(segments) > 8
    assert {s.reason for s in segments[:-1]} == {"endpoint"}
    assert [s.segment for s in segments] == list(range(len(segments)))
    assert " ".join(s.text for s in segments) == transcript.text
    assert sum((s.words for s in segments), ()) == transcript.words
    pieces = list(itertools.chain.from_iterable(r.segments for r in results))
    assert "".join(p.text for p in pieces) == "".join(r.text for r in results) == transcript.text
    for segment in segments:
        own = [p for p in pieces if p.segment == segment.segment]
        assert "".join(p.text for p in own).strip() == segment.text
        assert [p.is_final for p in own] == [False] * (len(own) - 1) + [True]
        assert own[-1].end_ms == segment.end_ms
    assert live(pausing, AUDIO, seed=1, endpoint_ms=PAUSE_MS)[0] == transcript


def test_without_reconnecting_and_words_text_and_segments_are_the_same(pausing):
    full, _ = live(pausing, AUDIO, endpoint_ms=PAUSE_MS)
    lean, _ = live(pausing, AUDIO, endpoint_ms=PAUSE_MS, reconnect_s=0)
    assert lean == full
    with LiveStream(pausing.server.grpc_address, reconnect_s=0) as stream:  # RESULT where needed
        stream.send(AUDIO[:100_000])
        stream.finalize()
        stream.send(AUDIO[100_000:])
        transcript = stream.finish()
    texts = [pausing.expected(part).text for part in (AUDIO[:100_000], AUDIO[100_000:])]
    assert [s.text for s in transcript.segments] == texts
    assert [s.end_ms for s in transcript.segments] == [100_000 // 16, len(AUDIO) // 16]
    assert transcript.words == ()


def test_finalize_says_what_was_heard_and_the_stream_goes_on(pausing):
    cuts = [40_001, 90_000, 90_000, 180_007]
    with LiveStream(pausing.server.grpc_address) as stream:
        results = stream.results()
        for begin, end in itertools.pairwise([0, *cuts]):
            stream.send(AUDIO[begin:end])
            stream.finalize()
            heard = list(_until_finalized(results))
            assert "".join(r.text for r in heard).strip() == pausing.expected(AUDIO[begin:end]).text
            assert heard[-1].audio_processed_ms == end // 16
        stream.send(AUDIO[cuts[-1] :])
        transcript = stream.finish()
    assert [s.reason for s in transcript.segments] == ["finalize"] * 3 + ["end"]
    assert transcript.segments[-1].text == pausing.expected(AUDIO[cuts[-1] :]).text


def _until_finalized(results):
    for result in results:
        yield result
        if result.finalized:
            return


def test_a_language_holds_for_the_audio_behind_it(pausing):
    with LiveStream(pausing.server.grpc_address, language="de-DE") as stream:
        stream.send(AUDIO[:100_000])
        stream.set_language("de-DE")  # as it is: no cut
        stream.set_language("fr_FR")
        stream.send(AUDIO[100_000:])
        with pytest.raises(InvalidArgument, match=r"'tlh' is not supported; valid: auto, de-DE"):
            stream.set_language("tlh")
        transcript = stream.finish()
        with pytest.raises(StreamClosed):
            stream.set_language("de-DE")
        with pytest.raises(StreamClosed):
            stream.finalize()
    parts = [(AUDIO[:100_000], "de-DE"), (AUDIO[100_000:], "fr-FR")]
    assert [s.text for s in transcript.segments] == [pausing.expected(*p).text for p in parts]
    assert [s.reason for s in transcript.segments] == ["language", "end"]


def test_what_is_kept_for_a_replay_is_bounded(pausing):
    """Speech that never pauses for long is cut, silence is not kept."""
    chunk = 16_000
    with LiveStream(pausing.server.grpc_address, max_replay_s=5, max_in_flight=1) as stream:
        tape, kept = stream._session.tape, []
        for second in range(60):
            at = second % 15 * chunk
            stream.send(AUDIO[at : at + chunk] if second < 30 else AUDIO[:chunk] * 0)
            kept.append(tape.end - tape.begin)
        segments = stream.finish().segments
    assert max(kept[:30]) <= (5 + 2) * chunk  # and what is in flight
    assert max(kept) <= (20 + 4) * chunk  # the model begins afresh every 20 s of silence
    assert {s.reason for s in segments[:-1]} == {"max_length"}


@pytest.mark.parametrize(
    ("name", "value", "valid"),
    [
        ("max_replay_s", 0, "1 to 750"),
        ("max_replay_s", 751, "1 to 750"),
        ("max_replay_s", float("nan"), "1 to 750"),
        ("max_in_flight", 0, "1 or more"),
        ("timeout_s", 0, "0.1 or more"),
        ("reconnect_s", -1, "0 or more"),
        ("max_utterance_ms", 600_001, "0 to 600000"),
        ("channels", "2", "an integer"),
        ("sample_rate", 8000.5, "an integer"),
    ],
)
def test_what_the_client_cannot_do_is_refused(name, value, valid):
    with pytest.raises(InvalidArgument, match=valid) as caught:
        LiveStream("127.0.0.1:1", **{name: value})
    assert f"{name} {value!r}" in str(caught.value)


def test_the_command_shows_a_line_per_utterance_or_an_object_per_result(pausing, tmp_path):
    soundfile.write(tmp_path / "a.wav", AUDIO, 16_000, subtype="PCM_16")
    flags = ["--endpoint-ms", str(PAUSE_MS), "--fast", "--url", pausing.server.grpc_address]
    command = ["stream", str(tmp_path / "a.wav"), *flags]
    transcript, _ = live(pausing, AUDIO, endpoint_ms=PAUSE_MS)
    lines = CliRunner().invoke(main, command).stdout.splitlines()
    assert [line.split(maxsplit=3)[3] for line in lines] == [s.text for s in transcript.segments]
    assert [float(line.split()[0]) for line in lines] == [
        round(s.start_ms / 1000, 1) for s in transcript.segments
    ]
    objects = map(json.loads, CliRunner().invoke(main, [*command, "--json"]).stdout.splitlines())
    pieces = [piece for result in objects for piece in result["segments"]]
    assert "".join(piece["text"] for piece in pieces) == transcript.text
    ends = [piece["end_ms"] for piece in pieces if piece["is_final"]]
    assert ends == [s.end_ms for s in transcript.segments]
