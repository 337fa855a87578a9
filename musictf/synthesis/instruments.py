"""Pitched instruments: single notes as waveforms, from sums of partials.

The instruments are few and shared by all tracks, so that a timbre identifies a family (a tag) and never a track.

Conventions: a note is mono, float32, at its nominal pitch (A4 = 440 Hz), and has the same mean power over its first
400 ms on every instrument; the renderer shortens it and adds the release. An instrument is a function of the
fundamental frequency in hertz, times in seconds and a source of randomness (for the noise of its attack).

Shapes:  N samples of a note   H harmonics
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Waveform = npt.NDArray[np.float32]

LOUDNESS = 0.1  # RMS of a note of unit loudness over its first 400 ms
# Partials above this share of the sample rate are left out: they would alias.
HIGHEST_PARTIAL = 0.45


@dataclass(frozen=True)
class Instrument:
    """A family of instruments.

    Attributes:
        lowest: Lowest MIDI pitch.
        highest: Highest MIDI pitch.
        seconds: Longest note in seconds.
        release: Fade after the end of a note in seconds.
        sound: Fundamental frequency in hertz, times in seconds (N,), randomness -> waveform (N,).
    """

    lowest: int
    highest: int
    seconds: float
    release: float
    sound: Callable[[float, Floats, np.random.Generator], Floats]


@lru_cache(maxsize=1024)
def unit_note(family: str, pitch: int, sample_rate: int) -> Waveform:
    """One note of a family in full length, (N,); every call returns the same bytes.

    Args:
        family: Key of ``INSTRUMENTS``.
        pitch: MIDI pitch.
        sample_rate: In hertz.
    """
    instrument = INSTRUMENTS[family]
    times = np.arange(round(instrument.seconds * sample_rate)) / sample_rate
    # The noise of a note depends on family and pitch only: it must not identify a track.
    rng = np.random.default_rng([sum(family.encode()), pitch])
    note = instrument.sound(440.0 * 2.0 ** ((pitch - 69) / 12), times, rng)
    power = np.sqrt(np.mean(note[: round(0.4 * sample_rate)] ** 2))
    waveform: Waveform = (note * (LOUDNESS / power)).astype(np.float32)
    waveform.setflags(write=False)  # it is shared through the cache
    return waveform


def _partials(f0: float, times: Floats, amplitudes: Floats, decays: Floats, stiffness: float = 0.0) -> Floats:
    """Sum of decaying sines, (N,), at the multiples of ``f0``, which stiffness stretches as in a real string.

    Amplitudes and decays (1/s) are (H,); times are (N,).
    """
    sample_rate = 1.0 / (times[1] - times[0])
    total = np.zeros_like(times)
    for number, (amplitude, decay) in enumerate(zip(amplitudes, decays, strict=True), start=1):
        frequency = number * f0 * np.sqrt(1.0 + stiffness * number**2)
        if frequency > HIGHEST_PARTIAL * sample_rate:
            break
        # The phase 2.4 k^2 spreads the partials, whose peaks would otherwise coincide at the start.
        total += amplitude * np.exp(-decay * times) * np.sin(2 * np.pi * frequency * times + 2.4 * number**2)
    return total


def _harmonics(phase: Floats, amplitudes: Floats, f0: float, times: Floats) -> Floats:
    """Sum of the sines, (N,), of multiples of a phase (N,) in radians; amplitudes are (H,)."""
    count = int(HIGHEST_PARTIAL / (times[1] - times[0]) / f0)
    # sin(kx) = 2 cos(x) sin((k-1)x) - sin((k-2)x): one sine and one cosine for all harmonics.
    double_cosine, before, current = 2.0 * np.cos(phase), np.zeros_like(phase), np.sin(phase)
    total = np.zeros_like(phase)
    for amplitude in amplitudes[: max(1, count)]:
        total += amplitude * current
        before, current = current, double_cosine * current - before
    return total


def _vibrato(f0: float, times: Floats, rate: float, depth: float, onset: float) -> Floats:
    """Phase (N,) in radians of a tone whose frequency varies by the share ``depth``, fully after ``onset`` seconds."""
    growth = np.clip(times / onset, 0.0, 1.0) * depth
    return 2 * np.pi * f0 * times - growth * f0 / rate * np.cos(2 * np.pi * rate * times)


def _attack(times: Floats, seconds: float) -> Floats:
    """Envelope (N,) that reaches 95 % after ``seconds``."""
    return 1.0 - np.exp(-times * 3.0 / seconds)


def piano(f0: float, times: Floats, rng: np.random.Generator) -> Floats:
    """Two detuned strings with stiffness, and the noise of the hammer, (N,)."""
    k = np.arange(1.0, 25.0)
    # A hammer at 1/8.2 of the string hardly excites every eighth partial; high notes decay faster.
    amplitudes, decays = k**-1.15 * np.abs(np.sin(k * np.pi / 8.2)), 0.5 + f0 / 500 + 0.25 * k
    strings = [_partials(f0 * 2 ** (cents / 1200), times, amplitudes, decays, stiffness=3e-4) for cents in (-1.2, 1.4)]
    hammer = rng.standard_normal(len(times)) * np.exp(-times * 90) * 0.15
    return (strings[0] + strings[1] + hammer) * _attack(times, 0.008)


def organ(f0: float, times: Floats, rng: np.random.Generator) -> Floats:
    """Eight drawbars with a slight vibrato, and the click of the key, (N,)."""
    drawbars = np.array([1.0, 0.8, 0.5, 0.55, 0.1, 0.35, 0.0, 0.3])
    tone = _harmonics(_vibrato(f0, times, 6.3, 0.0025, 0.1), drawbars, f0, times)
    click = rng.standard_normal(len(times)) * np.exp(-times * 200) * 0.4
    return (tone + click) * _attack(times, 0.012)


def guitar(f0: float, times: Floats, rng: np.random.Generator) -> Floats:
    """A string plucked at 22 % of its length, (N,)."""
    k = np.arange(1.0, 30.0)
    amplitudes = np.abs(np.sin(np.pi * k * 0.22)) / k**0.9
    pluck = rng.standard_normal(len(times)) * np.exp(-times * 160) * 0.25
    return (_partials(f0, times, amplitudes, 1.1 + 0.55 * k, stiffness=6e-5) + pluck) * _attack(times, 0.004)


def strings(f0: float, times: Floats, rng: np.random.Generator) -> Floats:
    """A section of three players with different vibrato, (N,)."""
    total = np.zeros_like(times)
    for cents, rate in ((-7.0, 5.1), (1.0, 5.6), (8.0, 4.7)):
        frequency = f0 * 2 ** (cents / 1200)
        phase = _vibrato(frequency, times, rate, 0.004, 0.4) + rng.uniform(0, 6.28)
        total += _harmonics(phase, np.arange(1.0, 21.0) ** -1.1, frequency, times)
    return total * _attack(times, 0.16)


def brass(f0: float, times: Floats, rng: np.random.Generator) -> Floats:
    """A tone whose upper harmonics come later than its fundamental, (N,)."""
    k = np.arange(1.0, 21.0)
    phase = _vibrato(f0, times, 5.2, 0.003, 0.6) + 0.02 * np.exp(-times * 30)
    dark = _harmonics(phase, np.exp(-0.9 * (k - 1)), f0, times)
    bright = _harmonics(phase, np.exp(-0.22 * np.abs(k - 3)), f0, times)
    opening = _attack(times, 0.12) * (0.45 + 0.3 * np.exp(-times * 4))
    return (dark + bright * opening) * _attack(times, 0.06)


def flute(f0: float, times: Floats, rng: np.random.Generator) -> Floats:
    """Four harmonics with vibrato, and the noise of the breath, (N,)."""
    tone = _harmonics(_vibrato(f0, times, 4.8, 0.006, 0.5), np.array([1.0, 0.35, 0.12, 0.05]), f0, times)
    # A difference filter: breath noise has no low frequencies.
    breath = np.convolve(rng.standard_normal(len(times)), [0.5, 0.0, -0.5], mode="same")
    return (tone + breath * (0.06 + 0.25 * np.exp(-times * 25))) * _attack(times, 0.07)


def mallet(f0: float, times: Floats, rng: np.random.Generator) -> Floats:
    """A bar: three inharmonic partials, and the knock of the mallet, (N,)."""
    sample_rate = 1.0 / (times[1] - times[0])
    total = np.zeros_like(times)
    # Ratios of a marimba bar, tuned to two octaves for the second partial.
    for ratio, amplitude, decay in ((1.0, 1.0, 3.5), (3.98, 0.35, 9.0), (9.6, 0.18, 25.0)):
        if ratio * f0 < HIGHEST_PARTIAL * sample_rate:
            total += amplitude * np.exp(-decay * times * (f0 / 440) ** 0.3) * np.sin(2 * np.pi * ratio * f0 * times)
    knock = rng.standard_normal(len(times)) * np.exp(-times * 180) * 0.3
    return (total + knock) * _attack(times, 0.003)


def electric_bass(f0: float, times: Floats, rng: np.random.Generator) -> Floats:
    """A string with weak upper partials, and the noise of the finger, (N,)."""
    k = np.arange(1.0, 16.0)
    finger = rng.standard_normal(len(times)) * np.exp(-times * 120) * 0.12
    return (_partials(f0, times, k**-1.6, 0.8 + 0.5 * k, stiffness=5e-5) + finger) * _attack(times, 0.012)


def synth_bass(f0: float, times: Floats, rng: np.random.Generator) -> Floats:
    """A sawtooth through a low-pass filter that closes, (N,)."""
    k = np.arange(1.0, 31.0)
    phase = 2 * np.pi * f0 * times
    open_filter, closed_filter = 1.0 / k, 1.0 / k / (1.0 + (k / 3.0) ** 3)
    sweep = np.exp(-times * 7)
    tone = _harmonics(phase, open_filter, f0, times) * sweep + _harmonics(phase, closed_filter, f0, times) * (1 - sweep)
    decayed: Floats = tone * _attack(times, 0.006) * np.exp(-times * 0.5)
    return decayed


INSTRUMENTS: dict[str, Instrument] = {
    "piano": Instrument(30, 96, 3.5, 0.12, piano),
    "organ": Instrument(34, 96, 3.5, 0.04, organ),
    "guitar": Instrument(34, 92, 3.0, 0.08, guitar),
    "strings": Instrument(34, 96, 3.5, 0.25, strings),
    "brass": Instrument(34, 92, 3.0, 0.08, brass),
    "flute": Instrument(46, 100, 3.0, 0.08, flute),
    "mallet": Instrument(34, 100, 2.0, 0.3, mallet),
    "electric bass": Instrument(24, 60, 2.5, 0.06, electric_bass),
    "synth bass": Instrument(24, 60, 2.5, 0.05, synth_bass),
}
BASSES = ("electric bass", "synth bass")
MELODIC = tuple(family for family in INSTRUMENTS if family not in BASSES)
