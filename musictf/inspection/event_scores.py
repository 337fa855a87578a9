"""How well a curve over tokens tells where events are: area under the ROC curve, and F-measure of its peaks.

Shapes:  N tokens of a track   R draws of events (the first may be the true ones)   n events

The token nearest to an event is one; tokens within the tolerance of an event are neither one nor none, and all others
are none. Tokens cannot tell apart events that are nearer than they are: such events share a token and count once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from musictf.tasks.beat import peak_times

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int8]

TOLERANCE = 0.05  # seconds, of onsets in `mir_eval.onset`
# Within this time of a peak nothing is higher: as for onsets that are probed.
_PEAK_WINDOW = 0.03
# Shares of a track's tokens above which a peak may stand; validation chooses one.
QUANTILES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
EVENT, NONE, NEITHER = 1, 0, -1
_CELLS = 1 << 20  # draws times tokens that are looked at together


def token_labels(events: Floats, times: Floats, tolerance: float = TOLERANCE) -> Labels:
    """What each token is: ``EVENT``, ``NONE`` or ``NEITHER``, (N,).

    Args:
        events: In seconds, ascending, (n,).
        times: Token centres in seconds, evenly spaced, (N,).
        tolerance: Seconds around an event in which another token is neither.

    Example:
        >>> token_labels(np.array([0.31]), np.arange(6) / 10, tolerance=0.15)
        array([ 0,  0, -1,  1, -1,  0], dtype=int8)
    """
    labels = np.full(len(times), NONE, dtype=np.int8)
    if not len(events):
        return labels
    first, last = np.searchsorted(times, events - tolerance), np.searchsorted(times, events + tolerance, side="right")
    edges = np.zeros(len(times) + 1, dtype=np.int64)
    np.add.at(edges, first, 1)
    np.add.at(edges, last, -1)
    labels[np.cumsum(edges[:-1]) > 0] = NEITHER
    period = (times[-1] - times[0]) / max(1, len(times) - 1)
    inside = events[(events >= times[0] - period / 2) & (events <= times[-1] + period / 2)]
    nearest = np.rint((inside - times[0]) / period).astype(np.int64) if period > 0 else np.zeros(len(inside), int)
    labels[np.clip(nearest, 0, len(times) - 1)] = EVENT
    return labels


def labels_among(is_event: npt.NDArray[np.bool_], among: Floats, times: Floats) -> Labels:
    """What each token is where some of the events ``among`` are wanted: ``EVENT``, another one ``NONE``, else neither.

    Args:
        is_event: Which of them are wanted, (n,).
        among: All of them, in seconds, (n,).
        times: Token centres in seconds, evenly spaced, (N,).
    """
    labels = np.full(len(times), NEITHER, dtype=np.int8)
    period = (times[-1] - times[0]) / max(1, len(times) - 1)
    nearest = np.rint((among - times[0]) / period).astype(np.int64)
    inside = (nearest >= 0) & (nearest < len(times))
    labels[nearest[inside & ~is_event]] = NONE
    labels[nearest[inside & is_event]] = EVENT
    return labels


def areas_under_curve(curve: npt.NDArray[np.floating], labels: Labels) -> Floats:
    """Chance that the curve is higher at an event than where none is, ties counting half, (R,); NaN where undefined.

    Args:
        curve: One value a token, (N,).
        labels: `token_labels` of each draw, (R, N).
    """
    order = np.argsort(curve, kind="stable")
    ranked = curve[order]
    bounds = np.searchsorted(ranked, ranked, side="left"), np.searchsorted(ranked, ranked, side="right")
    size = max(1, _CELLS // max(1, len(curve)))
    parts = [_areas(labels[first : first + size, order], *bounds) for first in range(0, len(labels), size)]
    return np.concatenate(parts)


def _areas(labels: Labels, first: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> Floats:
    """Areas of draws whose labels stand in the order of the curve; ``first`` and ``end`` bound each token's ties."""
    nones = np.zeros((len(labels), labels.shape[1] + 1), dtype=np.int32)
    np.cumsum(labels == NONE, axis=1, out=nones[:, 1:])
    is_event = labels == EVENT
    below = np.where(is_event, nones[:, first] + nones[:, end], 0).sum(axis=1, dtype=np.int64) / 2
    pairs = is_event.sum(axis=1, dtype=np.int64) * nones[:, -1]
    return np.where(pairs > 0, below / np.maximum(pairs, 1), np.nan)


def peaks(curve: npt.NDArray[np.floating], times: Floats, quantile: float, window: float = _PEAK_WINDOW) -> Floats:
    """Times in seconds of local maxima above a quantile of the curve, (n,), refined by a parabola.

    Args:
        curve: One value a token, (N,).
        times: Token centres in seconds, evenly spaced, (N,).
        quantile: What share of the tokens a peak must exceed.
        window: Seconds to either side within which a peak is the highest, at least one token.
    """
    return peaks_above(curve, times, [quantile], window)[0]


def peaks_above(
    curve: npt.NDArray[np.floating], times: Floats, quantiles: Sequence[float], window: float = _PEAK_WINDOW
) -> list[Floats]:
    """`peaks` for several quantiles at once."""
    if len(curve) < 3:
        return [np.empty(0) for _ in quantiles]
    values = np.asarray(curve, dtype=np.float64)
    found = peak_times(values, times, -np.inf, window)
    # A refined time lies between the peak and a neighbour, which is lower; the last bin of a track may be a short one.
    before = (np.searchsorted(times, found, side="right") - 1).clip(0)
    heights = np.maximum(values[before], values[(before + 1).clip(max=len(values) - 1)])
    return [found[heights > threshold] for threshold in np.quantile(values, quantiles)]


def matches(reference: Sequence[float], estimate: Sequence[float], window: float) -> int:
    """Size of the largest matching of two ascending lists within ``window`` seconds, each event used once.

    On a line the greedy matching is a largest one; `mir_eval` finds it by a search in graphs, a hundred times slower.
    """
    number = here = there = 0
    while here < len(reference) and there < len(estimate):
        distance = estimate[there] - reference[here]
        if abs(distance) <= window:
            number, here, there = number + 1, here + 1, there + 1
        elif distance < 0:
            there += 1
        else:
            here += 1
    return number


def quick_f_measure(reference: Floats, estimate: Floats, window: float = TOLERANCE) -> float:
    """F-measure of events, for choosing and for nulls; scores that are told come from `mir_eval`."""
    total = len(reference) + len(estimate)
    return 2 * matches(reference.tolist(), estimate.tolist(), window) / total if total else 0.0


def mean_over_tracks(values: Floats) -> Floats:
    """Mean over the first axis, NaN left out; NaN where there is nothing else."""
    number = (~np.isnan(values)).sum(axis=0)
    return np.where(number > 0, np.nansum(values, axis=0) / np.maximum(number, 1), np.nan)
