"""A table, and its rendering on the terminal and as Markdown, CSV, LaTeX and HTML."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from musictf.reporting.table_lines import Score, decimal, interval

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

ABSENT = "–"

# The minus sign and the arrow are no characters of LaTeX's text fonts.
_TEX = {"\\": r"\textbackslash{}", "−": "$-$", "–": "--", "→": r"$\to$", ">": "$>$", "<": "$<$"}
_TEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {sign: f"\\{sign}" for sign in "&%$#_{}"}


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: A word, or a mean.
        detail: The interval of the mean, or whatever else is written smaller.
        bold: Whether it is marked, as the best value is.
    """

    text: str
    detail: str = ""
    bold: bool = False

    def markdown(self) -> str:
        """The cell in a Markdown table."""
        mark = "**" if self.bold else ""
        # A bar would end the cell.
        return f"{mark}{self.text}{mark} {self.detail}".strip().replace("|", "\\|")

    def latex(self) -> str:
        """The cell in a LaTeX table."""
        text = f"\\textbf{{{_latex_text(self.text)}}}" if self.bold else _latex_text(self.text)
        return f"{text} {{\\footnotesize {_latex_text(self.detail)}}}" if self.detail else text

    def html(self) -> str:
        """The cell as a ``td``."""
        text = f"<b>{html.escape(self.text)}</b>" if self.bold else html.escape(self.text)
        return f"<td>{text}" + (f" <small>{html.escape(self.detail)}</small>" if self.detail else "") + "</td>"


TableRow = tuple[Cell | str, ...]


@dataclass(frozen=True)
class Table:
    """A table with its title and what is written below it.

    Attributes:
        title: Line above; may be empty.
        columns: Names of the columns.
        rows: Cells of each row; a plain text is a cell without interval.
        num_words: Number of leading columns that hold words. They are aligned left, numbers are aligned right.
        notes: Warnings.
        items_title: Line above the items.
        items: List of sentences, for example differences.
        closing: A sentence below everything else.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    num_words: int = 1  # most tables name their rows in one column
    notes: tuple[str, ...] = ()
    items_title: str = ""
    items: tuple[str, ...] = ()
    closing: str = ""

    def cells(self) -> Iterator[list[Cell]]:
        """The cells of each row, all of them as `Cell`."""
        for row in self.rows:
            yield [Cell(cell) if isinstance(cell, str) else cell for cell in row]


def score_cell(score: Score | None, bold: bool = False, sign: bool = False) -> Cell:
    """A score with its interval; a dash where there is none."""
    return Cell(ABSENT) if score is None else Cell(decimal(score.mean, sign), interval(score, sign), bold)


def markdown(table: Table, level: int) -> str:
    """GitHub Markdown under a heading of a level, without a line break at the end."""
    parts = [f"{'#' * level} {table.title}"] if table.title else []
    if table.rows:
        rule = "|" + "|".join("---" if i < table.num_words else "---:" for i in range(len(table.columns))) + "|"
        rows = [[cell.markdown() for cell in row] for row in table.cells()]
        lines = [[name.replace("|", "\\|") for name in table.columns], *rows]
        head, *body = ("| " + " | ".join(line) + " |" for line in lines)
        parts.append("\n".join([head, rule, *body]))
    if table.notes:
        parts.append("\n".join(f"- **Note:** {note}" for note in table.notes))
    if table.items:
        parts += [f"{table.items_title}:", "\n".join(f"- {item}" for item in table.items)]
    return "\n\n".join([*parts, table.closing] if table.closing else parts)


def csv_text(table: Table) -> str:
    """CSV of columns and rows; titles and notes are left out."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([f"{cell.text} {cell.detail}".strip() for cell in row] for row in table.cells())
    return buffer.getvalue()


def latex(table: Table) -> str:
    """A ``table`` environment for the package ``booktabs``, without a line break at the end."""
    items = [f"{table.items_title}: " + "; ".join(table.items)] if table.items else []
    caption = ". ".join([table.title, *table.notes, *items, *([table.closing] if table.closing else [])]) + "."
    alignment = "l" * table.num_words + "r" * (len(table.columns) - table.num_words)
    rows = "".join(f"    {' & '.join(cell.latex() for cell in row)} \\\\\n" for row in table.cells())
    return (
        "\\begin{table}\n  \\centering\n"
        f"  \\caption{{{_latex_text(caption)}}}\n"
        f"  \\begin{{tabular}}{{{alignment}}}\n    \\toprule\n"
        f"    {' & '.join(map(_latex_text, table.columns))} \\\\\n    \\midrule\n{rows}"
        "    \\bottomrule\n  \\end{tabular}\n\\end{table}"
    )


def html_section(table: Table) -> str:
    """A ``section`` of an HTML page."""
    parts = [f"<section>\n<h2>{html.escape(table.title)}</h2>\n"]
    if table.rows:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in table.columns)
        body = "".join("<tr>" + "".join(cell.html() for cell in row) + "</tr>\n" for row in table.cells())
        parts.append(f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n")
    parts += [f'<p class="note">{html.escape(note)}</p>\n' for note in table.notes]
    if table.items:
        items = "".join(f"<li>{html.escape(item)}</li>\n" for item in table.items)
        parts.append(f"<p>{html.escape(table.items_title)}:</p>\n<ul>\n{items}</ul>\n")
    parts += [f"<p>{html.escape(table.closing)}</p>\n"] if table.closing else []
    return "".join([*parts, "</section>\n"])


def print_table(table: Table, console: Console, num_optional: int = 0) -> None:
    """Print a table with colours, intervals on a second line.

    Args:
        table: What to print.
        console: Where to.
        num_optional: Number of trailing columns that may be left out where the screen is too narrow.
    """
    from rich.measure import Measurement
    from rich.text import Text

    omitted: list[str] = []
    for count in range(len(table.columns), len(table.columns) - num_optional - 1, -1):
        # Titles and cells of the columns that are left; the rest is named below the table.
        grid = _rich_table(replace(table, columns=table.columns[:count], rows=tuple(row[:count] for row in table.rows)))
        omitted = [name.replace("\n", "") for name in table.columns[count:]]
        # Measured without a limit of width: at the width of the screen, rich would wrap the cells.
        if Measurement.get(console, console.options.update(max_width=10_000), grid).maximum <= console.width:
            break
    if table.rows:
        console.print(grid)
    if omitted:
        console.print(Text(f"no room for {', '.join(omitted)}: --format md has all", style="dim"))
    for note in table.notes:
        console.print(Text(f"! {note}", style="yellow"))
    if table.items:
        console.print(Text(f"{table.items_title}:", style="bold"))
    for item in table.items:
        console.print(Text(f"  {item}"))
    if table.closing:
        console.print(Text(table.closing))


def _latex_text(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)


def _rich_table(table: Table) -> RichTable:
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable(title=Text(table.title), title_justify="left", title_style="bold")
    for place, name in enumerate(table.columns):
        grid.add_column(name, justify="left" if place < table.num_words else "right", overflow="fold")
    for row in table.cells():
        texts: list[Text] = []
        for cell in row:
            texts.append(Text(cell.text, style="bold green" if cell.bold else ""))
            if cell.detail:
                texts[-1].append(f"\n{cell.detail}", style="dim not bold")
        grid.add_row(*texts)
    return grid
