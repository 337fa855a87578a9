"""One track in one figure: its spectrogram, with annotated and estimated chords and beats on the same time axis.

Conventions: times in seconds from the start of the track; reference above estimate. Chords are coloured by root
along the circle of fifths (related roots have related colours) and always carry their name. A line under an estimate
marks where its root or major-minor quality differs from the reference. An estimated beat is correct within 70 ms of a
beat of the reference.

Shapes:  M mel bands   T frames   P estimated beats   A frames of the activation
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import mir_eval
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from musictf.errors import InputError
from musictf.reporting.figures import BLACK, BLUE, STYLE, VERMILLION, colour_bar, save
from musictf.results.statistics import Floats

if TYPE_CHECKING:
    from musictf.annotations import Beats, Chords

WIDTH_INCHES = 6.9
TOLERANCE_SECONDS = 0.07  # as for beat scores
RANGE_DB = 70.0  # drawn below the loudest point of the span
_HERTZ = (125, 500, 1000, 2000, 4000, 8000)  # labels of the frequency axis
# Place on the circle of fifths; roots with another spelling of the same pitch class have the same place.
_ROOTS = {name: i for i, name in enumerate(["C", "G", "D", "A", "E", "B", "F#", "Db", "Ab", "Eb", "Bb", "F"])}
_SAME_ROOT = {"Gb": "F#", "C#": "Db", "G#": "Ab", "D#": "Eb", "A#": "Bb", "Cb": "B", "B#": "C", "E#": "F", "Fb": "E"}
_QUALITIES = {"maj": "", "min": "m", "maj7": "maj7", "min7": "m7", "7": "7", "hdim7": "ø7", "dim": "°", "aug": "+"}


@dataclass(frozen=True, kw_only=True)
class AnnotatedTrack:
    """Annotations and estimates of a track for its figure; those that are None are not drawn.

    Attributes:
        log_mel: Level in decibels, (M, T).
        times: Centre of each frame in seconds, (T,).
        mel_hz: Centre of each mel band in hertz, (M,); the axis counts bands without it.
        chords: Annotated chords.
        chord_estimates: Estimated chords by the name of their system.
        beats: Annotated beats.
        beat_estimate: Estimated beats in seconds, (P,).
        activation: Probability of a beat per frame, (A,).
        activation_times: Centre of each frame of the activation in seconds, (A,).
    """

    log_mel: npt.NDArray[np.floating]
    times: Floats
    mel_hz: Floats | None = None
    chords: Chords | None = None
    chord_estimates: Mapping[str, Chords] = field(default_factory=dict)
    beats: Beats | None = None
    beat_estimate: Floats | None = None
    activation: Floats | None = None
    activation_times: Floats | None = None


def chords_over_spectrogram(
    log_mel: npt.NDArray[np.floating],
    times: Floats,
    reference: Chords,
    estimates: Mapping[str, Chords],
    out: Path,
    start: float | None = None,
    end: float | None = None,
) -> list[Path]:
    """Draw annotated chords over estimated ones, below a spectrogram (M, T); see `track_figure`."""
    track = AnnotatedTrack(log_mel=log_mel, times=times, chords=reference, chord_estimates=estimates)
    return track_figure(track, out, start, end)


def beats_over_spectrogram(
    log_mel: npt.NDArray[np.floating],
    times: Floats,
    reference: Beats,
    estimate: Floats,
    activation: Floats | None,
    activation_times: Floats | None,
    out: Path,
    start: float | None = None,
    end: float | None = None,
) -> list[Path]:
    """Draw annotated beats over estimated ones (P,) and their activation (A,), below a spectrogram (M, T).

    See `track_figure` and `AnnotatedTrack`.
    """
    track = AnnotatedTrack(
        log_mel=log_mel,
        times=times,
        beats=reference,
        beat_estimate=estimate,
        activation=activation,
        activation_times=activation_times,
    )
    return track_figure(track, out, start, end)


def track_figure(track: AnnotatedTrack, out: Path, start: float | None = None, end: float | None = None) -> list[Path]:
    """Draw the spectrogram, annotations and estimates of a track between two times.

    Args:
        track: The track.
        out: Where to write, without suffix.
        start: Start of the drawn span in seconds; by default that of the spectrogram.
        end: End of the drawn span in seconds; by default that of the spectrogram.

    Returns:
        The files written, PNG and SVG.

    Raises:
        InputError: the span is empty or lies outside the spectrogram.
    """
    first = float(track.times[0]) if start is None else start
    last = float(track.times[-1]) if end is None else end
    if not (first < last and first < track.times[-1] and last > track.times[0]):
        span = f"it lasts from {track.times[0]:g} to {track.times[-1]:g} s"
        raise InputError(f"figure: no spectrogram between {first:g} and {last:g} s; {span}")
    lanes: list[tuple[Callable[[Axes, AnnotatedTrack], None], float]] = []  # and their heights in inches
    if track.chords is not None or track.chord_estimates:
        number = len(track.chord_estimates) + (track.chords is not None)
        lanes.append((_draw_chords, 0.24 * number + 0.08))
    if track.beats is not None or track.beat_estimate is not None:
        lanes.append((_draw_beats, 0.45))
    if track.activation is not None:
        lanes.append((_draw_activation, 0.55))
    heights = [1.5, *(height for _, height in lanes)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, sum(heights) + 0.45), layout="constrained")
        # Lanes stand closer to each other than the panels of other figures.
        figure.get_layout_engine().set(h_pad=0.02, hspace=0.02)  # type: ignore[union-attr, call-arg]
        grid = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        grid[0].set_xlim(first, last)
        draw_spectrogram(grid[0], track.log_mel, track.times, track.mel_hz, (first, last), aspect=15)
        grid[0].tick_params(labelbottom=False)
        grid[0].set_ylabel("mel band (number)" if track.mel_hz is None else "frequency (kHz)")
        for axes, (draw, _) in zip(grid[1:], lanes, strict=True):
            draw(axes, track)
        grid[-1].set_xlabel("time (s)")
        figure.align_ylabels(list(grid))
        return save(figure, out)


def short_chord(label: str) -> str:
    """A Harte label as musicians write it.

    Example:
        >>> [short_chord(label) for label in ("C:maj", "A:min7/b3", "Bb", "F#:hdim7", "G:sus4(b7)", "N")]
        ['C', 'Am7/b3', 'B♭', 'F♯ø7', 'Gsus4(b7)', 'N']
    """
    root, _, rest = label.partition(":")
    if not rest:  # a root alone is a major chord
        root, slash, bass = root.partition("/")
        quality, rest = "maj", ""
    else:
        rest, slash, bass = rest.partition("/")
        quality = rest
    text = _QUALITIES.get(quality, rest)
    return root.replace("b", "♭").replace("#", "♯") + text + slash + bass


def _draw_activation(axes: Axes, track: AnnotatedTrack) -> None:
    if track.activation is not None and track.activation_times is not None:
        axes.fill_between(track.activation_times, track.activation, color=BLUE, alpha=0.25, linewidth=0)
        axes.plot(track.activation_times, track.activation, color=BLUE, linewidth=0.9)
        axes.set_ylim(0, 1.05)
        axes.set_yticks([0, 0.5, 1])
        axes.set_ylabel("beat\n(probability)")


def draw_spectrogram(
    axes: Axes,
    log_mel: npt.NDArray[np.floating],
    times: Floats,
    mel_hz: Floats | None,
    span: tuple[float, float],
    aspect: float,
) -> None:
    """Draw a log-mel with its colour bar.

    Args:
        axes: Where to draw.
        log_mel: Level in decibels, (M, T).
        times: Centre of each frame in seconds, (T,).
        mel_hz: Centre of each mel band in hertz, (M,); the axis counts bands without it.
        span: Start and end in seconds, whose loudest point sets the scale.
        aspect: Length of the colour bar over its width.
    """
    half = (times[1] - times[0]) / 2 if len(times) > 1 else 0.5  # a frame reaches half a step to either side
    inside = (times >= span[0]) & (times <= span[1])
    top = float(log_mel[:, inside].max()) if inside.any() else 0.0
    image = axes.imshow(
        log_mel,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="magma",
        extent=(float(times[0] - half), float(times[-1] + half), -0.5, len(log_mel) - 0.5),
        vmin=top - RANGE_DB,
        vmax=top,
    )
    axes.set_xlim(*span)
    if mel_hz is not None:
        # Bands are evenly spaced in mel, so their number is interpolated at round frequencies.
        hertz = np.array([value for value in _HERTZ if mel_hz[0] <= value <= mel_hz[-1]])
        axes.set_yticks(np.interp(hertz, mel_hz, np.arange(len(log_mel))), [f"{value / 1000:g}" for value in hertz])
    colour_bar(axes.figure, image, axes, "level (dB)", pad=0.01, fraction=0.03, aspect=aspect)


def _draw_chords(axes: Axes, track: AnnotatedTrack) -> None:
    """Draw a row of named bars for the reference and for each estimate."""
    lanes = {} if track.chords is None else {"reference": track.chords}
    lanes |= track.chord_estimates
    left, right = axes.get_xlim()
    inches = WIDTH_INCHES - 1.6  # of the axes, without labels and colour bar
    for position, (name, chords) in enumerate(reversed(lanes.items())):
        for (start, end), label in zip(chords.intervals, chords.labels, strict=True):
            first, last = max(start, left), min(end, right)
            if first < last:
                hatch = "////" if label == "X" else None
                style: Any = {"color": chord_colour(label), "edgecolor": "white", "linewidth": 0.6, "hatch": hatch}
                axes.barh(position, last - first, left=first, height=0.84, **style)
                text, size = _fitting_name(label, (last - first) / (right - left) * inches * 72)
                axes.text(
                    (first + last) / 2, position, text, ha="center", va="center_baseline", size=size, clip_on=True
                )
        if track.chords is not None and name != "reference":
            for start, end in _differences(track.chords, chords):
                axes.hlines(position - 0.43, start, end, color=VERMILLION, linewidth=1.8, gid="differs")
    if track.chords is not None and track.chord_estimates:
        _explain(axes, "underlined:\nmajmin\ndiffers")
    axes.set_ylim(-0.5, len(lanes) - 0.5)
    axes.set_yticks(range(len(lanes)), list(reversed(lanes)))
    _hide_frame(axes)


def _fitting_name(label: str, points: float) -> tuple[str, float]:
    """Name of a chord and font size that fit a width in points: in full, smaller, its root alone, or nothing."""
    name = short_chord(label)
    root = short_chord(label.partition(":")[0].partition("/")[0])
    for text, size in ((name, 6.5), (name, 5.2), (root, 6.5), (root, 5.2)):
        # A letter is about 0.7 em wide, an accidental half of that.
        width = 0.7 * size * (len(text) - 0.5 * sum(text.count(sign) for sign in "♭♯°"))
        if width + 1 < points:
            return text, size
    return "", 5.2


def chord_colour(label: str) -> tuple[float, float, float]:
    """Red, green, blue of a chord: a hue for each root, by fifths; minor chords darker; grey without a root."""
    root = label.partition(":")[0].partition("/")[0]
    root = _SAME_ROOT.get(root, root)
    if root not in _ROOTS:
        return (0.93, 0.93, 0.93)
    quality = label.partition(":")[2]
    lightness = 0.76 if quality.startswith(("min", "dim", "hdim")) else 0.87
    return _oklch(lightness, 0.085, 2 * np.pi * _ROOTS[root] / len(_ROOTS))


def _oklch(lightness: float, chroma: float, hue: float) -> tuple[float, float, float]:
    """Red, green, blue in [0, 1] of a colour whose perceived lightness does not change with its hue.

    References:
        B. Ottosson, "A perceptual color space for image processing", 2020.
    """
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    to_cones = np.array(
        [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
    )
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    # Ottosson's matrices: to cone responses, cubed, to linear sRGB; then the transfer curve of sRGB.
    linear = np.clip(to_linear @ (to_cones @ np.array([lightness, a, b])) ** 3, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return float(encoded[0]), float(encoded[1]), float(encoded[2])


def _differences(reference: Chords, estimate: Chords) -> list[tuple[float, float]]:
    """Spans in seconds in which `mir_eval.chord.majmin` scores two annotations as different."""
    edges = np.unique(np.concatenate([reference.intervals.ravel(), estimate.intervals.ravel()]))
    middles = (edges[:-1] + edges[1:]) / 2
    pairs = [(_label_at(reference, time), _label_at(estimate, time)) for time in middles]
    spans = zip(edges[:-1], edges[1:], pairs, strict=True)
    # 1 is equal, 0 different, and -1 a pair outside major and minor, which is not scored.
    return [
        (float(start), float(end))
        for start, end, (label, estimated) in spans
        if mir_eval.chord.majmin([label], [estimated])[0] == 0
    ]


def _label_at(chords: Chords, time: float) -> str:
    index = int(np.searchsorted(chords.intervals[:, 0], time, side="right")) - 1
    inside = index >= 0 and time < chords.intervals[index, 1]
    return chords.labels[index] if inside else "X"  # mir_eval does not score an unknown chord


def _draw_beats(axes: Axes, track: AnnotatedTrack) -> None:
    lanes = []
    if track.beats is not None:
        lanes.append("reference")
        downbeats = track.beats.downbeats
        axes.vlines(track.beats.times, 1.1, 1.6, color=BLACK, linewidth=0.9)
        if downbeats is not None:
            axes.vlines(downbeats, 1.1, 1.95, color=BLACK, linewidth=1.8)
    if track.beat_estimate is not None:
        lanes.append("estimate")
        # Within the tolerance of an annotated beat, (P,); without an annotation nothing is marked as wrong.
        reference = track.beat_estimate if track.beats is None else track.beats.times
        distances = np.abs(track.beat_estimate[:, None] - reference).min(axis=1, initial=np.inf)
        is_correct = distances <= TOLERANCE_SECONDS
        axes.vlines(track.beat_estimate[is_correct], 0.1, 0.8, color=BLUE, linewidth=1.2)
        axes.vlines(track.beat_estimate[~is_correct], 0.1, 0.8, color=VERMILLION, linewidth=1.2)
        if not is_correct.all():
            _explain(axes, f"×: none in\n{TOLERANCE_SECONDS * 1000:.0f} ms")
        axes.plot(
            track.beat_estimate[~is_correct], np.full((~is_correct).sum(), 0.9), "x", color=VERMILLION, markersize=3
        )
    axes.set_ylim(0, 2)
    axes.set_yticks([1.4 if name == "reference" else 0.45 for name in lanes], lanes)
    axes.set_ylabel("beats")
    _hide_frame(axes)


def _explain(axes: Axes, text: str) -> None:
    """Write the meaning of the marks of a lane to its right, in the space below the colour bar."""
    note = axes.text(1.008, 0.5, text, transform=axes.transAxes, va="center", size=5.5, color=VERMILLION)
    note.set_in_layout(False)  # else the axes would shrink to make room for it


def _hide_frame(axes: Axes) -> None:
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", length=2)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
