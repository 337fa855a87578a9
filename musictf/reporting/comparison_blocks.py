"""Rows of many runs as tables of what may be compared.

Two rows are comparable only if task, dataset, split digest and decoder agree. So there is one block for each task,
dataset and split, and inside a block the best value and every difference are taken among rows of one decoder. A
decoder is identified by its name, because its settings are calibrated on validation, head by head. The majority answer
and a classical system have a decoder of their own, and are compared with every decoder. The ceiling (``oracle``) comes
last and is compared with nothing. Systems that were probed with other settings are named by them and never merged.

`musictf.reporting.table_lines` makes the lines, `musictf.results.read_runs` reads the rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from musictf.reporting.notes import (
    leakage_notes,
    notes_on_baselines,
    notes_on_missing_tracks,
    notes_on_seeds,
    notes_on_settings,
)
from musictf.reporting.table_lines import Line, Score, latest, line_of, order, with_best
from musictf.results.rows import Row
from musictf.results.systems import system_names, system_of


@dataclass(frozen=True)
class Gain:
    """A paired difference between two lines over the same tracks.

    Attributes:
        line: The line that is compared.
        against: The line it is compared with.
        score: Name of the score.
        difference: ``line`` minus ``against``; None where it cannot be computed.
        tracks: Number of tracks it is over.
        groups: Number of groups these are in.
        seeds: Number of pairs of seeds the difference is the mean of.
        remark: A limitation of the difference; where there is no difference, why.
    """

    line: Line
    against: Line
    score: str
    difference: Score | None
    tracks: int
    groups: int = 0
    seeds: int = 1
    remark: str = ""


@dataclass(frozen=True)
class Block:
    """All lines of one task, dataset and split.

    Attributes:
        task: Name of the task.
        dataset: Name of the corpus.
        split: Name of the split.
        digest: Of the split.
        is_only: Whether no other block has the same task.
        score_names: Scores that the table shows, the headline first.
        lines: Sorted by decoder, system and readout.
        notes: Warnings and other sentences below the table.
        gains: Differences below the table.
    """

    task: str
    dataset: str
    split: str
    digest: str
    is_only: bool
    score_names: tuple[str, ...]
    lines: list[Line]
    notes: list[str]
    gains: list[Gain] = field(default_factory=list)

    @property
    def headline(self) -> str:
        """The score that stands for the task."""
        return self.score_names[0]

    @property
    def heading(self) -> str:
        """Task, dataset and split, with a warning where the same task has a table of other data."""
        text = f"{self.task} on {self.dataset}, split {self.split} {self.digest[:8]}"
        return text if self.is_only else f"{text} (not comparable with the other {self.task} tables)"

    def holds(self, row: Row) -> bool:
        """Whether a row is about the same task, dataset and split."""
        return (row["task"], row["dataset"], row["split"]["digest"]) == (self.task, self.dataset, self.digest)


def summary_table(rows: Sequence[Row], all_layers: bool = False) -> list[Block]:
    """One block for each task, dataset and split, its lines sorted by decoder and system.

    Args:
        rows: Rows as `musictf.results.read_runs.read_runs` returns them.
        all_layers: Also show the layers that validation did not choose.
    """
    blocks: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row["selected"] or all_layers:
            blocks[row["task"], row["dataset"], row["split"]["digest"]].append(row)
    tasks = [task for task, _, _ in blocks]  # one entry a block: a task that occurs twice is not the only one
    return [_block(blocks[key], tasks.count(key[0]) == 1, all_layers) for key in sorted(blocks)]


def _block(rows: list[Row], is_only: bool, all_layers: bool) -> Block:
    kept, repeated = latest(rows)
    names = system_names(kept)
    # Rows of a cell differ in their seed, and in their layer where only chosen layers are shown.
    cells: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in kept:
        layer = (row["layer"], row["selected"]) if all_layers else ()
        cells[row["decoder"]["name"], system_of(row), row["readout"], layer].append(row)
    score_names = _score_names(kept)
    descriptive = {name for row in kept for name in row.get("descriptive_scores", ())}
    compared = [name for name in score_names if name not in descriptive]
    lines = [line_of(cell, names[system_of(cell[0])], score_names) for cell in cells.values()]
    lines = with_best(sorted(lines, key=order), compared)
    notes = [
        *notes_on_baselines(lines, compared),
        *notes_on_seeds(lines, score_names),
        *notes_on_settings(kept),
        *notes_on_missing_tracks(lines),
        *leakage_notes(lines, score_names[0]),
    ]
    if repeated:
        notes.append(f"{repeated} older rows of the same system, readout, seed and decoder are left out")
    task, dataset, split = kept[0]["task"], kept[0]["dataset"], kept[0]["split"]
    return Block(task, dataset, split["name"], split["digest"], is_only, score_names, lines, notes)


def _score_names(rows: Sequence[Row]) -> tuple[str, ...]:
    """Scores that the rows list as shown, the headline first; all scores where no row lists any."""
    present = list(dict.fromkeys(name for row in rows for name in row["scores"]))
    listed = next((row["table_scores"] for row in rows if row.get("table_scores")), [])
    if not listed:
        return tuple(present) or ("score",)
    # The headline stays even where no row has it: an empty column tells a reader that it is missing.
    return tuple(name for name in listed if name in present or name == listed[0])
