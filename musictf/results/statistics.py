"""Confidence intervals by bootstrap over tracks, or over groups of tracks where some belong together.

Groups are drawn independently: an album, an artist, a song that was recorded several times. A track without a group is
a group by itself. Where several seeds of a probe are averaged, seeds are drawn as well.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Groups = Sequence[str] | npt.NDArray[np.str_]

RESAMPLES = 1000
_PERCENTILES = (2.5, 97.5)  # the middle 95 %


def resample_counts(groups: Groups, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """How often each track is drawn in each resample, (resamples, num_tracks).

    Args:
        groups: Group of each track; all tracks of a group are drawn together.
        resamples: Number of resamples.
        seed: Of the random draws.
    """
    names, members = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    return _drawn(len(names), resamples, seed)[:, members]


@functools.lru_cache(maxsize=16)
def _drawn(number: int, resamples: int, seed: int) -> Floats:
    """How often each of ``number`` groups is drawn, (resamples, number)."""
    # The number is part of the seed, so that all systems on the same groups get the same draws: they can be paired.
    generator = np.random.default_rng([seed, number])
    return generator.multinomial(number, np.full(number, 1 / number), size=resamples).astype(np.float64)


def interval(values: Floats, value: float | None = None) -> tuple[float, float]:
    """The middle 95 % of resampled values, NaN left out.

    Args:
        values: One a resample, (resamples,).
        value: The value of the whole split, where the score is no mean over tracks: a resample holds tracks twice,
            which such scores reward (average precision does), so the resamples are moved by their mean's distance,
            within [0, 1] where the value is.
    """
    low, high = np.nanpercentile(values, _PERCENTILES)
    if value is None:
        return float(low), float(high)
    # Bias correction: the interval keeps its width and moves.
    shift = value - float(np.nanmean(values))
    edges = (0.0, 1.0) if np.nanmin(values) >= 0 else (-np.inf, np.inf)
    return max(float(low) + shift, edges[0]), min(float(high) + shift, edges[1])


def mean_interval(
    values: Floats, groups: Groups | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """Mean over tracks and its 95 % interval, tracks with NaN left out.

    Args:
        values: One score a track, (num_tracks,), or one a seed and track, (num_seeds, num_tracks): then the mean is
            over both, and both are drawn.
        groups: Group of each track; by default each is its own.
        resamples: Bootstrap resamples.
        seed: Of the resampling.
    """
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    names = np.asarray(range(table.shape[1]) if groups is None else groups, dtype=np.str_)
    defined = ~np.isnan(table).any(axis=0)
    table, names = table[:, defined], names[defined]  # (num_seeds, num_defined), (num_defined,)
    if not table.size:
        return float("nan"), float("nan"), float("nan")
    if len(set(names)) < 2:  # one group says nothing about the spread of groups
        return float(table.mean()), float("nan"), float("nan")
    tracks = resample_counts(names, resamples, seed)  # (resamples, num_defined)
    seeds = _seed_weights(len(table), resamples, seed)  # (resamples, num_seeds)
    # Groups differ in size, so resamples differ in their number of tracks: each is divided by its own.
    means = np.einsum("rs,st,rt->r", seeds, table, tracks / tracks.sum(axis=1, keepdims=True))
    return float(table.mean()), *interval(means)


def mean_over_drawn_seeds(values: Floats) -> Floats:
    """Mean over seeds in each resample, with the seeds drawn as in `mean_interval`.

    Args:
        values: Score of each seed in each resample of the tracks, (num_seeds, resamples).

    Returns:
        One mean a resample, (resamples,).
    """
    means: Floats = np.einsum("rs,sr->r", _seed_weights(*values.shape), values)
    return means


def _seed_weights(num_seeds: int, resamples: int, seed: int = 0) -> Floats:
    """Share of each seed in each resample, (resamples, num_seeds)."""
    generator = np.random.default_rng([seed, 1])
    return generator.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), resamples) / num_seeds


def paired_difference(
    first: Floats, second: Floats, groups: Groups | None = None, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of ``first - second`` over the tracks both define, with its 95 % interval.

    Args:
        first: One score a track, (num_tracks,), or one a seed and track, (num_seeds, num_tracks).
        second: Scores of the same tracks in the same order.
        groups: Group of each track; by default each is its own.
        resamples: Bootstrap resamples.
        seed: Of the resampling.
    """
    return mean_interval(np.asarray(first, float) - np.asarray(second, float), groups, resamples, seed)
