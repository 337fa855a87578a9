"""Scores of the online probe during pretraining: a panel a task, a line a layer.

Conventions: the first point of every line is that of the random weights before the first step: the baseline.

Shapes:  S logged steps
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from musictf.reporting.figures import BLUE, COLUMN_INCHES, GREEN, ORANGE, SKY, STYLE, VERMILLION, read_metrics, save
from musictf.results.statistics import Floats

_COLOURS = (SKY, ORANGE, GREEN, BLUE, VERMILLION)
_PANELS = {
    "chord_accuracy": "chords (accuracy of tokens)",
    "beat_ap": "beats (average precision)",
    "track": "tracks (class token)",
}
_TRACK = {"tag_map": "tags (mAP)", "knn_accuracy": "tags by kNN", "retrieval_accuracy": "same track nearest"}
# Names of metrics as the online evaluator logs them.
_LAYER = re.compile(r"online/(\w+)_layer(\d+)")

Series = tuple[Floats, Floats]  # steps and values, (S,) each


def online_curves(metrics_csv: Path, out: Path) -> list[Path]:
    """Draw the values of the online probe over the steps.

    Args:
        metrics_csv: ``metrics.csv`` of a run folder.
        out: Where to write, without suffix.

    Returns:
        The files written, PNG and SVG; none where the run had no online probe.
    """
    panels = _panels(read_metrics(metrics_csv))
    if not panels:
        return []
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN_INCHES, 1.4 * len(panels) + 0.3), layout="constrained")
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (title, lines) in zip(grid, panels.items(), strict=True):
            for index, (label, (steps, values)) in enumerate(lines.items()):
                colour = _COLOURS[index % len(_COLOURS)]
                style = "-" if index < len(_COLOURS) else "--"  # colours repeat in deep models
                axes.plot(steps, values, style, color=colour, linewidth=1.1, marker="o", markersize=2, label=label)
            axes.set_title(title)
            axes.margins(x=0.02, y=0.12)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.yaxis.set_major_locator(MaxNLocator(4))
            # Beside the panel: up to a dozen lines leave no free corner.
            axes.legend(handlelength=1.2, loc="center left", bbox_to_anchor=(1.0, 0.5))
        grid[-1].set_xlabel("step (optimiser updates)")
        return save(figure, out)


def _panels(series: Mapping[str, Series]) -> dict[str, dict[str, Series]]:
    """Lines of each panel by name, by the title of the panel; panels without lines are left out."""
    panels: dict[str, dict[str, Series]] = {title: {} for title in _PANELS.values()}
    layers = {name: match for name in series if (match := _LAYER.fullmatch(name)) and match[1] in _PANELS}
    # By number: as text, layer 10 would come before layer 2.
    for name, match in sorted(layers.items(), key=lambda item: int(item[1][2])):
        panels[_PANELS[match[1]]][f"layer {match[2]}"] = series[name]
    for name, label in _TRACK.items():
        if f"online/{name}" in series:
            panels[_PANELS["track"]][label] = series[f"online/{name}"]
    return {title: lines for title, lines in panels.items() if lines}
