"""Which tracks of a corpus a task can use, split by split."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from musictf.audio.io import audio_info
from musictf.datasets.base import SPLITS, Dataset, Track
from musictf.errors import InputError
from musictf.files import write_atomically
from musictf.tasks.base import Task

_CHECKED_SECONDS = 60.0  # of the guess that shows whether a split can be scored at all


@dataclass
class Corpus:
    """The annotated tracks of each split, their references, and how many tracks each split has in all."""

    tracks: dict[str, list[Track]] = field(default_factory=dict)
    references: dict[str, list[Any]] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)

    @property
    def groups(self) -> list[str]:
        """What each test track belongs to; intervals are drawn over these."""
        return [track.group or track.track_id for track in self.tracks["test"]]


def annotated(dataset: Dataset, task: Task, allow_missing: bool) -> Corpus:
    """The tracks of each split that a task can use.

    Raises:
        InputError: a split has no usable track, or, without ``allow_missing``, a track lacks its audio or a test track
            its annotation.
    """
    corpus = Corpus()
    for name in SPLITS:
        every = dataset.tracks(name)
        pairs = [(track, track.annotation(task.annotation_name)) for track in every]
        usable = [(track, reference) for track, reference in pairs if reference is not None and track.audio.is_file()]
        if not usable:
            raise InputError(_nothing(dataset, task, name, every))
        if not allow_missing:
            _refuse_gaps(dataset, task, name, pairs)
        corpus.tracks[name] = [track for track, _ in usable]
        corpus.references[name] = [reference for _, reference in usable]
        corpus.expected[name] = len(every)
    return corpus


def check_references(task: Task, corpus: Corpus) -> None:
    """Find out before anything is computed that a label is none, or that a split holds nothing to score.

    Args:
        task: Prepared on the training annotations.
        corpus: What is going to be scored.

    Raises:
        InputError: a reference cannot be used, or the headline is undefined on all of valid or test.
    """
    for name in SPLITS:
        for track, reference in zip(corpus.tracks[name], corpus.references[name], strict=True):
            try:
                task.encode(reference, np.zeros(1))
            except InputError as error:
                raise InputError(f"{name} track {track.track_id}: {error}") from None
    guess = task.majority_estimate(corpus.references["train"], _CHECKED_SECONDS)
    for name in ("valid", "test"):
        references = corpus.references[name]
        if np.isnan(task.validate(references, [guess] * len(references))):
            raise InputError(
                f"task={task.display_name}: {task.headline} is undefined on every {name} track: nothing can be "
                f"{'chosen' if name == 'valid' else 'scored'} by it; put tracks with more to score into that split"
            )


def write_tracks(tracks: Sequence[Track], groups: Sequence[str], folder: Path) -> None:
    """Write ``tracks.csv``: which tracks were scored, to which group each belongs, how long it lasts."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("track_id", "group", "seconds"))
    for track, group in zip(tracks, groups, strict=True):
        writer.writerow((track.track_id, group, f"{audio_info(track.audio).seconds:.3f}"))
    write_atomically(folder / "tracks.csv", text.getvalue())


def _nothing(dataset: Dataset, task: Task, split: str, every: Sequence[Track]) -> str:
    if any(track.labels.get(task.annotation_name) is not None for track in every):
        return (
            f"{dataset.label}: the audio of every {split} track is missing, {every[0].audio} for one; "
            f"musictf data check dataset={dataset.name} ... lists what the copy lacks"
        )
    return (
        f"{dataset.label}: no {split} track has {task.annotation_name!r}, which task={task.display_name} needs; "
        "name splits in the manifest, or choose another task"
    )


def _refuse_gaps(dataset: Dataset, task: Task, split: str, pairs: Sequence[tuple[Track, Any]]) -> None:
    """Missing audio is refused in every split, a missing annotation on test: only there it changes what is scored."""
    unlabelled = [track.track_id for track, reference in pairs if reference is None and split == "test"]
    for what, lacking in (
        (f"no {task.annotation_name!r}", unlabelled),
        ("no audio file", [track.track_id for track, _ in pairs if not track.audio.is_file()]),
    ):
        if lacking:
            raise InputError(
                f"{dataset.label}: {len(lacking)} of {len(pairs)} {split} tracks have {what} "
                f"({', '.join(lacking[:3])}{', ...' if len(lacking) > 3 else ''}); "
                "allow_missing=true goes on with the rest, and the rows say so"
            )
