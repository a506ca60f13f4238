"""Riva's gRPC refuses what cannot be done, ends in order, and lets nobody harm a neighbour."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time

import grpc
import httpx
import pytest
import riva.client
from riva.client.proto import health_pb2, health_pb2_grpc
from riva.client.proto import riva_asr_pb2 as rasr
from riva.client.proto.riva_audio_pb2 import AudioEncoding

from asr_gateway.access import add_key
from server.conftest import Served, pcm, wav
from server.gateway.conftest import start_gateway, stop, wait_for
from server.gateway.test_riva import (
    DIRECT,
    PUNCTUATED,
    in_pieces,
    live,
    live_config,
    results_of,
    say,
    service,
    text_of,
)
from server.test_metrics import total

pytestmark = pytest.mark.server

STREAM = "/nvidia.riva.asr.RivaSpeechRecognition/StreamingRecognize"
RECOGNIZE = "/nvidia.riva.asr.RivaSpeechRecognition/Recognize"


def refused(call) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value


BAD = [
    ({"language_code": "xx-XX"}, "de-DE"),
    ({"language_code": "語" * 100_000}, "language"),
    ({"model": "whisper"}, "valid: "),
    ({"encoding": AudioEncoding.FLAC}, "LINEAR_PCM, MULAW, ALAW"),
    ({"encoding": 77}, "LINEAR_PCM, MULAW, ALAW"),
    ({"sample_rate_hertz": 7000}, "8000, 11025"),
    ({"sample_rate_hertz": -1}, "8000, 11025"),
    ({"audio_channel_count": 9}, "1, 2, 3"),
    (
        {"audio_channel_count": 2, "enable_separate_recognition_per_channel": True},
        "a stream for each",
    ),
    ({"speech_contexts": [rasr.SpeechContext(phrases=["a"], boost=-1)]}, "0 to 20"),
    ({"speech_contexts": [rasr.SpeechContext(phrases=["!"])]}, "letter"),
    ({"custom_configuration": {"neural_vad.onset": "0.6"}}, "latency_ms"),
    ({"custom_configuration": {"latency_ms": "333"}}, "80, 160"),
    ({"custom_configuration": {"sample_rate": "8000"}}, "sample_rate_hertz"),
    ({"endpointing_config": rasr.EndpointingConfig(stop_history=20_000)}, "0 to 10000"),
    (
        {"diarization_config": rasr.SpeakerDiarizationConfig(enable_speaker_diarization=True)},
        "per_channel",
    ),
]


@pytest.mark.parametrize(("fields", "named"), BAD)
def test_bad_configurations_name_the_valid_values(gateway, fields, named):
    error = refused(lambda: say(gateway, [pcm(1600, seed=1).tobytes()], **fields))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert named in error.details()


def test_bad_recordings(gateway):
    for audio, fields in (
        (b"", {}),
        (b"no audio at all", {}),
        (pcm(1600, seed=1).tobytes(), {"encoding": AudioEncoding.FLAC}),
        (wav(pcm(1600, seed=1)), {"encoding": 77}),
        (wav(pcm(1600, seed=1)), {"language_code": "xx-XX"}),
    ):
        config = riva.client.RecognitionConfig(**fields)
        error = refused(lambda a=audio, c=config: service(gateway).offline_recognize(a, c))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT


CONFIG = rasr.StreamingRecognizeRequest(streaming_config=live_config()).SerializeToString()
AUDIO = rasr.StreamingRecognizeRequest(audio_content=pcm(3200, seed=1).tobytes())
EVENT = rasr.StreamingRecognizeRequest(runtime_config={"sing": "true"})


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ([AUDIO.SerializeToString()], "first message"),
        ([], "first message"),
        ([CONFIG, CONFIG], "second"),
        ([CONFIG, EVENT.SerializeToString()], "force_eou"),
        ([CONFIG, b"\xff\xff\xff"], "no StreamingRecognizeRequest"),
        ([CONFIG, b"\x12" + b"\x85\x80\x80\x02" + bytes((4 << 20) + 5)], "up to 4194304"),
        ([CONFIG, b"\x12\x14RIFF\x00\x00\x00\x00WAVEdata\x00\x00\x00\x00"], "format"),
    ],
)
def test_bad_messages_end_their_call(gateway, messages, named):
    with grpc.insecure_channel(gateway.riva, DIRECT) as channel:
        error = refused(lambda: list(channel.stream_stream(STREAM)(iter(messages))))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert named in error.details()


def test_mutated_messages_harm_no_neighbour(gateway, served):
    """Bytes turned, cut and put in; beside them a stream that must say all of its text."""
    audio = pcm(16_000 * 4, seed=13)
    done = threading.Event()

    def packets():
        for packet in in_pieces(audio.tobytes(), 6400):
            yield packet
            time.sleep(0.1)
        assert done.wait(300)

    neighbour = service(gateway).streaming_response_generator(packets(), live_config(**PUNCTUATED))
    heard = []
    reading = threading.Thread(target=lambda: heard.extend(results_of(neighbour)))
    reading.start()
    rng = random.Random(0)
    file = rasr.RecognizeRequest(audio=wav(pcm(3200, seed=2))).SerializeToString()
    codes = set()
    with grpc.insecure_channel(gateway.riva, DIRECT) as channel:
        for _ in range(150):
            if rng.random() < 0.7:
                messages = [_mutated(CONFIG, rng), _mutated(AUDIO.SerializeToString(), rng)]
                calling = channel.stream_stream(STREAM)(iter(messages), timeout=60)
            else:
                calling = channel.stream_stream(RECOGNIZE)(iter([_mutated(file, rng)]), timeout=60)
            try:
                codes.add(calling.code() if list(calling) is None else grpc.StatusCode.OK)
            except grpc.RpcError as error:
                codes.add(error.code())
    done.set()
    reading.join(60)
    assert text_of(heard) == live(served, audio).text
    assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}
    assert len(codes) == 2


def _mutated(message: bytes, rng: random.Random) -> bytes:
    data = bytearray(message)
    for _ in range(rng.choice([0, 1, 1, 3])):
        at = rng.randrange(min(len(data), 60)) if data else 0
        kind = rng.randrange(3)
        if kind == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at + 1 :]
        else:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
    return bytes(data)


def active(served: Served) -> float:
    return total(served.server, "asr_active_streams")


def test_a_client_that_is_gone_frees_its_slot(gateway, served):
    wait_for(lambda: active(served) == 0)
    gone = threading.Event()

    def packets():
        yield pcm(8000, seed=1).tobytes()
        gone.wait(120)

    calls = [
        service(gateway).stub.StreamingRecognize(
            riva.client.asr.streaming_request_generator(packets(), live_config())
        )
        for _ in range(4)
    ]
    wait_for(lambda: active(served) == 4)
    before = gateway.metric("asr_gateway_sessions_ended_total", door="riva", reason="abandoned")
    expired = total(served.server, "asr_streams_ended_total", reason="idle")
    for call in calls:
        call.cancel()
    wait_for(lambda: active(served) == 0, limit_s=20)
    assert total(served.server, "asr_streams_ended_total", reason="idle") == expired
    gone.set()
    after = gateway.metric("asr_gateway_sessions_ended_total", door="riva", reason="abandoned")
    assert after - before == 4
    script = (
        "import sys, time, riva.client as r\n"
        "def packets():\n    yield bytes(16000)\n    time.sleep(99)\n"
        "c = r.StreamingRecognitionConfig(config=r.RecognitionConfig(sample_rate_hertz=16000))\n"
        "asr = r.ASRService(r.Auth(uri=sys.argv[1]))\n"
        "list(asr.streaming_response_generator(packets(), c))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, gateway.riva])
    wait_for(lambda: active(served) == 1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: active(served) == 0, limit_s=20)
    assert gateway.metric("asr_gateway_sessions", door="riva") == 0


def test_models_and_health(gateway):
    asr = service(gateway)
    configs = asr.stub.GetRivaSpeechRecognitionConfig(rasr.RivaSpeechRecognitionConfigRequest())
    assert [c.parameters["type"] for c in configs.model_config] == ["online", "offline"]
    assert "de-DE" in configs.model_config[0].parameters["language_code"].split(",")
    name = configs.model_config[0].model_name
    request = rasr.RivaSpeechRecognitionConfigRequest(model_name=name)
    assert len(asr.stub.GetRivaSpeechRecognitionConfig(request).model_config) == 2
    say(gateway, [bytes(3200)], model=name)
    unknown = rasr.RivaSpeechRecognitionConfigRequest(model_name="whisper")
    error = refused(lambda: asr.stub.GetRivaSpeechRecognitionConfig(unknown))
    assert name in error.details()
    health = health_pb2_grpc.HealthStub(asr.auth.channel)
    for wanted in ("", "nvidia.riva.asr.RivaSpeechRecognition"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=wanted))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    error = refused(lambda: health.Check(health_pb2.HealthCheckRequest(service="other")))
    assert error.code() == grpc.StatusCode.NOT_FOUND


def test_keys_limits_tls_and_a_stop(served, authority, tmp_path):
    root, cert, secret = authority
    keys = tmp_path / "keys.json"
    key = add_key(keys, "one", max_sessions=1, requests_per_minute=None)
    gateway = start_gateway(
        served.server, "--keys", str(keys), "--idle-timeout-s", "2", "--max-riva-mb", "1",
        "--tls-cert", str(cert), "--tls-key", str(secret),
    )  # fmt: skip
    try:
        config = riva.client.RecognitionConfig(language_code="en-US")
        audio = pcm(20_000, seed=14)
        for bad in (None, "wrong"):
            asr = service(gateway, bad, ssl_root_cert=root)
            error = refused(lambda asr=asr: asr.offline_recognize(wav(audio), config))
            assert error.code() == grpc.StatusCode.UNAUTHENTICATED
            error = refused(lambda asr=asr: list(_held(asr, [])))
            assert error.code() == grpc.StatusCode.UNAUTHENTICATED
        asr = service(gateway, key, ssl_root_cert=root)
        assert asr.offline_recognize(wav(audio), config).results
        error = refused(lambda: asr.offline_recognize(bytes((1 << 20) + 1), config))
        assert "1048576" in error.details()
        speaking = threading.Event()
        held = _held(asr, [audio.tobytes()], speaking)
        next(held)
        error = refused(lambda: list(_held(asr, [audio.tobytes()])))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        idle = refused(lambda: list(held))
        assert (idle.code(), "2 s" in idle.details()) == (grpc.StatusCode.NOT_FOUND, True)
        speaking.set()
        lines = gateway.logged("session") + gateway.logged("file")
        assert {(line["caller"], line["door"]) for line in lines} == {("one", "riva")}

        more = threading.Event()
        last = _held(asr, [audio[:10_000].tobytes()], more, [audio[10_000:].tobytes()])
        first = next(last)
        gateway.process.terminate()
        ready = f"{gateway.url.replace('http:', 'https:')}/ready"
        wait_for(lambda: httpx.get(ready, verify=False).status_code == 503)
        error = refused(lambda: asr.offline_recognize(wav(audio), config))
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        more.set()
        text = text_of([r for r in results_of([first, *last]) if r.is_final])
        assert text == live(served, audio, language="en-US").text
        assert gateway.process.wait(60) == 0
    finally:
        stop(gateway)


def test_calls_of_a_connection_that_stays_go_elsewhere_in_a_drain(served):
    """The gateway that goes tells its clients, so that no call of theirs comes to it."""
    audio, config = pcm(20_000, seed=15), riva.client.RecognitionConfig(language_code="en-US")
    first, second = start_gateway(served.server), None
    try:
        asr, more = service(first), threading.Event()
        held = _held(asr, [audio[:10_000].tobytes()], more, [audio[10_000:].tobytes()])
        begun = [next(held)]
        first.process.terminate()
        wait_for(lambda: httpx.get(f"{first.url}/ready").status_code == 503)
        second = start_gateway(served.server, "--riva-port", str(first.riva_port))
        for _ in range(5):
            assert asr.offline_recognize(wav(audio), config).results
        assert first.process.poll() is None
        more.set()
        text = text_of([r for r in results_of([*begun, *held]) if r.is_final])
        assert text == live(served, audio, language="en-US").text
        assert first.process.wait(60) == 0
    finally:
        stop(first)
        if second is not None:
            assert stop(second) == 0


def _held(asr, packets, until: threading.Event | None = None, then=()):
    """Responses of a stream that stays open until an event, and has more to say then."""

    def requests():
        yield from packets
        if until is not None:
            until.wait(60)
        yield from then

    config = live_config(interim=True, language_code="en-US", **PUNCTUATED)
    config.config.custom_configuration["latency_ms"] = "320"
    return asr.streaming_response_generator(requests(), config)
