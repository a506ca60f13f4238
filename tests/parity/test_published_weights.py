"""The published checkpoint against the published transcripts, for whoever has both.

NEMOTRON_ASR_CHECKPOINT: what scripts/fetch_checkpoint.py leaves, or the .nemo file.
NEMOTRON_ASR_LIBRISPEECH: a folder with 1272-128104-0000.flac to -0004.flac of LibriSpeech dev-clean
(the first five of hf-internal-testing/librispeech_asr_dummy), anywhere below it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nemotron_asr import load_checkpoint
from nemotron_asr.audio import decode_audio

pytestmark = pytest.mark.weights

# NeMo's output at [56, 3] for en-US: fixtures of this model's tests in transformers.
# Spaces that tags leave behind are single here.
REFERENCES = [
    "Mr. Quilter is the apostle of the middle classes, and we are glad to welcome his gospel.",
    "Nor is Mister Quilter's manner less interesting than his matter.",
    "He tells us that at this festive season of the year with Christmas and roast beef looming "
    "before us similes drawn from eating and its results occur most readily to the mind.",
    "He has graved doubts whether Sir Frederick Leighton's work is really Greek after all, and can "
    "discover in it but little of Rocky Ithaka.",
    "Linnell's pictures are a sort of upguards and atom paintings, and Mason's exquisite idols are "
    "as national as a jingo poem. Mister Burke Foster's landscapes smile at one much in the same "
    "way that Mr. Carker used to flash his teeth. And Mister John Collier gives his sitter a "
    "cheerful slap on the back before he says like a shampooer in a Turkish bath Nextman.",
]


@pytest.fixture(scope="module")
def published():
    return load_checkpoint(os.environ["NEMOTRON_ASR_CHECKPOINT"], device="auto")


@pytest.mark.parametrize("number", range(5))
def test_reference_transcripts(published, number):
    folder = os.environ.get("NEMOTRON_ASR_LIBRISPEECH")
    if folder is None:
        pytest.skip("NEMOTRON_ASR_LIBRISPEECH is not set")
    (clip,) = Path(folder).rglob(f"1272-128104-000{number}.flac")
    result = published.transcribe([decode_audio(clip.read_bytes())], "en-US", latency_ms=320)[0]
    assert result.text == REFERENCES[number]
    assert result.language == "en-US"


def test_what_it_offers(published):
    assert published.latencies_ms == (80, 160, 320, 560, 1120)
    assert len(published.prompts) == 121
    assert len(published.pieces) == 13087
