"""Figures of the details of rows: confusions, and scores by class.

Conventions: those of `musictf.reporting.details` and `musictf.reporting.figures`. Shares of confusions are coloured on
a square-root scale, because on a linear one all errors look alike beside the diagonal.

Shapes:  C classes of the reference   E classes of the estimate
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from musictf.errors import InputError
from musictf.reporting.comparison_blocks import Block, summary_table
from musictf.reporting.details import SUPPORT, detailed_lines, shape_of, shares
from musictf.reporting.figures import (
    BLACK,
    BLUE,
    COLUMN_INCHES,
    GREEN,
    ORANGE,
    STYLE,
    VERMILLION,
    colour_bar,
    hide_frame,
    save,
)
from musictf.reporting.table_lines import Line
from musictf.results.names import PRETRAINED
from musictf.results.rows import Row
from musictf.results.statistics import Floats

MOST_CLASSES = 60
_MOST_WRITTEN = 26  # columns of a map whose cells have room for a number
# Baselines are marks on the bars of the pretrained system; the oracle and the majority answer would only crowd them.
_MARKS = {"random": (ORANGE, "s"), "mel": (GREEN, "^"), "mfcc": (BLACK, "v"), "chroma": (VERMILLION, "D")}
_MARKS |= {"classical": (BLACK, "x")}
_OTHERS = ("o", "P", "*", "<", ">")  # other pretrained systems
_UNITS = {"seconds": "s", "positives": "tracks", "tracks": "tracks"}
_OF_REFERENCE = {"chord": "time", "key": "tracks"}


def confusion_figure(rows: Sequence[Row], task: str, out: Path, decoder: str | None = None) -> list[Path]:
    """Draw confusions, a panel a pretrained system: by root distance and quality, or class by class.

    Args:
        rows: Rows of one task on one split.
        task: Name of the task to draw.
        out: Where to write, without suffix.
        decoder: By default the one with most rows, which is the one that chose the layers.

    Returns:
        The files written.

    Raises:
        InputError: no row of the task has a confusion, or rows of several datasets or splits.
    """
    block, chosen = _block(rows, task, decoder)
    panels = [(line, _first_of(details, "rotation", "matrix")) for line, details in detailed_lines(block, chosen)]
    panels = [(line, value) for line, value in panels if value]
    # A panel a system is large: baselines are drawn only where no system is pretrained.
    panels = [panel for panel in panels if panel[0].kind == PRETRAINED] or panels[:1]
    if not panels:
        raise InputError(f"confusion: no row of task {task}, decoder {chosen} has one")
    heights = [
        0.9 + min(4.0, 0.16 * len(value["labels"])) if "labels" in value else 0.7 + 0.2 * len(value)
        for _, value in panels
    ]  # inches
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.5 * COLUMN_INCHES, sum(heights) + 0.55), layout="constrained")
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (line, value) in zip(grid, panels, strict=True):
            image = _draw_matrix(axes, value) if "labels" in value else _draw_rotation(axes, value)
            axes.set_title(f"{line.system}, {line.readout}")
        label = f"{_OF_REFERENCE.get(task, 'tracks')} of reference (%)"
        ticks = [0, 0.05, 0.2, 0.5, 1]
        bar = colour_bar(figure, image, list(grid), label, fraction=0.05, pad=0.02, aspect=20, ticks=ticks)
        bar.ax.set_yticklabels(["0", "5", "20", "50", "100"])
        figure.suptitle(f"{task} on {block.dataset}, decoder {chosen}: taken for what", x=0.01, ha="left", size=8)
        return save(figure, out)


def class_bars(rows: Sequence[Row], task: str, out: Path, decoder: str | None = None) -> list[Path]:
    """Draw the score of each class: bars of the pretrained system, marks of its baselines, the best class on top.

    Args:
        rows: As in `confusion_figure`.
        task: Name of the task to draw.
        out: Where to write, without suffix.
        decoder: As in `confusion_figure`.

    Returns:
        The files written.

    Raises:
        InputError: no row of the task has a table by class, or rows of several datasets or splits.
    """
    block, chosen = _block(rows, task, decoder)
    by_class = [(line, _first_of(details, "classes")) for line, details in detailed_lines(block, chosen)]
    tables = [(line, table) for line, table in by_class if table]
    if not tables:
        raise InputError(f"class bars: no row of task {task}, decoder {chosen} has a table by class")
    first = tables[0][1]  # of the system whose scores are the bars
    scores = [name for cells in first.values() for name in cells if name not in SUPPORT]
    # Of precision, recall and F1, in this order, the last is drawn.
    score = block.headline if block.headline in scores else scores[-1]
    defined = {name: value for name, cells in first.items() if (value := cells.get(score)) is not None}
    names = sorted(defined, key=lambda name: -defined[name])
    drawn = names if len(names) <= MOST_CLASSES else names[: MOST_CLASSES // 2] + names[-MOST_CLASSES // 2 :]
    with matplotlib.rc_context(STYLE):
        height = 0.75 + 0.15 * len(drawn) + 0.08 * len(tables)
        figure = Figure(figsize=(COLUMN_INCHES, height), layout="constrained")
        axes = figure.subplots()
        _draw_bars(axes, tables, drawn, score)
        axes.set_xlabel(f"{score} (0–1)")
        part = "" if len(drawn) == len(names) else f", best and worst {MOST_CLASSES // 2} of {len(names)}"
        figure.suptitle(f"{task} on {block.dataset}, decoder {chosen}{part}", x=0.01, ha="left", size=8)
        figure.legend(loc="outside lower left", ncols=2, handlelength=1.2)
        return save(figure, out)


def details_figures(rows: Sequence[Row], folder: Path) -> list[tuple[str, list[Path]]]:
    """Draw every confusion and every table of scores by class in the details of the selected rows.

    Args:
        rows: Rows of any tasks, datasets and splits.
        folder: Where to write.

    Returns:
        Caption and files (PNG, SVG) of each figure.
    """
    figures = []
    blocks = summary_table(rows)
    for number, block in enumerate(blocks):
        of_block = [row for row in rows if block.holds(row)]
        details = [details for _, details in detailed_lines(*_block(of_block, block.task, None))]
        # A number keeps the files of several datasets of one task apart.
        ending = block.task if sum(other.task == block.task for other in blocks) == 1 else f"{block.task}_{number}"
        if any(_first_of(of_line, "rotation", "matrix") for of_line in details):
            paths = confusion_figure(of_block, block.task, folder / f"confusion_{ending}")
            figures.append((f"{block.heading}: what is taken for what", paths))
        if any(_first_of(of_line, "classes") for of_line in details):
            paths = class_bars(of_block, block.task, folder / f"classes_{ending}")
            figures.append((f"{block.heading}: score of each class", paths))
    return figures


def _block(rows: Sequence[Row], task: str, decoder: str | None) -> tuple[Block, str]:
    """The rows of a task, which must be of one dataset and split, and the decoder to draw."""
    of_task = [row for row in rows if row["task"] == task]
    blocks = summary_table(of_task)
    if len(blocks) != 1:
        raise InputError(f"details: task {task} has rows of {len(blocks)} datasets or splits; draw them apart")
    scored = Counter(row["decoder"]["name"] for row in of_task if row.get("selection"))
    scored = scored or Counter(row["decoder"]["name"] for row in of_task)
    return blocks[0], decoder or scored.most_common(1)[0][0]


def _first_of(details: Mapping[str, Any], *shapes: str) -> Any:
    """The first entry of details that has one of these shapes (see `shape_of`); None without one."""
    return next((value for value in details.values() if shape_of(value) in shapes), None)


def _draw_rotation(axes: Axes, confusion: Mapping[str, Any]) -> Any:
    """References down; across, for each estimated quality, the semitones from the right root up to its root."""
    by_pair = shares(confusion)  # (reference, estimate) -> shares by semitones
    references, estimates = (list(dict.fromkeys(names)) for names in zip(*by_pair, strict=True))
    widths = {name: max(len(cells) for (_, other), cells in by_pair.items() if other == name) for name in estimates}
    # A reference without a root has no distance to it: those cells stay empty, and the tables have their sums.
    unknown = {name: [np.nan] * width for name, width in widths.items()}
    cells = {pair: values if len(values) == widths[pair[1]] else unknown[pair[1]] for pair, values in by_pair.items()}
    table = np.array([[share for name in estimates for share in cells[reference, name]] for reference in references])
    image = _draw_shares(axes, table)
    ticks = [str(step) if width > 1 else "" for width in widths.values() for step in range(width)]
    starts = np.cumsum([0, *widths.values()])
    axes.set_xticks(range(len(ticks)), ticks, size=5.5)
    # Slightly off the middle of a cell, because matplotlib draws no minor tick on a major one.
    axes.set_xticks((starts[:-1] + starts[1:]) / 2 - 0.49, estimates, minor=True)
    axes.tick_params(axis="x", which="minor", pad=10, length=0)
    axes.vlines(starts[1:-1] - 0.5, -0.5, len(references) - 0.5, color="white", linewidth=2)
    axes.set_yticks(range(len(references)), references)
    axes.set_xlabel("estimate, and the semitones from the right root up to its root")
    axes.set_ylabel("reference")
    return image


def _draw_matrix(axes: Axes, confusion: Mapping[str, Any]) -> Any:
    """References down, estimates across; each row is divided by its sum."""
    counts, labels = np.asarray(confusion["counts"], dtype=np.float64), confusion["labels"]
    totals = counts.sum(axis=1, keepdims=True)
    image = _draw_shares(axes, np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0))
    axes.set_xticks(range(len(labels)), labels, rotation=90)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("estimate")
    axes.set_ylabel("reference")
    return image


def _draw_shares(axes: Axes, table: Floats) -> Any:
    """Draw shares (C, E) as colours, with their numbers from one percent where there is room."""
    norm = PowerNorm(0.5, 0, 1)
    image = axes.imshow(table, cmap="cividis", norm=norm, aspect="auto", interpolation="nearest")
    hide_frame(axes)
    for line, column in np.argwhere(table >= 0.005) if table.shape[1] <= _MOST_WRITTEN else ():
        ink = BLACK if norm(table[line, column]) > 0.5 else "white"  # readable on dark cells
        axes.text(column, line, f"{100 * table[line, column]:.0f}", ha="center", va="center", color=ink, size=5.5)
    return image


def _draw_bars(
    axes: Axes, tables: Sequence[tuple[Line, Mapping[str, Mapping[str, Any]]]], names: Sequence[str], score: str
) -> None:
    heights = np.arange(len(names))
    (line, first), *others = tables
    axes.barh(heights, [first[name][score] for name in names], height=0.72, color=BLUE, alpha=0.35, label=line.system)
    markers = cycle(_OTHERS)
    for other, table in others:
        if other.kind not in {*_MARKS, PRETRAINED}:
            continue
        colour, marker = _MARKS.get(other.kind) or (BLUE, next(markers))
        values = [table.get(name, {}).get(score) for name in names]
        points = [np.nan if value is None else value for value in values]
        edge = colour if marker == "x" else "white"  # an "x" is all edge
        style: Any = {"color": colour, "markeredgecolor": edge, "markeredgewidth": 0.5, "markersize": 4}
        axes.plot(points, heights, marker, label=other.system, clip_on=False, **style)
    axes.set_yticks(heights, [_label(name, first[name]) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.02)
    axes.tick_params(axis="y", length=0)


def _label(name: str, cells: Mapping[str, Any]) -> str:
    """Name of a class and its amount in the reference: seconds, or tracks."""
    amounts = [f"{cells[support]:.0f} {unit}" for support, unit in _UNITS.items() if cells.get(support) is not None]
    return f"{name} ({', '.join(amounts)})" if amounts else name
