"""Blocks of a report as tables, and whole reports as Markdown, CSV, LaTeX, HTML or on the terminal."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from musictf.reporting.comparison_blocks import Block, Gain
from musictf.reporting.sweep_table import cells_comments, cells_table
from musictf.reporting.table import (
    ABSENT,
    Cell,
    Table,
    TableRow,
    html_section,
    latex,
    markdown,
    print_table,
    score_cell,
)
from musictf.reporting.table_lines import Line, Score, decimal

if TYPE_CHECKING:
    from rich.console import Console

    from musictf.results.sweep_plan import SweepCell

LEGEND = (
    "Mean over tracks with a 95 % bootstrap interval, whole groups of tracks drawn where some belong together; several "
    "seeds: their mean. Bold: best of its decoder, the ceiling aside. Layers and readouts are chosen on validation."
)
CSV_COLUMNS = (
    *("task", "dataset", "split", "split_digest", "system", "readout", "layer", "decoder", "selected", "seeds"),
    *("tracks", "score", "mean", "low", "high", "best", "against"),
)


def block_table(block: Block, gains_title: str = "") -> Table:
    """The table of a block: a row a line, a column a score.

    Args:
        block: Lines of one task, dataset and split.
        gains_title: Line above the differences.
    """
    valid = ["valid"] if _shows_layers(block) else []
    columns = ("system", "readout", "layer", "decoder", "seeds", "tracks", *valid, *block.score_names)
    rows: list[TableRow] = [(*_words(line, block), *_scores(line, block)) for line in block.lines]
    items = tuple(map(sentence, block.gains))
    return Table(block.heading, columns, tuple(rows), 4, tuple(block.notes), gains_title, items)


def terminal_table(block: Block, gains_title: str) -> Table:
    """The table of a block with two lines a row, so that more scores fit on a screen."""
    rows = []
    for line in block.lines:
        system, readout, layers, decoder, seeds, tracks = _words(line, block)
        system_cell = Cell(system, f"{readout}, {layers}" if line.is_probed else readout)
        rows.append((system_cell, Cell(decoder), Cell(tracks, seeds), *_scores(line, block)))
    valid = ["valid"] if _shows_layers(block) else []
    # The interval under a mean is eleven characters wide; a longer name breaks where it can.
    names = [name if len(name) <= 11 else name.replace("_", "_\n", 1) for name in [*valid, *block.score_names]]
    columns = ("system\nreadout, layer", "decoder", "tracks\nseeds", *names)
    items = tuple(map(sentence, block.gains))
    return Table(block.heading, columns, tuple(rows), 2, tuple(block.notes), gains_title, items)


def sentence(gain: Gain) -> str:
    """A gain as a sentence: both systems, the difference, and the number of tracks and seeds."""
    against = gain.against.system
    if gain.against.readout != gain.line.readout:
        against = f"{against} ({gain.against.readout})"
    systems = f"{gain.line.system} ({gain.line.readout}) − {against}, {gain.score}, decoder {gain.line.decoder}"
    if gain.difference is None:
        return f"{systems}: n/a ({gain.remark})"
    over = f"over {gain.tracks} tracks"
    over += f" in {gain.groups} groups" if gain.groups < gain.tracks else ""
    over += f" and {gain.seeds} seeds" if gain.seeds > 1 else ""
    doubt = "" if gain.difference.low > 0 or gain.difference.high < 0 else "the interval holds zero"
    if math.isnan(gain.difference.low):
        doubt = "all of one group: no interval"
    cell = score_cell(gain.difference, sign=True)
    return f"{systems}: {f'{cell.text} {cell.detail}'.strip()} {'; '.join(filter(None, [over, doubt, gain.remark]))}"


def scores_table(blocks: Sequence[Block]) -> Table:
    """Tidy table for CSV, a score a row; a difference has the other system in the column ``against``."""
    rows: list[tuple[str, ...]] = []
    for block in blocks:
        for line in block.lines:
            for name, score in line.scores.items():
                rows.append(_tidy_row(block, line, line.tracks, name, score, str(name in line.best).lower()))
        for gain in block.gains:
            if gain.difference is not None:
                against = f"{gain.against.system} ({gain.against.readout})"
                rows.append(_tidy_row(block, gain.line, gain.tracks, gain.score, gain.difference, "", against))
    return Table("", CSV_COLUMNS, tuple(rows), len(CSV_COLUMNS))


def document(
    format: str,
    blocks: Sequence[Block],
    gains_title: str,
    details: Sequence[Table] = (),
    cells: Sequence[SweepCell] = (),
    figures: str = "",
) -> str:
    """A report as text, except CSV.

    Args:
        format: ``md``, ``latex`` or ``html``.
        blocks: Tables of scores.
        gains_title: Line above the differences.
        details: Tables by class, quality and confusion.
        cells: Jobs of sweeps.
        figures: HTML of figures, put below the tables of scores.
    """
    tables = [block_table(block, gains_title) for block in blocks]
    sweeps = [cells_table(cells)] if cells else []
    if format == "html":
        body = "".join([*map(html_section, tables), figures, *map(html_section, [*details, *sweeps])])
        return _page(body)
    if format == "latex":
        parts = ["% needs \\usepackage{booktabs}", *map(latex, [*tables, *details])] if tables else []
        return "".join(f"{part}\n" for part in ["\n\n".join(parts)] if part) + cells_comments(cells)
    parts = [LEGEND] if tables else []
    parts += [markdown(table, 2) for table in tables] + [markdown(table, 3) for table in details]
    return "\n\n".join(parts + [markdown(table, 2) for table in sweeps]) + "\n"


def print_terminal(blocks: Sequence[Block], gains_title: str, console: Console) -> None:
    """Print tables with colours: two lines a row, and as many scores as the screen is wide."""
    from rich.text import Text

    for block in blocks:
        print_table(terminal_table(block, gains_title), console, num_optional=len(block.score_names) - 1)
        console.print()
    console.print(Text(LEGEND, style="dim"))


def html_figure(caption: str, path: Path) -> str:
    """A figure of an HTML page that holds an SVG file."""
    # As an image, not inline: identifiers inside one drawing cannot clash with those inside another.
    data = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{html.escape(caption)}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>\n"


def _shows_layers(block: Block) -> bool:
    """Whether the block also shows layers that validation did not choose."""
    return any(not line.selected for line in block.lines)


def _words(line: Line, block: Block) -> list[str]:
    """System, readout, layers, decoder, seeds and tracks of a line."""
    # Seeds may choose different layers. The star marks the chosen line among all layers.
    layers = ", ".join(map(str, line.layers)) + ("*" if _shows_layers(block) and line.selected else "")
    layers, seeds = (layers, str(len(line.rows))) if line.is_probed else (ABSENT, ABSENT)
    tracks = str(line.tracks) if line.tracks == line.expected else f"{line.tracks}/{line.expected}"
    return [line.system, line.readout, layers, line.decoder, seeds, tracks]


def _scores(line: Line, block: Block) -> list[Cell]:
    """Scores of a line, after its validation value where all layers are shown."""
    valid = [Cell(ABSENT if line.valid is None else decimal(line.valid))] if _shows_layers(block) else []
    return valid + [score_cell(line.scores.get(name), name in line.best) for name in block.score_names]


def _tidy_row(
    block: Block, line: Line, tracks: int, name: str, score: Score, best: str, against: str = ""
) -> tuple[str, ...]:
    split = (block.task, block.dataset, block.split, block.digest)
    layers = "+".join(map(str, line.layers))
    system = (line.system, line.readout, layers, line.decoder, str(line.selected).lower(), str(len(line.rows)))
    # Empty where undefined: spreadsheets read "nan" as text.
    values = ("" if math.isnan(number) else f"{number:.6f}" for number in (score.mean, score.low, score.high))
    return (*split, *system, str(tracks), name, *values, best, against)


def _page(body: str) -> str:
    """A self-contained HTML page."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>musictf report</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>musictf report</h1>\n<p>{html.escape(LEGEND)}</p>\n"
        f"{body}</body>\n</html>\n"
    )


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff; }
section { margin: 2.5rem 0; overflow-x: auto; } h2 { font-size: 1.1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: left; white-space: nowrap; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #444; } td b { color: #005a8c; } small { color: #666; }
.note { border-left: 4px solid #d55e00; padding: .2rem .7rem; margin: .7rem 0; } 
figure { display: inline-block; margin: 1rem 1.5rem 1rem 0; } img { width: 26rem; max-width: 100%; }
"""
