"""Sounds whose every moment is known: noise, silence, clicks, a held chord, a scale.

What a backbone does with these shows what positions and plain input explain before music comes in. Each kind has
several tracks of one excerpt, which differ in phase, pitch or level, never in what they are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from musictf.annotations import Chords
from musictf.datasets.base import Track
from musictf.files import write_atomically
from musictf.inspection.inspected_models import control_folder, wav_bytes

Floats = npt.NDArray[np.float64]

STIMULI = ("silence", "noise", "clicks", "held_chord", "scale")
_VERSION = 1
_MAJOR_SCALE = (0, 2, 4, 5, 7, 9, 11, 12)
_PARTIALS = 6


def stimulus_tracks(kind: str, number: int, num_samples: int, sample_rate: int) -> list[Track]:
    """Tracks of one kind of sound, with what is known of them as labels.

    Args:
        kind: One of `STIMULI`.
        number: How many.
        num_samples: Length of each.
        sample_rate: In hertz.
    """
    return [_track(kind, index, num_samples, sample_rate) for index in range(number)]


def _track(kind: str, index: int, num_samples: int, sample_rate: int) -> Track:
    rng = np.random.default_rng([STIMULI.index(kind), index])
    seconds = num_samples / sample_rate
    waveform, onsets, chord = _MAKERS[kind](rng, seconds, sample_rate)
    path: Path = control_folder() / f"{kind}_{index}_{num_samples}_{sample_rate}_{_VERSION}.wav"
    if not path.is_file():
        write_atomically(path, wav_bytes(waveform, sample_rate))
    labels: dict[str, object] = {"onsets": onsets}
    if chord is not None:
        labels["chords"] = Chords(np.array([[0.0, seconds]]), [chord])
    return Track(track_id=f"{kind}_{index}", audio=path, split="test", labels=labels)


def _silence(rng: np.random.Generator, seconds: float, rate: int) -> tuple[Floats, Floats, str | None]:
    return np.zeros(round(seconds * rate)), np.empty(0), None


def _noise(rng: np.random.Generator, seconds: float, rate: int) -> tuple[Floats, Floats, str | None]:
    return rng.uniform(0.02, 0.2) * rng.standard_normal(round(seconds * rate)), np.empty(0), None


def _clicks(rng: np.random.Generator, seconds: float, rate: int) -> tuple[Floats, Floats, str | None]:
    """Short decaying bursts in faint noise, at a tempo and a phase of their own."""
    num_samples = round(seconds * rate)
    onsets = np.arange(rng.uniform(0.1, 0.5), seconds - 0.1, 60 / rng.uniform(80, 160))
    burst = np.exp(-np.arange(round(0.03 * rate)) / (0.005 * rate))
    waveform = 1e-4 * rng.standard_normal(num_samples)
    for onset in onsets:
        start = round(onset * rate)
        waveform[start : start + len(burst)] += 0.5 * (burst * rng.standard_normal(len(burst)))[: num_samples - start]
    return waveform, onsets, None


def _held_chord(rng: np.random.Generator, seconds: float, rate: int) -> tuple[Floats, Floats, str | None]:
    root = int(rng.integers(48, 60))
    tones = [_tone(root + step, seconds, rate) for step in (0, 4, 7)]
    names = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
    return 0.15 * np.sum(tones, axis=0), np.empty(0), f"{names[root % 12]}:maj"


def _scale(rng: np.random.Generator, seconds: float, rate: int) -> tuple[Floats, Floats, str | None]:
    """A major scale up, over and over, each note decaying."""
    root, step = int(rng.integers(48, 60)), rng.uniform(0.25, 0.5)
    onsets = np.arange(rng.uniform(0.05, 0.2), seconds - 0.1, step)
    waveform = 1e-4 * rng.standard_normal(round(seconds * rate))
    for place, onset in enumerate(onsets):
        note = _tone(root + _MAJOR_SCALE[place % len(_MAJOR_SCALE)], step, rate)
        note *= np.exp(-np.arange(len(note)) / (0.2 * rate)) * np.minimum(1, np.arange(len(note)) / (0.004 * rate))
        start = round(onset * rate)
        waveform[start : start + len(note)] += 0.3 * note[: len(waveform) - start]
    return waveform, onsets, None


def _tone(pitch: int, seconds: float, rate: int) -> Floats:
    time = np.arange(round(seconds * rate)) / rate
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    return np.sum([np.sin(2 * np.pi * k * frequency * time) / k for k in range(1, _PARTIALS + 1)], axis=0) / 2


_MAKERS = {"silence": _silence, "noise": _noise, "clicks": _clicks, "held_chord": _held_chord, "scale": _scale}
