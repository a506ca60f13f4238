"""A real server, started as the project starts it, on a random checkpoint of tiny size."""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import trustme
from safetensors.torch import load_file, save_file

import reference
from asr_server.launcher import TritonServer
from asr_server.settings import ServerSettings
from nemotron_asr import Recognizer

ROOT = Path(__file__).parents[2]
IDLE_TIMEOUT_S = 12.0  # longer than a busy machine holds up a test
NUM_SLOTS = 72
RELUCTANCE = 3.5  # added to blank


@dataclass
class Served:
    """A running server and the library's model of the same checkpoint."""

    server: TritonServer
    recognizer: Recognizer

    def expected(self, audio: np.ndarray, language: str = "auto", latency_ms: int = 320):
        return self.recognizer.transcribe([audio], language, latency_ms)[0]


def settings_for(checkpoint: Path, **changes) -> ServerSettings:
    """A server on this checkpoint, on free ports."""
    ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    usual = {"model_repository": ROOT / "model_repository", "device": "cpu", **ports}
    return ServerSettings(checkpoint=checkpoint, **{**usual, **changes})


@pytest.fixture(scope="session")
def served(checkpoints, recognizer):
    settings = settings_for(checkpoints("tiny"), slots=NUM_SLOTS, idle_timeout_s=IDLE_TIMEOUT_S)
    with TritonServer(settings) as server:
        yield Served(server, recognizer)


def pcm(num_samples: int, seed: int) -> np.ndarray:
    return (reference.speech_like(num_samples, seed) * 32767).astype(np.int16)


def wav(samples: np.ndarray) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, 16000, format="WAV", subtype="PCM_16")
    return out.getvalue()


@pytest.fixture(scope="module")
def demo_server(demo_checkpoint):
    """A server on the bundled checkpoint."""
    with TritonServer(settings_for(demo_checkpoint)) as server:
        yield server


@pytest.fixture(scope="session")
def pausing_checkpoint(checkpoints, tmp_path_factory) -> Path:
    """The tiny checkpoint, more reluctant to speak: it falls silent at times, so utterances end."""
    directory = tmp_path_factory.mktemp("pausing") / "checkpoint"
    shutil.copytree(checkpoints("tiny"), directory)
    weights = load_file(directory / "model.safetensors")
    weights["joint.head.bias"][-1] += RELUCTANCE
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.fixture(scope="session")
def live_repository(tmp_path_factory) -> Path:
    """A model repository of live streams alone: it starts faster."""
    directory = tmp_path_factory.mktemp("live_repository")
    shutil.copytree(ROOT / "model_repository" / "asr_streaming", directory / "asr_streaming")
    return directory


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """A certificate of who signs, a gateway's, and its key: three PEM files."""
    folder = tmp_path_factory.mktemp("tls")
    signs = trustme.CA()
    made = signs.issue_cert("127.0.0.1", "localhost")
    files = [folder / name for name in ("ca.pem", "cert.pem", "key.pem")]
    signs.cert_pem.write_to_path(files[0])
    made.cert_chain_pems[0].write_to_path(files[1])
    made.private_key_pem.write_to_path(files[2])
    return files
