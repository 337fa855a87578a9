"""Chroma of a whole track, which the classical systems for chords and keys listen to.

Conventions: constant-Q chroma by librosa (12 bins from C, each frame of unit length or zero), tuned to the track.
"""

from __future__ import annotations

import warnings

import librosa
import numpy as np
import numpy.typing as npt

from musictf.tasks.base import Floats

PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")

_HOP = 1024  # samples, a multiple of 64 as seven octaves of constant Q need
_LOWEST = 32.703  # hertz, C1
_OCTAVES = 7
_FLOOR = 1e-5  # root mean square below which nothing sounds


def track_chroma(waveform: npt.NDArray[np.float32], sample_rate: int) -> tuple[Floats, Floats, Floats]:
    """Chroma of a track and how loud it is.

    Args:
        waveform: (N,), in [-1, 1].
        sample_rate: In hertz.

    Returns:
        Chroma (12, T) of unit length, frame centres (T,) in seconds, and level (T,) in decibels under the loudest
        frame, -inf where nothing sounds.
    """
    waveform = np.pad(waveform, (0, max(0, 2 * _HOP - len(waveform))))
    octaves = min(_OCTAVES, int(np.log2(0.45 * sample_rate / _LOWEST)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="librosa")  # silence has no tuning, and a short track few samples
        bins = librosa.feature.chroma_cqt(
            y=waveform, sr=sample_rate, hop_length=_HOP, n_octaves=octaves, fmin=_LOWEST, norm=2
        )
    loudness = librosa.feature.rms(y=waveform, frame_length=2 * _HOP, hop_length=_HOP)[0, : bins.shape[1]]
    with np.errstate(divide="ignore"):
        level = 20 * np.log10(np.where(loudness > _FLOOR, loudness / max(loudness.max(), _FLOOR), 0.0))
    return bins.astype(np.float64), np.arange(bins.shape[1]) * _HOP / sample_rate, level
