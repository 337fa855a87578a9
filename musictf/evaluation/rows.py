"""Results on disk: one JSON object a line in ``results.jsonl``, one score a line in ``per_track.csv``.

Both files are rewritten whole and atomically, track scores before rows: a row is there only if all it refers to is.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from musictf.errors import InputError
from musictf.runs import write_atomically

SCHEMA = 1
RESULTS = "results.jsonl"
PER_TRACK = "per_track.csv"
# ``backbone`` comes last: the columns before it are a contract.
TRACK_COLUMNS = ("track_id", "task", "readout", "layer", "seed", "decoder", "metric", "value", "backbone")

Row = dict[str, Any]


class Results:
    """The rows of one run folder, and the scores of their tracks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[Row] = read_rows(folder / RESULTS) if (folder / RESULTS).is_file() else []
        self._track_lines: list[tuple[Any, ...]] = []
        if (folder / PER_TRACK).is_file():
            cells = {_cell(row) for row in self.rows}
            with open(folder / PER_TRACK, newline="") as file:
                lines = [line for line in csv.DictReader(file) if _cell_of_line(line) in cells]
            # Scores whose row was never written belong to a run that died in between: it makes them again.
            self._track_lines = [tuple(line[name] for name in TRACK_COLUMNS) for line in lines]

    def has(self, backbone: str, readout: str, seed: int) -> bool:
        """Whether an earlier, interrupted run has finished this part already."""
        return any(
            (row["backbone"]["kind"], row["readout"], row["seed"]) == (backbone, readout, seed) for row in self.rows
        )

    def add(self, rows: Iterable[Row], track_lines: Iterable[tuple[Any, ...]]) -> None:
        """Append rows and the scores of their tracks."""
        self._track_lines.extend(track_lines)
        self.rows.extend(rows)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(TRACK_COLUMNS)
        writer.writerows(self._track_lines)
        write_atomically(self.folder / PER_TRACK, text.getvalue())
        lines = [json.dumps(row, allow_nan=False) + "\n" for row in self.rows]
        write_atomically(self.folder / RESULTS, "".join(lines))


def _cell(row: Row) -> tuple[str, ...]:
    """What the track scores of a row have in common, as text."""
    cell = (row["backbone"]["kind"], row["task"], row["readout"], row["layer"], row["seed"], row["decoder"]["name"])
    return tuple(str(part) for part in cell)


def _cell_of_line(line: dict[str, str]) -> tuple[str, ...]:
    return tuple(line[name] for name in ("backbone", "task", "readout", "layer", "seed", "decoder"))


def read_rows(path: Path) -> list[Row]:
    """Rows of a ``results.jsonl``.

    Raises:
        InputError: a line is not a row of this schema.
    """
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            raise InputError(f"{path}:{number}: not a whole JSON line; delete it, or run the probe again") from None
        if row.get("schema") != SCHEMA:
            raise InputError(f"{path}:{number}: schema {row.get('schema')!r}, this version reads {SCHEMA}")
        rows.append(row)
    return rows


def finite(value: float | None) -> float | None:
    """JSON has no NaN: an undefined value is null."""
    return None if value is None or not math.isfinite(value) else float(value)
