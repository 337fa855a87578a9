"""Results on disk: one JSON object a line in ``results.jsonl``, one score a line in ``per_track.csv``.

Track scores are appended before the row they belong to, and rows are rewritten whole and atomically: a row is there
only if all it refers to is, and track scores without their row are forgotten by the next run.
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
from musictf.files import write_atomically

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
        cells = {_cell(row) for row in self.rows}
        lines = self._track_lines()
        owned = [line for line in lines if _cell_of_line(line) in cells]
        if len(owned) < len(lines) or not lines:
            # Scores whose row was never written belong to a run that died in between: it makes them again.
            columns = [[line[name] for name in TRACK_COLUMNS] for line in owned]
            write_atomically(folder / PER_TRACK, _csv([TRACK_COLUMNS, *columns]))

    def has(self, backbone: str, readout: str, seed: int) -> bool:
        """Whether an earlier, interrupted run has finished this part already."""
        return any(
            (row["backbone"]["kind"], row["readout"], row["seed"]) == (backbone, readout, seed) for row in self.rows
        )

    def add(self, rows: Iterable[Row], track_lines: Iterable[tuple[Any, ...]]) -> None:
        """Append rows and the scores of their tracks."""
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
            return [line for line in csv.DictReader(file) if None not in line.values()]


def _csv(lines: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


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


def cell_name(row: Row) -> str:
    """What files of a row are called: ``chord_sequence_layer2_seed0``."""
    return f"{row['task']}_{row['readout']}_layer{row['layer']}_seed{row['seed']}"


def finite(value: float | None) -> float | None:
    """JSON has no NaN: an undefined value is null."""
    return None if value is None or not math.isfinite(value) else float(value)
