"""Blocks of a report as terminal, Markdown, CSV, LaTeX or HTML text: one grid of cells, five ways to write it."""

from __future__ import annotations

import base64
import csv
import html
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from musictf.report.lines import Line, Score, decimal, interval
from musictf.report.tables import Block, Gain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

LEGEND = (
    "Mean over tracks with a 95 % bootstrap interval, whole groups of tracks drawn where some belong together; several "
    "seeds: their mean. Bold: best of its decoder, the ceiling aside. Layers and readouts are chosen on validation."
)
CSV_COLUMNS = (
    *("task", "dataset", "split", "split_digest", "system", "readout", "layer", "decoder", "selected", "seeds"),
    *("tracks", "score", "mean", "low", "high", "best", "against"),
)


@dataclass(frozen=True)
class Cell:
    """Text of one cell; ``detail`` is the interval, ``strong`` marks the best value."""

    text: str
    detail: str = ""
    strong: bool = False


def grid(block: Block) -> tuple[list[str], list[list[Cell]]]:
    """Column names and cells of a block's table."""
    partial = any(not line.selected for line in block.lines)
    columns = [
        "system",
        "readout",
        "layer",
        "decoder",
        "seeds",
        "tracks",
        *(["valid"] if partial else []),
        *block.shown,
    ]
    return columns, [_cells(line, block, partial) for line in block.lines]


def sentence(gain: Gain) -> str:
    """A gain in words: who, against whom, by how much, over how many tracks and seeds."""
    against = gain.against.system
    if gain.against.readout != gain.line.readout:
        against = f"{against} ({gain.against.readout})"
    who = f"{gain.line.system} ({gain.line.readout}) − {against}, {gain.score}, decoder {gain.line.decoder}"
    if gain.difference is None:
        return f"{who}: n/a ({gain.remark})"
    over = f"over {gain.tracks} tracks"
    over += f" in {gain.groups} groups" if gain.groups < gain.tracks else ""
    over += f" and {gain.seeds} seeds" if gain.seeds > 1 else ""
    remarks = [over, _doubt(gain.difference), gain.remark]
    return f"{who}: {_joined(_score_cell(gain.difference, sign=True))} {'; '.join(filter(None, remarks))}"


def markdown(blocks: Sequence[Block], gains_title: str) -> str:
    """GitHub Markdown, one section a block."""
    parts = [LEGEND]
    for block in blocks:
        columns, rows = grid(block)
        numeric = columns.index("seeds")
        rule = "|" + "|".join("---" if i < numeric else "---:" for i in range(len(columns))) + "|"
        lines = ["| " + " | ".join(bar_free(name) for name in columns) + " |", rule]
        lines += ["| " + " | ".join(_markdown_cell(cell) for cell in row) + " |" for row in rows]
        below = [f"- **Note:** {note}" for note in block.notes]
        gains = [f"- {sentence(gain)}" for gain in block.gains]
        parts += [f"## {block.heading}", "\n".join(lines)]
        parts += ["\n".join(below)] if below else []
        parts += [f"{gains_title}:", "\n".join(gains)] if gains else []
    return "\n\n".join(parts) + "\n"


def csv_text(blocks: Sequence[Block], gains_title: str) -> str:
    """Tidy CSV, one score a line; a difference has the other system in ``against``."""
    del gains_title
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for block in blocks:
        for line in block.lines:
            scores = line.scores.items()
            writer.writerows(
                _csv_row(block, line, name, score, str(name in line.best).lower()) for name, score in scores
            )
        for gain in block.gains:
            if gain.difference is not None:
                row = _csv_row(
                    block, gain.line, gain.score, gain.difference, "", f"{gain.against.system} ({gain.against.readout})"
                )
                row[CSV_COLUMNS.index("tracks")] = gain.tracks
                writer.writerow(row)
    return buffer.getvalue()


def latex(blocks: Sequence[Block], gains_title: str) -> str:
    """One ``table`` environment a block, for the ``booktabs`` package."""
    parts = ["% needs \\usepackage{booktabs}"]
    for block in blocks:
        columns, rows = grid(block)
        numeric = columns.index("seeds")
        below = [*block.notes, *([f"{gains_title}: " + "; ".join(map(sentence, block.gains))] if block.gains else [])]
        caption = ". ".join([block.heading, *below]) + "."
        parts.append(
            "\\begin{table}\n  \\centering\n"
            f"  \\caption{{{tex(caption)}}}\n"
            f"  \\begin{{tabular}}{{{'l' * numeric}{'r' * (len(columns) - numeric)}}}\n    \\toprule\n"
            f"    {' & '.join(map(tex, columns))} \\\\\n    \\midrule\n"
            + "".join(f"    {' & '.join(map(_tex_cell, row))} \\\\\n" for row in rows)
            + "    \\bottomrule\n  \\end{tabular}\n\\end{table}"
        )
    return "\n\n".join(parts) + "\n"


def html_page(blocks: Sequence[Block], gains_title: str, figures: Sequence[tuple[str, Path]] = ()) -> str:
    """A page that needs nothing but itself.

    Args:
        blocks: What to show.
        gains_title: Line above the differences.
        figures: Caption and SVG file of each figure, put below the tables.
    """
    body = "".join(_html_block(block, gains_title) for block in blocks)
    body += "".join(_html_figure(caption, path) for caption, path in figures)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>musictf report</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>musictf report</h1>\n<p>{html.escape(LEGEND)}</p>\n"
        f"{body}</body>\n</html>\n"
    )


def print_terminal(blocks: Sequence[Block], gains_title: str, console: Console) -> None:
    """Print tables with colours: two lines a row, and as many scores as the screen is wide."""
    from rich.measure import Measurement
    from rich.text import Text

    for block in blocks:
        for count in range(len(block.shown), 0, -1):
            table = _rich_table(block, block.shown[:count])
            if Measurement.get(console, console.options.update(max_width=10_000), table).maximum <= console.width:
                break
        console.print(table)
        if block.shown[count:]:
            console.print(Text(f"no room for {', '.join(block.shown[count:])}: --format md has all", style="dim"))
        for note in block.notes:
            console.print(Text(f"! {note}", style="yellow"))
        if block.gains:
            console.print(Text(f"{gains_title}:", style="bold"))
        for gain in block.gains:
            console.print(Text(f"  {sentence(gain)}"))
        console.print()
    console.print(Text(LEGEND, style="dim"))


RENDERERS: dict[str, Callable[[Sequence[Block], str], str]] = {
    "md": markdown,
    "csv": csv_text,
    "latex": latex,
    "html": html_page,
}


def _doubt(difference: Score) -> str:
    """What keeps a difference from being one."""
    if difference.low != difference.low:
        return "all of one group: no interval"
    return "" if difference.low > 0 or difference.high < 0 else "the interval holds zero"


def _cells(line: Line, block: Block, partial: bool) -> list[Cell]:
    layers = ", ".join(map(str, line.layers)) + ("*" if partial and line.selected else "")
    tracks = str(line.tracks) if line.tracks == line.expected else f"{line.tracks}/{line.expected}"
    layers, seeds = (layers, str(len(line.rows))) if line.is_probed else ("–", "–")
    texts = [line.system, line.readout, layers, line.decoder, seeds, tracks]
    texts += ["–" if line.valid is None else decimal(line.valid)] if partial else []
    scores = [_score_cell(line.scores.get(name), strong=name in line.best) for name in block.shown]
    return [Cell(text) for text in texts] + scores


def _score_cell(score: Score | None, strong: bool = False, sign: bool = False) -> Cell:
    return Cell("–") if score is None else Cell(decimal(score.mean, sign), interval(score, sign), strong)


def _joined(cell: Cell) -> str:
    return f"{cell.text} {cell.detail}".strip()


def bar_free(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return text.replace("|", "\\|")


def _markdown_cell(cell: Cell) -> str:
    strong = "**" if cell.strong else ""
    return bar_free(f"{strong}{cell.text}{strong} {cell.detail}".strip())


def _rich_table(block: Block, shown: Sequence[str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(block.heading), title_justify="left", title_style="bold", show_lines=False)
    partial = any(not line.selected for line in block.lines)
    table.add_column("system\nreadout, layer")
    table.add_column("decoder")
    table.add_column("tracks\nseeds", justify="right")
    for name in [*(["valid"] if partial else []), *shown]:
        # The interval under a mean is eleven characters wide; a longer name breaks where it can.
        table.add_column(name if len(name) <= 11 else name.replace("_", "_\n", 1), justify="right")
    for line in block.lines:
        system, readout, layers, decoder, seeds, tracks, *scores = _cells(line, block, partial)
        what = Cell(system.text, f"{readout.text}, {layers.text}" if line.is_probed else readout.text)
        kept = scores[: len(shown) + partial]
        table.add_row(*map(_rich_cell, (what, decoder, Cell(tracks.text, seeds.text), *kept)))
    return table


def _rich_cell(cell: Cell) -> Text:
    from rich.text import Text

    text = Text(cell.text, style="bold green" if cell.strong else "")
    return text.append(f"\n{cell.detail}", style="dim not bold") if cell.detail else text


def tex(text: str) -> str:
    """Text for LaTeX."""
    escapes = {"\\": r"\textbackslash{}", "−": "$-$", "–": "--", "→": r"$\to$"} | {
        sign: f"\\{sign}" for sign in "&%$#_{}"
    }
    escapes |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", ">": "$>$", "<": "$<$"}
    return "".join(escapes.get(character, character) for character in text)


def _tex_cell(cell: Cell) -> str:
    text = f"\\textbf{{{tex(cell.text)}}}" if cell.strong else tex(cell.text)
    return f"{text} {{\\footnotesize {tex(cell.detail)}}}" if cell.detail else text


def _csv_row(block: Block, line: Line, name: str, score: Score, best: str, against: str = "") -> list[object]:
    where = [block.task, block.dataset, block.split, block.digest]
    layers = "+".join(map(str, line.layers))
    what = [line.system, line.readout, layers, line.decoder, str(line.selected).lower(), len(line.rows), line.tracks]
    values = ["" if number != number else f"{number:.6f}" for number in (score.mean, score.low, score.high)]
    return [*where, *what, name, *values, best, against]


def _html_block(block: Block, gains_title: str) -> str:
    columns, rows = grid(block)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(map(_html_cell, row)) + "</tr>\n" for row in rows)
    notes = "".join(f'<p class="note">{html.escape(note)}</p>\n' for note in block.notes)
    items = "".join(f"<li>{html.escape(sentence(gain))}</li>\n" for gain in block.gains)
    gains = f"<p>{html.escape(gains_title)}:</p>\n<ul>\n{items}</ul>\n" if items else ""
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n"
    return f"<section>\n<h2>{html.escape(block.heading)}</h2>\n{table}{notes}{gains}</section>\n"


def _html_cell(cell: Cell) -> str:
    text = f"<b>{html.escape(cell.text)}</b>" if cell.strong else html.escape(cell.text)
    return f"<td>{text}" + (f" <small>{html.escape(cell.detail)}</small>" if cell.detail else "") + "</td>"


def _html_figure(caption: str, path: Path) -> str:
    # As an image of its own: the names inside one drawing cannot clash with those inside another.
    data = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{html.escape(caption)}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>\n"


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
