"""Rows and arrays of an inspection for its tables and figures: the system of a row, and means over seeds.

Conventions: the first row of an inspection is about the requested backbone, here called ``backbone``. All others are
baselines, named as in `INSPECTION_BASELINES`. Scores of several seeds are means with the intervals of
`musictf.reporting.table_lines`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from musictf.errors import InputError
from musictf.reporting.table_lines import Score, mean_over_seeds
from musictf.results.names import CLASSICAL, INSPECTION_BASELINES, RANDOM
from musictf.results.read_runs import read_runs
from musictf.results.rows import RESULTS, Row

BACKBONE = "backbone"
ATTENTION = "attention_"
PROFILE, BOUNDARY, POSITION, STIMULUS, MAPS = "ssm_profile", "boundary", "position", "stimulus_onset", "token_map"
# Baseline -> the dimension that is computed from it: it is left out of comparisons in that dimension.
DIMENSION_MADE_OF = {"mfcc": "timbre", "chroma": "harmony"}

Arrays = Mapping[str, npt.NDArray[Any]]


class Inspection:
    """The rows of one inspection.

    Raises:
        InputError: none of the rows is of an inspection.
    """

    def __init__(self, rows: Sequence[Row], where: Path | str = "inspection") -> None:
        tasks = (PROFILE, BOUNDARY, POSITION, STIMULUS, MAPS)
        self.rows = [row for row in rows if row["task"] in tasks or row["task"].startswith(ATTENTION)]
        if not self.rows:
            raise InputError(f"{where}: none of the rows is of an inspection; run 'musictf inspect' there first")
        self._backbone = self.rows[0]["backbone"]["kind"], self.rows[0]["seed"]

    @classmethod
    def read(cls, folder: Path) -> Inspection:
        """The rows of a run folder.

        Raises:
            InputError: there are none, or one cannot be read.
        """
        if not (folder / RESULTS).is_file():
            raise InputError(f"{folder}: no {RESULTS}; give the folder of a run of 'musictf inspect'")
        path = str(folder.resolve())
        return cls([row for row in read_runs([folder]) if row["folder"] == path], folder)  # not of runs below it

    def system(self, row: Row) -> str:
        """``backbone``, or one of `INSPECTION_BASELINES`."""
        kind = row["backbone"]["kind"]
        if (kind, row["seed"]) == self._backbone:  # random weights may be inspected: then their seed distinguishes them
            return BACKBONE
        # The only classical system is the spectral flux; its path holds that name.
        return str(row["backbone"]["path"]) if kind == CLASSICAL else str(kind)

    @property
    def backbone_name(self) -> str:
        """Kind and preset of the backbone, for titles."""
        kind, seed = self._backbone
        preset = self.rows[0]["backbone"].get("preset") or ""
        return f"{kind} {preset}".strip() + (f" (seed {seed})" if kind == RANDOM else "")

    @property
    def dataset(self) -> str:
        """The corpus; the name of a stimulus where nothing else was inspected."""
        names = [str(row["dataset"]) for row in self.rows]
        return next((name for name in names if not name.startswith("stimulus:")), names[0])

    def of(self, task: str, **fields: Any) -> list[Row]:
        """Rows of a task whose fields have these values; ``system`` counts as a field."""
        system = fields.pop("system", None)
        return [
            row
            for row in self.rows
            if row["task"] == task
            and (system is None or self.system(row) == system)
            and all(row.get(name) == value for name, value in fields.items())
        ]

    def tasks(self, prefix: str) -> list[str]:
        """Tasks that begin with a prefix, in the order of the rows."""
        return list(dict.fromkeys(row["task"] for row in self.rows if row["task"].startswith(prefix)))

    def values(self, name: str, task: str, **fields: Any) -> list[Any]:
        """Different values of a field in the rows of a task, in the order of the rows."""
        return list(dict.fromkeys(row.get(name) for row in self.of(task, **fields)))

    def systems(self, task: str) -> list[str]:
        """Systems that have rows of a task: the backbone, then its baselines."""
        present = {self.system(row) for row in self.of(task)}
        return [name for name in (BACKBONE, *INSPECTION_BASELINES) if name in present]

    def score(self, name: str, task: str, **fields: Any) -> Score | None:
        """A score of rows that only differ in their seed, the mean over them; None where no row defines it."""
        rows = self.of(task, **fields)
        return mean_over_seeds(rows, name) if rows else None


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Name -> array of an ``.npz`` file, each of the shape it was written with: (N,) for times, (N, F) for spectra.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as arrays ({reason}); remove it and inspect again") from error


def required(arrays: Arrays, names: Sequence[str], where: Path | str) -> None:
    """Check that arrays have these names.

    Raises:
        InputError: some are missing; the message names them.
    """
    if missing := [name for name in names if name not in arrays]:
        raise InputError(f"{where}: holds no {', '.join(missing)}; inspect again with this version")
