"""A passage of a track as the best heads hear it: their curves under the spectrogram, with the events themselves.

Conventions: those of `musictf.report.figures`; times in seconds from the start of the track.

Shapes:  N tokens   F mel bands
"""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from musictf.errors import InputError
from musictf.report.figures import BLACK, BLUE, GREEN, ORANGE, STYLE, VERMILLION, save
from musictf.report.inspection_rows import ATTENTION, LEAD, Arrays, Inspection, required
from musictf.report.tracks import WIDTH_INCHES
from musictf.results.names import ATTENTION_CURVES
from musictf.results.rows import validation_value
from musictf.results.statistics import Floats

SECONDS = 12.0  # of the passage that is shown
_FIRST_SECOND = 6.0
_RANGE_DB = 70.0
_HERTZ = (125, 500, 1000, 2000, 4000, 8000)
# Ticks of each target: colour, width.
_INKS = {
    "onset": (BLUE, 0.8),
    "librosa_onset": (BLUE, 0.8),
    "beat": (BLACK, 1.0),
    "downbeat": (VERMILLION, 1.6),
    "chord_change": (GREEN, 1.6),
}
_ARRAYS = ("times", "log_mel", "mel_hz", "flux")
Span = tuple[float, float]


def attention_curves(found: Inspection, arrays: Arrays, out: Path, title: str = "") -> list[Path]:
    """The best head of each target over some seconds of a track, under its spectrogram, with the events themselves.

    Best is the curve whose chosen head has the highest AUC on validation; the spectral flux stands below.

    Args:
        found: Rows of an inspection.
        arrays: ``times (N,)`` in seconds, ``log_mel (N, F)`` in dB, ``mel_hz (F,)``, ``flux (N,)``,
            ``curve/<target>/<name> (N,)``, and ``event/<target>`` in seconds where they are known.
        out: Where to write, without suffix.
        title: Name of the track.

    Returns:
        The files written.

    Raises:
        InputError: an array is missing.
    """
    required(arrays, _ARRAYS, "attention curves")
    times = arrays["times"]
    first = float(min(_FIRST_SECOND, max(times[0], times[-1] - SECONDS)))
    span = first, float(min(first + SECONDS, times[-1]))
    shown = best_curves(found, arrays)
    events = {target: _within(arrays[f"event/{target}"], span) for target in _INKS if f"event/{target}" in arrays}
    lanes = [(target, arrays[name], curve_label(name), _unit(name)) for target, name in shown.items()]
    lanes.append((next(iter(shown), ""), arrays["flux"], "spectral flux", "flux (dB)"))
    heights = [1.2, *([0.13 * len(events) + 0.05] if events else []), *[0.55] * len(lanes)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, sum(heights) + 0.6), layout="constrained")
        grid = list(figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0])
        _draw_mel(grid[0], arrays, span)
        if events:
            _draw_events(grid[1], events)
        for axes, (target, values, label, unit) in zip(grid[-len(lanes) :], lanes, strict=True):
            _draw_lane(axes, times, values, span, events.get(target))
            axes.set_title(_named(label, target, events), size=6.5, pad=2)
            axes.set_ylabel(unit)
        grid[0].set_xlim(*span)
        grid[-1].set_xlabel("time (s)")
        figure.suptitle(f"{title}: heads that validation chose", x=0.01, ha="left", size=8)
        figure.align_ylabels(grid)
        return save(figure, out)


def curve_label(name: str) -> str:
    """Name of a curve's array as readers see it.

    Example:
        >>> curve_label("curve/chord_change/class_row.l3.h1")
        'chord change · class row, layer 3 head 1'
    """
    match = re.fullmatch(r"curve/([^/]+)/(\w+)\.l(\d+)\.h(\d+)", name)
    if match is None:
        raise InputError(f"array {name!r}: expected curve/TARGET/NAME.lLAYER.hHEAD; inspect again with this version")
    return f"{match[1]} · {match[2]}, layer {match[3]} head {match[4]}".replace("_", " ")


def best_curves(found: Inspection, arrays: Arrays) -> dict[str, str]:
    """Name of the array of the best chosen head of each target, by its AUC on validation."""
    shown: dict[str, str] = {}
    for task in found.tasks(ATTENTION):
        target = task.removeprefix(ATTENTION)
        rows = [row for row in found.of(task, system=LEAD, selected=True) if row["readout"] in ATTENTION_CURVES]
        named = {f"curve/{target}/{row['readout']}.l{row['layer']}.h{row['head']}": row for row in rows}
        values = {name: validation_value(row) for name, row in named.items() if name in arrays}
        if values:
            shown[target] = max(values, key=lambda name: values[name])
    return shown


def _within(times: Floats, span: Span) -> Floats:
    return times[(times >= span[0]) & (times <= span[1])]


def _named(label: str, target: str, events: Arrays) -> str:
    return f"{label} (lines: {target.replace('_', ' ')}s)" if target in events else label


def _unit(name: str) -> str:
    return "change\n(0–1)" if "/change." in name else "attention\n(even = 1)"


def _draw_mel(axes: Axes, arrays: Arrays, span: Span) -> None:
    times, mel, hertz = arrays["times"], arrays["log_mel"].T, arrays["mel_hz"]
    if mel.shape != (len(hertz), len(times)):
        raise InputError(f"log_mel: shape {mel.T.shape} for {len(times)} times and {len(hertz)} bands")
    half = (times[1] - times[0]) / 2
    top = float(mel[:, (times >= span[0]) & (times <= span[1])].max())
    extent = (float(times[0] - half), float(times[-1] + half), -0.5, len(mel) - 0.5)
    image = axes.imshow(
        mel,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="magma",
        extent=extent,
        vmin=top - _RANGE_DB,
        vmax=top,
    )
    ticks = np.array([value for value in _HERTZ if hertz[0] <= value <= hertz[-1]])
    axes.set_yticks(np.interp(ticks, hertz, np.arange(len(mel))), [f"{value / 1000:g}" for value in ticks])
    axes.set_ylabel("frequency\n(kHz)")
    assert axes.figure is not None
    bar = axes.figure.colorbar(image, ax=axes, pad=0.01, fraction=0.03, aspect=12)
    bar.set_label("level (dB)")
    bar.outline.set_visible(False)


def _draw_events(axes: Axes, events: Arrays) -> None:
    """A line of ticks a target."""
    for place, (target, times) in enumerate(events.items()):
        colour, width = _INKS[target]
        low = len(events) - 1 - place
        axes.vlines(times, low + 0.1, low + 0.9, color=colour, linewidth=width, gid=f"events-{target}")
    axes.set_ylim(0, len(events))
    names = [target.replace("_", " ") for target in reversed(list(events))]
    axes.set_yticks(np.arange(len(events)) + 0.5, names, size=6)
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def _draw_lane(axes: Axes, times: Floats, values: Floats, span: Span, events: Floats | None) -> None:
    if values.shape != times.shape:
        raise InputError(f"attention curves: a curve of shape {values.shape} for {len(times)} times")
    if events is not None:
        axes.vlines(events, 0, 1, transform=axes.get_xaxis_transform(), color=ORANGE, linewidth=0.8, zorder=0)
    inside = (times >= span[0]) & (times <= span[1])
    axes.plot(times[inside], values[inside], color=BLUE, linewidth=0.9)
    axes.margins(x=0, y=0.08)
    axes.yaxis.set_major_locator(MaxNLocator(3))
