"""Rows of results: their one schema, their writer and their reader.

A run folder holds ``results.jsonl``, one JSON object (a `Row`) a line, and ``per_track.csv``, one score of one track a
line. Track scores are appended before the row they belong to, and rows are rewritten whole and atomically: a row
exists only if everything that it refers to exists. The next run removes track scores that have no row.

Files with many runs below them are read by `musictf.results.read_runs`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypedDict, cast

from musictf.errors import InputError
from musictf.files import write_atomically
from musictf.run_folder import provenance

SCHEMA = 1
RESULTS = "results.jsonl"
PER_TRACK = "per_track.csv"
TRACKS = "tracks.csv"
# ``backbone`` comes last: the columns before it are a contract.
TRACK_COLUMNS = ("track_id", "task", "readout", "layer", "seed", "decoder", "metric", "value", "backbone")


class BackboneField(TypedDict, total=False):
    """What was probed or inspected."""

    path: str  # file of the backbone; the name of the system where there is no file
    digest: str | None  # of the weights, or of the front end where there are none
    kind: str  # one of `musictf.results.names.KINDS`
    preset: str | None  # name of the architecture
    parameters: int  # number of weights
    # Digest of the architecture: random weights of one shape are one system. None for frame controls.
    shape: str | None
    pretrain: dict[str, Any] | None  # corpus, its digest, steps and splits of the pretraining; None for others


class SplitField(TypedDict, total=False):
    """The tracks that were scored."""

    name: str  # ``test``
    digest: str  # of track names and annotations; rows are comparable only where it agrees
    expected: int  # number of tracks of the split
    scored: int  # number of tracks that were scored
    groups: int  # number of groups these are in


class ScoreField(TypedDict):
    """A score of a split."""

    mean: float | None  # mean over tracks, or the value of the whole split; None where undefined
    ci95: list[float | None]  # lower and upper bound of the 95 % bootstrap interval; None where undefined
    n: int  # number of tracks that define it


class SelectionField(TypedDict, total=False):
    """What validation chose, and by which value."""

    split: str  # ``valid``
    metric: str  # name of the score that chose
    value: float | None  # its value on validation
    loss: float  # validation loss of the chosen head
    lr: float  # learning rate of the chosen head
    weight_decay: float  # of the chosen head


class UnseenField(TypedDict):
    """Scores without the test tracks seen in pretraining."""

    scored: int  # number of tracks that are left
    scores: dict[str, ScoreField]  # name -> score on those


class PerturbationField(TypedDict):
    """What was done to the recordings of a row of ``robustness.jsonl``."""

    name: str  # of the perturbation; ``clean`` for untouched recordings
    amount: float | None  # how much, in ``unit``; None for untouched recordings
    unit: str  # of the amount


class Row(TypedDict, total=False):
    """One system, readout, layer, seed and decoder, scored on one split. `REQUIRED` names the fields of every row."""

    schema: int  # `SCHEMA`
    run: str  # name of the run folder
    time: str  # start of the run, ISO 8601
    git: dict[str, Any]  # commit of the code, and whether it was changed since; None where unknown
    versions: dict[str, str]  # package -> version
    backbone: BackboneField  # what was probed or inspected
    task: str  # name of the task, or of what an inspection measures
    dataset: str  # name of the corpus; ``stimulus:NAME`` for synthetic sounds of an inspection
    split: SplitField  # the tracks that were scored
    readout: str  # what was read: one of `musictf.results.names.READOUTS`, or what an inspection reads
    layer: int  # 0 is the projected input, 1 to depth are the blocks
    head: int  # attention head, from 0 (inspections only)
    seed: int  # of the probe, or of random weights
    selected: bool  # whether validation chose this layer for this readout
    selection: SelectionField | None  # what validation chose; None where nothing was chosen
    scores: dict[str, ScoreField]  # name -> score; larger is better
    table_scores: list[str]  # scores that tables show, the headline first; where empty or absent, they show all
    descriptive_scores: list[str]  # scores that have no better or worse
    details: dict[str, Any]  # what the task reports beyond scores: tables by class, confusions, counts
    decoder: dict[str, Any]  # its name and calibrated settings
    seconds: dict[str, float]  # wall time of ``features``, ``fit`` and ``decode``
    per_track: str  # name of the file with scores of single tracks
    features: dict[str, Any]  # settings of the features
    probe: dict[str, Any]  # settings of the probe
    task_settings: dict[str, Any]  # settings of the task, or of the part of an inspection
    training: dict[str, dict[str, int]]  # split -> number of tracks ``expected`` and ``used``
    leakage: dict[str, Any] | None  # overlap of the splits with the pretraining corpus; None where it was not checked
    unseen: UnseenField  # scores without the test tracks seen in pretraining, where there are such tracks
    perturbation: PerturbationField  # what was done to the recordings (``robustness.jsonl`` only)
    folder: str  # folder the row was read from. `musictf.results.read_runs.read_runs` adds it; it is never written


REQUIRED = ("backbone", "task", "dataset", "split", "readout", "layer", "seed", "selected", "scores", "decoder")
_REQUIRED_INSIDE = {"backbone": ("kind",), "split": ("name", "digest", "expected", "scored"), "decoder": ("name",)}


class Results:
    """The rows of one run folder, and the scores of their tracks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[Row] = read_rows(folder / RESULTS) if (folder / RESULTS).is_file() else []
        columns = ("backbone", "task", "readout", "layer", "seed", "decoder")
        cells = {
            (row["backbone"]["kind"], row["task"], row["readout"], str(row["layer"]), str(row["seed"]))
            + (row["decoder"]["name"],)
            for row in self.rows
        }
        lines = self._track_lines()
        kept = [line for line in lines if tuple(line[name] for name in columns) in cells]
        if len(kept) < len(lines) or not lines:
            # Scores whose row was never written belong to a run that was killed in between: it makes them again.
            text = _csv([TRACK_COLUMNS, *([line[name] for name in TRACK_COLUMNS] for line in kept)])
            write_atomically(folder / PER_TRACK, text)

    def has(self, backbone: str, readout: str, seed: int) -> bool:
        """Whether an earlier, interrupted run has finished this part already."""
        return any(
            (row["backbone"]["kind"], row["readout"], row["seed"]) == (backbone, readout, seed) for row in self.rows
        )

    def add(self, rows: Iterable[Row], track_lines: Iterable[tuple[Any, ...]]) -> None:
        """Append rows and the scores of their tracks.

        Args:
            rows: Rows of this run.
            track_lines: Lines of ``per_track.csv``, in the order of `TRACK_COLUMNS`.
        """
        self.rows.extend(rows)
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in self.rows)
        with open(self.folder / PER_TRACK, "a", encoding="utf-8", newline="") as file:
            file.write(_csv(track_lines))
        write_atomically(self.folder / RESULTS, text)

    def _track_lines(self) -> list[dict[str, str]]:
        """Lines of ``per_track.csv`` that are whole."""
        if not (self.folder / PER_TRACK).is_file():
            return []
        with open(self.folder / PER_TRACK, newline="", encoding="utf-8") as file:
            # DictReader fills the columns that a half-written line lacks with None.
            return [line for line in csv.DictReader(file) if None not in line.values()]


def run_origin(folder: Path) -> Row:
    """The fields that all rows of a run share: schema, run, time, commit and versions."""
    about = provenance()
    return {
        "schema": SCHEMA,
        "run": folder.name,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "git": about["git"],
        "versions": about["versions"],
    }


def scored_row(
    origin: Row,
    cell: Row,
    *,
    backbone: BackboneField,
    task: str,
    split: SplitField,
    scores: dict[str, ScoreField],
    decoder: dict[str, Any],
    selection: SelectionField | None = None,
    details: dict[str, Any] | None = None,
) -> Row:
    """A row of a probe or an inspection: every row of the project is built here.

    Args:
        origin: Fields that the rows of a run share, see `run_origin`.
        cell: What differs from row to row of a system: ``readout``, ``layer``, ``seed``, ``selected``, and more.
        backbone: What was probed or inspected.
        task: Name of the task or measurement.
        split: The tracks that were scored.
        scores: Name -> score.
        decoder: How estimates came about; rows are comparable only where it agrees.
        selection: What validation chose; None where nothing was chosen.
        details: Results besides the scores.
    """
    return origin | {
        "backbone": backbone,
        "task": task,
        "split": split,
        **cell,
        "selection": selection and selection | {"value": finite(selection["value"])},
        "scores": scores,
        "details": details or {},
        "decoder": decoder,
        "seconds": {},
        "per_track": PER_TRACK,
    }


def read_rows(path: Path) -> list[Row]:
    """Rows of one ``results.jsonl`` or ``robustness.jsonl``.

    Raises:
        InputError: a line is not a row of this schema.
    """
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    return [_parsed(line, f"{path}:{number}") for number, line in lines if line.strip()]


def selection_of(row: Row) -> SelectionField:
    """What validation chose for a row; empty where nothing was chosen."""
    return row.get("selection") or SelectionField()


def validation_value(row: Row) -> float:
    """The value by which validation chose; NaN where nothing was chosen or the value is undefined."""
    value = selection_of(row).get("value")
    return math.nan if value is None else value


def cell_name(row: Row) -> str:
    """Name of the files of a row: ``chord_sequence_layer2_seed0``."""
    return f"{row['task']}_{row['readout']}_layer{row['layer']}_seed{row['seed']}"


def finite(value: float | None) -> float | None:
    """A number for JSON, which has no NaN: None where the value is undefined."""
    return None if value is None or not math.isfinite(value) else float(value)


def _parsed(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}: not a whole JSON line ({error.msg}); delete it, or run 'musictf probe' again"
        ) from None
    schema = row.get("schema") if isinstance(row, dict) else None
    if schema != SCHEMA:
        raise InputError(f"{where}: schema {schema!r}, this version reads schema {SCHEMA}; run 'musictf probe' again")
    missing = [name for name in REQUIRED if name not in row]
    missing += [
        f"{outer}.{inner}"
        for outer, names in _REQUIRED_INSIDE.items()
        for inner in names
        if inner not in row.get(outer, names)  # an absent field is named above, not once for each name inside
    ]
    if missing:
        raise InputError(f"{where}: the row has no {', '.join(missing)}; run 'musictf probe' again")
    return cast(Row, row)


def _csv(lines: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
