"""How a task's headline score changes under perturbations: a figure with a panel for each, and a table.

Conventions: rows have ``perturbation {name, amount, unit}``; rows without one, and those named ``clean``, are of the
untouched recordings. A system is represented by the readout that clean validation prefers; several seeds by the means
of their values and bounds. The clean score is drawn at the neutral amount. Where there is none (noise, codecs), it is
drawn one step beyond the mildest amount. Intervals are 95 % bootstraps over tracks.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from musictf.audio.perturb import perturbation
from musictf.errors import InputError
from musictf.reporting.comparison_blocks import Block, summary_table
from musictf.reporting.figures import BLACK, BLUE, COLUMN_INCHES, GREEN, ORANGE, SKY, STYLE, VERMILLION, save
from musictf.reporting.table import ABSENT, Table, TableRow, markdown, score_cell
from musictf.reporting.table_lines import Score, by_system, comparable, representative
from musictf.results.names import PRETRAINED
from musictf.results.rows import Row
from musictf.results.systems import System, system_of

CLEAN = "clean"
Condition = tuple[str, float]  # perturbation and amount; the clean recordings are (CLEAN, 0)

_BASELINE_STYLES = {
    "random": (ORANGE, "s"),
    "mel": (GREEN, "^"),
    "mfcc": (SKY, "v"),
    "chroma": (VERMILLION, "D"),
    "classical": (BLACK, "+"),
    "majority": (BLACK, "x"),
}
_OTHER_STYLES = ((BLUE, "o"), (VERMILLION, "P"), (SKY, "X"), (GREEN, "p"), (ORANGE, "h"))
_COLUMNS = 2


@dataclass(frozen=True)
class Curves:
    """Headline scores of one task under all conditions, with the texts of the axes."""

    heading: str
    headline: str  # name of the score
    decoder: str
    names: dict[System, str]
    scores: dict[System, dict[Condition, Score]]
    amounts: dict[str, list[float]]  # of each perturbation, ascending, in its unit
    units: dict[str, str]  # of each perturbation


def robustness_figure(rows: Sequence[Row], task: str, out: Path, decoder: str | None = None) -> list[Path]:
    """Headline score against amount: a panel a perturbation, a line a system, the clean score as a hollow mark.

    Args:
        rows: Rows of clean and of perturbed recordings.
        task: Name of the task to draw.
        out: Where to write, without suffix.
        decoder: Decoder to draw; by default the first in the rows, which is the one that chose the layers.

    Returns:
        The files written, PNG and SVG.

    Raises:
        InputError: no perturbed or no clean row of the task, none of that decoder, or rows of several datasets.
    """
    curves = read_curves(rows, task, decoder)
    count = len(curves.amounts)
    columns = min(_COLUMNS, count)
    with matplotlib.rc_context(STYLE):
        lines = math.ceil(count / columns)
        figure = Figure(figsize=(COLUMN_INCHES, 1.35 * lines + 0.75), layout="constrained")
        grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
        for axes, name in zip(grid.flat, curves.amounts, strict=False):
            _draw_panel(axes, name, curves)
        for axes in grid.flat[count:]:
            axes.set_axis_off()
        for axes in grid[:, 0]:
            axes.set_ylabel(f"{curves.headline} (0–1)")
        figure.suptitle(curves.heading, x=0.01, ha="left", size=8)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=2, handlelength=1.6)
        return save(figure, out)


def robustness_table(rows: Sequence[Row], task: str, decoder: str | None = None) -> str:
    """The numbers of the figure as Markdown: a row a condition, a column a system.

    Args:
        rows: Rows of clean and of perturbed recordings.
        task: Name of the task.
        decoder: As in `robustness_figure`.

    Raises:
        InputError: as in `robustness_figure`.
    """
    curves = read_curves(rows, task, decoder)
    conditions = {(CLEAN, ABSENT): (CLEAN, 0.0)} | {
        (name, f"{amount:g} {curves.units[name]}"): (name, amount)
        for name, amounts in curves.amounts.items()
        for amount in amounts
    }
    lines: list[TableRow] = [
        (*words, *(score_cell(scores.get(condition)) for scores in curves.scores.values()))
        for words, condition in conditions.items()
    ]
    columns = ("perturbation", "amount", *curves.names.values())
    note = f"{curves.headline} with 95 % intervals over tracks, decoder {curves.decoder}."
    return markdown(Table(curves.heading, columns, tuple(lines), 2, closing=note), level=3) + "\n"


def read_curves(rows: Sequence[Row], task: str, decoder: str | None = None) -> Curves:
    """The headline score of every system of a task under every condition.

    Raises:
        InputError: no perturbed or no clean row of the task, none of that decoder, or rows of several datasets.
    """
    grouped: dict[Condition, list[Row]] = defaultdict(list)
    units = {}
    for row in (row for row in rows if row["task"] == task and row["selected"]):
        change = row.get("perturbation")
        if change is None or change["amount"] is None:
            grouped[CLEAN, 0.0].append(row)
        else:
            grouped[change["name"], float(change["amount"])].append(row)
            units[change["name"]] = change["unit"]
    if (CLEAN, 0.0) not in grouped or not units:
        lacking = "perturbed" if (CLEAN, 0.0) in grouped else "clean"
        raise InputError(f"robustness: no {lacking} row of task {task}")
    blocks = {}
    for condition, condition_rows in grouped.items():
        blocks_here = summary_table(condition_rows)
        if (count := len(blocks_here)) > 1:
            raise InputError(f"robustness: task {task} has rows of {count} datasets or splits; draw them apart")
        (blocks[condition],) = blocks_here
    clean = blocks[CLEAN, 0.0]
    chosen = _decoder(clean, grouped[CLEAN, 0.0], decoder)
    groups = by_system([line for line in clean.lines if comparable(line, chosen)])
    lines = {system_of(line.rows[0]): line for line in map(representative, groups.values())}
    names = {system: line.system for system, line in lines.items()}
    scores = {system: _scores(system, line.readout, chosen, blocks) for system, line in lines.items()}
    amounts = {name: sorted(amount for other, amount in grouped if other == name) for name in units}
    heading = f"{task} on {clean.dataset}: robustness"
    return Curves(heading, clean.headline, chosen, names, scores, amounts, units)


def _decoder(clean: Block, rows: Sequence[Row], requested: str | None) -> str:
    """The decoder to draw: the requested one, or the first in the rows."""
    # Systems with a decoder of their own are drawn whatever the decoder, so theirs is no choice.
    decoders = {line.decoder for line in clean.lines if not comparable(line, "")}
    if requested is not None and requested not in decoders:
        raise InputError(f"robustness: no row of decoder {requested}: any of {', '.join(sorted(decoders))}")
    in_rows = [row["decoder"]["name"] for row in rows if row["decoder"]["name"] in decoders]
    return requested or next(iter(in_rows), "")


def _scores(system: System, readout: str, decoder: str, blocks: Mapping[Condition, Block]) -> dict[Condition, Score]:
    """Headline score of a system under each condition that has one."""
    scores = {}
    for condition, block in blocks.items():
        for line in block.lines:
            is_match = system_of(line.rows[0]) == system and line.readout == readout and comparable(line, decoder)
            if is_match and block.headline in line.scores:
                scores[condition] = line.scores[block.headline]
    return scores


def styles_of(curves: Curves) -> dict[System, tuple[str, str]]:
    """Colour and marker of each system; those of the baselines are the same in every figure."""
    styles: dict[System, tuple[str, str]] = {}
    others = iter(_OTHER_STYLES * len(curves.names))
    # Pretrained systems first: they get the first colours.
    for system in sorted(curves.names, key=lambda system: system[0] != PRETRAINED):
        is_new = system[0] in _BASELINE_STYLES and _BASELINE_STYLES[system[0]] not in styles.values()
        styles[system] = _BASELINE_STYLES[system[0]] if is_new else next(others)
    return styles


def clean_position(name: str, amounts: Sequence[float]) -> float:
    """Position of the clean recording on the axis of a perturbation with these amounts."""
    neutral = perturbation(name).neutral
    if math.isfinite(neutral):
        return neutral
    # An infinite neutral amount, as of noise in dB, is beyond the mildest one.
    step = (max(amounts) - min(amounts)) / (len(amounts) - 1) if len(amounts) > 1 else 1.0
    return max(amounts) + step if neutral > 0 else min(amounts) - step


def _draw_panel(axes: Axes, name: str, curves: Curves) -> None:
    amounts = curves.amounts[name]
    origin = clean_position(name, amounts)
    positions = {(name, amount): amount for amount in amounts} | {(CLEAN, 0.0): origin}
    styles = styles_of(curves)
    # Drawn side by side, so that intervals of systems with similar scores do not cover each other.
    dodge = 0.012 * (max(positions.values()) - min(positions.values()))
    axes.axvline(origin, color=BLACK, linewidth=0.6, linestyle=(0, (1, 2)))
    for index, (system, scores) in enumerate(curves.scores.items()):
        shift = dodge * (index - (len(curves.scores) - 1) / 2)
        points = sorted((position + shift, scores[where]) for where, position in positions.items() if where in scores)
        _draw_system(axes, points, origin + shift, styles[system], curves.names[system])
    ticks = sorted(positions.values())
    axes.set_xticks(ticks, [CLEAN if position == origin else f"{position:g}" for position in ticks])
    if math.isinf(perturbation(name).neutral) and origin > max(amounts):
        axes.invert_xaxis()  # every panel of this kind gets worse from left to right
    axes.set_title(name)
    axes.set_xlabel(curves.units[name])
    axes.yaxis.set_major_locator(MaxNLocator(4))


def _draw_system(
    axes: Axes, points: Sequence[tuple[float, Score]], origin: float, colour_and_marker: tuple[str, str], name: str
) -> None:
    colour, marker = colour_and_marker
    positions = np.array([position for position, _ in points])
    means = np.array([score.mean for _, score in points])
    # A score over the whole split may lie outside the bootstrap of its tracks: no bar has a negative length.
    low = np.maximum(0, means - [score.low for _, score in points])
    high = np.maximum(0, [score.high for _, score in points] - means)
    axes.errorbar(positions, means, (low, high), color=colour, linewidth=1.0, elinewidth=0.6, marker="none")
    style: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "none", "markersize": 3.0, "zorder": 3}
    axes.plot(positions, means, label=name, **style)
    at_clean = positions == origin
    hollow: dict[str, Any] = {} if marker in "+x" else {"markerfacecolor": "white", "markersize": 4.0}
    axes.plot(positions[at_clean], means[at_clean], **style | hollow)
