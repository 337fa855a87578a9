"""Log-mel front end.

Shapes:  B batch   N audio samples   T frames   F mel bands
Units:   times in seconds, rates in hertz, levels in decibels.

Recipe: 16 kHz, n_fft 1024, hop 512, Hann, centred, 128 slaney mels, power, decibels limited to 100 dB below the largest
value of the excerpt. The published code sets f_max to 11025 Hz, above Nyquist, which leaves the top bands empty;
8000 Hz is our correction.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torchaudio
from torch import Tensor, nn

from musictf.audio.token_grid import TokenGrid
from musictf.errors import InputError

_POWER_FLOOR = 1e-10  # -100 dB: the logarithm of silence is finite


@dataclass(kw_only=True)
class LogMelConfig:
    """Log-mel front end of a backbone.

    Attributes:
        sample_rate: Sample rate in hertz; other audio is resampled.
        n_fft: Window length in samples.
        hop_length: Samples between two frames.
        n_mels: Mel bands.
        f_min: Lowest frequency in hertz.
        f_max: Highest frequency in hertz.
        top_db: Dynamic range below the loudest value, in decibels.
        normalise: none, or peak (the whole track is divided by its largest magnitude).
    """

    sample_rate: int = 16_000
    n_fft: int = 1024
    hop_length: int = 512
    n_mels: int = 128
    f_min: float = 0.0
    f_max: float = 8000.0
    top_db: float = 100.0
    normalise: str = "none"

    def __post_init__(self) -> None:
        if self.normalise not in {"none", "peak"}:
            raise InputError(f"front_end.normalise={self.normalise!r} is unknown: one of none, peak")
        if min(self.sample_rate, self.n_fft, self.hop_length, self.n_mels) < 1:
            raise InputError("front_end: sample_rate, n_fft, hop_length and n_mels must be at least 1")
        if not 0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise InputError(
                f"front_end: 0 <= f_min ({self.f_min}) < f_max ({self.f_max}) <= sample_rate / 2 must hold"
            )

    @property
    def grid(self) -> TokenGrid:
        """Where frames lie: the spectrogram is centred, so frame k is at ``k * hop_length`` samples."""
        return TokenGrid(self.sample_rate, self.hop_length)

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.grid.token_rate

    def digest(self) -> str:
        """Digest of all values (16 hexadecimal digits)."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    def num_frames(self, num_samples: int) -> int:
        """Frames of a centred spectrogram of ``num_samples`` samples."""
        return self.grid.num_tokens(num_samples)

    def frame_times(self, num_frames: int, start: int = 0) -> npt.NDArray[np.float64]:
        """Centres in seconds of the frames of an excerpt that starts at sample ``start``, (num_frames,)."""
        return self.grid.times(num_frames, start)


class LogMel(nn.Module):
    """Waveform (B, N) to log-mel (B, F, T) in dB, on the device of its buffers, in float32 whatever the autocast."""

    def __init__(self, config: LogMelConfig) -> None:
        super().__init__()
        self.config = config
        self.power = torchaudio.transforms.MelSpectrogram(
            sample_rate=config.sample_rate,
            n_fft=config.n_fft,
            hop_length=config.hop_length,
            f_min=config.f_min,
            f_max=config.f_max,
            n_mels=config.n_mels,
            power=2.0,
            normalized="window",
            norm="slaney",
            mel_scale="slaney",
        )

    def forward(self, waveform: Tensor) -> Tensor:
        with torch.autocast(waveform.device.type, enabled=False):
            level = 10 * torch.log10(self.power(waveform.float()).clamp(min=_POWER_FLOOR))
            # For each excerpt alone: torchaudio's own top_db uses the largest value of the whole batch.
            loudest = level.amax(dim=(-2, -1), keepdim=True)
            return torch.maximum(level, loudest - self.config.top_db)
