"""Spectrogram front end: what an encoder sees of a waveform. One part, or several on one token grid.

``mel``     log-mel of a short window: timbre (the paper's front end; alone by default)
``pitch``   log-frequency spectrum of a long window, two bins a semitone: which notes sound
``rise``    increase of the log-mel since the frame before: when notes begin

Shapes:  B batch   N audio samples   T frames   F features of a frame   M mel bands   P pitch bins   C FFT bins
Units:   rates and frequencies in hertz, levels in decibels.

The log-mel has 15.6 Hz an FFT bin, so it cannot tell semitones apart below 260 Hz; and an encoder that normalises each
frame loses its level, hence onsets. ``pitch`` and ``rise`` give these back. Parts stand side by side, (B, F, T), in the
order of `PARTS`. All parts but ``mel`` are our choice, not the paper's.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from musictf.audio.spectrogram import LogMel, LogMelConfig
from musictf.errors import InputError

PARTS = ("mel", "pitch", "rise")
PITCH_WINDOW = 4096  # samples: 3.9 Hz an FFT bin at 16 kHz, which is a semitone at C2
BINS_PER_OCTAVE = 24
NUM_PITCH_BINS = 144  # six octaves, C2 to B7
LOWEST_PITCH = 65.406  # Hz, C2
RISE_DECIBELS = 10.0  # an increase of so many decibels is one unit
_POWER_FLOOR = 1e-10


@dataclass(frozen=True)
class Part:
    """A part of a front end, as an encoder meets it.

    Attributes:
        name: One of `PARTS`.
        num_features: Features of a frame.
        is_normalised: An encoder normalises each of its frames; otherwise their level is kept.
    """

    name: str
    num_features: int
    is_normalised: bool


@dataclass(kw_only=True)
class FrontEndConfig(LogMelConfig):
    """Spectrogram in front of the encoder.

    Attributes:
        parts: Any of mel, pitch, rise, side by side; the encoder normalises each by itself.
    """

    parts: list[str] = field(default_factory=lambda: ["mel"])

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.parts or len(set(self.parts)) < len(self.parts) or set(self.parts) - set(PARTS):
            raise InputError(f"front_end.parts={list(self.parts)}: give any of {', '.join(PARTS)}, each once")
        self.parts = [name for name in PARTS if name in self.parts]
        top = LOWEST_PITCH * 2 ** (NUM_PITCH_BINS / BINS_PER_OCTAVE)
        if "pitch" in self.parts and top > self.sample_rate / 2:
            raise InputError(
                f"front_end.parts: pitch reaches {top:.0f} Hz, more than front_end.sample_rate={self.sample_rate} / 2"
            )

    @property
    def layout(self) -> tuple[Part, ...]:
        """The parts with their sizes."""
        sizes = {"mel": self.n_mels, "pitch": NUM_PITCH_BINS, "rise": self.n_mels}
        return tuple(Part(name, sizes[name], name != "rise") for name in self.parts)

    @property
    def num_features(self) -> int:
        """Features of a frame, of all parts together."""
        return sum(part.num_features for part in self.layout)

    @property
    def min_samples(self) -> int:
        """Samples of the shortest excerpt: half a window is reflected at both ends."""
        return PITCH_WINDOW if "pitch" in self.parts else self.n_fft

    def to_json(self) -> dict[str, Any]:
        """The values as a backbone file holds them.

        The paper's front end, the mel alone, has no entry ``parts``: digests of files without it stay what they were.
        """
        values = asdict(self)
        return {name: value for name, value in values.items() if name != "parts" or value != ["mel"]}

    def digest(self) -> str:
        """Digest of all values (16 hexadecimal digits)."""
        mel = LogMelConfig(**{entry.name: getattr(self, entry.name) for entry in fields(LogMelConfig)})
        text = repr(mel) if self.parts == ["mel"] else repr(self)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class FrontEnd(nn.Module):
    """Waveform (B, N) to the frames of all parts (B, F, T), in float32 whatever the autocast."""

    def __init__(self, config: FrontEndConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = LogMel(config) if {"mel", "rise"} & set(config.parts) else None
        self.pitch = LogPitch(config) if "pitch" in config.parts else None

    def forward(self, waveform: Tensor) -> Tensor:
        frames: dict[str, Tensor] = {}
        if self.mel is not None:
            frames["mel"] = self.mel(waveform)  # (B, M, T)
            frames["rise"] = rise(frames["mel"])
        if self.pitch is not None:
            frames["pitch"] = self.pitch(waveform)  # (B, P, T)
        if len(self.config.parts) == 1:
            return frames[self.config.parts[0]]
        return torch.cat([frames[name] for name in self.config.parts], dim=1)


class LogPitch(nn.Module):
    """Waveform (B, N) to levels of quarter tones (B, P, T), in decibels below the loudest cell of the excerpt."""

    filters: Tensor
    window: Tensor

    def __init__(self, config: LogMelConfig) -> None:
        super().__init__()
        self.hop_length, self.top_db = config.hop_length, config.top_db
        filters = pitch_filters(config.sample_rate)
        self.num_bins = int(np.flatnonzero(filters.any(axis=0)).max()) + 1  # no filter reads higher ones
        self.register_buffer("filters", torch.from_numpy(filters[:, : self.num_bins]).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(PITCH_WINDOW), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.stft(
                waveform.float(),
                PITCH_WINDOW,
                self.hop_length,
                window=self.window,
                pad_mode="reflect",
                return_complex=True,
            )
            spectrum = torch.view_as_real(spectrum[:, : self.num_bins])  # (B, C, T, 2)
            power = self.filters @ spectrum.square().sum(dim=-1) / self.window.square().sum()  # (B, P, T)
            level = 10 * torch.log10(power.clamp(min=_POWER_FLOOR))
            loudest = level.amax(dim=(-2, -1), keepdim=True)
            return torch.maximum(level, loudest - self.top_db)


def pitch_filters(sample_rate: int) -> npt.NDArray[np.float64]:
    """Weights of FFT bins in each quarter tone, (P, C), of sum 1 each.

    A filter is a triangle over frequency from one neighbour's centre to the other's. Where quarter tones lie closer
    than FFT bins it is as wide as a bin to either side: then it interpolates between the two bins around its centre.
    """
    bins = np.arange(PITCH_WINDOW // 2 + 1) * sample_rate / PITCH_WINDOW
    centres = LOWEST_PITCH * 2.0 ** (np.arange(-1, NUM_PITCH_BINS + 1) / BINS_PER_OCTAVE)
    below, centre, above = centres[:-2, None], centres[1:-1, None], centres[2:, None]
    width = np.where(bins < centre, centre - below, above - centre)
    weights = np.maximum(0.0, 1.0 - np.abs(bins - centre) / np.maximum(width, sample_rate / PITCH_WINDOW))
    filters: npt.NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return filters


def rise(level: Tensor) -> Tensor:
    """Increase of each band since the frame before, (B, M, T) decibels to (B, M, T) in units of 10 dB; 0 at first."""
    increase = (level[..., 1:] - level[..., :-1]).clamp(min=0) / RISE_DECIBELS
    return torch.cat([torch.zeros_like(level[..., :1]), increase], dim=-1)
