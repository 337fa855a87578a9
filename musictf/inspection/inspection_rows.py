"""Rows of an inspection in the format of all results: one a model, layer and readout, with intervals over tracks.

Shapes:  T scored tracks
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from musictf.files import write_atomically
from musictf.inspection.inspected_models import Corpus, InspectedModel
from musictf.results.rows import Results, Row, ScoreField, SelectionField, finite, run_origin, scored_row
from musictf.results.statistics import mean_interval

Floats = npt.NDArray[np.float64]

# Task -> the scores that tables show, the headline first; tasks that are not listed show all they have.
_SHOWN_SCORES = {
    "ssm_profile": ("rank_correlation", "rank_correlation_above_shifted", "cka", "cka_above_shifted"),
    "boundary": ("f_measure", "f_measure_above_shifted", "precision", "recall"),
}
_SHOWN_OF_ATTENTION = ("auc", "auc_above_shifted", "f_measure", "f_measure_above_shifted")


def table_scores(task: str) -> tuple[str, ...]:
    """Scores of an inspection that tables show, the headline first; empty where they show all."""
    return _SHOWN_OF_ATTENTION if task.startswith("attention_") else _SHOWN_SCORES.get(task, ())


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write named arrays of any shape (...,) as a compressed ``.npz`` file, whole or not at all."""
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    write_atomically(path, file.getvalue())


@dataclass
class InspectionRows:
    """Collects the rows of one part of an inspection and writes them together.

    Attributes:
        folder: The run folder.
        corpus: The inspected tracks.
        settings: Settings of the part, a field of every row.
        rows: Rows that are not written yet.
        track_lines: Lines of ``per_track.csv`` that are not written yet.
    """

    folder: Path
    corpus: Corpus
    settings: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    track_lines: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.origin: Row = run_origin(self.folder) | {"task_settings": self.settings}

    def add(
        self,
        task: str,
        model: InspectedModel,
        readout: str,
        layer: int,
        scores: Mapping[str, Floats],
        track_indices: Sequence[int],
        *,
        selected: bool,
        selection: SelectionField | None = None,
        decoder: dict[str, Any] | None = None,
        details: dict[str, Any] | None = None,
        dataset: str | None = None,
        split_scores: Mapping[str, tuple[float, float, float]] | None = None,
        head: int | None = None,
    ) -> None:
        """Add one row, and the scores of its tracks where it is selected.

        Args:
            task: Name of the measurement.
            model: The inspected model or baseline.
            readout: What is read from the layer: a curve, a dimension, a view or an input.
            layer: Layer of the backbone; 0 for baselines.
            scores: Name -> one value for each track of ``track_indices``, (T,), NaN where undefined.
            track_indices: Indices in the test split of the scored tracks.
            selected: Whether validation chose this layer.
            selection: Split, metric and value of that choice.
            decoder: How events were decoded, with the parameters chosen on validation.
            details: Further results.
            dataset: Name of the input where it is not the corpus: these rows keep no scores of tracks.
            split_scores: Scores of the whole split, name -> (value, low, high).
            head: Attention head, from 0, where one is measured.
        """
        # Excerpts of a stimulus are independent of each other: each is a group of its own.
        groups = self.corpus.groups(track_indices) if dataset is None else [str(index) for index in track_indices]
        cells = {name: _cell(values, groups) for name, values in scores.items()}
        for name, (value, low, high) in (split_scores or {}).items():
            cells[name] = {"mean": finite(value), "ci95": [finite(low), finite(high)], "n": len(track_indices)}
        # Every row of the project has a decoder: rows are comparable only where decoders agree.
        decoder = decoder or {"name": "none"}
        row = scored_row(
            self.origin | {"dataset": dataset or self.corpus.label},
            {"readout": readout, "layer": layer, "seed": model.seed, "selected": selected},
            backbone=model.backbone_field,
            task=task,
            split={
                "name": "test",
                "digest": self.corpus.digest if dataset is None else dataset,
                "expected": self.corpus.expected["test"] if dataset is None else len(track_indices),
                "scored": len(track_indices),
                "groups": len(set(groups)),
            },
            scores=cells,
            decoder=decoder,
            selection=selection,
            details=details,
        )
        row["table_scores"] = list(table_scores(task))
        row["descriptive_scores"] = []
        if head is not None:
            row["head"] = head
        self.rows.append(row)
        # Rows of heads and layers that were not chosen would make the file many times longer.
        if selected and dataset is None:
            cell = (task, readout, layer, model.seed, decoder["name"])
            for name, values in scores.items():
                for index, value in zip(track_indices, values, strict=True):
                    track_id = self.corpus.tracks["test"][index].track_id
                    text = "" if np.isnan(value) else f"{value:.6f}"
                    self.track_lines.append((track_id, *cell, name, text, model.backbone_field["kind"]))

    def write(self) -> None:
        """Append the rows and the scores of their tracks to the run's results in one atomic step."""
        Results(self.folder).add(self.rows, self.track_lines)
        self.rows, self.track_lines = [], []


def _cell(values: Floats, groups: Sequence[str]) -> ScoreField:
    """Mean over tracks (T,) with its 95 % interval over groups, and the number of tracks with a defined value."""
    mean, low, high = mean_interval(np.asarray(values, dtype=np.float64), groups)
    defined = int((~np.isnan(values)).sum())
    return {"mean": finite(mean), "ci95": [finite(low), finite(high)], "n": defined}
