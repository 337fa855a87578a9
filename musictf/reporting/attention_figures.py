"""Maps of the AUC of every attention head against events, one a target and curve.

Conventions: those of `musictf.reporting.figures`. An AUC of .5 is no relation; it is the middle of the colour scale,
which all panels share. Layers of heads count from 1, heads from 0. Curves of the best heads are drawn by
`musictf.reporting.attention_curve_figure`.

Shapes:  L layers   H heads
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from musictf.errors import InputError
from musictf.reporting.figures import BLACK, COLUMN_INCHES, STYLE, colour_bar, hide_frame, save
from musictf.reporting.inspection_reader import ATTENTION, BACKBONE, Inspection
from musictf.reporting.table_lines import decimal
from musictf.results.names import ATTENTION_CURVES
from musictf.results.rows import Row
from musictf.results.statistics import Floats

_ALPHA = 0.05  # level of significance where the rows do not record it
_NARROWEST = 0.02  # least half-range of the colour scale around .5: a narrower one would colour noise


def attention_map(inspection: Inspection, out: Path) -> list[Path]:
    """Draw the AUC of every head: a row of panels a target, a column a curve.

    The head chosen on validation has a frame, heads significantly above chance have a dot.

    Args:
        inspection: Rows of an inspection.
        out: Where to write, without suffix.

    Returns:
        The files written.

    Raises:
        InputError: no head was scored.
    """
    tasks = [task for task in inspection.tasks(ATTENTION) if inspection.of(task, system=BACKBONE, selected=False)]
    if not tasks:
        raise InputError("attention map: no row of a single head; inspect attention again")
    grids = {(task, curve): head_grid(inspection, task, curve) for task in tasks for curve in ATTENTION_CURVES}
    reach = max(_NARROWEST, *(float(np.nanmax(np.abs(grid - 0.5), initial=0)) for grid in grids.values()))
    depth = max(len(grid) for grid in grids.values())
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN_INCHES, 0.7 + len(tasks) * (0.42 + 0.14 * depth)), layout="constrained")
        panels = figure.subplots(len(tasks), len(ATTENTION_CURVES), squeeze=False, sharex=True, sharey=True)
        for row, task in zip(panels, tasks, strict=True):
            for axes, curve in zip(row, ATTENTION_CURVES, strict=True):
                scale = TwoSlopeNorm(0.5, 0.5 - reach, 0.5 + reach)
                image = _draw_heads(axes, inspection, task, curve, grids[task, curve], scale)
                # Above a panel the AUC of the chosen head and of the baselines, above a column its curve.
                scores = {
                    "chosen": inspection.score("auc", task, system=BACKBONE, readout=curve, selected=True),
                    "random": inspection.score("auc", task, system="random", readout=curve, selected=True),
                    "flux": inspection.score("auc", task, system="flux"),
                }
                lines = [f"{name} {decimal(score.mean)}" for name, score in scores.items() if score is not None]
                axes.text(0, 1.02, "\n".join(lines), transform=axes.transAxes, size=5.5, va="bottom", linespacing=1.1)
                if task == tasks[0]:
                    axes.set_title(curve.replace("_", " "), pad=4 + 6.5 * len(lines))
            row[0].set_ylabel(f"{_short(task).replace(' among ', chr(10) + 'among ')}\nlayer (number)", size=6.5)
        for axes in panels[-1]:
            axes.set_xlabel("head (number)", size=6.5)
        label = "AUC on test (0–1; white: .5, no relation)"
        bar = colour_bar(figure, image, panels.ravel().tolist(), label, fraction=0.05, pad=0.02, aspect=40)
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: decimal(value).rstrip("0")))
        figure.suptitle(f"Heads of {inspection.backbone_name} on {inspection.dataset}", x=0.01, ha="left", size=8)
        alpha = decimal(_alpha(inspection, tasks[0])).rstrip("0")
        note = f"frame: chosen on validation · dot: follows the target, corrected p < {alpha}\n"
        figure.supxlabel(note + "random: heads chosen in the same way · flux: the spectral flux itself", size=6)
        return save(figure, out)


def head_grid(inspection: Inspection, task: str, curve: str) -> Floats:
    """AUC of every head of the backbone, (L, H), NaN where there is no row."""
    rows = _heads(inspection, task, curve)
    if not rows:
        return np.full((1, 1), np.nan)
    grid = np.full((max(row["layer"] for row in rows), 1 + max(row["head"] for row in rows)), np.nan)
    for row in rows:
        value = row["scores"]["auc"]["mean"]  # null where no track defines it
        grid[row["layer"] - 1, row["head"]] = np.nan if value is None else value
    return grid


def _heads(inspection: Inspection, task: str, curve: str) -> list[Row]:
    # Rows of single heads have the head in their readout.
    return [
        row for row in inspection.of(task, system=BACKBONE, selected=False) if row["readout"].startswith(f"{curve}.h")
    ]


def _short(task: str) -> str:
    return task.removeprefix(ATTENTION).replace("_", " ")


def _alpha(inspection: Inspection, task: str) -> float:
    return float((inspection.of(task)[0].get("task_settings") or {}).get("alpha", _ALPHA))


def _draw_heads(axes: Axes, inspection: Inspection, task: str, curve: str, grid: Floats, scale: TwoSlopeNorm) -> Any:
    """Draw the AUC of heads (L, H), with a dot on each that is significant and a frame around the chosen one."""
    extent = (-0.5, grid.shape[1] - 0.5, 0.5, len(grid) + 0.5)  # layer 1 lies around height 1
    image = axes.imshow(grid, cmap="RdBu_r", norm=scale, aspect="auto", origin="lower", extent=extent)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    hide_frame(axes)
    alpha = _alpha(inspection, task)
    for row in _heads(inspection, task, curve):
        if row["details"]["p_corrected"] < alpha:
            name = f"follows-{_short(task)}-{curve}-{row['layer']}.{row['head']}"
            axes.plot(row["head"], row["layer"], "o", color=BLACK, markersize=1.8, gid=name)
    for row in inspection.of(task, system=BACKBONE, selected=True, readout=curve):
        corner = (row["head"] - 0.46, row["layer"] - 0.44)
        frame = Rectangle(corner, 0.92, 0.88, fill=False, edgecolor=BLACK, linewidth=1.3)
        frame.set_gid(f"chosen-{_short(task)}-{curve}")
        axes.add_patch(frame)
    return image
