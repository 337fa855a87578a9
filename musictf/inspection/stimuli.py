"""Synthetic sounds with exact annotations: silence, noise, clicks, a held chord, a scale.

The output of a backbone for them shows what positions and any input explain without music. Each kind has several tracks
of one excerpt, which differ in phase, pitch or level. The choice of sounds is ours.

Shapes:  N samples   n onsets
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from musictf.annotations import PITCH_CLASSES, Chords
from musictf.datasets.base import Track
from musictf.files import write_atomically
from musictf.inspection.inspected_models import control_folder, wav_bytes

Floats = npt.NDArray[np.float64]
Sound = tuple[Floats, Floats, str | None]  # waveform (N,), onsets in seconds (n,), chord label

STIMULI = ("silence", "noise", "clicks", "held_chord", "scale")
_VERSION = 1  # part of the file names: raise it when a sound changes
_MAJOR_SCALE = (0, 2, 4, 5, 7, 9, 11, 12)  # semitones above the root
_PARTIALS = 6


def stimulus_tracks(kind: str, number: int, num_samples: int, sample_rate: int) -> list[Track]:
    """Tracks of one kind of sound, with its onsets and chord as labels.

    Args:
        kind: One of `STIMULI`.
        number: How many tracks.
        num_samples: Length of each, N.
        sample_rate: In hertz.
    """
    tracks = []
    seconds = num_samples / sample_rate
    for index in range(number):
        rng = np.random.default_rng([STIMULI.index(kind), index])
        waveform, onsets, chord = _sound(kind, rng, seconds, sample_rate)
        path: Path = control_folder() / f"{kind}_{index}_{num_samples}_{sample_rate}_{_VERSION}.wav"
        if not path.is_file():
            write_atomically(path, wav_bytes(waveform, sample_rate))
        labels: dict[str, object] = {"onsets": onsets}
        if chord is not None:
            labels["chords"] = Chords(np.array([[0.0, seconds]]), [chord])
        tracks.append(Track(track_id=f"{kind}_{index}", audio=path, split="test", labels=labels))
    return tracks


def _sound(kind: str, rng: np.random.Generator, seconds: float, rate: int) -> Sound:
    num_samples = round(seconds * rate)
    if kind == "silence":
        return np.zeros(num_samples), np.empty(0), None
    if kind == "noise":
        return rng.uniform(0.02, 0.2) * rng.standard_normal(num_samples), np.empty(0), None
    if kind == "clicks":
        return _clicks(rng, seconds, rate)
    if kind == "scale":
        return _scale(rng, seconds, rate)
    root = int(rng.integers(48, 60))  # MIDI: the octave below middle C
    tones = [_tone(root + step, seconds, rate) for step in (0, 4, 7)]
    return 0.15 * np.sum(tones, axis=0), np.empty(0), f"{PITCH_CLASSES[root % 12]}:maj"


def _clicks(rng: np.random.Generator, seconds: float, rate: int) -> Sound:
    """Short decaying bursts in faint noise, at a random tempo (80 to 160 bpm) and phase."""
    num_samples = round(seconds * rate)
    onsets = np.arange(rng.uniform(0.1, 0.5), seconds - 0.1, 60 / rng.uniform(80, 160))
    burst = np.exp(-np.arange(round(0.03 * rate)) / (0.005 * rate))  # 30 ms, falling by 1/e in 5 ms
    waveform = 1e-4 * rng.standard_normal(num_samples)  # -80 dB, so that no frame is exactly silent
    for onset in onsets:
        start = round(onset * rate)
        waveform[start : start + len(burst)] += 0.5 * (burst * rng.standard_normal(len(burst)))[: num_samples - start]
    return waveform, onsets, None


def _scale(rng: np.random.Generator, seconds: float, rate: int) -> Sound:
    """A major scale upwards, repeated, each note decaying."""
    root, step = int(rng.integers(48, 60)), rng.uniform(0.25, 0.5)
    onsets = np.arange(rng.uniform(0.05, 0.2), seconds - 0.1, step)
    waveform = 1e-4 * rng.standard_normal(round(seconds * rate))
    for index, onset in enumerate(onsets):
        note = _tone(root + _MAJOR_SCALE[index % len(_MAJOR_SCALE)], step, rate)
        # An attack of 4 ms, because a sharp start would add a click.
        note *= np.exp(-np.arange(len(note)) / (0.2 * rate)) * np.minimum(1, np.arange(len(note)) / (0.004 * rate))
        start = round(onset * rate)
        waveform[start : start + len(note)] += 0.3 * note[: len(waveform) - start]
    return waveform, onsets, None


def _tone(pitch: int, seconds: float, rate: int) -> Floats:
    """A harmonic tone, (N,); the pitch is a MIDI number."""
    time = np.arange(round(seconds * rate)) / rate
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    return np.sum([np.sin(2 * np.pi * k * frequency * time) / k for k in range(1, _PARTIALS + 1)], axis=0) / 2
