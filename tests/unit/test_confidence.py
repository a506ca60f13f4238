"""Confidences: the scaling that a checkpoint carries, and the fit that finds it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from asr_bench import confidence as bench
from asr_bench.manifests import Utterance
from nemotron_asr import CheckpointError, load_checkpoint
from nemotron_asr.confidence import RAW, Calibration, read_calibration
from nemotron_asr.text import Word
from reference import speech_like


def test_raw_is_the_posterior_itself():
    assert [RAW(p) for p in (0.0, 0.3, 1.0)] == [0.0, 0.3, 1.0]


def test_scaling_keeps_the_order_and_stays_within_0_and_1():
    said = [Calibration(0.5, -1.0)(p) for p in np.linspace(0, 1, 50).tolist()]
    assert said == sorted(said)
    assert 0 < said[0] < said[-1] < 1


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"slope": 1}',
        '{"slope": "x", "intercept": 0}',
        '{"slope": -1, "intercept": 0}',
        '{"slope": 1, "intercept": 1e999}',
    ],
)
def test_a_bad_file_is_named(tmp_path, content):
    (tmp_path / "confidence.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"confidence\.json"):
        read_calibration(tmp_path)


def test_a_checkpoint_s_scaling_reaches_its_words(checkpoints, recognizer, tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoints("tiny"), folder)
    (folder / "confidence.json").write_text(json.dumps({"slope": 0.5, "intercept": 0.25}))
    audio = speech_like(60_000, 1)
    raw, scaled = (r.transcribe([audio])[0] for r in (recognizer, load_checkpoint(folder)))
    assert raw.text == scaled.text != ""
    wanted = [Calibration(0.5, 0.25)(w.confidence) for w in raw.words]
    assert [w.confidence for w in scaled.words] == pytest.approx(wanted, abs=2e-3)


def words(num: int, true: Calibration, seed: int) -> bench.Judged:
    rng = np.random.default_rng(seed)
    posteriors = rng.beta(3, 1, num)
    chance = np.asarray([true(p) for p in posteriors.tolist()])
    return bench.Judged(posteriors, rng.random(num) < chance)


def test_the_fit_finds_the_scaling_that_words_were_drawn_by():
    true = Calibration(0.6, 0.8)
    found = bench.fit(words(20_000, true, 0))
    assert found == pytest.approx(true, abs=0.1)
    fresh = words(20_000, true, 1)
    raw, scaled = bench.quality(fresh, RAW), bench.quality(fresh, found)
    assert scaled["ece"] < 0.02 < raw["ece"]
    assert scaled["nce"] > raw["nce"]
    assert scaled["auc"] == raw["auc"]


def test_few_words_that_part_cleanly_stay_near_the_posterior():
    clean = bench.Judged(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True]))
    found = bench.fit(clean)
    assert np.isfinite(found).all()
    assert found.slope > 0


def test_words_are_judged_by_their_alignment(tmp_path):
    utterance = Utterance("set", "Well, the cat sat down!", "en-US", tmp_path)
    out = [("The", 0.9), ("cat", 0.8), ("set", 0.3), ("down", 0.7), ("now.", 0.2), ("-", 0.1)]
    judged = bench.judge(utterance, [Word(text, 0, 80, p) for text, p in out])
    assert judged == [(0.9, True), (0.8, True), (0.3, False), (0.7, True), (0.2, False)]


def test_auc_counts_ties_as_half():
    assert bench._auc(np.array([0.1, 0.5, 0.5, 0.9]), np.array([False, False, True, True])) == 0.875
