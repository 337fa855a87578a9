"""Augmentations of a batch of excerpts, on the device it lives on: level, polarity, noise, bands, rooms and pitch.

Conventions: waveforms are (B, N) float32; every row has a seed, and all that is random about a row is drawn from its
seed alone (`musictf.audio.randomness`), whatever the other rows, the device or the process. Every effect is off by
default, as in the paper. They are applied in the order in which sound meets them: pitch at the source, the room, the
band of the transmission, noise, level and polarity. Nothing is clipped; length and onset times stay; silence stays
silent; everything is computed in float32 whatever the autocast, and nothing waits for the device.

A draw of one effect does not change with what the others are set to.
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

_CHANCES = ("polarity", "noise", "low_pass", "high_pass", "reverb", "pitch")
# Where the two ends of a range may lie.
_RANGES = {
    "noise_db": (-40.0, 120.0),
    "low_pass_hz": (1.0, math.inf),
    "high_pass_hz": (1.0, math.inf),
    "reverb_seconds": (0.01, 10.0),
    "reverb_db": (-60.0, 20.0),
}
_MAX_GAIN_DB = 60.0
_FILTER_ORDER = 4  # 24 dB an octave
_FILTER_PAD_SECONDS = 0.25  # silence between end and start of a row, which an FFT takes for neighbours
_LOWEST_HERTZ = 1e-6  # stands for 0 Hz, where lowest / frequency is not defined
_TINY = 1e-20


class Stream(IntEnum):
    """Numbers of the random sequences that effects draw from; who draws for another purpose starts at 100."""

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
    """What may happen to an excerpt, each effect off until it is given a chance.

    Attributes:
        gain_db: Level changes by up to so many dB, up or down (uniform in dB).
        polarity: Chance that the sign flips.
        noise: Chance of white noise.
        noise_db: Least and greatest level of the excerpt over that of the noise, dB (uniform).
        low_pass: Chance that high frequencies are cut.
        low_pass_hz: Lowest and highest frequency where 3 dB are lost, Hz (uniform in octaves).
        high_pass: Chance that low frequencies are cut.
        high_pass_hz: Lowest and highest frequency where 3 dB are lost, Hz (uniform in octaves).
        reverb: Chance of a room.
        reverb_seconds: Shortest and longest time in which the room fades by 60 dB, s (uniform).
        reverb_db: Least and greatest energy of the room over that of the direct sound, dB (uniform).
        pitch: Chance of another pitch.
        pitch_semitones: Greatest interval, up or down; at most 1 (uniform in whole cents).
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
        for key in _CHANCES:
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
        """Whether nothing can happen."""
        return self.gain_db == 0 and not any(getattr(self, key) for key in _CHANCES)


class Augment(nn.Module):
    """Waveforms (B, N) and seeds (B,) to augmented waveforms (B, N), each row by its own draws.

    Args:
        config: What may happen.
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
            seeds: (B,), int64; the same row under the same seed becomes the same.

        Returns:
            (B, N), float32; ``waveform`` itself where all effects are off.
        """
        if self.config.off:
            return waveform
        with torch.autocast(waveform.device.type, enabled=False):
            waveform = waveform.float()
            for effect in (self._pitch, self._reverb, self._bands, self._noise, self._polarity, self._gain):
                waveform = effect(waveform, seeds)
            return waveform

    def _pitch(self, waveform: Tensor, seeds: Tensor) -> Tensor:
        if not self.config.pitch:
            return waveform
        most = round(100 * self.config.pitch_semitones)
        draw = uniform(seeds, Stream.PITCH_CENTS, 1)[:, 0]
        cents = (draw * (2 * most + 1)).long() - most
        chosen = _chosen(seeds, Stream.PITCH, self.config.pitch)
        return torch.where(chosen, self.pitch_shift(waveform, cents), waveform)

    def _reverb(self, waveform: Tensor, seeds: Tensor) -> Tensor:
        if not self.config.reverb:
            return waveform
        seconds = _between(seeds, Stream.REVERB_SECONDS, self.config.reverb_seconds)
        decibels = _between(seeds, Stream.REVERB_DB, self.config.reverb_db)
        longest = min(math.ceil(self.config.reverb_seconds[1] * self.sample_rate), waveform.shape[1])
        samples = normal(seeds, Stream.REVERB_SAMPLES, longest)
        response = room_response(samples, seconds * self.sample_rate, decibels)
        chosen = _chosen(seeds, Stream.REVERB, self.config.reverb)
        return torch.where(chosen, reverberated(waveform, response), waveform)

    def _bands(self, waveform: Tensor, seeds: Tensor) -> Tensor:
        config = self.config
        if not (config.low_pass or config.high_pass):
            return waveform
        is_low = _chosen(seeds, Stream.LOW_PASS, config.low_pass)
        is_high = _chosen(seeds, Stream.HIGH_PASS, config.high_pass)
        highest = _between_octaves(seeds, Stream.LOW_PASS_HZ, config.low_pass_hz)
        lowest = _between_octaves(seeds, Stream.HIGH_PASS_HZ, config.high_pass_hz)
        highest = highest.masked_fill(~is_low[:, 0], math.inf)
        lowest = lowest.masked_fill(~is_high[:, 0], 0)
        return torch.where(is_low | is_high, band_passed(waveform, lowest, highest, self.sample_rate), waveform)

    def _noise(self, waveform: Tensor, seeds: Tensor) -> Tensor:
        if not self.config.noise:
            return waveform
        decibels = _between(seeds, Stream.NOISE_DB, self.config.noise_db)
        samples = normal(seeds, Stream.NOISE_SAMPLES, waveform.shape[1])
        chosen = _chosen(seeds, Stream.NOISE, self.config.noise)
        return torch.where(chosen, noisy(waveform, samples, decibels), waveform)

    def _polarity(self, waveform: Tensor, seeds: Tensor) -> Tensor:
        if not self.config.polarity:
            return waveform
        return torch.where(_chosen(seeds, Stream.POLARITY, self.config.polarity), -waveform, waveform)

    def _gain(self, waveform: Tensor, seeds: Tensor) -> Tensor:
        if not self.config.gain_db:
            return waveform
        most = self.config.gain_db
        return waveform * _amplitude(_between(seeds, Stream.GAIN, [-most, most]))[:, None]


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
    """Rows without what lies below ``lowest`` and above ``highest``, without delay (zero phase).

    The gain is that of two Butterworth filters of order 4: -3 dB at the cut-offs, 24 dB an octave beyond.

    Args:
        waveform: (B, N).
        lowest: Hertz, (B,); 0 keeps all low frequencies.
        highest: Hertz, (B,); infinite keeps all high frequencies.
        sample_rate: In hertz.
    """
    num_samples = waveform.shape[1]
    size: int = scipy.fft.next_fast_len(num_samples + round(_FILTER_PAD_SECONDS * sample_rate), real=True)
    hertz = torch.arange(size // 2 + 1, device=waveform.device) * (sample_rate / size)
    hertz = hertz.clamp(min=_LOWEST_HERTZ)
    above = 1 + (hertz / highest[:, None]) ** (2 * _FILTER_ORDER)
    below = 1 + (lowest[:, None] / hertz) ** (2 * _FILTER_ORDER)
    gain = above.rsqrt() * below.rsqrt()
    return torch.fft.irfft(torch.fft.rfft(waveform, size) * gain, size)[:, :num_samples]


def room_response(samples: Tensor, fade: Tensor, decibels: Tensor) -> Tensor:
    """Impulse responses of rooms without their direct sound: noise that decays exponentially.

    Args:
        samples: White noise, (B, L).
        fade: Time in which a room fades by 60 dB, in samples, (B,).
        decibels: Energy of each response, dB, (B,); that of the direct sound is 0 dB.

    Returns:
        (B, L); 0 at time zero, where the direct sound is.
    """
    time = torch.arange(samples.shape[1], device=samples.device)
    decay = (10 ** (-3 * time / fade[:, None])).masked_fill(time == 0, 0)
    tail = samples * decay
    energy = tail.square().sum(dim=1, keepdim=True)
    return tail * (_amplitude(decibels)[:, None] / (energy.sqrt() + _TINY))


def reverberated(waveform: Tensor, response: Tensor) -> Tensor:
    """Rows in a room, as loud (RMS) as before: direct sound where it was, and what the room adds to it.

    Args:
        waveform: (B, N).
        response: What the room adds to an impulse, (B, L).
    """
    num_samples = waveform.shape[1]
    size: int = scipy.fft.next_fast_len(num_samples + response.shape[1] - 1, real=True)
    spectrum = torch.fft.rfft(waveform, size) * torch.fft.rfft(response, size)
    wet = waveform + torch.fft.irfft(spectrum, size)[:, :num_samples]
    return wet * (_rms(waveform) / (_rms(wet) + _TINY))


def _chosen(seeds: Tensor, stream: Stream, chance: float) -> Tensor:
    """Whether each row is, (B, 1)."""
    return uniform(seeds, stream, 1) < chance


def _between(seeds: Tensor, stream: Stream, ends: list[float]) -> Tensor:
    """One number a row, (B,), uniform."""
    return ends[0] + (ends[1] - ends[0]) * uniform(seeds, stream, 1)[:, 0]


def _between_octaves(seeds: Tensor, stream: Stream, ends: list[float]) -> Tensor:
    """One positive number a row, (B,), uniform in its logarithm."""
    return _between(seeds, stream, [math.log(end) for end in ends]).exp()


def _amplitude(decibels: Tensor) -> Tensor:
    return 10 ** (decibels / 20)


def _rms(waveform: Tensor) -> Tensor:
    """Root mean square of each row, (B, 1)."""
    return waveform.square().mean(dim=1, keepdim=True).sqrt()
