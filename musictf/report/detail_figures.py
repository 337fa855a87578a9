"""Figures of what rows say beyond their scores: what is taken for what, and which classes are hard.

Conventions: those of `musictf.report.details` and `musictf.report.figures`. Shares of confusions are coloured on a
square-root scale, for the errors would all look alike beside the diagonal.
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
from musictf.report.details import SUPPORT, detailed_lines, shape_of, shares
from musictf.report.figures import BLACK, BLUE, COLUMN_INCHES, GREEN, ORANGE, STYLE, VERMILLION, save
from musictf.report.lines import Line
from musictf.report.tables import Block, summary_table
from musictf.results.names import PRETRAINED
from musictf.results.rows import Row
from musictf.results.statistics import Floats

MOST_CLASSES = 60
_MOST_WRITTEN = 26  # columns of a map whose cells have room for a number
# Baselines are marks on the bars of what stands first; the ceiling and the majority answer would only crowd them.
_MARKS = {"random": (ORANGE, "s"), "mel": (GREEN, "^"), "mfcc": (BLACK, "v"), "chroma": (VERMILLION, "D")}
_MARKS |= {"classical": (BLACK, "x")}
_OTHERS = ("o", "P", "*", "<", ">")  # other pretrained systems
_UNITS = {"seconds": "s", "positives": "tracks", "tracks": "tracks"}
_OF_REFERENCE = {"chord": "time", "key": "tracks"}


def confusion_figure(rows: Sequence[Row], task: str, out: Path, decoder: str | None = None) -> list[Path]:
    """What is taken for what, a panel a pretrained system: by root distance and quality, or class by class.

    Args:
        rows: Rows of one task on one split.
        task: Name of the task to draw.
        out: Where to write, without suffix.
        decoder: By default the one that scored most rows, which is the one that chose the layers.

    Returns:
        The files written.

    Raises:
        InputError: no row of the task has a confusion, or rows of several datasets or splits.
    """
    block, chosen = _block(rows, task, decoder)
    panels = [(line, _found(details, "rotation", "matrix")) for line, details in detailed_lines(block, chosen)]
    panels = [(line, value) for line, value in panels if value]
    panels = [panel for panel in panels if panel[0].kind == PRETRAINED] or panels[:1]
    if not panels:
        raise InputError(f"confusion: no row of task {task}, decoder {chosen} has one")
    heights = [_panel_height(value) for _, value in panels]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.5 * COLUMN_INCHES, sum(heights) + 0.55), layout="constrained")
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (line, value) in zip(grid, panels, strict=True):
            image = _draw_matrix(axes, value) if "labels" in value else _draw_rotation(axes, value)
            axes.set_title(f"{line.system}, {line.readout}")
        bar = figure.colorbar(image, ax=list(grid), fraction=0.05, pad=0.02, aspect=20, ticks=[0, 0.05, 0.2, 0.5, 1])
        bar.ax.set_yticklabels(["0", "5", "20", "50", "100"])
        bar.set_label(f"{_OF_REFERENCE.get(task, 'tracks')} of reference (%)")
        bar.outline.set_visible(False)
        figure.suptitle(f"{task} on {block.dataset}, decoder {chosen}: taken for what", x=0.01, ha="left", size=8)
        return save(figure, out)


def class_bars(rows: Sequence[Row], task: str, out: Path, decoder: str | None = None) -> list[Path]:
    """Score of each class or quality: bars of the pretrained system, marks of its baselines; the best class on top.

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
    found = [(line, _found(details, "classes")) for line, details in detailed_lines(block, chosen)]
    tables = [(line, table) for line, table in found if table]
    if not tables:
        raise InputError(f"class bars: no row of task {task}, decoder {chosen} has a table by class")
    score = _class_score(tables[0][1], block.headline)
    names = _ranked(tables[0][1], score)
    shown = names if len(names) <= MOST_CLASSES else names[: MOST_CLASSES // 2] + names[-MOST_CLASSES // 2 :]
    with matplotlib.rc_context(STYLE):
        height = 0.75 + 0.15 * len(shown) + 0.08 * len(tables)
        figure = Figure(figsize=(COLUMN_INCHES, height), layout="constrained")
        axes = figure.subplots()
        _draw_bars(axes, tables, shown, score)
        axes.set_xlabel(f"{score} (0–1)")
        part = "" if len(shown) == len(names) else f", best and worst {MOST_CLASSES // 2} of {len(names)}"
        figure.suptitle(f"{task} on {block.dataset}, decoder {chosen}{part}", x=0.01, ha="left", size=8)
        figure.legend(loc="outside lower left", ncols=2, handlelength=1.2)
        return save(figure, out)


def details_figures(rows: Sequence[Row], folder: Path) -> list[tuple[str, list[Path]]]:
    """Every confusion and every score by class that the selected rows hold.

    Args:
        rows: Rows of any tasks, datasets and splits.
        folder: Where to write.

    Returns:
        Caption and files (PNG, SVG) of each figure.
    """
    figures = []
    blocks = summary_table(rows)
    for number, block in enumerate(blocks):
        mine = [row for row in rows if block.holds(row)]
        details = [details for _, details in detailed_lines(*_block(mine, block.task, None))]
        ending = block.task if sum(other.task == block.task for other in blocks) == 1 else f"{block.task}_{number}"
        if any(_found(each, "rotation", "matrix") for each in details):
            paths = confusion_figure(mine, block.task, folder / f"confusion_{ending}")
            figures.append((f"{block.heading}: what is taken for what", paths))
        if any(_found(each, "classes") for each in details):
            paths = class_bars(mine, block.task, folder / f"classes_{ending}")
            figures.append((f"{block.heading}: score of each class", paths))
    return figures


def _block(rows: Sequence[Row], task: str, decoder: str | None) -> tuple[Block, str]:
    """The rows of a task, which must be of one dataset and split, and the decoder to draw."""
    mine = [row for row in rows if row["task"] == task]
    blocks = summary_table(mine)
    if len(blocks) != 1:
        raise InputError(f"details: task {task} has rows of {len(blocks)} datasets or splits; draw them apart")
    scored = Counter(row["decoder"]["name"] for row in mine if row.get("selection"))
    scored = scored or Counter(row["decoder"]["name"] for row in mine)
    return blocks[0], decoder or scored.most_common(1)[0][0]


def _found(details: Mapping[str, Any], *shapes: str) -> Any:
    """The first part of details that has one of some shapes; None where nothing has."""
    return next((value for value in details.values() if shape_of(value) in shapes), None)


def _panel_height(confusion: Mapping[str, Any]) -> float:
    """Inches."""
    if "labels" in confusion:
        return 0.9 + min(4.0, 0.16 * len(confusion["labels"]))
    return 0.7 + 0.2 * len(confusion)


def _draw_rotation(axes: Axes, confusion: Mapping[str, Any]) -> Any:
    """References down; across, for each estimate, the semitones from the right root up to its own."""
    found = shares(confusion)
    references, estimates = (list(dict.fromkeys(names)) for names in zip(*found, strict=True))
    widths = {name: max(len(cells) for (_, other), cells in found.items() if other == name) for name in estimates}
    # Without a right root there is no distance to it: those cells stay empty, the tables have their sums.
    unknown = {name: [np.nan] * width for name, width in widths.items()}
    cells = {pair: of_pair if len(of_pair) == widths[pair[1]] else unknown[pair[1]] for pair, of_pair in found.items()}
    table = np.array([[share for name in estimates for share in cells[reference, name]] for reference in references])
    image = _draw_shares(axes, table)
    ticks = [str(step) if width > 1 else "" for width in widths.values() for step in range(width)]
    starts = np.cumsum([0, *widths.values()])
    axes.set_xticks(range(len(ticks)), ticks, size=5.5)
    # Not in the middle of a cell: minor ticks on major ones are not drawn.
    axes.set_xticks((starts[:-1] + starts[1:]) / 2 - 0.49, estimates, minor=True)
    axes.tick_params(axis="x", which="minor", pad=10, length=0)
    axes.vlines(starts[1:-1] - 0.5, -0.5, len(references) - 0.5, color="white", linewidth=2)
    axes.set_yticks(range(len(references)), references)
    axes.set_xlabel("estimate, and the semitones from the right root up to its root")
    axes.set_ylabel("reference")
    return image


def _draw_matrix(axes: Axes, confusion: Mapping[str, Any]) -> Any:
    """References down, estimates across."""
    counts, labels = np.asarray(confusion["counts"], dtype=np.float64), confusion["labels"]
    totals = counts.sum(axis=1, keepdims=True)
    image = _draw_shares(axes, np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0))
    axes.set_xticks(range(len(labels)), labels, rotation=90)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("estimate")
    axes.set_ylabel("reference")
    return image


def _draw_shares(axes: Axes, table: Floats) -> Any:
    """Shares as colours, written out where there is room and from one percent."""
    norm = PowerNorm(0.5, 0, 1)
    image = axes.imshow(table, cmap="cividis", norm=norm, aspect="auto", interpolation="nearest")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for line, column in np.argwhere(table >= 0.005) if table.shape[1] <= _MOST_WRITTEN else ():
        ink = BLACK if norm(table[line, column]) > 0.5 else "white"
        axes.text(column, line, f"{100 * table[line, column]:.0f}", ha="center", va="center", color=ink, size=5.5)
    return image


def _class_score(table: Mapping[str, Mapping[str, Any]], headline: str) -> str:
    """The headline where classes have it, else the last of their scores (F1 of precision, recall, F1)."""
    scores = [name for cells in table.values() for name in cells if name not in SUPPORT]
    return headline if headline in scores else scores[-1]


def _ranked(table: Mapping[str, Mapping[str, Any]], score: str) -> list[str]:
    """Classes from the best to the worst, undefined ones left out."""
    values = {name: cells.get(score) for name, cells in table.items()}
    defined = {name: value for name, value in values.items() if value is not None}
    return sorted(defined, key=lambda name: -defined[name])


def _draw_bars(
    axes: Axes, tables: Sequence[tuple[Line, Mapping[str, Mapping[str, Any]]]], names: Sequence[str], score: str
) -> None:
    places = np.arange(len(names))
    (line, first), *others = tables
    axes.barh(places, [first[name][score] for name in names], height=0.72, color=BLUE, alpha=0.35, label=line.system)
    rivals = cycle(_OTHERS)
    for other, table in others:
        if other.kind not in {*_MARKS, PRETRAINED}:
            continue
        colour, marker = _MARKS.get(other.kind) or (BLUE, next(rivals))
        values = [table.get(name, {}).get(score) for name in names]
        points = [np.nan if value is None else value for value in values]
        edge = colour if marker == "x" else "white"
        style: Any = {"color": colour, "markeredgecolor": edge, "markeredgewidth": 0.5, "markersize": 4}
        axes.plot(points, places, marker, label=other.system, clip_on=False, **style)
    axes.set_yticks(places, [_label(name, first[name]) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.02)
    axes.tick_params(axis="y", length=0)


def _label(name: str, cells: Mapping[str, Any]) -> str:
    """A class and how much of it there is."""
    amounts = [f"{cells[support]:.0f} {unit}" for support, unit in _UNITS.items() if cells.get(support) is not None]
    return f"{name} ({', '.join(amounts)})" if amounts else name
