"""How chord annotations agree: every comparison of `mir_eval.chord`, for a whole split at once.

Conventions: seconds; estimates are padded with ``N`` and cropped to the span of their reference, as
`mir_eval.chord.evaluate` does. mir_eval compares labels, not times, and a split has few pairs of labels, so each pair
is compared once and its answer looked up wherever it sounds.

Shapes:  S stretches of time in which neither reference nor estimate changes   J = 7 comparisons
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mir_eval
import numpy as np
import numpy.typing as npt

from musictf.annotations import Chords
from musictf.tasks.base import Floats

Integers = npt.NDArray[np.int64]

COMPARISONS = ("root", "thirds", "triads", "majmin", "sevenths", "tetrads", "mirex")
MAJMIN = COMPARISONS.index("majmin")


@dataclass(frozen=True)
class Stretches:
    """References and estimates of a split, cut where either changes.

    Attributes:
        track: Which track each stretch is of, (S,).
        seconds: Its duration, (S,).
        wanted: Its reference label, an index into ``labels``, (S,).
        found: Its estimated label, likewise, (S,).
        labels: Every label of the split.
        num_tracks: Tracks of the split.
    """

    track: Integers
    seconds: Floats
    wanted: Integers
    found: Integers
    labels: list[str]
    num_tracks: int

    def sums(self, values: Floats) -> Floats:
        """Sum of values (S,) over the stretches of each track, (num_tracks,)."""
        return np.bincount(self.track, values, self.num_tracks).astype(np.float64)


def stretches(references: Sequence[Chords], estimates: Sequence[Chords]) -> Stretches:
    """Cut a split where its references or its estimates change."""
    index: dict[str, int] = {}
    no_chord = index.setdefault(mir_eval.chord.NO_CHORD, 0)
    parts = []
    for number, (reference, estimate) in enumerate(zip(references, estimates, strict=True)):
        wanted, found = (
            np.array([index.setdefault(label, len(index)) for label in chords.labels] + [no_chord])
            for chords in (reference, estimate)
        )
        bounds = _bounds(reference.intervals, estimate.intervals)
        rows = [_sounding(chords.intervals, bounds[:-1]) for chords in (reference, estimate)]
        parts.append((np.full(len(bounds) - 1, number), np.diff(bounds), wanted[rows[0]], found[rows[1]]))
    track, seconds, wanted, found = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Stretches(track, seconds, wanted, found, list(index), len(references))


def compared(split: Stretches) -> Floats:
    """Answers of mir_eval's comparisons for each stretch, (S, J): 1 agrees, 0 differs, -1 is not compared."""
    pairs, where = np.unique(split.wanted * len(split.labels) + split.found, return_inverse=True)
    wanted = [split.labels[k] for k in pairs // len(split.labels)]
    found = [split.labels[k] for k in pairs % len(split.labels)]
    answers = np.column_stack([getattr(mir_eval.chord, name)(wanted, found) for name in COMPARISONS])
    each: Floats = answers[where]
    return each


def durations(split: Stretches) -> tuple[Floats, Floats]:
    """Seconds of each track that agree, and seconds that are compared at all, both (num_tracks, J)."""
    answers = compared(split)
    agreed = [split.sums(split.seconds * np.maximum(column, 0)) for column in answers.T]
    counted = [split.sums(split.seconds * (column >= 0)) for column in answers.T]
    return np.column_stack(agreed), np.column_stack(counted)


def segmentation(split: Stretches) -> Floats:
    """`mir_eval.chord.seg` of each track, (num_tracks,).

    The smaller of two shares of a track: what remains if of each reference chord only the longest piece of one estimate
    counts, and the reverse.
    """
    roots, bitmaps, basses = mir_eval.chord.encode_many(split.labels, True)
    _, chord = np.unique(np.column_stack([roots, bitmaps, basses]), axis=0, return_inverse=True)
    wanted, found = chord.ravel()[split.wanted], chord.ravel()[split.found]
    first = np.diff(split.track, prepend=-1) > 0
    changes = [first | (np.diff(labels, prepend=-1) != 0) for labels in (wanted, found)]
    pieces = np.flatnonzero(changes[0] | changes[1])
    gaps, track = np.add.reduceat(split.seconds, pieces), split.track[pieces]
    kept = []
    for change in changes:
        starts = np.flatnonzero(change[pieces])
        kept.append(np.bincount(track[starts], np.maximum.reduceat(gaps, starts), split.num_tracks))
    shares: Floats = np.minimum(*kept) / split.sums(split.seconds)
    return shares


def _bounds(reference: Floats, estimate: Floats) -> Floats:
    """Times within the reference at which one of the two has a boundary, ascending."""
    inside = np.clip(estimate.ravel(), reference.min(), reference.max())
    return np.unique(np.concatenate([reference.ravel(), inside]))


def _sounding(intervals: Floats, times: Floats) -> Integers:
    """Index of the interval that has begun at each time; before the first and after the last -1, where ``N`` waits."""
    index = np.searchsorted(intervals[:, 0], times, side="right") - 1
    return np.where(times < intervals.max(initial=-np.inf), index, -1)
