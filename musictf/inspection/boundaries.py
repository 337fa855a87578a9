"""Boundaries in the self-similarity of layers, scored against chord changes and sections.

Peaks of the checkerboard novelty are boundaries; their threshold is chosen on validation, as for attention. They are
scored by `mir_eval.segment.detection` without the ends of the track, within half a second for chord changes and three
seconds for sections. The chance level is the score of the same boundaries shifted round the track.

Shapes:  S bins   L layers   D features   n boundaries
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import mir_eval
import numpy as np

from musictf.inspection.binned_tracks import BinnedTrack
from musictf.inspection.event_scores import QUANTILES, peaks, quick_f_measure
from musictf.inspection.events import Floats, chord_changes, shifted, track_generator
from musictf.inspection.inspected_models import InspectedModel
from musictf.inspection.inspection_rows import InspectionRows
from musictf.inspection.self_similarity import cosine_matrix, novelty

_DRAWS = 20  # shifts for the chance level of each track


@dataclass(frozen=True)
class BoundaryKind:
    """One kind of boundary.

    Attributes:
        name: Readout in the rows.
        half_width: Half the width of the novelty kernel in seconds; our choice.
        tolerance: Distance in seconds within which an estimate matches a reference.
    """

    name: str
    half_width: float
    tolerance: float

    def times(self, binned_track: BinnedTrack) -> Floats | None:
        """Annotated boundaries of a track in seconds, (n,); None without an annotation or without a boundary."""
        track = binned_track.track
        if self.name == "chord_change":
            chords = track.annotation("chords")
            times = None if chords is None else chord_changes(chords)
        else:
            sections = track.annotation("sections")
            times = None if sections is None else sections.intervals[1:, 0]  # the first section begins the track
        return times if times is not None and len(times) else None


# Half a second and three seconds are the usual tolerances of boundary scores.
KINDS = (BoundaryKind("chord_change", 1.0, 0.5), BoundaryKind("section", 8.0, 3.0))


def novelties(layers: Floats, binned_track: BinnedTrack, kind: BoundaryKind) -> Floats:
    """Novelty of each layer (L, S, D) of a track at the starts of its bins, (L, S)."""
    half_width = max(1, round(kind.half_width / binned_track.bin_seconds))
    return np.array([novelty(cosine_matrix(layer), half_width) for layer in layers])


def boundary_scores(
    reference: Floats, estimate: Floats, seconds: float, tolerance: float
) -> tuple[float, float, float]:
    """F-measure, precision and recall of boundaries by `mir_eval.segment.detection`, the track's ends left out.

    Args:
        reference: Annotated boundaries in seconds, (n,).
        estimate: Estimated boundaries in seconds, any number, (m,).
        seconds: Length of the track; boundaries outside it are dropped.
        tolerance: Largest distance of a match in seconds.

    Returns:
        NaN where the track has no annotated boundary.
    """
    reference, estimate = (times[(times > 0) & (times < seconds)] for times in (reference, estimate))
    if not len(reference):
        return (float("nan"),) * 3
    if not len(estimate):
        return (0.0,) * 3
    # mir_eval takes intervals and drops the outer edges itself (`trim`).
    edges = [np.unique(np.concatenate([[0.0], times, [seconds]])) for times in (reference, estimate)]
    intervals = [np.column_stack([side[:-1], side[1:]]) for side in edges]
    precision, recall, f_measure = mir_eval.segment.detection(*intervals, window=tolerance, trim=True)
    return float(f_measure), float(precision), float(recall)


@dataclass(frozen=True)
class _TrackNovelty:
    """One annotated track: its index in the split, bin starts, annotated boundaries, and novelty of each layer."""

    index: int
    track_id: str
    starts: Floats  # (S,), seconds
    seconds: float
    reference: Floats  # (n,), seconds
    curves: Floats  # (L, S)

    def estimate(self, layer: int, quantile: float, kind: BoundaryKind) -> Floats:
        """Estimated boundaries of a layer in seconds, (n,)."""
        return peaks(self.curves[layer], self.starts, quantile, kind.half_width / 2)

    def quick(self, layer: int, quantile: float, kind: BoundaryKind) -> float:
        """F-measure for choosing."""
        return quick_f_measure(self.reference, self.estimate(layer, quantile, kind), kind.tolerance)

    def scores(self, layer: int, quantile: float, kind: BoundaryKind) -> dict[str, float]:
        """Scores of a layer, and its F-measure above that of shifted boundaries."""
        estimate = self.estimate(layer, quantile, kind)
        rng = track_generator(self.track_id)
        moved = (shifted(estimate, self.seconds, rng) for _ in range(_DRAWS))
        chance = [quick_f_measure(self.reference, times, kind.tolerance) for times in moved]
        f_measure, precision, recall = boundary_scores(self.reference, estimate, self.seconds, kind.tolerance)
        return {
            "f_measure": f_measure,
            "precision": precision,
            "recall": recall,
            "f_measure_above_shifted": f_measure - float(np.mean(chance)),
        }


class Boundaries:
    """Boundaries of one model, collected track by track."""

    def __init__(self) -> None:
        self._tracks: dict[tuple[BoundaryKind, str], list[_TrackNovelty]] = defaultdict(list)

    def add(self, split: str, index: int, binned_track: BinnedTrack, layers: Floats) -> None:
        """Add the layers (L, S, D) of a track, given its split and its index in the split."""
        for kind in KINDS:
            reference = kind.times(binned_track)
            if reference is not None:
                half = binned_track.bin_seconds / 2
                starts, seconds = binned_track.times - half, float(binned_track.times[-1] + half)
                curves = novelties(layers, binned_track, kind)
                track_id = binned_track.track.track_id
                self._tracks[kind, split].append(_TrackNovelty(index, track_id, starts, seconds, reference, curves))

    def write(self, model: InspectedModel, rows: InspectionRows) -> None:
        """Add rows ``boundary``: one a kind of boundary and layer, where both splits are annotated."""
        for kind in KINDS:
            valid, test = self._tracks[kind, "valid"], self._tracks[kind, "test"]
            if valid and test:
                _add_rows(model, kind, valid, test, rows)


def _add_rows(
    model: InspectedModel,
    kind: BoundaryKind,
    valid: Sequence[_TrackNovelty],
    test: Sequence[_TrackNovelty],
    rows: InspectionRows,
) -> None:
    layers = range(len(valid[0].curves))
    on_valid = np.array(
        [[float(np.mean([track.quick(layer, q, kind) for track in valid])) for q in QUANTILES] for layer in layers]
    )  # (L, Q)
    chosen = int(on_valid.max(axis=1).argmax())
    for layer in layers:
        quantile = QUANTILES[int(on_valid[layer].argmax())]
        tracks = [track.scores(layer, quantile, kind) for track in test]
        rows.add(
            "boundary",
            model,
            kind.name,
            layer,
            {name: np.array([scores[name] for scores in tracks]) for name in tracks[0]},
            [track.index for track in test],
            selected=layer == chosen,
            selection={"split": "valid", "metric": "f_measure", "value": float(on_valid[layer].max())},
            decoder={
                "name": "novelty",
                "quantile": quantile,
                "half_width": kind.half_width,
                "tolerance": kind.tolerance,
            },
        )
