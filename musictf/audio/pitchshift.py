"""Small pitch shifts of a batch, each row by its own interval, at the same length and tempo.

What strikes is left as it is, so that onsets stay sharp and where they were; what rings is played faster by the
interval's ratio and laid back on its old times by a phase vocoder. The two are told apart by a soft mask: around a
point of the spectrogram, is the mean level higher along frequency or along time?

Every step is continuous in the samples: bins turn by their instantaneous frequency (reassignment, so no phase is
unwrapped) and follow the strongest of their neighbours (loose phase locking). Intervals are whole cents and positions
integers in fixed point. So neither the device nor the rest of the batch changes more than the last digits.

Shapes:  B batch   N samples   T frames   F bins
Units:   intervals in cents, positions in 2**-20 samples.

Measured on synthetic notes at 16 kHz: level within 1 dB, the log-mel 1.4 to 4.3 dB from the same notes played at the
new pitch (`musictf.audio.timescale`: 1.4 to 5.2 dB; no shift: 7.8 to 14 dB). Attacks of notes soften, as in every
phase vocoder.

References:
    Laroche and Dolson, "Improved phase vocoder time-scale modification of audio", IEEE TSAP 7(3), 1999.
    Puckette, "Phase-locked vocoder", WASPAA 1995 (neighbouring bins share a phase).
    Auger and Flandrin, "Improving the readability of time-frequency and time-scale representations by the reassignment
    method", IEEE TSP 43(5), 1995 (instantaneous frequency by the window's derivative).
    Fitzgerald, "Harmonic/percussive separation using median filtering", DAFx 2010; means of logarithms here.
"""

from __future__ import annotations

import math

import scipy.fft
import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_CENTS = 100

_WINDOW_SECONDS = 0.064
_OVERLAP = 4  # frames over each sample
_POINT = 20  # binary digits of positions after the point
_DENSITY = 4  # samples between which a cubic interpolates, per sample
_PAD_SECONDS = 0.05  # silence between the end of a row and its start, which an FFT takes for neighbours
_MASK_REACH = 8  # frames and bins on each side that the two mean levels are taken over
_MASK_MARGIN, _MASK_SHARPNESS = 1.0, 2.0  # in nepers of power
# Share of the loudest bin below which a bin has no frequency of its own; and what keeps 0 / 0 away, whose square must
# not vanish where a device has no denormal numbers.
_FLOOR, _TINY = 1e-8, 1e-12


class PitchShift(nn.Module):
    """Rows (B, N) and intervals (B,) in whole cents to rows (B, N), in float32."""

    ratios: Tensor

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.window = 2 ** round(math.log2(_WINDOW_SECONDS * sample_rate))
        self.hop = self.window // _OVERLAP
        self.pad = round(_PAD_SECONDS * sample_rate)
        # Looked up, as devices do not agree on the last digit of a power.
        exact = [round(2 ** (cents / 1200) * (1 << _POINT)) for cents in range(-MAX_CENTS, MAX_CENTS + 1)]
        self.register_buffer("ratios", torch.tensor(exact), persistent=False)

    def forward(self, waveform: Tensor, cents: Tensor) -> Tensor:
        """Shift each row.

        Args:
            waveform: (B, N), float32.
            cents: (B,), int64, from -100 to 100.
        """
        ratios = self.ratios[cents + MAX_CENTS][:, None]
        struck = self._struck(waveform)
        return struck + self._retimed(self._faster(waveform - struck, ratios), ratios)

    def _struck(self, waveform: Tensor) -> Tensor:
        window = torch.hann_window(self.window, device=waveform.device)
        spectrum = torch.fft.rfft(self._frames(waveform, self._places(waveform)[None]) * window)  # (B, T, F)
        power = _power(spectrum)
        level = torch.log(power + _FLOOR * power.amax(dim=(1, 2), keepdim=True) + _TINY)
        contrast = _mean_level(level, 0, _MASK_REACH) - _mean_level(level, _MASK_REACH, 0)
        mask = torch.sigmoid(_MASK_SHARPNESS * (contrast - _MASK_MARGIN))
        return self._overlap_added(torch.fft.irfft(spectrum * mask, self.window) * window, waveform.shape[1])

    def _faster(self, waveform: Tensor, ratios: Tensor) -> Tensor:
        """Sample n is what was at n * ratio: higher and shorter, or lower and cut off; then silence."""
        num_samples = waveform.shape[1]
        size: int = scipy.fft.next_fast_len(num_samples + self.pad, real=True)
        spectrum = torch.fft.rfft(waveform, size)
        folds = torch.arange(spectrum.shape[1], device=waveform.device) * ratios >= (size // 2) << _POINT
        dense = _DENSITY * torch.fft.irfft(spectrum.masked_fill(folds, 0), _DENSITY * size)
        position = _DENSITY * ratios * torch.arange(num_samples, device=waveform.device)
        first = position >> _POINT
        part = (position & ((1 << _POINT) - 1)).float() * 2.0**-_POINT
        sound = sum(
            weight * dense.gather(1, (first + offset) % dense.shape[1])
            for offset, weight in zip((-1, 0, 1, 2), _cubic(part), strict=True)
        )
        return sound.masked_fill(first >= _DENSITY * num_samples, 0)

    def _retimed(self, waveform: Tensor, ratios: Tensor) -> Tensor:
        """Frames taken ``hop / ratio`` apart and laid down ``hop`` apart, each bin turned by what it misses."""
        places = self._places(waveform)
        sources = ((places << (_POINT + 1)) + ratios) // (2 * ratios)  # (B, T), rounded
        frames = self._frames(waveform, sources)
        turn = 2 * math.pi / self.window
        cycle = turn * torch.arange(self.window, device=waveform.device)
        window, slope = 0.5 - 0.5 * cycle.cos(), 0.5 * turn * cycle.sin()
        spectrum = torch.fft.rfft(frames * window)  # (B, T, F)
        power = _power(spectrum)
        power = power + _FLOOR * power.amax(dim=2, keepdim=True) + _TINY
        deviation = -(torch.fft.rfft(frames * slope) * spectrum.conj()).imag / power  # radians a sample
        spectrum = spectrum * _locked(power, _phases(deviation, places - sources, self.window))
        return self._overlap_added(torch.fft.irfft(spectrum, self.window) * window, waveform.shape[1])

    def _places(self, waveform: Tensor) -> Tensor:
        """Centres of frames (T,), in samples: one before the start and one after the end, whose windows reach in."""
        return self.hop * torch.arange(-1, -(-waveform.shape[1] // self.hop) + 2, device=waveform.device)

    def _frames(self, waveform: Tensor, centres: Tensor) -> Tensor:
        """Frames (B, T, window), centred where asked; silence before the start and after the end."""
        last = math.ceil((waveform.shape[1] + 2 * self.hop) * 2 ** (MAX_CENTS / 1200))  # that any interval asks for
        padded = F.pad(waveform, (self.window, last + self.window - waveform.shape[1]))
        index = (centres + self.window // 2)[:, :, None] + torch.arange(self.window, device=waveform.device)
        index = index.expand(len(waveform), -1, -1)
        return padded[:, None].expand(-1, index.shape[1], -1).gather(2, index)

    def _overlap_added(self, frames: Tensor, num_samples: int) -> Tensor:
        batch, num_frames, _ = frames.shape
        total = frames.new_zeros(batch, num_frames + _OVERLAP - 1, self.hop)
        for part in range(_OVERLAP):
            total[:, part : part + num_frames] += frames[:, :, part * self.hop : (part + 1) * self.hop]
        start = self.window // 2 + self.hop
        # squared Hann windows, a quarter apart, sum to 1.5
        return total.flatten(1)[:, start : start + num_samples] / (0.375 * _OVERLAP)


def _phases(deviation: Tensor, lead: Tensor, window: int) -> Tensor:
    """Angle (B, T, F) that each bin has to turn by to arrive ``lead`` (B, T) samples later than it was taken.

    The turn of a bin's centre is exact modulo the window (a power of two); only the deviation from it is summed up.
    """
    steps = torch.diff(lead, dim=1, prepend=lead[:, :1])[:, :, None]
    between = torch.cat([deviation[:, :1], (deviation[:, 1:] + deviation[:, :-1]) / 2], dim=1)
    bins = torch.arange(deviation.shape[2], device=deviation.device)
    return (steps * between).cumsum(dim=1) + 2 * math.pi / window * (lead[:, :, None] * bins & (window - 1))


def _locked(power: Tensor, phases: Tensor) -> Tensor:
    """Unit phasors (B, T, F): the bins of one peak turn with its strongest, or they would cancel."""
    phasors = F.pad(torch.polar(power, phases), (1, 1))
    led = phasors[..., :-2] + phasors[..., 1:-1] + phasors[..., 2:]
    return led * (_power(led) + _TINY**2).rsqrt()


def _mean_level(level: Tensor, num_frames: int, num_bins: int) -> Tensor:
    """Mean over so many frames and bins on each side."""
    size = (2 * num_frames + 1, 2 * num_bins + 1)
    return F.avg_pool2d(level, size, stride=1, padding=(num_frames, num_bins), count_include_pad=False)


def _power(spectrum: Tensor) -> Tensor:
    return spectrum.real.square() + spectrum.imag.square()


def _cubic(part: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights of the samples at -1, 0, 1 and 2 for what lies at ``part`` between 0 and 1 (Lagrange)."""
    before, after, beyond = part + 1, part - 1, part - 2
    return (
        -part * after * beyond / 6,
        before * after * beyond / 2,
        -before * part * beyond / 2,
        before * part * after / 6,
    )
