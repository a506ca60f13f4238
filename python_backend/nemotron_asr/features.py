"""Log-mel front end: the same numbers for a whole recording and for any stretch of a stream."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .config import HOP, FeatureConfig

LOG_FLOOR = 2.0**-24  # added before the logarithm; digital silence is log(2^-24) = -16.6355
FFT_HALF = 256  # frame f is centred on sample 160 f and spans 256 samples to each side
FRAME_REACH = 200  # of which only +-200 carry weight: the 400-sample window has zero end points


class LogMel(nn.Module):
    """Log-mel energies of stretches of a signal, computed as if the signal were seen whole.

    Pre-emphasis, a symmetric 400-sample Hann window centred in 512, power spectrum, Slaney mel
    filters, log. No normalisation. Reference: NemotronAsrStreamingFeatureExtractor.
    """

    def __init__(self, config: FeatureConfig):
        super().__init__()
        self.config = config
        pad = (config.n_fft - config.win_length) // 2
        window = torch.hann_window(config.win_length, periodic=False)
        filters = slaney_mel_filters(config.feature_size, config.n_fft, config.sampling_rate)
        # Not persistent: the front end has no weights, so nothing of it is in a checkpoint.
        self.register_buffer("window", F.pad(window, (pad, pad)), persistent=False)  # (512,)
        self.register_buffer("filters", filters, persistent=False)  # (M, 257)

    def forward(
        self,
        samples: torch.Tensor,
        first_frame: torch.Tensor,
        num_samples: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mel frames of each row.

        samples: (B, S) float32 in [-1, 1]: `span_of(T)` samples from `first_sample_of` the first
            frame on, zeros outside the signal.
        first_frame: (B,) int64 index of the row's first frame in its signal; may be negative.
        num_samples: (B,) int64 length of the whole signal where it is known to end; frames from
            num_samples // 160 on are 0.0, and nothing after the end is heard.
        Returns (B, T, M) float32; frames before the signal are 0.0.
        """
        signal = samples[:, 1:] - self.config.preemphasis * samples[:, :-1]  # (B, S-1)
        T = (signal.shape[1] - self.config.n_fft) // HOP + 1
        if num_samples is not None:
            start = HOP * first_frame - FFT_HALF
            index = start[:, None] + torch.arange(signal.shape[1], device=signal.device)
            signal = signal.masked_fill(index >= num_samples[:, None], 0.0)
        frames = signal.unfold(1, self.config.n_fft, HOP) * self.window  # (B, T, 512)
        spectrum = torch.fft.rfft(frames)
        power = spectrum.real.square() + spectrum.imag.square()  # (B, T, 257)
        mel = torch.log(power @ self.filters.T + LOG_FLOOR)  # (B, T, M)
        frame = first_frame[:, None] + torch.arange(T, device=mel.device)  # (B, T)
        outside = frame < 0
        if num_samples is not None:
            outside = outside | (frame >= num_samples[:, None] // HOP)
        return mel.masked_fill(outside[:, :, None], 0.0)


def first_sample_of(frame: int) -> int:
    """The first sample that `LogMel` wants for a frame: one more for the pre-emphasis.

    Negative where the frame reaches out of the signal.
    """
    return HOP * frame - FFT_HALF - 1


def span_of(num_frames: int) -> int:
    """Samples that `LogMel` wants for so many frames."""
    return HOP * (num_frames - 1) + 2 * FFT_HALF + 1


def num_mel_frames(num_samples: int) -> int:
    """Valid mel frames of a finished signal."""
    return num_samples // HOP


def slaney_mel_filters(num_bands: int, n_fft: int, sample_rate: int) -> torch.Tensor:
    """Triangular filters on Slaney's mel scale, of unit area, (M, n_fft // 2 + 1) float32.

    The scale is linear to 1 kHz (200/3 Hz per mel) and logarithmic above (27 mels per factor 6.4),
    as in the Auditory Toolbox and librosa.
    """
    linear_hz, break_hz = 200.0 / 3, 1000.0
    break_mel = break_hz / linear_hz
    log_step = torch.log(torch.tensor(6.4, dtype=torch.float64)) / 27.0

    nyquist = torch.tensor(sample_rate / 2, dtype=torch.float64)
    top_mel = break_mel + torch.log(nyquist / break_hz) / log_step
    mels = torch.linspace(0.0, float(top_mel), num_bands + 2, dtype=torch.float64)
    edges = torch.where(
        mels < break_mel, mels * linear_hz, break_hz * torch.exp(log_step * (mels - break_mel))
    )  # (M + 2,) Hz
    bins = torch.linspace(0.0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    width = edges.diff()
    rising = (bins - edges[:-2, None]) / width[:-1, None]
    falling = (edges[2:, None] - bins) / width[1:, None]
    triangles = torch.minimum(rising, falling).clamp_min(0.0)
    area = 2.0 / (edges[2:] - edges[:-2])
    return (triangles * area[:, None]).float()
