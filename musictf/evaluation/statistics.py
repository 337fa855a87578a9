"""Confidence intervals by bootstrap over tracks, the unit that is drawn independently."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES = 1000
_LEVEL = (2.5, 97.5)


def resample_counts(num_tracks: int, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """How often each track is drawn in each resample, (resamples, num_tracks)."""
    generator = np.random.default_rng([seed, num_tracks])
    return generator.multinomial(num_tracks, np.full(num_tracks, 1 / num_tracks), size=resamples).astype(np.float64)


def interval(values: Floats) -> tuple[float, float]:
    """The middle 95 % of resampled values, NaN left out."""
    low, high = np.nanpercentile(values, _LEVEL)
    return float(low), float(high)


def mean_interval(values: Floats, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float, float]:
    """Mean over tracks and its 95 % interval, tracks with NaN left out.

    Args:
        values: One score a track, (num_tracks,).
        resamples: Bootstrap resamples.
        seed: Of the resampling.
    """
    defined = values[~np.isnan(values)]
    if len(defined) < 2:  # one track says nothing about the spread of tracks
        return (float(defined[0]) if len(defined) else float("nan")), float("nan"), float("nan")
    means = resample_counts(len(defined), resamples, seed) @ defined / len(defined)
    return float(defined.mean()), *interval(means)


def paired_difference(
    first: Floats, second: Floats, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of ``first - second`` over the tracks both define, with its 95 % interval.

    Args:
        first: One score a track, (num_tracks,).
        second: Scores of the same tracks in the same order.
        resamples: Bootstrap resamples.
        seed: Of the resampling.
    """
    return mean_interval(np.asarray(first, float) - np.asarray(second, float), resamples, seed)
