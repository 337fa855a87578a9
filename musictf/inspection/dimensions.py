"""Musical dimensions as features over bins, with which the self-similarity of layers is compared.

``harmony``   energy of pitch classes (chroma)           ``chords``    tones of the annotated chord
``timbre``    cepstral coefficients 1 to 19 (MFCC)       ``sections``  letter of the annotated section
``rhythm``    autocorrelation of the spectral flux       ``bar``       position in the annotated bar, on a circle
``loudness``  mean of the log-mel

Shapes:  N tokens   S bins   D features of a dimension   F mel bands   n labels of an annotation

Features are taken at token times and averaged over the same bins as the backbone's tokens. Bins without an annotation
(before the first downbeat, or under a chord ``X``) are unknown and left out. The choice of dimensions is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import librosa
import mir_eval
import numpy as np
import numpy.typing as npt

from musictf.annotations import Beats
from musictf.datasets.base import Track
from musictf.inspection.self_similarity import binned, cosine_matrix
from musictf.inspection.spectral_flux import flux_of

Floats = npt.NDArray[np.float64]

DIMENSIONS = ("harmony", "timbre", "rhythm", "loudness", "bar", "chords", "sections")
_TEMPOGRAM_SECONDS = 8.0  # window of the autocorrelation: several bars
_FEWEST_BINS = 4  # the unbiased HSIC is undefined for fewer
_BLOCK = 4096  # tokens whose tempogram is in memory at once


@dataclass(frozen=True)
class Dimension:
    """One dimension of a track: features (S, D) and in which bins they are known (S,)."""

    features: Floats
    known: npt.NDArray[np.bool_]

    @property
    def matrix(self) -> Floats:
        """Self-similarity of the K known bins, (K, K): cosine; of a single feature, minus the distance."""
        features = self.features[self.known]
        if features.shape[1] > 1:
            return cosine_matrix(features)
        return -np.abs(features - features.T)  # the cosine of single numbers is 1 or -1 whatever their size


def dimensions_of(
    track: Track, mel: Floats, mfcc: Floats, chroma: Floats, times: Floats, width: int
) -> dict[str, Dimension]:
    """Dimensions of a track by name; those known in fewer than four bins are left out.

    Args:
        track: Source of the annotations.
        mel: Log-mel in decibels at token times, (N, F); this and the next two may be mapped from disk.
        mfcc: Cepstral coefficients, (N, 20).
        chroma: Energy of pitch classes, (N, 12).
        times: Token centres in seconds, (N,).
        width: Tokens in a bin.
    """
    loudness = mel.mean(axis=1, dtype=np.float64, keepdims=True)  # (N, 1)
    # The first cepstral coefficient is the loudness, not the timbre.
    means = {"harmony": binned(chroma, width), "timbre": binned(mfcc[:, 1:], width)}
    means |= {"rhythm": _tempogram(mel, times, width), "loudness": binned(loudness, width)}
    everywhere = np.ones(len(means["loudness"]), dtype=np.bool_)
    dimensions = {name: Dimension(values, everywhere) for name, values in means.items()}
    beats, chords, sections = (track.annotation(name) for name in ("beats", "chords", "sections"))
    if beats is not None and beats.downbeats is not None and len(beats.downbeats) > 1:
        dimensions["bar"] = _annotated(_bar_positions(beats, times), width)
    if chords is not None:
        tones = np.array([_chord_tones(label) for label in chords.labels])  # (n, 12)
        dimensions["chords"] = _annotated(_rows_at(chords.intervals, tones, times), width)
    if sections is not None and len(set(sections.labels)) > 1:
        letters = sorted(set(sections.labels))
        one_hot = np.array([[float(letter == label) for letter in letters] for label in sections.labels])
        dimensions["sections"] = _annotated(_rows_at(sections.intervals, one_hot, times), width)
    known = {name for name, dimension in dimensions.items() if dimension.known.sum() >= _FEWEST_BINS}
    return {name: dimensions[name] for name in DIMENSIONS if name in known}


def _annotated(features: Floats, width: int) -> Dimension:
    """Dimension of features (N, D) that are NaN where unknown; a bin is known where all of its tokens are."""
    means = binned(features, width)
    known = np.asarray(~np.isnan(means).any(axis=1), dtype=np.bool_)
    return Dimension(np.nan_to_num(means), known)


def _tempogram(mel: Floats, times: Floats, width: int) -> Floats:
    """Local autocorrelation of the spectral flux of a log-mel (N, F), over bins, (S, lags)."""
    period = float(times[-1] - times[0]) / max(1, len(times) - 1)
    window = max(2, min(round(_TEMPOGRAM_SECONDS / period), len(times) - 1))
    flux = flux_of(mel)  # (N,)
    size = width * max(1, _BLOCK // width)
    parts = []
    for first in range(0, len(flux), size):
        # A window to either side, so that blocks give the same values as the whole track would.
        before = min(first, window)
        envelope = flux[first - before : first + size + window]
        lags = librosa.feature.tempogram(onset_envelope=envelope, win_length=window, norm=None)  # (lags, tokens)
        parts.append(binned(lags.T[before : before + size], width))
    return np.concatenate(parts)


def _bar_positions(beats: Beats, times: Floats) -> Floats:
    """Cosine and sine of the position in the bar, (N, 2); NaN before the first and after the last downbeat."""
    downbeats = beats.downbeats
    assert downbeats is not None
    phase = np.interp(times, downbeats, np.arange(len(downbeats)), left=np.nan, right=np.nan)  # in bars
    return np.column_stack([np.cos(2 * np.pi * phase), np.sin(2 * np.pi * phase)])


def _chord_tones(label: str) -> Floats:
    """Indicator of the pitch classes of a chord, (12,): zeros for ``N``, NaN for ``X``."""
    if label == "X":
        return np.full(12, np.nan)
    root, bitmap, _ = mir_eval.chord.encode(label)  # the bitmap counts from the root
    return np.roll(bitmap, root).astype(np.float64) if root >= 0 else np.zeros(12)


def _rows_at(intervals: Floats, table: Floats, times: Floats) -> Floats:
    """Row of the table (n, D) whose interval (n, 2) holds each time, (N, D); NaN where none does."""
    index = np.searchsorted(intervals[:, 0], times, side="right") - 1
    inside = (index >= 0) & (times < intervals[np.maximum(index, 0), 1])
    return np.where(inside[:, None], table[np.maximum(index, 0)], np.nan)
