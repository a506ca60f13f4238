"""The memory of all live streams: allocated once, on the device, one row a slot."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..encoder import EncoderState
from ..model import PredictionState
from ..recognizer import Recognizer


class Arena:
    def __init__(self, recognizer: Recognizer, num_slots: int):
        self._device = recognizer.device
        self.encoder = recognizer.fresh_encoder(num_slots)  # (N, ...) each
        self.prediction = recognizer.fresh_prediction(num_slots)
        self._fresh_prediction = recognizer.fresh_prediction(1)

    @property
    def bytes_per_slot(self) -> int:
        fields = [*self.encoder, *self.prediction]
        return sum(x[0].numel() * x.element_size() for x in fields)

    @torch.inference_mode()
    def reset(self, slot: int) -> None:
        """Make a slot that of a stream that has heard nothing."""
        for x in self.encoder:
            x[slot].zero_()
        for x, fresh in zip(self.prediction, self._fresh_prediction, strict=True):
            x[slot].copy_(fresh[0])

    @torch.inference_mode()
    def gather(self, slots: Sequence[int]) -> tuple[EncoderState, PredictionState]:
        """The states of these slots, (B, ...) each, in their order."""
        index = torch.tensor(slots, device=self._device)
        return (
            EncoderState(*(x.index_select(0, index) for x in self.encoder)),
            PredictionState(*(x.index_select(0, index) for x in self.prediction)),
        )

    @torch.inference_mode()
    def scatter(
        self, slots: Sequence[int], encoder: EncoderState, prediction: PredictionState
    ) -> None:
        index = torch.tensor(slots, device=self._device)
        for x, new in zip([*self.encoder, *self.prediction], [*encoder, *prediction], strict=True):
            x.index_copy_(0, index, new.to(x.dtype))
