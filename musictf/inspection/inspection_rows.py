"""Rows of an inspection, in the format of all results: one a subject, layer and reading, with intervals over tracks."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from musictf.files import write_atomically
from musictf.inspection.inspected_models import Corpus, InspectedModel
from musictf.results.rows import PER_TRACK, SCHEMA, BackboneField, Results, Row, ScoreField, SelectionField, finite
from musictf.results.statistics import mean_interval
from musictf.run_folder import provenance

Floats = npt.NDArray[np.float64]

# Task -> the scores that tables show, the headline first; tasks that are not listed show all they have.
_SHOWN_SCORES = {
    "ssm_profile": ("rank_correlation", "rank_correlation_above_shifted", "cka", "cka_above_shifted"),
    "boundary": ("f_measure", "f_measure_above_shifted", "precision", "recall"),
}
_SHOWN_OF_ATTENTION = ("auc", "auc_above_shifted", "f_measure", "f_measure_above_shifted")


def shown_scores(task: str) -> tuple[str, ...]:
    """Scores of an inspection that tables show, the headline first; empty where they show all."""
    return _SHOWN_OF_ATTENTION if task.startswith("attention_") else _SHOWN_SCORES.get(task, ())


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write named arrays as a compressed ``.npz`` that is there whole or not at all."""
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    write_atomically(path, file.getvalue())


@dataclass
class InspectionRows:
    """Collects the rows of one part of an inspection and writes them together.

    Attributes:
        folder: The run folder.
        corpus: What was looked at.
        settings: What the part was told; enters every row.
    """

    folder: Path
    corpus: Corpus
    settings: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    lines: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        about = provenance()
        self.origin: Row = {
            "schema": SCHEMA,
            "run": self.folder.name,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "git": about["git"],
            "versions": about["versions"],
            "task_settings": self.settings,
        }

    def add(
        self,
        task: str,
        subject: InspectedModel | Mapping[str, Any],
        readout: str,
        layer: int,
        scores: Mapping[str, Floats],
        kept: Sequence[int],
        *,
        selected: bool,
        selection: SelectionField | None = None,
        decoder: dict[str, Any] | None = None,
        details: dict[str, Any] | None = None,
        dataset: str | None = None,
        whole: Mapping[str, tuple[float, float, float]] | None = None,
        head: int | None = None,
    ) -> None:
        """One row.

        Args:
            task: What is measured.
            subject: Whose; or the field ``backbone`` of a reference that needs none.
            readout: How it is read.
            layer: Of the backbone; 0 for references.
            scores: Name -> one value a track of ``kept``, NaN where undefined, (T,).
            kept: Places in the test split of the tracks that were scored.
            selected: Whether validation chose this layer, or there was nothing to choose.
            selection: What it was chosen by.
            decoder: How events were read from it.
            details: What else is known.
            dataset: In place of the corpus.
            whole: Scores over the whole split: name -> (value, low, high).
            head: Attention head, from 0, where one is measured.
        """
        about, seed = (
            (subject.about, subject.seed) if isinstance(subject, InspectedModel) else (cast(BackboneField, subject), 0)
        )
        groups = self.corpus.groups(kept) if dataset is None else [str(place) for place in kept]
        cells = {name: _cell(values, groups) for name, values in scores.items()}
        for name, (value, low, high) in (whole or {}).items():
            cells[name] = {"mean": finite(value), "ci95": [finite(low), finite(high)], "n": len(kept)}
        decoder = decoder or {"name": "none"}
        row: Row = self.origin | {
            "backbone": about,
            "task": task,
            "dataset": dataset or self.corpus.label,
            "split": {
                "name": "test",
                "digest": self.corpus.digest if dataset is None else dataset,
                "expected": self.corpus.expected["test"] if dataset is None else len(kept),
                "scored": len(kept),
                "groups": len(set(groups)),
            },
            "readout": readout,
            "layer": layer,
            "seed": seed,
            "selected": selected,
            "selection": selection and selection | {"value": finite(selection["value"])},
            "scores": cells,
            "shown_scores": list(shown_scores(task)),
            "descriptive_scores": [],
            "details": details or {},
            "decoder": decoder,
            "seconds": {},
            "per_track": PER_TRACK,
        }
        if head is not None:
            row["head"] = head
        self.rows.append(row)
        if selected and dataset is None:
            cell = (task, readout, layer, seed, decoder["name"])
            for name, values in scores.items():
                for place, value in zip(kept, values, strict=True):
                    shown = "" if np.isnan(value) else f"{value:.6f}"
                    self.lines.append((self.corpus.tracks["test"][place].track_id, *cell, name, shown, about["kind"]))

    def write(self) -> None:
        """Add the rows and the scores of their tracks to the run's results, all at once."""
        Results(self.folder).add(self.rows, self.lines)
        self.rows, self.lines = [], []


def _cell(values: Floats, groups: Sequence[str]) -> ScoreField:
    mean, low, high = mean_interval(np.asarray(values, dtype=np.float64), groups)
    defined = int((~np.isnan(values)).sum())
    return {"mean": finite(mean), "ci95": [finite(low), finite(high)], "n": defined}
