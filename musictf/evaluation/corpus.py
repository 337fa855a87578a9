"""Which tracks of a corpus a task can use, split by split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from musictf.datasets.base import Dataset, Track
from musictf.errors import InputError
from musictf.tasks.base import Task


@dataclass
class Corpus:
    """The annotated tracks of each split, and how many tracks the test split has in all."""

    tracks: dict[str, list[Track]]
    references: dict[str, list[Any]]
    expected: int


def annotated(dataset: Dataset, task: Task, allow_missing: bool) -> Corpus:
    """The tracks of each split that a task can use.

    Raises:
        InputError: a split has no annotated track, or a test track lacks its annotation without ``allow_missing``.
    """
    corpus = Corpus({}, {}, 0)
    for name in ("train", "valid", "test"):
        every = dataset.tracks(name)
        pairs = [(track, track.annotation(task.wants)) for track in every]
        usable = [(track, reference) for track, reference in pairs if reference is not None]
        if not usable:
            raise InputError(
                f"{dataset.label}: no {name} track has {task.wants!r}, which task={task.title} needs; "
                "name splits in the manifest, or choose another task"
            )
        if name == "test":
            corpus.expected = len(every)
            lacking = [track.track_id for track, reference in pairs if reference is None]
            if lacking and not allow_missing:
                raise InputError(
                    f"{dataset.label}: {len(lacking)} of {len(every)} test tracks have no {task.wants!r} "
                    f"({', '.join(lacking[:3])}{', ...' if len(lacking) > 3 else ''}); "
                    "allow_missing=true scores the rest"
                )
        corpus.tracks[name] = [track for track, _ in usable]
        corpus.references[name] = [reference for _, reference in usable]
    return corpus
