"""Figures of layers: their self-similarity and that of musical dimensions, its profile, and variance by position.

Conventions: those of `musictf.reporting.figures`. Layer 0 is the projected input. Bands are 95 % intervals over tracks.

Shapes:  S bins of a track   L layers
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from musictf.errors import InputError
from musictf.reporting.figures import (
    BLACK,
    BLUE,
    COLUMN_INCHES,
    GREEN,
    ORANGE,
    SKY,
    STYLE,
    VERMILLION,
    colour_bar,
    finish_grid,
    save,
)
from musictf.reporting.inspection_reader import (
    BACKBONE,
    DIMENSION_MADE_OF,
    POSITION,
    PROFILE,
    Arrays,
    Inspection,
    required,
)
from musictf.reporting.track_figure import WIDTH_INCHES
from musictf.results.statistics import Floats

_COLUMNS = 7  # matrices side by side
_UNKNOWN = "0.8"  # grey of bins in which a dimension is unknown
# Line of each system in a profile: colour and dashes, so that it can be read without colour.
_LINES: dict[str, tuple[str, Any]] = {
    BACKBONE: (BLUE, "-"),
    "random": (ORANGE, (0, (4, 2))),
    "silence": ("0.45", (0, (1, 1.5))),
    "noise": (VERMILLION, (0, (3, 1, 1, 1))),
}
# Mark of each classical feature in a profile: it has one layer only, so no line.
_MARKS = {"mel": (GREEN, "^"), "mfcc": (BLACK, "v"), "chroma": (VERMILLION, "D")}
_SHARES = {"position": (BLUE, "position"), "excerpt": (SKY, "excerpt"), "content": ("0.85", "both together")}
_MEASURES = {
    "rank_correlation_above_shifted": "rank correlation\nabove shifted",
    "cka_above_shifted": "CKA\nabove shifted",
}


def similarity_panel(arrays: Arrays, out: Path, title: str = "") -> list[Path]:
    """Draw the self-similarity of layers above that of musical dimensions, on one time axis.

    Args:
        arrays: ``bin_times (S,)`` in seconds, ``ssm/<layer> (S, S)``, ``dimension/<name> (S, S)`` with NaN where
            unknown.
        out: Where to write, without suffix.
        title: Name of the track.

    Returns:
        The files written.

    Raises:
        InputError: an array is missing, or a matrix does not fit its times.
    """
    required(arrays, ("bin_times",), "self-similarity")
    layers = sorted((name for name in arrays if name.startswith("ssm/")), key=lambda name: int(name.split("/")[1]))
    if not layers:
        raise InputError("self-similarity: holds no ssm/LAYER; inspect again with this version")
    # Of deep models some layers, evenly spaced, the first and the last included.
    drawn = np.unique(np.linspace(0, len(layers) - 1, min(_COLUMNS, len(layers))).round().astype(int))
    dimensions = [name for name in arrays if name.startswith("dimension/")][:_COLUMNS]
    rows = [[layers[index] for index in drawn], *([dimensions] if dimensions else [])]
    columns = max(map(len, rows))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, len(rows) * WIDTH_INCHES / columns + 0.6), layout="constrained")
        grid = figure.subplots(len(rows), columns, squeeze=False, sharex=True, sharey=True)
        for axes_of_row, names in zip(grid, rows, strict=True):
            for axes, name in zip(axes_of_row, names, strict=False):
                image = _draw_matrix(axes, arrays["bin_times"], arrays[name], name)
            for axes in axes_of_row[len(names) :]:
                axes.set_axis_off()
            axes_of_row[0].set_ylabel("time (s)")
        for column in range(columns):
            lowest = max(row for row in range(len(rows)) if column < len(rows[row]))
            grid[lowest, column].set_xlabel("time (s)")
            grid[lowest, column].xaxis.set_tick_params(labelbottom=True)
        panels = grid.ravel().tolist()
        bar = colour_bar(figure, image, panels, "", fraction=0.02, pad=0.01, aspect=40, ticks=[0, 1])
        bar.ax.set_yticklabels(["1st", "99th"])
        bar.set_label("similarity (percentile of each matrix; grey: unknown)", labelpad=2)
        part = "" if len(drawn) == len(layers) else f" ({len(drawn)} of {len(layers)} layers)"
        figure.suptitle(
            f"{title}: self-similarity of layers{part} and of musical dimensions", x=0.01, ha="left", size=8
        )
        return save(figure, out)


def profile_figure(inspection: Inspection, out: Path, score: str = "rank_correlation_above_shifted") -> list[Path]:
    """Draw the similarity profile: a panel a dimension, a line a system, marks at the side for classical features.

    Args:
        inspection: Rows of an inspection.
        out: Where to write, without suffix.
        score: One of the scores of ``ssm_profile``.

    Returns:
        The files written.

    Raises:
        InputError: no row has the score.
    """
    dimensions = inspection.values("readout", PROFILE, system=BACKBONE)
    if not any(score in row["scores"] for row in inspection.of(PROFILE)):
        raise InputError(f"profile: no row of {PROFILE} has {score}")
    columns = 2
    rows = math.ceil(len(dimensions) / columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN_INCHES, 0.85 + 1.05 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes, dimension in zip(grid.flat, dimensions, strict=False):
            _draw_profile(axes, inspection, dimension, score)
        finish_grid(grid, len(dimensions), "layer (number)")
        for axes in grid[:, 0]:
            axes.set_ylabel(_MEASURES.get(score, score.replace("_", " ")))
        figure.suptitle(f"Self-similarity of layers, {inspection.dataset}", x=0.01, ha="left", size=8)
        _legend(figure, grid)
        return save(figure, out)


def position_figure(inspection: Inspection, out: Path) -> list[Path]:
    """Draw the shares of the variance of tokens in each layer, a panel an input; black: positions, random weights.

    Args:
        inspection: Rows of an inspection.
        out: Where to write, without suffix.

    Returns:
        The files written.

    Raises:
        InputError: there are no such rows.
    """
    inputs = inspection.values("readout", POSITION, system=BACKBONE)
    if not inputs:
        raise InputError("position: no rows; inspect with parts=[position]")
    columns = min(3, len(inputs))
    rows = math.ceil(len(inputs) / columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN_INCHES, 0.75 + 1.0 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes, name in zip(grid.flat, inputs, strict=False):
            _draw_shares(axes, inspection, name)
        for axes in grid.flat[len(inputs) :]:
            axes.set_axis_off()
        for axes in grid[-1]:
            axes.set_xlabel("layer (number)")
        for axes in grid[:, 0]:
            axes.set_ylabel("share of\nvariance (0–1)")
        figure.suptitle("What tokens vary with, by input", x=0.01, ha="left", size=8)
        _legend(figure, grid)
        return save(figure, out)


def _draw_matrix(axes: Axes, times: Floats, matrix: npt.NDArray[np.floating], name: str) -> Any:
    """Draw a matrix (S, S) between its 1st and 99th percentiles, without the diagonal; unknown bins stay grey."""
    if matrix.shape != (len(times), len(times)):
        raise InputError(f"{name}: a matrix of shape {matrix.shape} for {len(times)} bins")
    half = (times[1] - times[0]) / 2  # a bin reaches half a step to either side of its centre
    span = float(times[0] - half), float(times[-1] + half)
    # The diagonal is 1 and a few pairs are far from the rest: both would use up the colour scale.
    rest = matrix[~np.eye(len(matrix), dtype=bool) & ~np.isnan(matrix)]
    low, high = np.percentile(rest, (1, 99)) if rest.size else (0.0, 1.0)
    shares = (matrix - low) / max(float(high - low), 1e-9)
    axes.set_facecolor(_UNKNOWN)
    image = axes.imshow(
        shares, origin="lower", cmap="cividis", vmin=0, vmax=1, extent=(*span, *span), interpolation="antialiased"
    )
    kind, _, rest_of_name = name.partition("/")
    axes.set_title(f"layer {rest_of_name}" if kind == "ssm" else rest_of_name, size=7)
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return image


def _draw_profile(axes: Axes, inspection: Inspection, dimension: str, score: str) -> None:
    """Draw the lines, marks and chosen layer of one dimension."""
    for system, (colour, dashes) in _LINES.items():
        layers = sorted(inspection.values("layer", PROFILE, system=system, readout=dimension))
        fields = {"system": system, "readout": dimension}
        scores = [inspection.score(score, PROFILE, layer=layer, **fields) for layer in layers]
        if layers:
            table = np.array([(math.nan,) * 3 if s is None else (s.mean, s.low, s.high) for s in scores])  # (L, 3)
            axes.fill_between(layers, table[:, 1], table[:, 2], color=colour, alpha=0.18, linewidth=0)
            marker = "o" if len(layers) == 1 else ""  # a line of one point is invisible
            line: Any = {"color": colour, "linestyle": dashes, "linewidth": 1.1, "marker": marker, "markersize": 2}
            axes.plot(layers, table[:, 0], label=system, **line)
    last = max(inspection.values("layer", PROFILE))
    for index, (system, (colour, marker)) in enumerate(_MARKS.items()):
        value = inspection.score(score, PROFILE, system=system, readout=dimension)
        # A dimension that is the feature itself correlates with it fully.
        if value is not None and DIMENSION_MADE_OF.get(system) != dimension:
            errors = [[value.mean - value.low], [value.high - value.mean]]
            mark: Any = {"color": colour, "marker": marker, "markersize": 3, "linestyle": "none", "elinewidth": 0.6}
            axes.errorbar([last + 0.7 + 0.45 * index], [value.mean], errors, label=system, **mark)
    for row in inspection.of(PROFILE, system=BACKBONE, readout=dimension, selected=True):
        chosen = row["scores"][score]["mean"]
        if chosen is not None:
            ring: Any = {"markersize": 4.5, "markerfacecolor": "none", "markeredgecolor": BLACK, "markeredgewidth": 0.8}
            label = "chosen on validation"
            axes.plot(row["layer"], chosen, "o", linestyle="none", label=label, gid=f"chosen-{dimension}", **ring)
    axes.axhline(0, color=BLACK, linewidth=0.5)
    axes.set_title(dimension)
    axes.set_xticks(range(0, last + 1, 1 + last // 8))  # of layers only: marks at the side have no layer
    axes.yaxis.set_major_locator(MaxNLocator(4))


def _draw_shares(axes: Axes, inspection: Inspection, name: str) -> None:
    """Draw a bar for each layer, hatched where the tokens do not vary, because shares are undefined there."""
    layers = sorted(inspection.values("layer", POSITION, system=BACKBONE, readout=name))
    table = np.array([_shares(inspection, BACKBONE, name, layer) for layer in layers])  # (L, 3)
    foot = np.zeros(len(layers))  # of the next part of each bar
    for values, (colour, label) in zip(table.T, _SHARES.values(), strict=True):
        axes.bar(layers, np.nan_to_num(values), width=0.9, bottom=foot, color=colour, label=label)
        foot += np.nan_to_num(values)
    for layer in np.asarray(layers)[np.isnan(table).any(axis=1)]:
        axes.bar(
            layer, 1, width=0.9, facecolor="white", edgecolor="0.6", hatch="////", linewidth=0, label="no variance"
        )
    if inspection.of(POSITION, system="random"):
        random = [_shares(inspection, "random", name, layer)[0] for layer in layers]
        left, right = np.asarray(layers) - 0.45, np.asarray(layers) + 0.45
        axes.hlines(random, left, right, color=BLACK, linewidth=1.1, label="position, random weights")
    axes.set_title(name.replace("_", " "))
    axes.set_ylim(0, 1)
    axes.set_xlim(min(layers) - 0.5, max(layers) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.set_yticks([0, 0.5, 1], ["0", ".5", "1"])


def _shares(inspection: Inspection, system: str, name: str, layer: int) -> list[float]:
    scores = [
        inspection.score(f"{share}_share", POSITION, system=system, readout=name, layer=layer) for share in _SHARES
    ]
    return [math.nan if score is None else score.mean for score in scores]


def _legend(figure: Figure, grid: Any) -> None:
    """Add one legend for all panels; a label that several panels have stands once."""
    handles: dict[str, Any] = {}
    for axes in grid.flat:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower left", ncols=3, handlelength=1.8, fontsize=6
    )
