"""Curves of the best heads over a passage of a track, below its spectrogram and its annotated events.

Conventions: those of `musictf.reporting.figures`; times in seconds from the start of the track.

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
from musictf.reporting.figures import BLACK, BLUE, GREEN, ORANGE, STYLE, VERMILLION, save
from musictf.reporting.inspection_reader import ATTENTION, BACKBONE, Arrays, Inspection, required
from musictf.reporting.track_figure import WIDTH_INCHES, draw_spectrogram
from musictf.results.names import ATTENTION_CURVES
from musictf.results.rows import validation_value
from musictf.results.statistics import Floats

SECONDS = 12.0  # length of the passage
_FIRST_SECOND = 6.0  # after the introduction, where a track has one
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


def attention_curves(inspection: Inspection, arrays: Arrays, out: Path, title: str = "") -> list[Path]:
    """Draw the best head of each target over some seconds of a track, below its spectrogram and events.

    The best curve is the one whose chosen head has the highest AUC on validation. The spectral flux is the last lane.

    Args:
        inspection: Rows of an inspection.
        arrays: ``times (N,)`` in seconds, ``log_mel (N, F)`` in dB, ``mel_hz (F,)``, ``flux (N,)``,
            ``curve/<target>/<name> (N,)``, and ``event/<target>`` in seconds where it is annotated.
        out: Where to write, without suffix.
        title: Name of the track.

    Returns:
        The files written.

    Raises:
        InputError: an array is missing or does not fit the others.
    """
    required(arrays, _ARRAYS, "attention curves")
    times = arrays["times"]
    first = float(min(_FIRST_SECOND, max(times[0], times[-1] - SECONDS)))
    span = first, float(min(first + SECONDS, times[-1]))
    best = best_curves(inspection, arrays)
    annotated = {target: arrays[f"event/{target}"] for target in _INKS if f"event/{target}" in arrays}
    events = {name: seconds[(seconds >= span[0]) & (seconds <= span[1])] for name, seconds in annotated.items()}
    lanes = []
    for target, name in best.items():
        unit = "change\n(0–1)" if "/change." in name else "attention\n(even = 1)"
        lanes.append((target, arrays[name], curve_label(name), unit))
    # The flux has no target; the events of the first lane are drawn behind it.
    lanes.append((next(iter(best), ""), arrays["flux"], "spectral flux", "flux (dB)"))
    heights = [1.2, *([0.13 * len(events) + 0.05] if events else []), *[0.55] * len(lanes)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, sum(heights) + 0.6), layout="constrained")
        grid = list(figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0])
        mel, mel_hz = arrays["log_mel"].T, arrays["mel_hz"]
        if mel.shape != (len(mel_hz), len(times)):
            raise InputError(f"log_mel: shape {mel.T.shape} for {len(times)} times and {len(mel_hz)} bands")
        draw_spectrogram(grid[0], mel, times, mel_hz, span, aspect=12)
        grid[0].set_ylabel("frequency\n(kHz)")
        if events:
            _draw_events(grid[1], events)
        for axes, (target, values, label, unit) in zip(grid[-len(lanes) :], lanes, strict=True):
            _draw_lane(axes, times, values, span, events.get(target))
            lines = f" (lines: {target.replace('_', ' ')}s)" if target in events else ""
            axes.set_title(label + lines, size=6.5, pad=2)
            axes.set_ylabel(unit)
        grid[-1].set_xlabel("time (s)")
        figure.suptitle(f"{title}: heads that validation chose", x=0.01, ha="left", size=8)
        figure.align_ylabels(grid)
        return save(figure, out)


def curve_label(name: str) -> str:
    """Label of a curve, given the name of its array.

    Raises:
        InputError: the name has another form.

    Example:
        >>> curve_label("curve/chord_change/class_row.l3.h1")
        'chord change · class row, layer 3 head 1'
    """
    match = re.fullmatch(r"curve/([^/]+)/(\w+)\.l(\d+)\.h(\d+)", name)
    if match is None:
        raise InputError(f"array {name!r}: expected curve/TARGET/NAME.lLAYER.hHEAD; inspect again with this version")
    return f"{match[1]} · {match[2]}, layer {match[3]} head {match[4]}".replace("_", " ")


def best_curves(inspection: Inspection, arrays: Arrays) -> dict[str, str]:
    """Target -> name of the array of its best chosen head, by its AUC on validation."""
    best: dict[str, str] = {}
    for task in inspection.tasks(ATTENTION):
        target = task.removeprefix(ATTENTION)
        rows = [
            row for row in inspection.of(task, system=BACKBONE, selected=True) if row["readout"] in ATTENTION_CURVES
        ]
        # Arrays are kept for a few tracks only, and not for every target.
        named = {f"curve/{target}/{row['readout']}.l{row['layer']}.h{row['head']}": row for row in rows}
        values = {name: validation_value(row) for name, row in named.items() if name in arrays}
        if values:
            best[target] = max(values, key=lambda name: values[name])
    return best


def _draw_events(axes: Axes, events: Arrays) -> None:
    """Draw a row of ticks for each target."""
    for index, (target, times) in enumerate(events.items()):
        colour, width = _INKS[target]
        low = len(events) - 1 - index  # the first target on top
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
        # Behind the curve, over the whole height whatever the values.
        axes.vlines(events, 0, 1, transform=axes.get_xaxis_transform(), color=ORANGE, linewidth=0.8, zorder=0)
    inside = (times >= span[0]) & (times <= span[1])
    axes.plot(times[inside], values[inside], color=BLUE, linewidth=0.9)
    axes.margins(x=0, y=0.08)
    axes.yaxis.set_major_locator(MaxNLocator(3))
