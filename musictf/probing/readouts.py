"""Readouts: which embeddings a probe sees.

Shapes:  n rows   L layers   D embedding   N examples

``class`` is the class token, ``sequence`` the sequence tokens (their mean for clip-level tasks), ``average`` the mean
over time of class and sequence tokens together, the paper's temporal average. On frame-level tasks ``class`` and
``average`` have one value an excerpt, so each token takes that of the excerpt whose centre is nearest: a control.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from musictf.probing.features import TrackFeatures
from musictf.tasks.base import Floats, Task

READOUTS = ("class", "sequence", "average")


@dataclass
class TrackRows:
    """What a probe sees of one track: rows of features, and the row each of its examples reads."""

    rows: Tensor  # (n, L, D)
    index: Tensor  # (N,) row of each example
    times: Floats  # (N,) centre of each example in seconds
    seconds: float


@dataclass
class Split:
    """A split as a probe sees it: rows of all tracks, examples that read them, targets, and the references."""

    rows: Tensor  # (n, L, D)
    index: Tensor  # (N,) row of each example
    targets: Tensor  # (N, ...)
    tracks: list[TrackRows]  # views on ``rows``, for decoding track by track
    references: list[Any]


def track_rows(features: TrackFeatures, readout: str, level: str) -> TrackRows:
    """The rows and examples of one track for a readout and a task's level."""
    by_excerpt = {"class": features.class_token, "average": features.average, "sequence": features.sequence_mean}
    seconds = float(features.seconds)
    if level == "track":
        rows, times = by_excerpt[readout], features.excerpt_times
        return TrackRows(rows, torch.arange(len(rows)), times.numpy(), seconds)
    times = features.times
    if readout == "sequence":
        return TrackRows(features.sequence, torch.arange(len(times)), times.numpy(), seconds)
    centres = features.excerpt_times
    nearest = torch.searchsorted((centres[1:] + centres[:-1]) / 2, times)
    return TrackRows(by_excerpt[readout], nearest, times.numpy(), seconds)


def split(task: Task, features: Iterable[TrackFeatures], references: Sequence[Any], readout: str) -> Split:
    """All tracks of a split for one readout, with their targets."""
    tracks = [track_rows(track, readout, task.level) for track in features]
    targets = []
    for track, reference in zip(tracks, references, strict=True):
        target = task.encode(reference, track.times)
        targets.append(target.expand(len(track.index), *target.shape) if task.level == "track" else target)
    offsets = np.cumsum([0, *(len(track.rows) for track in tracks)])
    rows = torch.cat([track.rows for track in tracks])
    for track, first, last in zip(tracks, offsets[:-1], offsets[1:], strict=True):
        track.rows = rows[first:last]  # a view: the track's own copy is let go
    index = torch.cat([track.index + int(first) for track, first in zip(tracks, offsets[:-1], strict=True)])
    return Split(rows, index, torch.cat(targets), tracks, list(references))
