"""Chroma of a whole track, the input of the classical systems for chords and keys.

Conventions: constant-Q chroma by librosa, 12 bins from C, tuned to the track; each frame has unit length or is zero.

Shapes:  N audio samples   T chroma frames
"""

from __future__ import annotations

import warnings

import librosa
import numpy as np
import numpy.typing as npt

from musictf.tasks.base import Floats

PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")

_HOP = 1024  # samples; the constant-Q transform halves the rate per octave, so seven octaves need a multiple of 64
_LOWEST = 32.703  # hertz, C1
_OCTAVES = 7
_FLOOR = 1e-5  # root mean square of a frame that counts as silence


def track_chroma(waveform: npt.NDArray[np.float32], sample_rate: int) -> tuple[Floats, Floats, Floats]:
    """Chroma and loudness of a track.

    Args:
        waveform: (N,), in [-1, 1].
        sample_rate: In hertz.

    Returns:
        Chroma (12, T), each frame of unit length; frame centres (T,) in seconds; and level (T,) in decibels relative
        to the loudest frame, -inf in silence.
    """
    waveform = np.pad(waveform, (0, max(0, 2 * _HOP - len(waveform))))
    # A low sample rate has no room for all octaves under half of it.
    octaves = min(_OCTAVES, int(np.log2(0.45 * sample_rate / _LOWEST)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="librosa")  # it warns of silence and of short tracks
        bins = librosa.feature.chroma_cqt(
            y=waveform, sr=sample_rate, hop_length=_HOP, n_octaves=octaves, fmin=_LOWEST, norm=2
        )
    loudness = librosa.feature.rms(y=waveform, frame_length=2 * _HOP, hop_length=_HOP)[0, : bins.shape[1]]
    with np.errstate(divide="ignore"):
        level = 20 * np.log10(np.where(loudness > _FLOOR, loudness / max(loudness.max(), _FLOOR), 0.0))
    return bins.astype(np.float64), np.arange(bins.shape[1]) * _HOP / sample_rate, level
