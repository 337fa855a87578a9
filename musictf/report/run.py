"""``musictf report``: the rows of many runs as one comparison."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from musictf.errors import InputError

if TYPE_CHECKING:
    from musictf.report.tables import Block
    from musictf.results.rows import Row
    from musictf.results.sweep_plan import Cell

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


def report(
    directories: Sequence[str | Path],
    format: str | None = None,
    baseline: str | Path | None = None,
    output: str | Path | None = None,
    all_layers: bool = False,
    details: bool = False,
) -> None:
    """Write one report of all rows below the directories, and of the sweeps there: which cells are not finished.

    Args:
        directories: Run folders, or folders that hold some.
        format: ``md``, ``csv``, ``latex`` or ``html``; by default what the suffix of `output` says, else coloured
            tables on the terminal.
        baseline: Run folder to take differences against, instead of the baselines.
        output: File to write; printed where it is missing.
        all_layers: Also show the layers that validation did not choose.
        details: Also show tables by class and quality, and confusions, of the rows that validation chose.
    """
    # Imported here so that --help answers at once.
    from musictf.report.details import RENDERERS as detail_renderers
    from musictf.report.details import details_tables
    from musictf.report.gains import with_gains_over_baselines, with_gains_over_run
    from musictf.report.tables import summary_table
    from musictf.results.rows import RESULTS
    from musictf.results.runs import read_runs
    from musictf.results.sweep_plan import read_cells

    chosen = _format(format, output)
    cells = read_cells(directories)
    # A sweep none of whose jobs is done has cells and no rows yet.
    with_rows = [folder for folder in directories if any(Path(folder).rglob(RESULTS)) or not read_cells([folder])]
    if not with_rows:
        _write_cells(cells, chosen, output)
        return
    rows = read_runs(with_rows)
    blocks = summary_table(rows, all_layers)
    if not blocks:
        raise InputError("no row was selected by validation; --all-layers shows the others")
    if baseline is None:
        title, blocks = "Gain over the baselines", [with_gains_over_baselines(block) for block in blocks]
    else:
        title, blocks = (
            f"Difference from {baseline}",
            with_gains_over_run(blocks, read_runs([baseline])),
        )
    if chosen is None:
        _print(blocks, title, rows if details else [])
        _write_cells(cells, None, None)
        return
    from musictf.report.render import RENDERERS

    text = _page(blocks, title, rows, details) if chosen == "html" else RENDERERS[chosen](blocks, title)
    if details and chosen != "html":
        text += detail_renderers[chosen](details_tables(rows))
    _print_or_write(_with_cells(text, cells, chosen, output), output)


def _with_cells(text: str, cells: Sequence[Cell], chosen: str, output: str | Path | None) -> str:
    """A report with its cells; tidy CSV holds scores only, so there they go to a file beside it."""
    from musictf.results.sweep_plan import RENDERERS, counted

    if not cells:
        return text
    cells_text = RENDERERS[chosen](cells)
    if chosen == "html":
        before, end, after = text.rpartition("</body>")
        return before + cells_text + end + after
    if chosen != "csv":
        return text + cells_text
    print(f"cells: {counted(cells)}", file=sys.stderr)
    if output is not None:
        _write(Path(output).with_suffix(".cells.csv"), cells_text)
    return text


def _write_cells(cells: Sequence[Cell], chosen: str | None, output: str | Path | None) -> None:
    """The cells alone."""
    from rich.console import Console

    from musictf.report.render import html_page
    from musictf.results.sweep_plan import RENDERERS, print_cells

    if chosen is None:
        console = Console(highlight=False)
        if cells:
            print_cells(cells, console if console.is_terminal else Console(highlight=False, width=200))
    elif chosen == "html":
        _print_or_write(_with_cells(html_page([], ""), cells, chosen, output), output)
    else:
        _print_or_write(RENDERERS[chosen](cells).lstrip("\n"), output)


def _print_or_write(text: str, output: str | Path | None) -> None:
    if output is None:
        print(text, end="")
    else:
        _write(Path(output), text)


def _format(format: str | None, output: str | Path | None) -> str | None:
    if format is not None and format not in FORMATS:
        raise InputError(f"--format {format}: one of {', '.join(FORMATS)}")
    if format is not None or output is None:
        return format
    suffix = Path(output).suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(f"--output {output}: cannot tell the format from {suffix or 'no suffix'!r}; give --format")
    return _SUFFIXES[suffix]


def _print(blocks: Sequence[Block], title: str, detailed: Sequence[Row]) -> None:
    """The tables, and details of the rows that are given for them."""
    from rich.console import Console

    from musictf.report.details import details_tables, print_details
    from musictf.report.render import print_terminal

    console = Console(highlight=False)
    # Piped into a file or a pager there is no screen to fit, and wrapped cells would be hard to search.
    console = console if console.is_terminal else Console(highlight=False, width=200)
    print_terminal(blocks, title, console)
    print_details(details_tables(detailed), console)


def _page(blocks: Sequence[Block], title: str, rows: Sequence[Row], details: bool) -> str:
    """The HTML page, with a layer map for each block whose rows hold more than one layer."""
    import tempfile

    from musictf.report.detail_figures import details_figures
    from musictf.report.details import RENDERERS as detail_renderers
    from musictf.report.details import details_tables
    from musictf.report.figures import layer_heatmap
    from musictf.report.render import html_page

    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for number, block in enumerate(blocks):
            mine = [row for row in rows if block.holds(row) and row.get("selection")]
            if len({row["layer"] for row in mine}) > 1:
                _, svg = layer_heatmap(mine, block.task, Path(folder) / str(number))
                figures.append((f"{block.heading}: validation value of each layer and readout", svg))
        if not details:
            return html_page(blocks, title, figures)
        figures += [(caption, paths[1]) for caption, paths in details_figures(rows, Path(folder))]
        before, end, after = html_page(blocks, title, figures).rpartition("</body>")
        return before + detail_renderers["html"](details_tables(rows)) + end + after


def _write(path: Path, text: str) -> None:
    from musictf.files import write_atomically

    try:
        write_atomically(path, text)
    except OSError as error:
        raise InputError(f"--output {path}: cannot be written ({error.strerror})") from error
    print(f"wrote {path}")
