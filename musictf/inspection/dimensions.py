"""Musical dimensions as features over bins: what a layer's self-similarity may stand for.

``harmony``   energy of pitch classes (chroma)           ``chords``    tones of the annotated chord
``timbre``    cepstral coefficients 1 to 19 (MFCC)       ``sections``  letter of the annotated section
``rhythm``    autocorrelation of the spectral flux       ``bar``       place in the annotated bar, on a circle
``loudness``  mean of the log-mel

Shapes:  N tokens   S bins   D features of a dimension

Everything is taken at token times and averaged over the same bins as the backbone's tokens. Bins in which an
annotation says nothing (before the first downbeat, ``X``) are not known and left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import librosa
import mir_eval
import numpy as np
import numpy.typing as npt

from musictf.annotations import Beats, Chords, Sections
from musictf.datasets.base import Track
from musictf.inspection.attention import flux_of
from musictf.inspection.self_similarity import binned, cosine_matrix

Floats = npt.NDArray[np.float64]

DIMENSIONS = ("harmony", "timbre", "rhythm", "loudness", "bar", "chords", "sections")
# Seconds over which periodicities are looked for: some bars.
_TEMPOGRAM_SECONDS = 8.0
_FEWEST_BINS = 4  # with fewer known bins there is nothing to compare
_BLOCK = 4096  # tokens whose tempogram is in memory at once


@dataclass(frozen=True)
class Dimension:
    """One dimension of a track: features (S, D) and in which bins they are known (S,)."""

    features: Floats
    known: npt.NDArray[np.bool_]

    @property
    def matrix(self) -> Floats:
        """Self-similarity of the known bins: cosine, of a single number minus the distance."""
        features = self.features[self.known]
        if features.shape[1] > 1:
            return cosine_matrix(features)
        return -np.abs(features - features.T)


def dimensions_of(
    track: Track, mel: Floats, mfcc: Floats, chroma: Floats, times: Floats, width: int
) -> dict[str, Dimension]:
    """Every dimension that is known of a track, by name.

    Args:
        track: Whose annotations.
        mel: Log-mel in dB at token times, (N, F); as the others it may be mapped from disk.
        mfcc: Cepstral coefficients, (N, 20).
        chroma: Energy of pitch classes, (N, 12).
        times: Token centres in seconds, (N,).
        width: Tokens in a bin.
    """
    loudness = mel.mean(axis=1, dtype=np.float64, keepdims=True)
    means = {name: binned(each, width) for name, each in (("harmony", chroma), ("timbre", mfcc[:, 1:]))}
    means |= {"rhythm": _tempogram(mel, times, width), "loudness": binned(loudness, width)}
    everywhere = np.ones(len(means["loudness"]), dtype=np.bool_)
    found = {name: Dimension(values, everywhere) for name, values in means.items()}
    beats, chords, sections = (track.annotation(name) for name in ("beats", "chords", "sections"))
    if beats is not None and beats.downbeats is not None and len(beats.downbeats) > 1:
        found["bar"] = _annotated(_bar_place(beats, times), width)
    if chords is not None:
        found["chords"] = _annotated(_chord_tones(chords, times), width)
    if sections is not None and len(set(sections.labels)) > 1:
        found["sections"] = _annotated(_section_letters(sections, times), width)
    return {name: found[name] for name in DIMENSIONS if name in found and found[name].known.sum() >= _FEWEST_BINS}


def _annotated(features: Floats, width: int) -> Dimension:
    """Features (N, D) whose rows are NaN where nothing is known; a bin is known where all of it is."""
    means = binned(features, width)
    known = np.asarray(~np.isnan(means).any(axis=1), dtype=np.bool_)
    return Dimension(np.nan_to_num(means), known)


def _tempogram(mel: Floats, times: Floats, width: int) -> Floats:
    """Local autocorrelation of the flux over bins, (S, lags); block by block, each with what its windows reach."""
    period = float(times[-1] - times[0]) / max(1, len(times) - 1)
    window = max(2, min(round(_TEMPOGRAM_SECONDS / period), len(times) - 1))
    flux = flux_of(mel)
    size = width * max(1, _BLOCK // width)
    parts = []
    for first in range(0, len(flux), size):
        before = min(first, window)
        reach = flux[first - before : first + size + window]
        found = librosa.feature.tempogram(onset_envelope=reach, win_length=window, norm=None)
        parts.append(binned(found.T[before : before + size], width))
    return np.concatenate(parts)


def _bar_place(beats: Beats, times: Floats) -> Floats:
    """Cosine and sine of the place in the bar, (N, 2); NaN before the first and after the last downbeat."""
    downbeats = beats.downbeats
    assert downbeats is not None
    phase = np.interp(times, downbeats, np.arange(len(downbeats)), left=np.nan, right=np.nan)
    return np.column_stack([np.cos(2 * np.pi * phase), np.sin(2 * np.pi * phase)])


def _chord_tones(chords: Chords, times: Floats) -> Floats:
    """Which pitch classes the chord at each time has, (N, 12): none for ``N``, NaN for ``X`` and outside."""
    table = np.array([_tones(label) for label in chords.labels])
    return _at(chords.intervals, table, times)


def _tones(label: str) -> Floats:
    if label == "X":
        return np.full(12, np.nan)
    root, bitmap, _ = mir_eval.chord.encode(label)
    return np.roll(bitmap, root).astype(np.float64) if root >= 0 else np.zeros(12)


def _section_letters(sections: Sections, times: Floats) -> Floats:
    """One column a letter, (N, letters); NaN outside of all sections."""
    letters = sorted(set(sections.labels))
    table = np.array([[float(letter == own) for letter in letters] for own in sections.labels])
    return _at(sections.intervals, table, times)


def _at(intervals: Floats, table: Floats, times: Floats) -> Floats:
    """Row of the interval that holds each time, (N, D); NaN where none does."""
    place = np.searchsorted(intervals[:, 0], times, side="right") - 1
    inside = (place >= 0) & (times < intervals[np.maximum(place, 0), 1])
    return np.where(inside[:, None], table[np.maximum(place, 0)], np.nan)
