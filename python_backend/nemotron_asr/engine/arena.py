"""The memory of all live streams: allocated once, on the device, one row a slot."""

from __future__ import annotations

import torch

from ..config import TOKEN_FRAME_MS
from ..recognizer import Recognizer


class Arena:
    def __init__(self, recognizer: Recognizer, num_slots: int):
        self.num_slots = num_slots
        self.scratch = num_slots  # one slot more, for rows that are no stream's
        frames = max(recognizer.latencies_ms) // TOKEN_FRAME_MS
        self.encoder = recognizer.fresh_encoder(num_slots + 1, frames)
        self.prediction = recognizer.fresh_prediction(num_slots + 1)
        self._fresh_prediction = recognizer.fresh_prediction(1)
        with torch.inference_mode():
            for x in (*self.encoder, *self.prediction):
                x.mul_(1)  # a CPU gives memory when it is written to: now, not while streams wait

    @property
    def bytes_per_slot(self) -> int:
        fields = [*self.encoder, *self.prediction]
        return sum(x.numel() * x.element_size() for x in fields) // len(self.prediction.g)

    @torch.inference_mode()
    def reset(self, slot: int) -> None:
        """Make a slot that of a stream that has heard nothing."""
        self.encoder.reset(slot)
        for x, fresh in zip(self.prediction, self._fresh_prediction, strict=True):
            x[slot].copy_(fresh[0])
