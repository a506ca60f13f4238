"""Training goes on from the bundled checkpoint: what it takes over is what an export writes."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

sys.path.append(str(Path(__file__).parents[2] / "scripts" / "demo_checkpoint"))
from export import checkpoint_tensors
from trainee import Trainee, demo_config

CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "demo"


def test_what_is_taken_over_is_what_is_written_again():
    model = Trainee(demo_config())
    model.take_over(CHECKPOINT)
    stored, again = load_file(CHECKPOINT / "model.safetensors"), checkpoint_tensors(model)
    assert stored.keys() == again.keys()
    for key, value in stored.items():
        torch.testing.assert_close(again[key], value, rtol=2e-3, atol=1e-6, msg=key)
