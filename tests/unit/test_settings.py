"""Default < config.pbtxt < environment; a bad value is named."""

from __future__ import annotations

import pytest

from nemotron_asr.settings import Settings, read_settings


def test_precedence():
    parameters = {"checkpoint": "from-config", "slots": "5"}
    settings = read_settings(parameters, {"ASR_SLOTS": "7"})
    assert settings == Settings(checkpoint="from-config", slots=7)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ASR_SLOTS", "0"),
        ("ASR_SLOTS", "many"),
        ("ASR_SLOTS", "99999"),
        ("ASR_IDLE_TIMEOUT_S", "0"),
        ("ASR_IDLE_TIMEOUT_S", "3600"),
        ("ASR_DTYPE", "float8"),
        ("ASR_THREADS", "-1"),
    ],
)
def test_bad_values_are_named(name, value):
    with pytest.raises(ValueError, match=name) as caught:
        read_settings({}, {"ASR_CHECKPOINT": "x", name: value})
    assert value in str(caught.value)
    assert "valid: " in str(caught.value)


def test_a_checkpoint_must_be_named():
    with pytest.raises(ValueError, match="ASR_CHECKPOINT"):
        read_settings({}, {})
