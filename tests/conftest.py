"""Shared fixtures: random checkpoints of several sizes and the audio they hear."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

# Several processes share the cores in tests; threads that spin while they wait starve each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parent))  # for `import reference`

import pytest
import torch

import reference
from nemotron_asr import load_checkpoint

ROOT = Path(__file__).parents[1]


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of code in a document."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
        if item.get_closest_marker("weights") and "NEMOTRON_ASR_CHECKPOINT" not in os.environ:
            item.add_marker(pytest.mark.skip(reason="NEMOTRON_ASR_CHECKPOINT is not set"))


@pytest.fixture(scope="session", params=list(reference.SIZES))
def size(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def references():
    """Models of the reference implementation by size, made on first use."""
    made = {}

    def get(size: str):
        if size not in made:
            made[size] = reference.reference_model(reference.reference_config(size))
        return made[size]

    return get


@pytest.fixture(scope="session")
def checkpoints(references, tmp_path_factory):
    """Checkpoint directories of those models by size."""
    made = {}

    def get(size: str) -> Path:
        if size not in made:
            directory = tmp_path_factory.mktemp(f"checkpoint_{size}")
            made[size] = reference.save_checkpoint(references(size), directory)
        return made[size]

    return get


@pytest.fixture(scope="session")
def recognizers(checkpoints):
    made = {}

    def get(size: str = "tiny"):
        if size not in made:
            made[size] = load_checkpoint(checkpoints(size))
        return made[size]

    return get


@pytest.fixture(scope="session")
def recognizer(recognizers):
    return recognizers("tiny")


@pytest.fixture(scope="session")
def demo_checkpoint() -> Path:
    return ROOT / "checkpoints" / "demo"


@pytest.fixture(scope="session")
def samples() -> list[Path]:
    """The bundled recordings; each has its text beside it."""
    clips = sorted((ROOT / "samples").glob("*.flac"))
    assert clips
    return clips
