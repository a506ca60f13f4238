"""A real server with stand-in models, whose output for given audio is known."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr_client import OfflineClient
from asr_server.launcher import TritonServer
from asr_server.settings import ServerSettings

SLOTS = 8
IDLE_TIMEOUT_S = 2.0
PCM = np.random.default_rng(0).integers(-300, 300, 16_000 * 2 + 77).astype(np.int16)


def settings() -> ServerSettings:
    return ServerSettings(
        model_repository=Path(__file__).parent / "stand_in",
        device="cpu",
        slots=SLOTS,
        idle_timeout_s=IDLE_TIMEOUT_S,
        exit_timeout_s=1,
        http_port=0,
        grpc_port=0,
        metrics_port=0,
    )


@pytest.fixture(scope="package")
def server():
    with TritonServer(settings()) as running:
        yield running


@pytest.fixture
def url(server):
    return server.grpc_address


@pytest.fixture
def offline(server):
    with OfflineClient(server.http_url) as client:
        yield client


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.wav"
    path.write_bytes(wav(PCM))
    return path


def expected(pcm: np.ndarray, latency_ms: int = 320) -> str:
    """What the stand-in says: a word per chunk, made of the sum of its samples."""
    step = latency_ms * 16
    sums = (int(pcm[i : i + step].astype(np.int64).sum()) for i in range(0, len(pcm), step))
    return " ".join(f"w{s}" for s in sums)


def cut(pcm: np.ndarray, size: int) -> list[np.ndarray]:
    return [pcm[i : i + size] for i in range(0, len(pcm), size)]


def wav(pcm: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, pcm, 16_000, format="WAV")
    return file.getvalue()
