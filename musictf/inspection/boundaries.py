"""Where a layer's self-similarity says that something new begins, held against chord changes and sections.

Peaks of the checkerboard novelty are boundaries; the threshold is chosen on validation, as for attention. Scored by
`mir_eval.segment.detection`, ends of the track left out, within half a second for chord changes and three seconds for
sections. Chance is what boundaries score that are shifted round the track.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mir_eval
import numpy as np

from musictf.inspection.binned_tracks import TrackView
from musictf.inspection.event_scores import QUANTILES, peaks, quick_f_measure
from musictf.inspection.events import Floats, chord_changes, draws_of, shifted
from musictf.inspection.inspected_models import InspectedModel
from musictf.inspection.inspection_rows import InspectionRows
from musictf.inspection.self_similarity import cosine_matrix, novelty

_DRAWS = 20


@dataclass(frozen=True)
class Kind:
    """One kind of boundary: kernel and tolerance in seconds."""

    name: str
    half_width: float
    tolerance: float

    def times(self, view: TrackView) -> Floats | None:
        """Annotated boundaries of a track, in seconds; None where there are none."""
        if self.name == "chord_change":
            chords = view.track.annotation("chords")
            found = None if chords is None else chord_changes(chords)
        else:
            sections = view.track.annotation("sections")
            found = None if sections is None else sections.intervals[1:, 0]
        return found if found is not None and len(found) else None


KINDS = (Kind("chord_change", 1.0, 0.5), Kind("section", 8.0, 3.0))


def novelties(layers: Floats, view: TrackView, kind: Kind) -> Floats:
    """Novelty of each layer (L, S, D) of a track at the starts of its bins, (L, S)."""
    half_width = max(1, round(kind.half_width / view.bin_seconds))
    return np.array([novelty(cosine_matrix(layer), half_width) for layer in layers])


def boundary_scores(
    reference: Floats, estimate: Floats, seconds: float, tolerance: float
) -> tuple[float, float, float]:
    """F-measure, precision and recall of boundaries by `mir_eval.segment.detection`, the track's ends left out."""
    inner = [each[(each > 0) & (each < seconds)] for each in (reference, estimate)]
    if not len(inner[0]) or not len(inner[1]):
        return (float("nan"),) * 3 if not len(inner[0]) else (0.0,) * 3
    sides = [np.unique(np.concatenate([[0.0], each, [seconds]])) for each in inner]
    intervals = [np.column_stack([side[:-1], side[1:]]) for side in sides]
    precision, recall, f_measure = mir_eval.segment.detection(*intervals, window=tolerance, trim=True)
    return float(f_measure), float(precision), float(recall)


@dataclass(frozen=True)
class _Entry:
    """One annotated track: its place in the split, where its bins start, its boundaries, novelty of each layer."""

    place: int
    track_id: str
    starts: Floats  # (S,)
    seconds: float
    wanted: Floats
    curves: Floats  # (L, S)


class Edges:
    """Boundaries of one subject, gathered track by track."""

    def __init__(self) -> None:
        self._found: dict[tuple[Kind, str], list[_Entry]] = defaultdict(list)

    def add(self, split: str, place: int, view: TrackView, layers: Floats) -> None:
        """Take the layers (L, S, D) of a track."""
        for kind in KINDS:
            wanted = kind.times(view)
            if wanted is not None:
                half = view.bin_seconds / 2
                entry = _Entry(
                    place,
                    view.track.track_id,
                    view.times - half,
                    float(view.times[-1] + half),
                    wanted,
                    novelties(layers, view, kind),
                )
                self._found[kind, split].append(entry)

    def write(self, subject: InspectedModel | dict[str, Any], ledger: InspectionRows) -> None:
        """Rows ``boundary``: one a kind of boundary and layer, where both splits are annotated."""
        for kind in KINDS:
            valid, test = self._found[kind, "valid"], self._found[kind, "test"]
            if valid and test:
                _add(subject, kind, valid, test, ledger)


def _add(
    subject: InspectedModel | dict[str, Any],
    kind: Kind,
    valid: Sequence[_Entry],
    test: Sequence[_Entry],
    ledger: InspectionRows,
) -> None:
    layers = range(len(valid[0].curves))
    on_valid = np.array([[_mean_quick(valid, kind, layer, q) for q in QUANTILES] for layer in layers])
    chosen = int(on_valid.max(axis=1).argmax())
    for layer in layers:
        quantile = QUANTILES[int(on_valid[layer].argmax())]
        tracks = [_track_scores(kind, layer, quantile, entry) for entry in test]
        ledger.add(
            "boundary",
            subject,
            kind.name,
            layer,
            {name: np.array([scores[name] for scores in tracks]) for name in tracks[0]},
            [entry.place for entry in test],
            selected=layer == chosen,
            selection={"split": "valid", "metric": "f_measure", "value": float(on_valid[layer].max())},
            decoder={
                "name": "novelty",
                "quantile": quantile,
                "half_width": kind.half_width,
                "tolerance": kind.tolerance,
            },
        )


def _peaks(entry: _Entry, layer: int, quantile: float, kind: Kind) -> Floats:
    return peaks(entry.curves[layer], entry.starts, quantile, kind.half_width / 2)


def _mean_quick(entries: Sequence[_Entry], kind: Kind, layer: int, quantile: float) -> float:
    scores = [quick_f_measure(e.wanted, _peaks(e, layer, quantile, kind), kind.tolerance) for e in entries]
    return float(np.mean(scores))


def _track_scores(kind: Kind, layer: int, quantile: float, entry: _Entry) -> dict[str, float]:
    estimate = _peaks(entry, layer, quantile, kind)
    rng = draws_of(entry.track_id)
    moved = (shifted(estimate, entry.seconds, rng) for _ in range(_DRAWS))
    chance = [quick_f_measure(entry.wanted, each, kind.tolerance) for each in moved]
    f_measure, precision, recall = boundary_scores(entry.wanted, estimate, entry.seconds, kind.tolerance)
    return {
        "f_measure": f_measure,
        "precision": precision,
        "recall": recall,
        "f_measure_above_shifted": f_measure - float(np.mean(chance)),
    }
