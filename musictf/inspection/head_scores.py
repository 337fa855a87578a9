"""Curves of every head scored against events, beside their nulls.

Shapes:  T tracks   U = L * H * C units (block, head, curve)   R draws

A unit's score over a split is the mean over the tracks that have events. Two nulls are drawn for each track: its
events shifted round the track, and their distances shuffled. The same draw moves the events for all units, so the
largest value over units in each draw says what the best of so many heads reaches by chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from musictf.inspection.event_scores import (
    QUANTILES,
    TOLERANCE,
    Labels,
    areas_under_curve,
    labels_among,
    mean_over_tracks,
    peaks,
    peaks_above,
    quick_f_measure,
    token_labels,
)
from musictf.inspection.events import Floats, draws_of, shifted, shuffled
from musictf.tasks.onset import onset_scores

NULLS = {"shifted": shifted, "shuffled": shuffled}


@dataclass
class TrackScores:
    """Scores of all units on one track against one target."""

    area: Floats  # (U,)
    null_areas: dict[str, Floats]  # null -> (R, U)
    quick: Floats  # F-measure at each of `QUANTILES`, (Q, U); for choosing only
    number: int  # of events
    merged: int  # of them, those that share a token with an earlier one


@dataclass
class SplitScores:
    """Scores of all units on the tracks of a split that have events; ``kept`` are their places in the split."""

    tracks: list[TrackScores] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)

    @property
    def areas(self) -> Floats:
        """Area of each track and unit, (T, U)."""
        return np.array([track.area for track in self.tracks])

    def null(self, name: str) -> Floats:
        """Null areas of each track, draw and unit, (T, R, U)."""
        return np.array([track.null_areas[name] for track in self.tracks])

    @property
    def best_quantiles(self) -> Floats:
        """The quantile that gives the highest F-measure over the tracks, for each unit, (U,)."""
        means = np.mean([track.quick for track in self.tracks], axis=0)
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
        curves: Of each track, curves (N, U) and token times in seconds (N,).
        events: Of each track, in seconds; None where it is not annotated.
        names: Of the tracks: a track's draws depend on its name alone.
        draws: Of each null; 0 leaves them out.
        choosing: Also try thresholds on peaks.
        among: Of each track, all events of which those are some; by default they are held against all tokens.
    """
    scores = SplitScores()
    for place, ((values, times), wanted, name) in enumerate(zip(curves, events, names, strict=True)):
        if wanted is not None and len(wanted):
            others = None if among is None else among[place]
            track = score_track(values, times, wanted, name, draws, choosing, others)
            if not np.isnan(track.area).any():  # tokens can tell some events from no event
                scores.tracks.append(track)
                scores.kept.append(place)
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
    """Score all units on one track; see `score_split`. Events outside of the track do not count."""
    period = float(times[-1] - times[0]) / (len(times) - 1)
    events = within(events, times)
    rng = draws_of(name)
    if among is None:
        labels = _labels_and_nulls(events, times, float(times[-1]) + period, draws, rng)
    else:
        labels = _labels_among_and_nulls(events, among, times, draws, rng)
    areas = np.column_stack([areas_under_curve(unit, labels) for unit in values.T])  # (1 + nulls * R, U)
    null_areas = {null: areas[1 + k * draws : 1 + (k + 1) * draws] for k, null in enumerate(NULLS)}
    quick = np.empty((0, values.shape[1]))
    if choosing:
        found = [peaks_above(unit, times, QUANTILES) for unit in values.T]
        quick = np.array([[quick_f_measure(events, each) for each in unit] for unit in found]).T
    merged = len(events) - len(np.unique(np.rint((events - times[0]) / period)))
    return TrackScores(areas[0], null_areas, quick, len(events), merged)


def _labels_and_nulls(events: Floats, times: Floats, seconds: float, draws: int, rng: np.random.Generator) -> Labels:
    """Labels of the events, then of each null's draws, (1 + nulls * R, N)."""
    moved = [move(events, seconds, rng) for move in NULLS.values() for _ in range(draws)]
    return np.array([token_labels(each, times) for each in [events, *moved]])


def _labels_among_and_nulls(
    events: Floats, among: Floats, times: Floats, draws: int, rng: np.random.Generator
) -> Labels:
    """The same where events are some of others: the others stay, and which of them are wanted moves round or about."""
    wanted = np.isin(among, events)
    rolled = [np.roll(wanted, rng.integers(1, max(2, len(wanted)))) for _ in range(draws)]
    permuted = [rng.permutation(wanted) for _ in range(draws)]
    return np.array([labels_among(each, among, times) for each in [wanted, *rolled, *permuted]])


def within(events: Floats, times: Floats) -> Floats:
    """Events (n,) that lie in a track whose tokens have these centres (N,), all in seconds."""
    end = times[-1] + (times[-1] - times[0]) / max(1, len(times) - 1)
    return events[(events >= 0) & (events < end)]


def peak_scores(
    curve: npt.NDArray[np.floating], times: Floats, events: Floats, quantile: float, name: str, draws: int
) -> dict[str, float]:
    """F-measure, precision and recall of a unit's peaks on one track, and what shifted events give by chance."""
    found, events = peaks(curve, times, quantile), within(events, times)
    seconds = float(times[-1]) + float(times[1] - times[0])
    rng = draws_of(name)
    chance = [quick_f_measure(shifted(events, seconds, rng), found, TOLERANCE) for _ in range(draws)]
    return onset_scores(events, found) | {"f_measure_shifted": float(np.mean(chance)) if chance else np.nan}


def family_wise(observed: Floats, null: Floats) -> Floats:
    """How often chance lets the best unit of all exceed each unit's mean: p-values corrected for their number, (U,).

    Args:
        observed: Areas (T, U).
        null: Areas with moved events, (T, R, U).

    References:
        P. H. Westfall, S. S. Young, "Resampling-based multiple testing", 1993: the distribution of the maximum.
    """
    highest = mean_over_tracks(null).max(axis=1)  # (R,)
    highest[np.isnan(highest)] = np.inf  # a draw that defines nothing speaks for nobody
    means = mean_over_tracks(observed)
    exceeded = (highest[:, None] >= means).sum(axis=0)
    return np.where(np.isnan(means), np.nan, (1 + exceeded) / (1 + len(highest)))
