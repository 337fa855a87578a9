"""Readouts: which embeddings a probe reads.

``class``     the class token
``sequence``  the sequence tokens; their mean for tasks of level ``track``
``average``   mean over time of class and sequence tokens together, the paper's temporal average

On tasks of level ``frame``, ``class`` and ``average`` have one value an excerpt; each token takes that of the excerpt
whose centre is nearest. They are controls there.

Shapes:  n rows of features   L layers   D embedding   N examples (tokens or excerpts)
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from musictf.features.extract import TrackFeatures
from musictf.files import cache_folder
from musictf.tasks.base import Floats, Task


@dataclass
class TrackRows:
    """Features of one track for each readout, and the row that each of its examples reads."""

    rows: dict[str, Tensor]  # each (n, L, D)
    index: dict[str, Tensor]  # each (N,)
    times: Floats  # (N,) centre of each example in seconds
    seconds: float


@dataclass
class Split:
    """Features of a split. Where heads are trained on it, rows, indices and targets of all tracks are joined."""

    tracks: list[TrackRows]
    references: list[Any]
    rows: dict[str, Tensor] = field(default_factory=dict)  # each (n, L, D)
    index: dict[str, Tensor] = field(default_factory=dict)  # each (N,) row of an example
    targets: Tensor = field(default_factory=lambda: torch.empty(0))  # (N, ...)


def track_rows(features: TrackFeatures, readouts: Sequence[str], level: str) -> TrackRows:
    """Rows (n, L, D) and example indices (N,) of one track for some readouts and a task's level."""
    by_excerpt = {"class": features.class_token, "average": features.average, "sequence": features.sequence_mean}
    rows = {name: by_excerpt[name] for name in readouts}
    seconds = float(features.seconds)
    if level == "track":
        every = torch.arange(len(features.excerpt_times))
        return TrackRows(rows, dict.fromkeys(readouts, every), features.excerpt_times.numpy().copy(), seconds)
    centres = features.excerpt_times
    # The border between two excerpts lies half way between their centres.
    nearest = torch.searchsorted((centres[1:] + centres[:-1]) / 2, features.times)
    index = dict.fromkeys(readouts, nearest)
    if "sequence" in readouts:
        rows["sequence"], index["sequence"] = features.sequence, torch.arange(len(features.times))
    return TrackRows(rows, index, features.times.numpy().copy(), seconds)


def scored_split(
    task: Task, features: Sequence[TrackFeatures], references: Sequence[Any], readouts: Sequence[str]
) -> Split:
    """A split to score heads on, track by track: features stay in the store, mapped."""
    return Split([track_rows(track, readouts, task.level) for track in features], list(references))


def trained_split(
    task: Task,
    features: Sequence[TrackFeatures],
    references: Sequence[Any],
    readouts: Sequence[str],
    memory_gib: float = 8.0,
) -> Split:
    """A split to train or stop heads on: rows of all tracks joined, targets encoded.

    Args:
        task: Prepared on the training annotations.
        features: Of each track.
        references: Annotation of each track.
        readouts: Readouts to join.
        memory_gib: Rows beyond this are kept in a mapped file without a name, GiB.
    """
    # First pass: targets, and how many rows there are, so that the second can copy each row once.
    tracks, targets = [], []
    shapes: dict[str, list[torch.Size]] = {name: [] for name in readouts}
    for track_features, reference in zip(features, references, strict=True):
        track = track_rows(track_features, readouts, task.level)
        target = task.encode(reference, track.times)
        targets.append(target.expand(len(track.times), *target.shape) if task.level == "track" else target)
        for name in readouts:
            shapes[name].append(track.rows[name].shape)
            dtype = track.rows[name].dtype
        track.rows = {}  # closes the mapped file: the number of maps of a process is limited
        tracks.append(track)
    split = Split(tracks, list(references), targets=torch.cat(targets))
    size = sum(shape.numel() for of_tracks in shapes.values() for shape in of_tracks) * dtype.itemsize
    for name in readouts:
        shape = (sum(shape[0] for shape in shapes[name]), *shapes[name][0][1:])
        split.rows[name] = _allocated(shape, dtype, size > memory_gib * 2**30)
    # Second pass: rows of a track become a view of the joined rows.
    firsts = dict.fromkeys(readouts, 0)
    for track_features, track in zip(features, tracks, strict=True):
        for name, rows in track_rows(track_features, readouts, task.level).rows.items():
            track.rows[name] = split.rows[name][firsts[name] : firsts[name] + len(rows)].copy_(rows)
            firsts[name] += len(rows)
    for name in readouts:
        offsets = np.cumsum([0, *(len(track.rows[name]) for track in tracks)]).tolist()
        split.index[name] = torch.cat([track.index[name] + first for track, first in zip(tracks, offsets)])
    return split


def _allocated(shape: tuple[int, ...], dtype: torch.dtype, on_disk: bool) -> Tensor:
    """Empty rows for all tracks, (n, L, D), in memory or mapped from a file that is deleted with the process."""
    if not on_disk:
        return torch.empty(shape, dtype=dtype)
    number = torch.Size(shape).numel()
    with tempfile.NamedTemporaryFile(dir=cache_folder(), prefix=".rows-") as file:
        if hasattr(os, "posix_fallocate"):  # a full disk is then an error here, not a crash later
            os.posix_fallocate(file.fileno(), 0, number * dtype.itemsize)
        return torch.from_file(file.name, shared=True, size=number, dtype=dtype).view(shape)
