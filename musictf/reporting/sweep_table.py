"""The table of the jobs of a sweep that are not finished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from musictf.reporting.table import Table, print_table
from musictf.results.sweep_plan import COLUMNS, FINISHED, SweepCell, counted

if TYPE_CHECKING:
    from rich.console import Console

TITLE = "cells"


def cells_table(cells: Sequence[SweepCell]) -> Table:
    """Jobs that are not finished, a row each, and how many jobs are in which state.

    Columns of other overrides and of remarks are left out where they are empty. The table has no rows where all jobs
    are finished.
    """
    rows = [cell.texts() for cell in cells if cell.state != FINISHED]
    indices = [i for i, name in enumerate(COLUMNS) if name not in {"other", "remark"} or any(row[i] for row in rows)]
    closing = counted(cells) + ("; --missing prints the commands that fill the others" if rows else "")
    columns = tuple(COLUMNS[i] for i in indices)
    return Table(TITLE, columns, tuple(tuple(row[i] for i in indices) for row in rows), len(columns), closing=closing)


def all_cells_table(cells: Sequence[SweepCell]) -> Table:
    """All jobs with all columns, the finished ones too, for CSV."""
    return Table(TITLE, COLUMNS, tuple(tuple(cell.texts()) for cell in cells), len(COLUMNS))


def cells_comments(cells: Sequence[SweepCell]) -> str:
    """LaTeX comments, a job a line: the pages of a paper should not show what is missing, but its source should."""
    if not cells:
        return ""
    # Comments need no table: columns are separated by two spaces.
    lines = [f"{TITLE}: {counted(cells)}", *("  ".join(map(str, row)) for row in cells_table(cells).rows)]
    return "".join(f"% {line}\n" for line in lines)


def print_cells(cells: Sequence[SweepCell], console: Console) -> None:
    """Print the jobs that are not finished, and how many are."""
    from rich.text import Text

    table = cells_table(cells)
    print_table(replace(table, closing=""), console)
    console.print(Text(f"{TITLE}: {table.closing}", style="yellow" if table.rows else ""))
