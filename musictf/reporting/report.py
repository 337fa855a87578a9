"""``musictf report``: one comparison of the rows of many runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from musictf.errors import InputError

if TYPE_CHECKING:
    from musictf.reporting.comparison_blocks import Block
    from musictf.reporting.table import Table
    from musictf.results.rows import Row
    from musictf.results.sweep_plan import SweepCell

FORMATS = ("md", "csv", "latex", "html")
_SUFFIXES = {".md": "md", ".csv": "csv", ".tex": "latex", ".html": "html", ".htm": "html"}


def print_missing(directories: Sequence[str | Path]) -> None:
    """Print the commands that fill the missing cells of every sweep below the directories, and nothing else.

    Raises:
        InputError: there is no sweep.
    """
    from musictf.results.sweep_plan import PLAN, counted, missing_commands, read_cells

    cells = read_cells(directories)
    if not cells:
        raise InputError(f"no {PLAN} below {', '.join(map(str, directories))}: nothing there was started with -m")
    print(missing_commands(cells), end="")
    print(counted(cells), file=sys.stderr)


def write_report(
    directories: Sequence[str | Path],
    format: str | None = None,
    baseline: str | Path | None = None,
    output: str | Path | None = None,
    all_layers: bool = False,
    details: bool = False,
) -> None:
    """Write one report of all rows below the directories, and of the jobs of sweeps that are not finished.

    Args:
        directories: Run folders, or folders that hold some.
        format: ``md``, ``csv``, ``latex`` or ``html``; by default the format of the suffix of `output`, else coloured
            tables on the terminal.
        baseline: Run folder to take differences against, instead of the baselines.
        output: File to write; printed where it is missing.
        all_layers: Also show the layers that validation did not choose.
        details: Also show tables by class and quality, and confusions, of the rows that validation chose.

    Raises:
        InputError: a folder is missing or holds no rows, the format is unknown, or the output cannot be written.
    """
    # Imported here, so that --help does not wait for these modules.
    from musictf.reporting.comparison_blocks import summary_table
    from musictf.reporting.details import details_tables
    from musictf.reporting.gains import with_gains_over_baselines, with_gains_over_run
    from musictf.reporting.render import document
    from musictf.results.read_runs import read_runs
    from musictf.results.rows import RESULTS
    from musictf.results.sweep_plan import read_cells

    chosen = _format(format, output)
    cells = read_cells(directories)
    # A sweep without a finished job has cells and no rows yet: that is no error.
    with_rows = [folder for folder in directories if any(Path(folder).rglob(RESULTS)) or not read_cells([folder])]
    rows = read_runs(with_rows) if with_rows else []
    blocks = summary_table(rows, all_layers)
    if rows and not blocks:
        raise InputError("no row was selected by validation; --all-layers shows the others")
    if baseline is None:
        title, blocks = "Gain over the baselines", [with_gains_over_baselines(block) for block in blocks]
    else:
        title, blocks = f"Difference from {baseline}", with_gains_over_run(blocks, read_runs([baseline]))
    tables = details_tables(rows) if details else []
    if chosen is None:
        print_report(blocks, title, tables, cells)
    elif chosen == "csv":
        write_csv(blocks, tables if details else None, cells, output)
    else:
        figures = _figures(blocks, rows, details) if chosen == "html" else ""
        _print_or_write(document(chosen, blocks, title, tables, cells, figures), output)


def print_report(blocks: Sequence[Block], title: str, details: Sequence[Table], cells: Sequence[SweepCell]) -> None:
    """Print the tables on the terminal."""
    from rich.console import Console

    from musictf.reporting.render import print_terminal
    from musictf.reporting.sweep_table import print_cells
    from musictf.reporting.table import print_table

    console = Console(highlight=False)
    # Piped into a file or a pager there is no screen to fit, and wrapped cells would be hard to search.
    console = console if console.is_terminal else Console(highlight=False, width=200)
    if blocks:
        print_terminal(blocks, title, console)
    for table in details:
        print_table(table, console)
    if cells:
        print_cells(cells, console)


def write_csv(
    blocks: Sequence[Block],
    details: Sequence[Table] | None,
    cells: Sequence[SweepCell],
    output: str | Path | None,
) -> None:
    """Write scores, and details where there are any; jobs of sweeps go to a file beside them, or alone."""
    from musictf.reporting.details import tidy_details
    from musictf.reporting.render import scores_table
    from musictf.reporting.sweep_table import TITLE, all_cells_table
    from musictf.reporting.table import csv_text
    from musictf.results.sweep_plan import counted

    if not blocks:
        _print_or_write(csv_text(all_cells_table(cells)), output)
        return
    if cells:
        print(f"{TITLE}: {counted(cells)}", file=sys.stderr)
    if cells and output is not None:
        _print_or_write(csv_text(all_cells_table(cells)), Path(output).with_suffix(".cells.csv"))
    text = csv_text(scores_table(blocks))
    _print_or_write(text if details is None else text + csv_text(tidy_details(details)), output)


def _figures(blocks: Sequence[Block], rows: Sequence[Row], details: bool) -> str:
    """HTML of a layer map of each block whose rows hold more than one layer, and of figures of details."""
    import tempfile

    from musictf.reporting.detail_figures import details_figures
    from musictf.reporting.figures import layer_heatmap
    from musictf.reporting.render import html_figure

    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for number, block in enumerate(blocks):
            probed = [row for row in rows if block.holds(row) and row.get("selection")]
            if len({row["layer"] for row in probed}) > 1:
                _, svg = layer_heatmap(probed, block.task, Path(folder) / str(number))
                figures.append(html_figure(f"{block.heading}: validation value of each layer and readout", svg))
        if details:
            drawn = details_figures(rows, Path(folder))
            figures += [html_figure(caption, paths[1]) for caption, paths in drawn]
    return "".join(figures)


def _format(format: str | None, output: str | Path | None) -> str | None:
    """The format to write, None for the terminal."""
    if format is not None and format not in FORMATS:
        raise InputError(f"--format {format}: one of {', '.join(FORMATS)}")
    if format is not None or output is None:
        return format
    suffix = Path(output).suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(f"--output {output}: cannot tell the format from {suffix or 'no suffix'!r}; give --format")
    return _SUFFIXES[suffix]


def _print_or_write(text: str, output: str | Path | None) -> None:
    from musictf.files import write_atomically

    if output is None:
        print(text, end="")
        return
    try:
        write_atomically(Path(output), text)
    except OSError as error:
        raise InputError(f"--output {output}: cannot be written ({error.strerror})") from error
    print(f"wrote {output}")
