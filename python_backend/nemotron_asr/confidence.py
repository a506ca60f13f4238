"""How sure a word is: the posterior of its pieces, made to mean how often such words are right.

A greedy decoder's posteriors are too high or too low in a way that is much the same for all words
of a model. Platt's scaling (1999) corrects it with two numbers, found on words known to be right
or wrong: `asr bench confidence` finds them, and a checkpoint carries them in `confidence.json`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

from .errors import CheckpointError

FILE_NAME = "confidence.json"
_CERTAIN = 1e-6  # posteriors are kept this far from 0 and 1


class Calibration(NamedTuple):
    """confidence = sigmoid(slope * logit(posterior) + intercept)."""

    slope: float = 1.0
    intercept: float = 0.0

    def __call__(self, posterior: float) -> float:
        """posterior: of a word's least likely piece, in [0, 1].  Returns a probability."""
        if self == RAW:
            return posterior
        return 1.0 / (1.0 + math.exp(-self.slope * logit(posterior) - self.intercept))


RAW = Calibration()


def logit(posterior: float) -> float:
    posterior = min(max(posterior, _CERTAIN), 1.0 - _CERTAIN)
    return math.log(posterior / (1.0 - posterior))


def read_calibration(checkpoint: Path) -> Calibration:
    """That of a checkpoint directory, RAW where it has none. Raises CheckpointError."""
    file = checkpoint / FILE_NAME
    if not file.is_file():
        return RAW
    try:
        made = json.loads(file.read_text())
        calibration = Calibration(float(made["slope"]), float(made["intercept"]))
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: wants numbers `slope` and `intercept`") from error
    if not (calibration.slope > 0 and math.isfinite(calibration.slope + calibration.intercept)):
        raise CheckpointError(f"{file}: slope {calibration.slope} is not positive and finite")
    return calibration
