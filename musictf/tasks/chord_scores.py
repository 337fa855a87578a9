"""Agreement of chord estimates with their references: all comparisons of `mir_eval.chord`, for a whole split at once.

Conventions:
    Times in seconds. An estimate is padded with ``N`` and cropped to the span of its reference, as
    `mir_eval.chord.evaluate` does.
    `mir_eval` compares labels, not times, and a split has few different pairs of labels. Each pair is compared once,
    and the result is looked up for every interval that has the pair.

References:
    Raffel et al., "mir_eval: A Transparent Implementation of Common MIR Metrics", ISMIR 2014.

Shapes:  I merged intervals   J = 7 comparisons
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
class MergedIntervals:
    """Intervals of a split in which neither reference nor estimate changes, track by track.

    Attributes:
        track: Index of the track of each interval, (I,).
        seconds: Duration of each interval, (I,).
        reference: Reference label of each interval as an index into ``labels``, (I,).
        estimate: Estimated label, likewise, (I,).
        labels: Every label that occurs in the split.
        num_tracks: Tracks of the split.
    """

    track: Integers
    seconds: Floats
    reference: Integers
    estimate: Integers
    labels: list[str]
    num_tracks: int

    def track_sums(self, values: Floats) -> Floats:
        """Sum of values (I,) over the intervals of each track, (num_tracks,)."""
        return np.bincount(self.track, values, self.num_tracks).astype(np.float64)


def merge_intervals(references: Sequence[Chords], estimates: Sequence[Chords]) -> MergedIntervals:
    """Cut each track of a split at every change of its reference or its estimate."""
    label_index: dict[str, int] = {}
    no_chord = label_index.setdefault(mir_eval.chord.NO_CHORD, 0)
    parts = []
    for track, (reference, estimate) in enumerate(zip(references, estimates, strict=True)):
        inside = np.clip(estimate.intervals.ravel(), reference.intervals.min(), reference.intervals.max())
        boundaries = np.unique(np.concatenate([reference.intervals.ravel(), inside]))
        starts = boundaries[:-1]
        columns = []
        for chords in (reference, estimate):
            index = np.searchsorted(chords.intervals[:, 0], starts, side="right") - 1
            # Index -1, of times before the first and after the last interval, finds the ``N`` at the end.
            index = np.where(starts < chords.intervals.max(initial=-np.inf), index, -1)
            labels = [label_index.setdefault(label, len(label_index)) for label in chords.labels]
            columns.append(np.array([*labels, no_chord])[index])
        parts.append((np.full(len(starts), track), np.diff(boundaries), *columns))
    tracks, seconds, reference_labels, estimate_labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return MergedIntervals(
        tracks, seconds, reference_labels, estimate_labels, list(label_index), num_tracks=len(references)
    )


def compare(merged: MergedIntervals) -> Floats:
    """Results of mir_eval's comparisons, (I, J): 1 where labels agree, 0 where they differ, -1 where not compared."""
    num_labels = len(merged.labels)
    pairs, pair_of_interval = np.unique(merged.reference * num_labels + merged.estimate, return_inverse=True)
    references = [merged.labels[k] for k in pairs // num_labels]
    estimates = [merged.labels[k] for k in pairs % num_labels]
    by_pair = np.column_stack([getattr(mir_eval.chord, name)(references, estimates) for name in COMPARISONS])
    by_interval: Floats = by_pair[pair_of_interval]
    return by_interval


def agreed_and_compared_seconds(merged: MergedIntervals) -> tuple[Floats, Floats]:
    """Seconds of each track in which labels agree, and in which they are compared at all, both (num_tracks, J)."""
    results = compare(merged)
    agreed = [merged.track_sums(merged.seconds * np.maximum(column, 0)) for column in results.T]
    compared = [merged.track_sums(merged.seconds * (column >= 0)) for column in results.T]
    return np.column_stack(agreed), np.column_stack(compared)


def segmentation(merged: MergedIntervals) -> Floats:
    """`mir_eval.chord.seg` of each track, (num_tracks,): the worse of over- and under-segmentation.

    Of each reference chord only its longest overlap with one estimated chord counts: over-segmentation is the share of
    the track that these overlaps cover. Under-segmentation is the same with reference and estimate exchanged.
    """
    # Labels that encode the same chord (C and C:maj) are no change.
    roots, bitmaps, basses = mir_eval.chord.encode_many(merged.labels, True)
    _, chord = np.unique(np.column_stack([roots, bitmaps, basses]), axis=0, return_inverse=True)
    reference, estimate = chord.ravel()[merged.reference], chord.ravel()[merged.estimate]
    starts_track = np.diff(merged.track, prepend=-1) > 0  # (I,)
    changes = [starts_track | (np.diff(side, prepend=-1) != 0) for side in (reference, estimate)]
    pieces = np.flatnonzero(changes[0] | changes[1])  # overlaps of one reference with one estimated chord
    seconds, track = np.add.reduceat(merged.seconds, pieces), merged.track[pieces]
    longest = []
    for change in changes:
        starts = np.flatnonzero(change[pieces])
        longest.append(np.bincount(track[starts], np.maximum.reduceat(seconds, starts), merged.num_tracks))
    shares: Floats = np.minimum(*longest) / merged.track_sums(merged.seconds)
    return shares
