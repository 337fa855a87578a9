"""Readouts: which embeddings a probe sees.

Shapes:  n rows   L layers   D embedding   N examples

``class`` is the class token, ``sequence`` the sequence tokens (their mean for clip-level tasks), ``average`` the mean
over time of class and sequence tokens together, the paper's temporal average. On frame-level tasks ``class`` and
``average`` have one value an excerpt, so each token takes that of the excerpt whose centre is nearest: a control.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from musictf.probing.features import TrackFeatures
from musictf.runs import cache_folder
from musictf.tasks.base import Floats, Task

READOUTS = ("class", "sequence", "average")


@dataclass
class TrackRows:
    """What probes see of one track: rows of features for each readout, and the row each of its examples reads."""

    rows: dict[str, Tensor]  # each (n, L, D)
    index: dict[str, Tensor]  # each (N,)
    times: Floats  # (N,) centre of each example in seconds
    seconds: float


@dataclass
class Split:
    """A split as probes see it; rows, index and targets of all tracks joined where heads are trained on it."""

    tracks: list[TrackRows]
    references: list[Any]
    rows: dict[str, Tensor] = field(default_factory=dict)  # each (n, L, D)
    index: dict[str, Tensor] = field(default_factory=dict)  # each (N,) row of an example
    targets: Tensor = field(default_factory=lambda: torch.empty(0))  # (N, ...)


def track_rows(features: TrackFeatures, readouts: Sequence[str], level: str) -> TrackRows:
    """The rows and examples of one track for some readouts and a task's level."""
    by_excerpt = {"class": features.class_token, "average": features.average, "sequence": features.sequence_mean}
    rows = {name: by_excerpt[name] for name in readouts}
    seconds = float(features.seconds)
    if level == "track":
        every = torch.arange(len(features.excerpt_times))
        return TrackRows(rows, dict.fromkeys(readouts, every), features.excerpt_times.numpy(), seconds)
    centres = features.excerpt_times
    nearest = torch.searchsorted((centres[1:] + centres[:-1]) / 2, features.times)
    index = dict.fromkeys(readouts, nearest)
    if "sequence" in readouts:
        rows["sequence"], index["sequence"] = features.sequence, torch.arange(len(features.times))
    return TrackRows(rows, index, features.times.numpy(), seconds)


def scored_split(
    task: Task, features: Sequence[TrackFeatures], references: Sequence[Any], readouts: Sequence[str]
) -> Split:
    """A split to score heads on, track by track: features stay where they are."""
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
        readouts: Whose rows are wanted.
        memory_gib: Rows beyond this are kept in a file that is mapped and has no name.
    """
    split = scored_split(task, features, references, readouts)
    targets = []
    for track, reference in zip(split.tracks, references, strict=True):
        target = task.encode(reference, track.times)
        targets.append(target.expand(len(track.times), *target.shape) if task.level == "track" else target)
    split.targets = torch.cat(targets)
    size = sum(rows.nbytes for track in split.tracks for rows in track.rows.values())
    for name in readouts:
        split.rows[name] = _joined([track.rows[name] for track in split.tracks], size > memory_gib * 2**30)
        indices, first = [], 0
        for track in split.tracks:
            length = len(track.rows[name])
            track.rows[name] = split.rows[name][first : first + length]  # a view: its own copy is let go
            indices.append(track.index[name] + first)
            first += length
        split.index[name] = torch.cat(indices)
    return split


def _joined(parts: list[Tensor], on_disk: bool) -> Tensor:
    """Rows of all tracks, (n, L, D), in memory or mapped from a file."""
    shape = (sum(map(len, parts)), *parts[0].shape[1:])
    if not on_disk:
        return torch.cat(parts)
    with tempfile.NamedTemporaryFile(dir=cache_folder(), prefix=".rows-") as file:
        os.posix_fallocate(
            file.fileno(), 0, sum(part.nbytes for part in parts)
        )  # a full disk is an error now, not later
        joined = torch.from_file(file.name, shared=True, size=torch.Size(shape).numel(), dtype=parts[0].dtype)
    return torch.cat(parts, out=joined.view(shape))
