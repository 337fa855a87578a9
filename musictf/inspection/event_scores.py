"""How well a curve over tokens marks events: area under the ROC curve, and F-measure of its peaks.

Shapes:  N tokens of a track   R draws of events (the first may be the true ones)   n events   Q quantiles

The token nearest to an event is a positive. Other tokens within the tolerance of an event are ignored, and all the
rest are negatives. Events nearer to each other than tokens share a token and count once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from musictf.tasks.beat import peak_times

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int8]

TOLERANCE = 0.05  # seconds, as for onsets in `mir_eval.onset`
# A peak is the highest value within this many seconds to either side, as for probed onsets.
_PEAK_WINDOW = 0.03
# A peak must exceed this quantile of the curve over the track; validation chooses one.
QUANTILES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
EVENT, NONE, NEITHER = 1, 0, -1  # positive, negative, ignored
_CELLS = 1 << 20  # draws times tokens held in memory at once


def token_labels(events: Floats, times: Floats, tolerance: float = TOLERANCE) -> Labels:
    """Label of each token: ``EVENT``, ``NONE`` or ``NEITHER``, (N,).

    Args:
        events: Times in seconds, ascending, (n,).
        times: Token centres in seconds, evenly spaced, (N,).
        tolerance: Seconds around an event within which other tokens are ignored.

    Example:
        >>> token_labels(np.array([0.31]), np.arange(6) / 10, tolerance=0.15)
        array([ 0,  0, -1,  1, -1,  0], dtype=int8)
    """
    labels = np.full(len(times), NONE, dtype=np.int8)
    if not len(events):
        return labels
    # Each event opens an interval of ignored tokens at `first` and closes it at `last`; the running sum counts
    # how many are open, so overlapping intervals need no care.
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
    """Label of each token, (N,), where some events are compared with others.

    The token nearest to an event is ``EVENT``, the one nearest to another of ``among`` is ``NONE``, and all other
    tokens are ``NEITHER``.

    Args:
        is_event: Which of ``among`` are the events, (n,).
        among: Times in seconds, (n,).
        times: Token centres in seconds, evenly spaced, (N,).
    """
    labels = np.full(len(times), NEITHER, dtype=np.int8)
    period = (times[-1] - times[0]) / max(1, len(times) - 1)
    nearest = np.rint((among - times[0]) / period).astype(np.int64)
    inside = (nearest >= 0) & (nearest < len(times))
    labels[nearest[inside & ~is_event]] = NONE
    labels[nearest[inside & is_event]] = EVENT  # last: where both share a token, the event counts
    return labels


def areas_under_curve(curve: npt.NDArray[np.floating], labels: Labels) -> Floats:
    """Area under the ROC curve of each draw, (R,): the chance that the curve is higher at an event than elsewhere.

    Ties count half. A draw without events, or without other tokens, is NaN.

    Args:
        curve: One value a token, (N,).
        labels: `token_labels` of each draw, (R, N).
    """
    # The curve is sorted once for all draws: only the labels differ between them.
    order = np.argsort(curve, kind="stable")
    ranked = curve[order]
    # Tokens first[k] to end[k] - 1 have the value of token k.
    first, end = np.searchsorted(ranked, ranked, side="left"), np.searchsorted(ranked, ranked, side="right")
    size = max(1, _CELLS // max(1, len(curve)))
    areas = []
    for block in (labels[start : start + size, order] for start in range(0, len(labels), size)):
        negatives = np.zeros((len(block), block.shape[1] + 1), dtype=np.int32)  # (R, N + 1): how many lie below
        np.cumsum(block == NONE, axis=1, out=negatives[:, 1:])
        is_event = block == EVENT
        # Negatives below the ties plus those up to their end, halved: a tied negative counts half.
        below = np.where(is_event, negatives[:, first] + negatives[:, end], 0).sum(axis=1, dtype=np.int64) / 2
        pairs = is_event.sum(axis=1, dtype=np.int64) * negatives[:, -1]
        areas.append(np.where(pairs > 0, below / np.maximum(pairs, 1), np.nan))
    return np.concatenate(areas)


def peaks(curve: npt.NDArray[np.floating], times: Floats, quantile: float, window: float = _PEAK_WINDOW) -> Floats:
    """Times in seconds of local maxima above a quantile of the curve, (n,), refined by a parabola.

    Args:
        curve: One value a token, (N,).
        times: Token centres in seconds, evenly spaced, (N,).
        quantile: Quantile of the curve that a peak must exceed.
        window: Seconds to either side within which a peak is the highest, at least one token.
    """
    return peaks_above(curve, times, [quantile], window)[0]


def peaks_above(
    curve: npt.NDArray[np.floating], times: Floats, quantiles: Sequence[float], window: float = _PEAK_WINDOW
) -> list[Floats]:
    """Peaks (n,) of a curve (N,) above each of several quantiles (Q,), in seconds; see `peaks`."""
    if len(curve) < 3:
        return [np.empty(0) for _ in quantiles]
    values = np.asarray(curve, dtype=np.float64)
    candidates = peak_times(values, times, -np.inf, window)
    # A refined time lies between the peak and a lower neighbour, so the higher of the two tokens around it is the
    # peak. It is looked up by time because the last bin of a track may be short.
    before = (np.searchsorted(times, candidates, side="right") - 1).clip(0)
    heights = np.maximum(values[before], values[(before + 1).clip(max=len(values) - 1)])
    return [candidates[heights > threshold] for threshold in np.quantile(values, quantiles)]


def matches(reference: Sequence[float], estimate: Sequence[float], window: float) -> int:
    """Size of the largest matching of two ascending lists within ``window`` seconds, each event used once.

    On a line the greedy matching is a largest one. `mir_eval` searches a graph, which is a hundred times slower.
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
    """F-measure of estimated (m,) against reference events (n,) in seconds; 0 without any.

    For choices and null models, which need it very often. Reported scores are those of `mir_eval`.
    """
    total = len(reference) + len(estimate)
    return 2 * matches(reference.tolist(), estimate.tolist(), window) / total if total else 0.0


def mean_over_tracks(values: Floats) -> Floats:
    """Mean over the first axis, (T, ...) -> (...), NaN left out; NaN where all values are."""
    number = (~np.isnan(values)).sum(axis=0)
    # Not `nanmean`, which warns where all values are NaN.
    return np.where(number > 0, np.nansum(values, axis=0) / np.maximum(number, 1), np.nan)
