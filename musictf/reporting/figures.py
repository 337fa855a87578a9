"""Figures of runs: training curves and the layer map; and what all figures share. Each is written as PNG and as SVG.

Conventions: drawn at column width (86 mm), with matplotlib's objects and no global state. Colours are Okabe and
Ito's, which colour-blind readers can distinguish; maps use cividis for the same reason.

Shapes:  S logged steps   L layers   R readouts

References:
    M. Okabe, K. Ito, "Color Universal Design", 2008, https://jfly.uni-koeln.de/color/.
"""

from __future__ import annotations

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

from musictf.errors import InputError
from musictf.reporting.table_lines import decimal
from musictf.results.names import KINDS, READOUTS
from musictf.results.rows import Row, selection_of, validation_value
from musictf.results.statistics import Floats
from musictf.results.systems import system_names, system_of

BLACK, ORANGE, SKY, GREEN, BLUE, VERMILLION = "#000000", "#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00"
COLUMN_INCHES = 3.4
STYLE: Any = {  # Any: the type of its keys changed between releases of matplotlib
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.0,
    "axes.titlesize": 7.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 7.0,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: it can be searched, and screen readers can read it
    "svg.hashsalt": "musictf",  # the same figure gives the same bytes
}

# Meter -> label of its axis, and the value that it takes where all embeddings are equal.
_METERS: dict[str, tuple[str, float | None]] = {
    "loss": ("loss (nats)", None),
    "accuracy": ("accuracy (fraction)", None),
    "alignment": ("alignment (sq. distance)", 0.0),
    "uniformity": ("uniformity (nats)", 0.0),
    "effective_rank": ("effective rank (dimensions)", 1.0),
    "learning_rate": ("learning rate (no unit)", None),
}


def training_curves(metrics_csv: Path, out: Path) -> list[Path]:
    """Draw loss, collapse meters and learning rate of a pretraining run over its steps.

    Args:
        metrics_csv: ``metrics.csv`` of a run folder; columns may be missing and cells empty.
        out: Where to write, without suffix.

    Returns:
        The files written.

    Raises:
        InputError: the file holds no step or none of the meters.
    """
    series = read_metrics(metrics_csv)
    meters = [meter for meter in _METERS if any(name.split("/")[-1] == meter for name in series)]
    if not meters:
        raise InputError(f"{metrics_csv}: none of train/{', train/'.join(_METERS)}; is this the log of a pretraining?")
    columns = min(2, len(meters))
    rows = math.ceil(len(meters) / columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN_INCHES, 1.15 * rows + 0.35), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
        for axes, meter in zip(grid.flat, meters, strict=False):
            _draw_meter(axes, meter, series)
        finish_grid(grid, len(meters), "step (optimiser updates)")
        return save(figure, out)


def layer_heatmap(rows: Sequence[Row], task: str, out: Path, decoder: str | None = None) -> list[Path]:
    """Draw the validation value of every layer and readout, a panel a system; the chosen cells show their test score.

    Of several seeds the means are drawn, and the frame of a layer is dashed where more seeds chose another one. Only
    chosen layers are scored on the test split, so only they show a test score.

    Args:
        rows: Rows of one task on one split, those included that validation did not choose.
        task: Name of the task to draw.
        out: Where to write, without suffix.
        decoder: Decoder of the test scores; by default the one with most rows, which is the one that chose the
            layers.

    Returns:
        The files written.

    Raises:
        InputError: no such rows, or rows of several datasets or splits, whose values are not comparable.
    """
    of_task = [row for row in rows if row["task"] == task and (row.get("selection") or {}).get("value") is not None]
    scored = Counter(row["decoder"]["name"] for row in of_task)
    chosen = decoder or (scored.most_common(1)[0][0] if scored else "")
    of_decoder = [row for row in of_task if row["decoder"]["name"] == chosen]
    if not of_decoder:
        raise InputError(
            f"layer heat map: no validated row of task {task}" + (f", decoder {decoder}" if decoder else "")
        )
    splits = {(row["dataset"], row["split"]["digest"]) for row in of_decoder}
    if len(splits) > 1:
        raise InputError(f"layer heat map: task {task} has rows of {len(splits)} datasets or splits; draw them apart")
    with matplotlib.rc_context(STYLE):
        return save(_heatmap(of_decoder), out)


def save(figure: Figure, out: Path) -> list[Path]:
    """Write a figure as ``out.png`` and ``out.svg``, the same bytes each time."""
    stem = out.with_suffix("") if out.suffix in {".png", ".svg"} else out
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "svg")]
    figure.savefig(paths[0], dpi=300)
    figure.set_layout_engine("none")  # keep the layout of the PNG: a second pass would move it slightly
    figure.savefig(paths[1], metadata={"Date": None})
    return paths


def colour_bar(figure: Any, image: Any, axes: Any, label: str, **layout: Any) -> Any:
    """Add a colour bar without a frame; ``layout`` are arguments of `matplotlib.figure.Figure.colorbar`."""
    bar = figure.colorbar(image, ax=axes, **layout)
    bar.set_label(label)
    bar.outline.set_visible(False)
    return bar


def hide_frame(axes: Axes) -> None:
    """Remove the frame and the tick marks of an image, whose edge is visible anyway."""
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def finish_grid(grid: Any, number: int, xlabel: str) -> None:
    """Hide the panels of a grid after the first ``number``, and label the axis of the lowest one in each column."""
    for axes in grid.flat[number:]:
        axes.set_axis_off()
    columns = grid.shape[1]
    for column in range(columns):
        lowest = max((index for index in range(number) if index % columns == column), default=column)
        grid.flat[lowest].set_xlabel(xlabel)
        # With a shared axis matplotlib labels the last row only, and that panel may be hidden.
        grid.flat[lowest].xaxis.set_tick_params(labelbottom=True)


def read_metrics(path: Path) -> dict[str, tuple[Floats, Floats]]:
    """Read ``metrics.csv``: name -> (steps, values), (S,) each; empty cells are left out.

    Raises:
        InputError: the file cannot be read.
    """
    series: dict[str, list[tuple[float, float]]] = defaultdict(list)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                step = line.pop("step", None)
                for name, text in line.items() if step else ():
                    if name and text:
                        series[name].append((float(step or 0), float(text)))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as metrics ({error})") from error
    columns = {name: np.array(sorted(points), dtype=np.float64) for name, points in series.items()}
    return {name: (points[:, 0], points[:, 1]) for name, points in columns.items()}


def _draw_meter(axes: Axes, meter: str, series: Mapping[str, tuple[Floats, Floats]]) -> None:
    """Draw few points as they are, and many noisy ones as a running mean over a pale line."""
    label, collapsed = _METERS[meter]
    for part, colour in (("train", BLUE), ("valid", VERMILLION)):
        steps, values = series.get(f"{part}/{meter}", (np.empty(0), np.empty(0)))
        if len(values) >= 100 and meter != "learning_rate":
            window = len(values) // 40  # the mean keeps about 40 independent points
            means = np.convolve(values, np.ones(window) / window, mode="valid")
            centres = np.convolve(steps, np.ones(window) / window, mode="valid")
            axes.plot(steps, values, color=colour, linewidth=0.4, alpha=0.3)
            axes.plot(centres, means, color=colour, linewidth=1.2, label=part)
        elif len(values):
            size = 2 if len(values) < 30 else 0  # markers where points are few enough to be distinguished
            axes.plot(steps, values, color=colour, linewidth=1.1, label=part, marker="o", markersize=size)
    if collapsed is not None:
        axes.axhline(collapsed, color=BLACK, linewidth=0.7, linestyle=(0, (1, 2)))
        axes.annotate(
            "collapsed", (1.0, collapsed), xycoords=("axes fraction", "data"), ha="right", va="bottom", size=6
        )
    axes.set_title(label)
    axes.margins(x=0.02, y=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if meter == "learning_rate":
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:.1e}".replace("e-0", "e-") if value else "0")
        )
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(handlelength=1.2, borderaxespad=0.1)


def _heatmap(rows: Sequence[Row]) -> Figure:
    names = system_names(rows)
    systems = sorted(names, key=lambda system: (KINDS.index(system[0]), names[system]))
    panels = [[row for row in rows if system_of(row) == system] for system in systems]
    readouts = []
    for panel in panels:
        names_of_panel = {row["readout"] for row in panel}
        known = [name for name in READOUTS if name in names_of_panel]
        readouts.append(known + sorted(names_of_panel - set(READOUTS)))
    depth = 1 + max(int(row["layer"]) for row in rows)
    flat = [value for panel in panels for value in _mean_by_cell(panel).values()]
    # A scale needs two ends, even where all values are equal.
    scale = Normalize(min(flat), max(flat) if max(flat) > min(flat) else min(flat) + 1e-3)

    columns = sum(map(len, readouts))
    size = (max(COLUMN_INCHES, 0.95 + 0.42 * columns), 1.15 + 0.24 * depth)
    figure = Figure(figsize=size, layout="constrained")
    # A panel needs room for its title even where it has only one column.
    ratios = [max(len(readouts_of_panel), 1.6) for readouts_of_panel in readouts]
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=ratios)[0]
    for axes, system, panel, readouts_of_panel in zip(grid, systems, panels, readouts, strict=True):
        image = _draw_cells(axes, panel, readouts_of_panel, depth, scale)
        axes.set_title(names[system].replace(" ", "\n", 1), loc="center")
    grid[0].set_ylabel("layer (0: projected input)")
    first = rows[0]
    metric = selection_of(first)["metric"]
    colour_bar(figure, image, list(grid), f"{metric} on validation (0–1)", fraction=0.06, pad=0.02, aspect=25)
    figure.suptitle(f"{first['task']} on {first['dataset']}: layer × readout", x=0.01, ha="left", size=8)
    note = f"framed: chosen on validation, with its test {metric} (decoder {first['decoder']['name']})"
    if (seeds := len({row["seed"] for row in rows})) > 1:
        note += f"\nmeans of {seeds} seeds, of a chosen layer those that chose it; dashed: by fewer than another"
    figure.supxlabel(note, size=6.5)
    return figure


def _mean_by_cell(rows: Sequence[Row]) -> dict[tuple[str, int], float]:
    """Validation value of each (readout, layer), the mean over seeds."""
    cells: dict[tuple[str, int], list[float]] = defaultdict(list)
    for row in rows:
        cells[row["readout"], row["layer"]].append(validation_value(row))
    return {cell: float(np.mean(values)) for cell, values in cells.items()}


def _draw_cells(axes: Axes, rows: Sequence[Row], readouts: Sequence[str], depth: int, scale: Normalize) -> Any:
    """Draw the cells of one system, with a frame and the test score on the layer chosen for each readout."""
    cells = _mean_by_cell(rows)
    grid = np.full((depth, len(readouts)), np.nan)  # (L, R)
    for (readout, layer), value in cells.items():
        grid[layer, readouts.index(readout)] = value
    image = axes.imshow(grid, cmap="cividis", norm=scale, aspect="auto", origin="lower", interpolation="nearest")
    labels = [{"sequence": "seq.", "average": "avg."}.get(name, name) for name in readouts]
    axes.set_xticks(range(len(readouts)), labels)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=13))
    hide_frame(axes)
    for column, readout in enumerate(readouts):
        chosen = [row for row in rows if row["selected"] and row["readout"] == readout]
        counts = Counter(int(row["layer"]) for row in chosen)  # seeds may choose different layers
        for layer, count in counts.items():
            frame = Rectangle((column - 0.47, layer - 0.45), 0.94, 0.9, fill=False, edgecolor=VERMILLION, linewidth=1.4)
            frame.set_linestyle("-" if count == max(counts.values()) else (0, (2, 1)))
            frame.set_gid(f"chosen-{rows[0]['backbone']['kind']}-{readout}-{layer}")
            axes.add_patch(frame)
            of_layer = [row for row in chosen if row["layer"] == layer]
            scores = [row["scores"].get(selection_of(row)["metric"]) for row in of_layer]
            tests = [score["mean"] for score in scores if score is not None and score["mean"] is not None]
            if tests:
                ink = BLACK if scale(cells[readout, layer]) > 0.5 else "white"  # readable on dark cells
                text = decimal(float(np.mean(tests)))
                axes.text(column, layer, text, ha="center", va="center", color=ink, weight="bold")
    return image
