"""Augmentations of a batch of excerpts on its device: level, polarity, noise, bands, rooms and pitch.

Shapes:  B rows of a batch   N audio samples   L samples of an impulse response

Conventions: waveforms are (B, N) float32. Every row has a seed, and all its random draws come from its seed alone
(`musictf.audio.randomness`), whatever the other rows, the device or the process. The draws of one effect do not depend
on the settings of the others. Every effect is off by default, as in the paper. Effects are applied in the order of a
recording chain: pitch of the source, room, band of the transmission, noise, polarity, level. Nothing is clipped; length
and onset times stay; silence stays silent. Everything is computed in float32 whatever the autocast, without waiting for
the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum

import scipy.fft
import torch
from torch import Tensor, nn

from musictf.audio.pitchshift import MAX_CENTS, PitchShift
from musictf.audio.randomness import normal, uniform
from musictf.errors import InputError

_PROBABILITIES = ("polarity", "noise", "low_pass", "high_pass", "reverb", "pitch")
# Bounds of both ends of each range.
_RANGES = {
    "noise_db": (-40.0, 120.0),
    "low_pass_hz": (1.0, math.inf),
    "high_pass_hz": (1.0, math.inf),
    "reverb_seconds": (0.01, 10.0),
    "reverb_db": (-60.0, 20.0),
}
_MAX_GAIN_DB = 60.0
_FILTER_ORDER = 4  # 24 dB an octave
_FILTER_PAD_SECONDS = 0.25  # silence after a row: an FFT filters circularly, so its end would leak into its start
_LOWEST_HERTZ = 1e-6  # replaces 0 Hz, where the gain of the high-pass divides by zero
_TINY = 1e-20  # keeps silence silent: 0 / _TINY is 0


class Stream(IntEnum):
    """Numbers of the random streams of the effects. Streams for other purposes have numbers from 100."""

    GAIN = 1
    POLARITY = 2
    NOISE = 3
    NOISE_DB = 4
    NOISE_SAMPLES = 5
    LOW_PASS = 6
    LOW_PASS_HZ = 7
    HIGH_PASS = 8
    HIGH_PASS_HZ = 9
    REVERB = 10
    REVERB_SECONDS = 11
    REVERB_DB = 12
    REVERB_SAMPLES = 13
    PITCH = 14
    PITCH_CENTS = 15


@dataclass(kw_only=True)
class AugmentConfig:
    """Augmentations of an excerpt; each is off while its probability, or ``gain_db``, is 0.

    Attributes:
        gain_db: Largest change of level, up or down, in dB (uniform in dB).
        polarity: Probability that the sign is flipped.
        noise: Probability of white noise.
        noise_db: Range [lowest, highest] of the signal-to-noise ratio, in dB (uniform in dB).
        low_pass: Probability of a low-pass filter.
        low_pass_hz: Range [lowest, highest] of its -3 dB cut-off, in Hz (uniform in octaves).
        high_pass: Probability of a high-pass filter.
        high_pass_hz: Range [lowest, highest] of its -3 dB cut-off, in Hz (uniform in octaves).
        reverb: Probability of reverberation.
        reverb_seconds: Range [lowest, highest] of the reverberation time RT60, in seconds (uniform).
        reverb_db: Range [lowest, highest] of reverberant over direct energy, in dB (uniform in dB).
        pitch: Probability of a pitch shift.
        pitch_semitones: Largest shift, up or down, in semitones; at most 1 (uniform in cents).
    """

    gain_db: float = 0.0
    polarity: float = 0.0
    noise: float = 0.0
    noise_db: list[float] = field(default_factory=lambda: [10.0, 40.0])
    low_pass: float = 0.0
    low_pass_hz: list[float] = field(default_factory=lambda: [2000.0, 7000.0])
    high_pass: float = 0.0
    high_pass_hz: list[float] = field(default_factory=lambda: [50.0, 400.0])
    reverb: float = 0.0
    reverb_seconds: list[float] = field(default_factory=lambda: [0.2, 0.8])
    reverb_db: list[float] = field(default_factory=lambda: [-20.0, -6.0])
    pitch: float = 0.0
    pitch_semitones: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.gain_db <= _MAX_GAIN_DB:
            raise InputError(f"augment.gain_db={self.gain_db} must be from 0 (off) to {_MAX_GAIN_DB:g} dB")
        for key in _PROBABILITIES:
            if not 0 <= getattr(self, key) <= 1:
                raise InputError(f"augment.{key}={getattr(self, key)} must be a probability from 0 (off) to 1")
        for key, (lowest, highest) in _RANGES.items():
            ends = getattr(self, key)
            if len(ends) != 2 or not lowest <= ends[0] <= ends[1] <= highest or math.isinf(ends[1]):
                limits = f"from {lowest:g} up" if math.isinf(highest) else f"within {lowest:g} to {highest:g}"
                raise InputError(f"augment.{key}={list(ends)} must be [lowest,highest], {limits}")
        if not 0.01 <= self.pitch_semitones <= MAX_CENTS / 100:
            raise InputError(
                f"augment.pitch_semitones={self.pitch_semitones} must be from 0.01 to {MAX_CENTS / 100:g} "
                "(augment.pitch=0 turns it off)"
            )

    @property
    def off(self) -> bool:
        """Whether every effect is off."""
        return self.gain_db == 0 and not any(getattr(self, key) for key in _PROBABILITIES)


class Augment(nn.Module):
    """Augments waveforms (B, N), each row by draws from its own seed (B,).

    Args:
        config: Effects and their ranges.
        sample_rate: In hertz.

    Raises:
        InputError: a cut-off frequency in use is above half the sample rate.
    """

    def __init__(self, config: AugmentConfig, sample_rate: int) -> None:
        super().__init__()
        for key in ("low_pass", "high_pass"):
            lowest, highest = getattr(config, f"{key}_hz")
            if getattr(config, key) > 0 and highest > sample_rate / 2:
                raise InputError(
                    f"augment.{key}_hz=[{lowest:g},{highest:g}]: must end at half the sample rate at most "
                    f"({sample_rate / 2:g} Hz)"
                )
        self.config = config
        self.sample_rate = sample_rate
        self.pitch_shift = PitchShift(sample_rate)

    def forward(self, waveform: Tensor, seeds: Tensor) -> Tensor:
        """Augment each row.

        Args:
            waveform: (B, N).
            seeds: (B,), int64; the same row with the same seed gives the same result.

        Returns:
            (B, N), float32; ``waveform`` itself where all effects are off.
        """
        if self.config.off:
            return waveform
        with torch.autocast(waveform.device.type, enabled=False):
            waveform = waveform.float()
            for effect in (self._pitch, self._reverb, self._bands, self._noise):
                waveform = effect(waveform, seeds)
            if self.config.polarity:
                is_chosen = _is_chosen(seeds, Stream.POLARITY, self.config.polarity)
                waveform = torch.where(is_chosen, -waveform, waveform)
            if largest := self.config.gain_db:
                waveform = waveform * _amplitude(_uniform_between(seeds, Stream.GAIN, [-largest, largest]))[:, None]
            return waveform

    def _pitch(self, waveform: Tensor, seeds: Tensor) -> Tensor:
        if not self.config.pitch:
            return waveform
        largest = round(100 * self.config.pitch_semitones)
        draw = uniform(seeds, Stream.PITCH_CENTS, 1)[:, 0]
        cents = (draw * (2 * largest + 1)).long() - largest  # (B,)
        is_chosen = _is_chosen(seeds, Stream.PITCH, self.config.pitch)
        return torch.where(is_chosen, self.pitch_shift(waveform, cents), waveform)

    def _reverb(self, waveform: Tensor, seeds: Tensor) -> Tensor:
        if not self.config.reverb:
            return waveform
        seconds = _uniform_between(seeds, Stream.REVERB_SECONDS, self.config.reverb_seconds)
        decibels = _uniform_between(seeds, Stream.REVERB_DB, self.config.reverb_db)
        # One length for all rows, so that nothing depends on values on the device.
        longest = min(math.ceil(self.config.reverb_seconds[1] * self.sample_rate), waveform.shape[1])
        samples = normal(seeds, Stream.REVERB_SAMPLES, longest)  # (B, L)
        response = room_response(samples, seconds * self.sample_rate, decibels)
        is_chosen = _is_chosen(seeds, Stream.REVERB, self.config.reverb)
        return torch.where(is_chosen, reverberated(waveform, response), waveform)

    def _bands(self, waveform: Tensor, seeds: Tensor) -> Tensor:
        config = self.config
        if not (config.low_pass or config.high_pass):
            return waveform
        has_low_pass = _is_chosen(seeds, Stream.LOW_PASS, config.low_pass)  # (B, 1)
        has_high_pass = _is_chosen(seeds, Stream.HIGH_PASS, config.high_pass)
        highest = _between_octaves(seeds, Stream.LOW_PASS_HZ, config.low_pass_hz)
        lowest = _between_octaves(seeds, Stream.HIGH_PASS_HZ, config.high_pass_hz)
        highest = highest.masked_fill(~has_low_pass[:, 0], math.inf)
        lowest = lowest.masked_fill(~has_high_pass[:, 0], 0)
        filtered = band_passed(waveform, lowest, highest, self.sample_rate)
        return torch.where(has_low_pass | has_high_pass, filtered, waveform)

    def _noise(self, waveform: Tensor, seeds: Tensor) -> Tensor:
        if not self.config.noise:
            return waveform
        decibels = _uniform_between(seeds, Stream.NOISE_DB, self.config.noise_db)
        samples = normal(seeds, Stream.NOISE_SAMPLES, waveform.shape[1])
        is_chosen = _is_chosen(seeds, Stream.NOISE, self.config.noise)
        return torch.where(is_chosen, noisy(waveform, samples, decibels), waveform)


def noisy(waveform: Tensor, samples: Tensor, decibels: Tensor) -> Tensor:
    """Rows with noise added.

    Args:
        waveform: (B, N).
        samples: Noise of any level, (B, N).
        decibels: Power of the row over power of its noise, dB, (B,).
    """
    scale = _rms(waveform) / (_rms(samples) + _TINY) * _amplitude(-decibels)[:, None]
    return waveform + scale * samples


def band_passed(waveform: Tensor, lowest: Tensor, highest: Tensor, sample_rate: int) -> Tensor:
    """Rows limited to the band from ``lowest`` to ``highest``, without delay (zero phase).

    The gain is that of two Butterworth filters of order 4: -3 dB at the cut-offs, 24 dB an octave beyond.

    Args:
        waveform: (B, N).
        lowest: Hertz, (B,); 0 keeps all low frequencies.
        highest: Hertz, (B,); infinite keeps all high frequencies.
        sample_rate: In hertz.
    """
    num_samples = waveform.shape[1]
    size: int = scipy.fft.next_fast_len(num_samples + round(_FILTER_PAD_SECONDS * sample_rate), real=True)
    # Filtered as a product of spectra, because every row has cut-offs of its own.
    hertz = torch.arange(size // 2 + 1, device=waveform.device) * (sample_rate / size)
    hertz = hertz.clamp(min=_LOWEST_HERTZ)
    above = 1 + (hertz / highest[:, None]) ** (2 * _FILTER_ORDER)
    below = 1 + (lowest[:, None] / hertz) ** (2 * _FILTER_ORDER)
    gain = above.rsqrt() * below.rsqrt()  # (B, size // 2 + 1)
    return torch.fft.irfft(torch.fft.rfft(waveform, size) * gain, size)[:, :num_samples]


def room_response(samples: Tensor, fade: Tensor, decibels: Tensor) -> Tensor:
    """Impulse responses of rooms without their direct sound: exponentially decaying noise.

    Args:
        samples: White noise, (B, L).
        fade: Reverberation time RT60 in samples, (B,).
        decibels: Energy of each response in dB relative to the direct sound, (B,).

    Returns:
        (B, L); 0 at time zero, the time of the direct sound.
    """
    time = torch.arange(samples.shape[1], device=samples.device)
    decay = (10 ** (-3 * time / fade[:, None])).masked_fill(time == 0, 0)  # -60 dB of amplitude after ``fade``
    tail = samples * decay
    energy = tail.square().sum(dim=1, keepdim=True)
    return tail * (_amplitude(decibels)[:, None] / (energy.sqrt() + _TINY))


def reverberated(waveform: Tensor, response: Tensor) -> Tensor:
    """Rows in a room, at the same level (RMS) as before; the direct sound keeps its time.

    Args:
        waveform: (B, N).
        response: Impulse response of the room without the direct sound, (B, L).
    """
    num_samples = waveform.shape[1]
    size: int = scipy.fft.next_fast_len(num_samples + response.shape[1] - 1, real=True)
    spectrum = torch.fft.rfft(waveform, size) * torch.fft.rfft(response, size)
    wet = waveform + torch.fft.irfft(spectrum, size)[:, :num_samples]
    return wet * (_rms(waveform) / (_rms(wet) + _TINY))


def _is_chosen(seeds: Tensor, stream: Stream, probability: float) -> Tensor:
    """Whether an effect is applied to each row, (B, 1)."""
    return uniform(seeds, stream, 1) < probability


def _uniform_between(seeds: Tensor, stream: Stream, ends: list[float]) -> Tensor:
    """One number for each row, (B,), uniform between the ends."""
    return ends[0] + (ends[1] - ends[0]) * uniform(seeds, stream, 1)[:, 0]


def _between_octaves(seeds: Tensor, stream: Stream, ends: list[float]) -> Tensor:
    """One positive number for each row, (B,), uniform in its logarithm."""
    return _uniform_between(seeds, stream, [math.log(end) for end in ends]).exp()


def _amplitude(decibels: Tensor) -> Tensor:
    return 10 ** (decibels / 20)


def _rms(waveform: Tensor) -> Tensor:
    """Root mean square of each row, (B, 1)."""
    return waveform.square().mean(dim=1, keepdim=True).sqrt()
