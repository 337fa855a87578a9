"""Tokens as points: where chord roots, keys and beat phases lie in the first, a middle and the last layer.

Conventions: those of `musictf.reporting.figures`. Colours follow the circle of fifths, and each pitch class has its
name at the mean of its tokens, because twelve colours are hard to distinguish. Correlations are those of the rows,
computed from all features and not from the drawn plane.

Shapes:  N tokens
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.patheffects as effects
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from musictf.annotations import PITCH_CLASSES
from musictf.errors import InputError
from musictf.reporting.figures import BLUE, ORANGE, SKY, STYLE, VERMILLION, save
from musictf.reporting.inspection_reader import BACKBONE, MAPS, Arrays, Inspection, required
from musictf.reporting.table_lines import decimal, interval
from musictf.reporting.track_figure import WIDTH_INCHES

MOST_POINTS = 3000  # more would only hide each other
# A cycle in lightness and from blue to yellow, which colour-blind readers can see: Okabe and Ito's and a purple.
_RING = (BLUE, SKY, "#f0e442", ORANGE, VERMILLION, "#5a1a4a")
_PHASES = ("beat", "after", "between", "before")
_TITLES = {
    "chord_root": "chord root",
    "key": "key (tonic of the major key with its signature)",
    "beat_phase": "beat phase",
}
_NOTE = "both views fitted on validation tracks · what is measured is of all features, not of the picture"
_AXES = {"pca": "principal component", "lda": "discriminant"}


def token_map_figure(inspection: Inspection, arrays: Arrays, view: str, out: Path) -> list[Path]:
    """Draw test tokens of three layers: principal components above, discriminants of the classes below.

    Args:
        inspection: Rows of an inspection.
        arrays: ``<view>/pca/<layer> (N, 2)``, ``<view>/lda/<layer> (N, 2)``, ``<view>/names (N,)``.
        view: ``chord_root``, ``key`` or ``beat_phase``.
        out: Where to write, without suffix.

    Returns:
        The files written.

    Raises:
        InputError: an array is missing or does not fit the others.
    """
    layers = sorted(inspection.values("layer", MAPS, system=BACKBONE, readout=view))
    if not layers:
        raise InputError(f"token map: no row of {view}")
    drawn = [layers[index] for index in dict.fromkeys((0, len(layers) // 2, len(layers) - 1))]
    required(arrays, [f"{view}/names", *(f"{view}/{way}/{layer}" for way in _AXES for layer in drawn)], "token maps")
    names = arrays[f"{view}/names"]
    # In random order, so that no class covers the others.
    subset = np.random.default_rng(0).permutation(len(names))[:MOST_POINTS]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, 0.8 + 2 * WIDTH_INCHES / 3.4), layout="constrained")
        grid = figure.subplots(2, len(drawn), squeeze=False)
        for row, way in zip(grid, _AXES, strict=True):
            for axes, layer in zip(row, drawn, strict=True):
                points = arrays[f"{view}/{way}/{layer}"]
                if points.ndim != 2 or len(points) != len(names) or points.shape[1] not in {1, 2}:
                    shape = f"has shape {points.shape} for {len(names)} names"
                    raise InputError(f"token maps: {view}/{way}/{layer} {shape}")
                # Two classes have only one discriminant: the second axis is zero.
                plane = points if points.shape[1] == 2 else np.column_stack([points, np.zeros(len(names))])
                _draw_tokens(axes, plane, names, subset)
                axes.set_title(_panel_title(inspection, view, way, layer), size=6.5)
                axes.set_xlabel(f"{_AXES[way]} 1 (no unit)", labelpad=1)
                axes.set_ylabel(f"{_AXES[way]} 2 (no unit)", labelpad=1)
        tokens = f"{len(names)} test tokens" + (f", {MOST_POINTS} drawn" if len(names) > MOST_POINTS else "")
        figure.suptitle(
            f"Tokens by {_TITLES.get(view, view)}, {inspection.dataset}, {tokens}", x=0.01, ha="left", size=8
        )
        _legend(figure, names)
        return save(figure, out)


def class_colours(names: npt.NDArray[np.str_]) -> dict[str, Any]:
    """Colour of each class on a cyclic map: by fifths for pitch classes, in order of time for beat phases.

    Args:
        names: Class names, (N,).

    Example:
        >>> colours = class_colours(np.array(["C", "G", "F#"]))
        >>> near, far = (sum(abs(colours["C"][k] - colours[name][k]) for k in range(3)) for name in ("G", "F#"))
        >>> bool(near < far)
        True
    """
    classes = sorted(set(names.tolist()))
    if set(classes) <= set(PITCH_CLASSES):
        # Seven semitones are a fifth, and 7 is its own inverse modulo 12.
        place = {name: PITCH_CLASSES.index(name) * 7 % 12 / 12 for name in classes}
    elif set(classes) <= set(_PHASES):
        place = {name: _PHASES.index(name) / len(_PHASES) for name in classes}
    else:
        place = {name: number / len(classes) for number, name in enumerate(classes)}
    cycle = LinearSegmentedColormap.from_list("fifths", [*_RING, _RING[0]])
    return {name: cycle(place[name]) for name in sorted(classes, key=lambda name: place[name])}


def _legend(figure: Figure, names: npt.NDArray[np.str_]) -> None:
    marks = [
        Line2D([], [], color=colour, marker="o", linestyle="", markersize=4, label=name.replace("#", "♯"))
        for name, colour in class_colours(names).items()
    ]
    legend = figure.legend(handles=marks, loc="outside lower center", ncols=12, title=_NOTE, title_fontsize=6)
    legend.set_gid("classes")


def _draw_tokens(
    axes: Axes, points: npt.NDArray[np.floating], names: npt.NDArray[np.str_], subset: npt.NDArray[np.int64]
) -> None:
    """Draw a subset of the points (N, 2), and the name of each pitch class at the mean of all its points."""
    colours = class_colours(names)
    axes.scatter(
        points[subset, 0],
        points[subset, 1],
        s=2.5,
        c=[colours[name] for name in names[subset].tolist()],
        alpha=0.7,
        linewidths=0,
        rasterized=True,  # thousands of vector marks make an SVG slow
    )
    outline = [effects.withStroke(linewidth=1.8, foreground="white")]
    for name in colours if set(colours) <= set(PITCH_CLASSES) else ():
        x, y = points[names == name].mean(axis=0)
        axes.text(
            x,
            y,
            name.replace("#", "♯"),
            ha="center",
            va="center",
            size=7,
            weight="bold",
            path_effects=outline,
            gid=f"class-{name}",
        )
    spread = np.percentile(points, (0.5, 99.5), axis=0)  # a few distant tokens would leave no room for the others
    margin = 0.08 * (spread[1] - spread[0]).clip(1e-6)
    axes.set_xlim(spread[0, 0] - margin[0], spread[1, 0] + margin[0])
    axes.set_ylim(spread[0, 1] - margin[1], spread[1, 1] + margin[1])
    axes.set_xticks([])  # origin and scale of either plane have no meaning
    axes.set_yticks([])


def _panel_title(inspection: Inspection, view: str, way: str, layer: int) -> str:
    """Layer and scores of a panel: the correlation with fifths for PCA, the accuracy for LDA."""
    fields = {"system": BACKBONE, "readout": view, "layer": layer}
    fifths = inspection.score("fifths", MAPS, **fields) if way == "pca" else None
    if fifths is not None:
        high = inspection.score("fifths_chance_high", MAPS, **fields)
        chance = "" if high is None else f"\n95 % of shuffled names below {decimal(high.mean)}"
        return f"layer {layer}: fifths {decimal(fifths.mean)} {interval(fifths)}{chance}"
    accuracy = inspection.score("lda_accuracy", MAPS, **fields)
    if way == "pca" or accuracy is None:
        return f"layer {layer}"
    chance = decimal(inspection.of(MAPS, **fields)[0]["details"]["chance"])
    return f"layer {layer}: LDA accuracy {decimal(accuracy.mean)} {interval(accuracy)}\nguessing {chance}"
