"""Riva's gRPC, with NVIDIA's own client: the library's text, however it is asked for."""

from __future__ import annotations

import io
import threading
from itertools import pairwise

import numpy as np
import pytest
import riva.client
import soundfile
from riva.client.proto import riva_asr_pb2 as rasr
from riva.client.proto.riva_audio_pb2 import AudioEncoding

from asr_client import LiveStream, OfflineClient
from asr_server import TritonServer
from nemotron_asr.audio import decode_audio
from nemotron_asr.pcm import decode_g711
from server.conftest import Served, pcm, settings_for, wav
from server.gateway.conftest import RunningGateway, start_gateway, stop

pytestmark = pytest.mark.server

PUNCTUATED = {"enable_automatic_punctuation": True}
DIRECT = [("grpc.enable_http_proxy", 0)]


def service(gateway: RunningGateway, key: str | None = None, **auth) -> riva.client.ASRService:
    metadata = [["authorization", f"Bearer {key}"]] if key else None
    options = [*DIRECT, *auth.pop("options", ())]
    return riva.client.ASRService(
        riva.client.Auth(uri=gateway.riva, metadata_args=metadata, options=options, **auth)
    )


def live_config(interim: bool = False, **fields) -> riva.client.StreamingRecognitionConfig:
    fields = {"encoding": AudioEncoding.LINEAR_PCM, "sample_rate_hertz": 16_000, **fields}
    return riva.client.StreamingRecognitionConfig(
        config=riva.client.RecognitionConfig(**fields), interim_results=interim
    )


def results_of(responses) -> list[rasr.StreamingRecognitionResult]:
    return [result for response in responses for result in response.results]


def say(gateway: RunningGateway, packets, interim: bool = False, **fields):
    """Results of a whole stream."""
    config = live_config(interim, **fields)
    return results_of(service(gateway).streaming_response_generator(packets, config))


def text_of(results) -> str:
    return "".join(r.alternatives[0].transcript for r in results if getattr(r, "is_final", True))


def in_pieces(data: bytes, size: int = 3200):
    for at in range(0, len(data), size):
        yield data[at : at + size]


def live(served: Served, audio, **options):
    """What the library's own client hears."""
    options = {"endpoint_ms": 800, "words": True, **options}
    with LiveStream(served.server.grpc_address, **options) as stream:
        stream.send(audio)
        return stream.finish()


# Recordings


def flac(samples: np.ndarray) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, 16_000, format="FLAC")
    return out.getvalue()


@pytest.mark.parametrize(
    ("encode", "fields"),
    [
        (wav, {}),
        (wav, {"encoding": AudioEncoding.LINEAR_PCM}),
        (flac, {}),
        (flac, {"encoding": AudioEncoding.FLAC, "sample_rate_hertz": 16_000}),
        (np.ndarray.tobytes, {"encoding": AudioEncoding.LINEAR_PCM, "sample_rate_hertz": 16_000}),
        (np.ndarray.tobytes, {"sample_rate_hertz": 16_000}),
    ],
)
def test_recordings_give_the_librarys_text_and_words(gateway, served, encode, fields):
    audio = pcm(60_001, seed=1)
    config = riva.client.RecognitionConfig(
        language_code="de-DE", enable_word_time_offsets=True, **PUNCTUATED, **fields
    )
    response = service(gateway).offline_recognize(encode(audio), config)
    expected = served.expected(audio, "de-DE", 1120)
    (result,) = response.results
    (best,) = result.alternatives
    assert best.transcript == expected.text
    assert [(w.word, w.start_time) for w in best.words] == [w[:2] for w in expected.words]
    assert all(w.start_time <= w.end_time and 0 < w.confidence <= 1 for w in best.words)
    assert 0 < best.confidence <= 1
    assert (result.channel_tag, round(result.audio_processed, 2)) == (1, 3.75)


@pytest.mark.parametrize("encoding", ["MULAW", "ALAW"])
def test_telephone_recordings(gateway, served, encoding):
    codes = np.random.default_rng(1).integers(0, 256, 8000 * 2).astype(np.uint8).tobytes()
    config = riva.client.RecognitionConfig(
        encoding=AudioEncoding.Value(encoding), language_code="en-US", **PUNCTUATED
    )
    response = service(gateway).offline_recognize(codes, config)
    out = io.BytesIO()
    soundfile.write(out, decode_g711(codes, encoding.lower()), 8000, format="WAV")
    expected = served.expected(decode_audio(out.getvalue()), "en-US", 1120)
    assert text_of(response.results) == expected.text
    assert not response.results[0].alternatives[0].words


def test_bare_text_pauses_and_phrases_of_recordings(gateway, served):
    audio = wav(pcm(90_000, seed=2))
    config = riva.client.RecognitionConfig(language_code="en-US")
    riva.client.add_word_boosting_to_config(config, ["fade", "mo"], 8.0)
    riva.client.add_endpoint_parameters_to_config(config, -1, -1, 200, -1, -1, -1)
    response = service(gateway).offline_recognize(audio, config)
    with OfflineClient(served.server.http_url) as client:
        expected = client.transcribe(
            audio, language="en-US", punctuation=False, capitals=False, endpoint_ms=200,
            phrases=["fade", "mo"], boost=2.0,
        )  # fmt: skip
    assert text_of(response.results) == expected.text == expected.text.lower()
    assert len(response.results) == len(expected.segments)


def test_channels_of_a_recording(gateway, served):
    left, right = pcm(30_000, seed=3), pcm(30_000, seed=4)
    config = riva.client.RecognitionConfig(
        encoding=AudioEncoding.LINEAR_PCM, sample_rate_hertz=16_000, language_code="en-US",
        audio_channel_count=2, enable_separate_recognition_per_channel=True, **PUNCTUATED,
    )  # fmt: skip
    samples = np.stack([left, right], 1).tobytes()
    results = service(gateway).offline_recognize(samples, config).results
    assert [result.channel_tag for result in results] == [1, 2]
    expected = [served.expected(one, "en-US", 1120).text for one in (left, right)]
    assert [result.alternatives[0].transcript for result in results] == expected


# Streams


@pytest.mark.parametrize("latency_ms", [80, 320])
def test_streams_give_the_librarys_text(gateway, served, latency_ms):
    audio = pcm(16_000 * 6 + 123, seed=latency_ms)
    results = say(
        gateway, in_pieces(audio.tobytes(), 1777), interim=True, language_code="de-DE",
        enable_word_time_offsets=True, custom_configuration={"latency_ms": str(latency_ms)},
        **PUNCTUATED,
    )  # fmt: skip
    expected = live(served, audio, language="de-DE", latency_ms=latency_ms)
    finals = [r for r in results if r.is_final]
    assert text_of(results) == expected.text
    assert len(finals) == len(expected.segments)
    words = [word for r in finals for word in r.alternatives[0].words]
    assert [(w.word, w.start_time, w.end_time) for w in words] == [
        (w.text, w.start_ms, w.end_ms) for w in expected.words
    ]
    assert round(results[-1].audio_processed * 1000) == len(audio) // 16
    assert [r.audio_processed for r in results] == sorted(r.audio_processed for r in results)


def test_interim_results_grow_to_the_final_one(gateway, served):
    results = say(gateway, in_pieces(pcm(16_000 * 8, seed=5).tobytes()), interim=True)
    assert sum(not r.is_final for r in results) > 5
    for before, after in pairwise(results):
        if not before.is_final:
            text = before.alternatives[0].transcript
            assert after.alternatives[0].transcript.startswith(text)
            assert 0 < before.stability < 1
            assert not before.alternatives[0].words


def test_files_are_streamed_with_their_headers(gateway, served, tmp_path):
    """As transcribe_file.py does: no encoding, no rate, the WAV file as it is."""
    audio = pcm(40_000, seed=6)
    with io.BytesIO(wav(audio)) as file:
        samples, _ = soundfile.read(file, dtype="int16")
    for name, rate, subtype in (("a", 16_000, "PCM_16"), ("b", 8000, "ULAW")):
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, samples, rate, subtype=subtype)
        with path.open("ab") as more:  # a chunk behind the samples
            more.write(b"LIST\x04\0\0\0\xff\xff\xff\xff")
        config = riva.client.StreamingRecognitionConfig(
            config=riva.client.RecognitionConfig(max_alternatives=1, **PUNCTUATED),
            interim_results=True,
        )
        out = io.StringIO()
        with riva.client.AudioChunkFileIterator(path, 1600) as chunks:
            riva.client.print_streaming(
                service(gateway).streaming_response_generator(chunks, config), output_file=[out]
            )
        heard, _ = soundfile.read(path, dtype="int16", frames=len(samples))
        expected = live(served, heard, sample_rate=rate)
        said = [line.removeprefix("## ").strip() for line in out.getvalue().splitlines()]
        assert said == [segment.text for segment in expected.segments]


@pytest.mark.parametrize("encoding", ["MULAW", "ALAW"])
def test_telephone_streams(gateway, served, encoding):
    codes = np.random.default_rng(0).integers(0, 256, 8000 * 3).astype(np.uint8).tobytes()
    fields = {"encoding": AudioEncoding.Value(encoding), "sample_rate_hertz": 8000, **PUNCTUATED}
    results = say(gateway, in_pieces(codes, 777), **fields)
    samples = decode_g711(codes, encoding.lower())
    assert text_of(results) == live(served, samples, sample_rate=8000).text


def test_two_channels_are_mixed_and_bytes_may_be_odd(gateway, served):
    audio = np.stack([pcm(30_000, seed=7), pcm(30_000, seed=8)], 1)
    results = say(gateway, in_pieces(audio.tobytes(), 1001), audio_channel_count=2, **PUNCTUATED)
    assert text_of(results) == live(served, audio, channels=2).text


def test_speech_contexts(gateway, served):
    audio = pcm(60_000, seed=9)
    contexts = [
        rasr.SpeechContext(phrases=["ba be bi", "fade"], boost=10),
        rasr.SpeechContext(phrases=["mo"], boost=100),  # as much as 20
    ]
    results = say(gateway, [audio.tobytes()], speech_contexts=contexts, **PUNCTUATED)
    phrases = ["ba be bi^0.5", "fade^0.5", "mo"]
    expected = live(served, audio, phrases=phrases, boost=5.0)
    assert text_of(results) == expected.text != live(served, audio).text


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("multi", {"language": "auto"}),
        ("", {"language": "auto"}),
        ("en-US", {"language": "en-US"}),
        ("de-DE,fr-FR", {"languages": ["de-DE", "fr-FR"]}),
    ],
)
def test_languages(gateway, served, code, options):
    audio = pcm(40_000, seed=10)
    results = say(gateway, [audio.tobytes()], language_code=code, **PUNCTUATED)
    expected = live(served, audio, **options)
    assert text_of(results) == expected.text
    if expected.language:
        assert results[-1].alternatives[0].language_code == [expected.language]


def test_force_eou_and_the_id_of_a_request(gateway, served):
    first, second = pcm(40_000, seed=11), pcm(30_000, seed=12)
    config = live_config(language_code="en-US", **PUNCTUATED)
    final = threading.Event()

    def requests():
        request = rasr.StreamingRecognizeRequest(streaming_config=config)
        request.id.value = "mine"
        yield request
        yield rasr.StreamingRecognizeRequest(audio_content=first.tobytes())
        yield rasr.StreamingRecognizeRequest(runtime_config={"force_eou": "true"})
        assert final.wait(60)
        yield rasr.StreamingRecognizeRequest(audio_content=second.tobytes())

    said = []
    for response in service(gateway).stub.StreamingRecognize(requests()):
        assert response.id.value == "mine"
        said += response.results
        final.set()
    assert said[0].is_final
    assert text_of(said[:1]) == served.expected(first, "en-US").text
    assert text_of(said[1:]).strip() == served.expected(second, "en-US").text


def test_utterances_end_at_pauses(pausing_checkpoint, live_repository):
    settings = settings_for(pausing_checkpoint, model_repository=live_repository, slots=16)
    with TritonServer(settings) as server:
        gateway = start_gateway(server)
        try:
            audio = pcm(16_000 * 15, seed=5)
            for stop_history, endpoint_ms in ((400, 400), (None, 800)):
                config = live_config(**PUNCTUATED)
                if stop_history is not None:
                    riva.client.add_endpoint_parameters_to_config(
                        config, -1, -1, stop_history, -1, -1, -1
                    )
                packets = in_pieces(audio.tobytes())
                results = results_of(service(gateway).streaming_response_generator(packets, config))
                expected = live(Served(server, None), audio, endpoint_ms=endpoint_ms)
                assert len(expected.segments) > 2
                said = [r.alternatives[0].transcript for r in results]
                assert [text.strip() for text in said] == [s.text for s in expected.segments]
                assert "".join(said) == expected.text
        finally:
            stop(gateway)
