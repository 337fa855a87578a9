"""The tracks of each split that a task can use, and the checks before anything is computed on them."""

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

_CHECKED_SECONDS = 60.0  # duration of the majority estimate that a split is scored with, to see whether it can be


@dataclass
class Corpus:
    """The usable tracks of a dataset, by split.

    Attributes:
        tracks: Tracks that have audio and the annotation of the task.
        references: The annotation of each of these tracks.
        expected: Number of all tracks of a split, usable or not.
    """

    tracks: dict[str, list[Track]] = field(default_factory=dict)
    references: dict[str, list[Any]] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)

    @property
    def groups(self) -> list[str]:
        """Group of each test track, by default the track itself; the bootstrap draws whole groups."""
        return [track.group or track.track_id for track in self.tracks["test"]]


def annotated(dataset: Dataset, task: Task, allow_missing: bool) -> Corpus:
    """The tracks of each split that a task can use.

    Raises:
        InputError: a split has no usable track; or, without ``allow_missing``, a track has no audio file or a test
            track has no annotation.
    """
    corpus = Corpus()
    for name in SPLITS:
        tracks = dataset.tracks(name)
        pairs = [(track, track.annotation(task.annotation_name)) for track in tracks]
        usable = [(track, reference) for track, reference in pairs if reference is not None and track.audio.is_file()]
        if not usable:
            raise InputError(_nothing_usable(dataset, task, name, tracks))
        if not allow_missing:
            _refuse_missing(dataset, task, name, pairs)
        corpus.tracks[name] = [track for track, _ in usable]
        corpus.references[name] = [reference for _, reference in usable]
        corpus.expected[name] = len(tracks)
    return corpus


def check_references(task: Task, corpus: Corpus) -> None:
    """Check before anything is computed that every reference can be encoded and that valid and test can be scored.

    Args:
        task: Prepared on the training annotations.
        corpus: The tracks to be probed.

    Raises:
        InputError: a reference is not valid, or the headline score is undefined on the whole valid or test split.
    """
    for name in SPLITS:
        for track, reference in zip(corpus.tracks[name], corpus.references[name], strict=True):
            try:
                task.encode(reference, np.zeros(1))
            except InputError as error:
                raise InputError(f"{name} track {track.track_id}: {error}") from None
    # Whether a score is defined depends on the references alone, so any estimate serves to find out.
    estimate = task.majority_estimate(corpus.references["train"], _CHECKED_SECONDS)
    for name in ("valid", "test"):
        references = corpus.references[name]
        if np.isnan(task.validate(references, [estimate] * len(references))):
            raise InputError(
                f"task={task.display_name}: {task.headline} is undefined on every {name} track: nothing can be "
                f"{'chosen' if name == 'valid' else 'scored'} by it; put tracks with more to score into that split"
            )


def write_tracks(tracks: Sequence[Track], groups: Sequence[str], folder: Path) -> None:
    """Write ``tracks.csv``: the tracks that were scored, the group of each, and its duration in seconds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("track_id", "group", "seconds"))
    for track, group in zip(tracks, groups, strict=True):
        writer.writerow((track.track_id, group, f"{audio_info(track.audio).seconds:.3f}"))
    write_atomically(folder / "tracks.csv", text.getvalue())


def _nothing_usable(dataset: Dataset, task: Task, split: str, tracks: Sequence[Track]) -> str:
    """Message for a split in which every track lacks its audio or its annotation."""
    if any(track.labels.get(task.annotation_name) is not None for track in tracks):
        return (
            f"{dataset.label}: the audio of every {split} track is missing, {tracks[0].audio} for one; "
            f"musictf data check dataset={dataset.name} ... lists what the copy lacks"
        )
    return (
        f"{dataset.label}: no {split} track has {task.annotation_name!r}, which task={task.display_name} needs; "
        "name splits in the manifest, or choose another task"
    )


def _refuse_missing(dataset: Dataset, task: Task, split: str, pairs: Sequence[tuple[Track, Any]]) -> None:
    """Refuse missing audio in every split, and missing annotations on test, where they change what is scored."""
    unlabelled = [track.track_id for track, reference in pairs if reference is None and split == "test"]
    for what, track_ids in (
        (f"no {task.annotation_name!r}", unlabelled),
        ("no audio file", [track.track_id for track, _ in pairs if not track.audio.is_file()]),
    ):
        if track_ids:
            raise InputError(
                f"{dataset.label}: {len(track_ids)} of {len(pairs)} {split} tracks have {what} "
                f"({', '.join(track_ids[:3])}{', ...' if len(track_ids) > 3 else ''}); "
                "allow_missing=true continues with the others, and the rows report it"
            )
