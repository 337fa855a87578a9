"""Curves of every head scored against events, beside their null models.

Shapes:  T tracks   N tokens of a track   U = L * H * C units (block, head, curve)   R draws   Q quantiles   n events

A unit's score over a split is the mean over the tracks that have events. Two null models are drawn for each track:
events shifted round the track, and gaps between events shuffled. A draw moves the events for all units alike, so the
largest value over units in each draw is the level that the best of so many heads reaches by chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from musictf.inspection.event_scores import (
    QUANTILES,
    TOLERANCE,
    areas_under_curve,
    labels_among,
    mean_over_tracks,
    peaks,
    peaks_above,
    quick_f_measure,
    token_labels,
)
from musictf.inspection.events import Floats, shifted, shuffled, track_generator
from musictf.tasks.onset import onset_scores

NULLS = {"shifted": shifted, "shuffled": shuffled}


@dataclass
class TrackScores:
    """Scores of all units on one track against one target.

    Attributes:
        area: Area under the ROC curve, (U,).
        null_areas: The same for each draw of a null model, null -> (R, U).
        quick: F-measure of the peaks above each of `QUANTILES`, (Q, U); for choosing only.
        number: Number of events.
        merged: How many of them share a token with an earlier one.
    """

    area: Floats
    null_areas: dict[str, Floats]
    quick: Floats
    number: int
    merged: int


@dataclass
class SplitScores:
    """Scores of all units on the tracks of a split that have events, and the indices of these tracks in the split."""

    tracks: list[TrackScores] = field(default_factory=list)
    track_indices: list[int] = field(default_factory=list)

    @property
    def areas(self) -> Floats:
        """Area of each track and unit, (T, U)."""
        return np.array([track.area for track in self.tracks])

    def null(self, name: str) -> Floats:
        """Areas of each track, draw and unit under a null model, (T, R, U)."""
        return np.array([track.null_areas[name] for track in self.tracks])

    @property
    def best_quantiles(self) -> Floats:
        """The quantile that gives each unit its highest mean F-measure over the tracks, (U,)."""
        means = np.mean([track.quick for track in self.tracks], axis=0)  # (Q, U)
        return np.asarray(QUANTILES)[means.argmax(axis=0)]


def score_split(
    curves: Iterable[tuple[npt.NDArray[np.floating], Floats]],
    events: Sequence[Floats | None],
    names: Sequence[str],
    draws: int,
    choosing: bool = False,
    among: Sequence[Floats | None] | None = None,
) -> SplitScores:
    """Score all units of a split against one target.

    Args:
        curves: Curves (N, U) and token times in seconds (N,) of each track.
        events: Times in seconds of each track, (n,); None where it is not annotated.
        names: Track ids: the draws of a track depend on its id alone.
        draws: Number of draws of each null model; 0 leaves them out.
        choosing: Whether to score the peaks above each of `QUANTILES` too.
        among: Times of all events of which ``events`` is a part, for each track; by default events are compared with
            all other tokens.

    Returns:
        Scores of the tracks on which some token marks an event and another marks none.
    """
    scores = SplitScores()
    for index, ((values, times), track_events, name) in enumerate(zip(curves, events, names, strict=True)):
        if track_events is not None and len(track_events):
            others = None if among is None else among[index]
            track = score_track(values, times, track_events, name, draws, choosing, others)
            if not np.isnan(track.area).any():
                scores.tracks.append(track)
                scores.track_indices.append(index)
    return scores


def score_track(
    values: npt.NDArray[np.floating],
    times: Floats,
    events: Floats,
    name: str,
    draws: int,
    choosing: bool = False,
    among: Floats | None = None,
) -> TrackScores:
    """Score all units on one track; see `score_split`.

    Args:
        values: Curves, (N, U).
        times: Token centres in seconds, (N,).
        events: Times in seconds, (n,); those outside the track do not count.
        name: Track id.
        draws: Number of draws of each null model.
        choosing: Whether to score peaks too.
        among: Times in seconds of all events of which ``events`` is a part.
    """
    period = float(times[-1] - times[0]) / (len(times) - 1)
    events = within(events, times)
    rng = track_generator(name)
    if among is None:
        seconds = float(times[-1]) + period
        moved = [null(events, seconds, rng) for null in NULLS.values() for _ in range(draws)]
        labels = np.array([token_labels(drawn, times) for drawn in [events, *moved]])
    else:
        # All events stay where they are. Which of them count is moved round (shifted) or permuted (shuffled).
        is_event = np.isin(among, events)
        rolled = [np.roll(is_event, rng.integers(1, max(2, len(is_event)))) for _ in range(draws)]
        permuted = [rng.permutation(is_event) for _ in range(draws)]
        labels = np.array([labels_among(drawn, among, times) for drawn in [is_event, *rolled, *permuted]])
    # Rows of labels: the true events, then the draws of each null model in turn, (1 + nulls * R, N).
    areas = np.column_stack([areas_under_curve(unit, labels) for unit in values.T])  # (1 + nulls * R, U)
    null_areas = {null: areas[1 + k * draws : 1 + (k + 1) * draws] for k, null in enumerate(NULLS)}
    quick = np.empty((0, values.shape[1]))
    if choosing:
        estimates = [peaks_above(unit, times, QUANTILES) for unit in values.T]
        quick = np.array([[quick_f_measure(events, estimate) for estimate in unit] for unit in estimates]).T  # (Q, U)
    merged = len(events) - len(np.unique(np.rint((events - times[0]) / period)))
    return TrackScores(areas[0], null_areas, quick, len(events), merged)


def within(events: Floats, times: Floats) -> Floats:
    """Events (n,) that lie in a track whose tokens have these centres (N,), all in seconds."""
    end = times[-1] + (times[-1] - times[0]) / max(1, len(times) - 1)
    return events[(events >= 0) & (events < end)]


def peak_scores(
    curve: npt.NDArray[np.floating], times: Floats, events: Floats, quantile: float, name: str, draws: int
) -> dict[str, float]:
    """Scores of the peaks of one unit on one track.

    Args:
        curve: One value a token, (N,).
        times: Token centres in seconds, (N,).
        events: Times in seconds, (n,).
        quantile: Quantile of the curve that a peak must exceed.
        name: Track id.
        draws: Number of shifted sets of events.

    Returns:
        F-measure, precision and recall, and ``f_measure_shifted``: the mean F-measure against shifted events.
    """
    estimate, events = peaks(curve, times, quantile), within(events, times)
    seconds = float(times[-1]) + float(times[1] - times[0])
    rng = track_generator(name)
    chance = [quick_f_measure(shifted(events, seconds, rng), estimate, TOLERANCE) for _ in range(draws)]
    return onset_scores(events, estimate) | {"f_measure_shifted": float(np.mean(chance)) if chance else np.nan}


def family_wise(observed: Floats, null: Floats) -> Floats:
    """p-values of all units, corrected for their number, (U,): how often the best unit of a draw reaches each mean.

    Args:
        observed: Areas, (T, U).
        null: Areas with moved events, (T, R, U).

    References:
        P. H. Westfall, S. S. Young, "Resampling-based multiple testing", 1993: the distribution of the maximum.
    """
    highest = mean_over_tracks(null).max(axis=1)  # (R,)
    highest[np.isnan(highest)] = np.inf  # a draw without a defined area counts against every unit
    means = mean_over_tracks(observed)
    exceeded = (highest[:, None] >= means).sum(axis=0)
    # The observed events count as one more draw, so no p-value is 0.
    return np.where(np.isnan(means), np.nan, (1 + exceeded) / (1 + len(highest)))
