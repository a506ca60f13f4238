"""Other speakers, rooms, lines and backgrounds out of clean speech, all on the CPU.

Speed, spectrum and reverberation are one product between a Fourier transform and its inverse.
"""

from __future__ import annotations

import numpy as np
import torch

from nemotron_asr.config import SAMPLE_RATE

FFT_STEP = 1600  # transforms of multiples of this many samples are fast
NOISE_S = 30.0
TILTS = (0.0, 0.3, 0.6, 0.9, 1.2)  # amplitude ~ 1 / frequency^tilt: white, pink (0.5), brown (1)
NUM_KNOTS = 7  # of a random frequency response


def shaped_noise(rng: np.random.Generator, tilt: float) -> np.ndarray:
    """NOISE_S of noise of unit power, flat below 50 Hz, (num_samples,) float32."""
    spectrum = np.fft.rfft(rng.standard_normal(int(NOISE_S * SAMPLE_RATE)))
    spectrum /= np.maximum(np.arange(len(spectrum)), 50 * NOISE_S) ** tilt
    noise = np.fft.irfft(spectrum)
    return (noise / noise.std()).astype(np.float32)


def frequency_response(rng: np.random.Generator, num_bins: int) -> np.ndarray | None:
    """Gains of num_bins frequencies from 0 to 8 kHz: a telephone, a microphone, or None."""
    kind = rng.random()
    if kind > 0.45:
        return None
    hz = np.linspace(0, SAMPLE_RATE / 2, num_bins, dtype=np.float32)
    if kind < 0.12:
        low, high = rng.uniform(150, 350), rng.uniform(3200, 3900)
        return ((hz > low) & (hz < high)).astype(np.float32)
    knots = rng.uniform(-9, 9, NUM_KNOTS)  # dB
    at = np.concatenate([[0], np.geomspace(150, 8000, NUM_KNOTS - 1)])
    return (10 ** (np.interp(hz, at, knots) / 20)).astype(np.float32)


def room(rng: np.random.Generator) -> np.ndarray:
    """An impulse response: the direct sound and a decaying tail of noise, float32."""
    decay_s = rng.uniform(0.15, 0.9)  # until 60 dB down
    t = np.arange(int(decay_s * SAMPLE_RATE), dtype=np.float32) / SAMPLE_RATE
    tail = rng.standard_normal(len(t), dtype=np.float32) * np.exp(-6.9 * t / decay_s)
    tail[: rng.integers(16, 320)] = 0.0  # the first reflection comes after 1 to 20 ms
    tail *= 10 ** (-rng.uniform(0, 15) / 20) / np.sqrt(np.square(tail).sum() + 1e-9)
    tail[0] = 1.0
    return tail


def transform(
    x: np.ndarray, speed: float, rng: np.random.Generator, clean: bool = False
) -> np.ndarray:
    """x: (num_samples,) float32 at `speed` times its rate, which moves pitch and formants too.

    Some clips get a frequency response, some a room; none that are to stay clean.
    """
    n = (len(x) // FFT_STEP + 1) * FFT_STEP
    spectrum = torch.fft.rfft(torch.from_numpy(x), n)
    response = None if clean else frequency_response(rng, len(spectrum))
    if response is not None:
        spectrum *= torch.from_numpy(response)
    if not clean and rng.random() < 0.35:
        tail = torch.from_numpy(room(rng))[:n]
        spectrum *= torch.fft.rfft(tail, n)  # what the tail leaves behind the end wraps: inaudible
    m = round(n / speed / FFT_STEP) * FFT_STEP
    speed = n / m
    y = torch.fft.irfft(spectrum[: m // 2 + 1], m) * (m / n)
    return y[: int(len(x) / speed)].numpy()


def mu_law(x: np.ndarray, levels: int) -> np.ndarray:
    """x in [-1, 1] through a telephone's logarithmic quantiser."""
    mu = levels - 1
    y = np.sign(x) * np.log1p(mu * np.abs(x)) / np.log1p(mu)
    y = np.round(y * (levels / 2)) / (levels / 2)
    return (np.sign(y) * np.expm1(np.abs(y) * np.log1p(mu)) / mu).astype(np.float32)


class Backgrounds:
    """Noise, the babble of other clips, gain, clipping and coarse quantisation."""

    def __init__(self, rng: np.random.Generator):
        self.noises = [shaped_noise(rng, tilt) for tilt in TILTS]

    def add(self, x: np.ndarray, others: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """x, others: (num_samples,) float32.  Returns x with something behind it, in [-1, 1]."""
        level = np.sqrt(np.mean(np.square(x)) + 1e-10)
        if rng.random() < 0.75:
            noise = self.noises[rng.integers(len(self.noises))]
            start = rng.integers(len(noise) - len(x))
            gain = level * 10 ** (-rng.uniform(8, 45) / 20)
            x = x + np.float32(gain) * noise[start : start + len(x)]
        if others and rng.random() < 0.15:
            babble = np.zeros(len(x), np.float32)
            for other in others:
                part = np.roll(other, rng.integers(len(other)))[: len(x)]
                babble[: len(part)] += part
            power = np.sqrt(np.mean(np.square(babble)) + 1e-10)
            x = x + babble * np.float32(level / power * 10 ** (-rng.uniform(10, 30) / 20))
        x = x * np.float32(10 ** (rng.uniform(-24, 6) / 20) * 0.1 / level)
        if rng.random() < 0.08:
            x = mu_law(x.clip(-1, 1), int(rng.choice([64, 128, 256])))
        return x.clip(-1, 1)


def mask(mel: np.ndarray, rng: np.random.Generator) -> None:
    """SpecAugment in place: bands and stretches of mel (T, M) become its mean."""
    T, M = mel.shape
    mean = mel.mean()
    for _ in range(rng.integers(0, 3)):
        width = rng.integers(1, M // 6)
        first = rng.integers(M - width)
        mel[:, first : first + width] = mean
    for _ in range(rng.integers(0, 2 + T // 200)):
        width = min(rng.integers(1, 25), T // 4)
        first = rng.integers(max(1, T - width))
        mel[first : first + width] = mean
