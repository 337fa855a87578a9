"""One study: heads of all layers of one model, chosen on validation, scored on the test split once.

Shapes:  N examples of a track   C outputs   R resamples
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from musictf.datasets.base import Track, split_digest
from musictf.errors import InputError
from musictf.evaluation.task_tracks import Corpus
from musictf.features.readouts import Split, TrackRows
from musictf.files import write_atomically
from musictf.probing.heads import Head, load_heads, save_heads
from musictf.results.resamples import add_resamples, resample_key
from musictf.results.rows import (
    BackboneField,
    Row,
    ScoreField,
    SelectionField,
    cell_name,
    finite,
    scored_row,
)
from musictf.results.statistics import interval, mean_interval, resample_counts
from musictf.tasks.base import Decoder, Floats, Scores, Task

TrackLine = tuple[Any, ...]


@dataclass
class Study:
    """The inputs of a study, and the rows it has made.

    Attributes:
        task: Prepared on the training annotations.
        corpus: Tracks and references of each split.
        folder: The run folder.
        origin: Fields that all rows of the run share: run, git, versions, dataset, settings.
        backbone: The field ``backbone`` of the rows.
        seen: Test tracks whose recordings were seen in pretraining.
    """

    task: Task
    corpus: Corpus
    folder: Path
    origin: Row
    backbone: BackboneField
    seen: frozenset[str] = frozenset()
    rows: list[Row] = field(default_factory=list)
    track_lines: list[TrackLine] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.digest = split_digest(self.corpus.tracks["test"])  # once, not for each row: it reads every annotation

    def heads_path(self, readout: str, seed: int) -> Path:
        """File of the heads of all layers of a readout and seed."""
        name = f"{self.task.display_name}_{readout}_seed{seed}.safetensors"
        return self.folder / "heads" / self.backbone["kind"] / name

    def keep_heads(self, trained: dict[tuple[str, int], list[Head]]) -> None:
        """Write trained heads, so that a run interrupted while it scores need not train again."""
        for (readout, seed), heads in trained.items():
            self._write_heads(heads, readout, seed)

    def score(self, readout: str, seed: int, splits: dict[str, Split], seconds: dict[str, float]) -> Row:
        """Choose on validation, score on test and write one readout with one seed; returns the chosen row."""
        started = time.perf_counter()
        heads = load_heads(self.heads_path(readout, seed))
        primary, *others = self.task.decoders
        jobs = [(head, *self._select(head, readout, splits["valid"], primary)) for head in heads]
        for head, _, selection in jobs:
            head.selection = dict(selection)
        # Layers are compared on validation only; the test split is read after this choice.
        chosen = max(heads, key=lambda head: head.selection["value"])
        self._write_heads(heads, readout, seed, selected=chosen.layer)
        # Further decoders are calibrated for the chosen layer only.
        jobs += [(chosen, *self._select(chosen, readout, splits["valid"], name)) for name in others]
        first = len(self.rows)
        for head, decoder, selection in jobs:
            estimates = decoded(self.task, head, readout, splits["test"], decoder)
            cell: Row = {"readout": readout, "layer": head.layer, "seed": seed, "selected": head is chosen}
            self.add(cell, decoder, estimates, selection)
        for row in self.rows[first:]:
            row["seconds"] = seconds | {"decode": time.perf_counter() - started}
        return next(row for row in self.rows[first:] if row["selected"])

    def add(self, cell: Row, decoder: Decoder, estimates: list[Any], selection: SelectionField | None = None) -> None:
        """A row for estimates of the test tracks; those of selected rows are written."""
        references, tracks = self.corpus.references["test"], self.corpus.tracks["test"]
        scores = self.task.score(references, estimates)
        # Other layers' intervals of scores over the whole split would cost more than training them.
        resampled = self._resampled(references, estimates) if cell["selected"] else {}
        row = scored_row(
            self.origin,
            cell,
            backbone=self.backbone,
            task=self.task.display_name,
            split={
                "name": "test",
                "digest": self.digest,
                "expected": self.corpus.expected["test"],
                "scored": len(tracks),
                "groups": len(set(self.corpus.groups)),
            },
            scores=with_intervals(scores, resampled, self.corpus.groups),
            decoder=decoder,
            selection=selection,
            details=scores.details,
        )
        row["table_scores"] = list(self.task.table_scores)
        row["descriptive_scores"] = list(self.task.descriptive_scores)
        if row["selected"]:
            row["details"] = scores.details | self.task.details(references, estimates)
            row |= self._without_seen(references, estimates)
            self._write_estimates(row, estimates)
            # Scores that are not means over tracks: two models are compared resample by resample.
            add_resamples(self.folder, {resample_key(row, name): values for name, values in resampled.items()})
        self.rows.append(row)
        self.track_lines += _track_lines(row, tracks, scores)

    def _write_heads(self, heads: list[Head], readout: str, seed: int, **choices: int) -> None:
        labels = list(getattr(self.task, "vocabulary", ()))
        about = {"task": self.task.display_name, "labels": labels, "readout": readout, "seed": seed}
        save_heads(heads, self.heads_path(readout, seed), about | choices)

    def _select(self, head: Head, readout: str, valid: Split, name: str) -> tuple[Decoder, SelectionField]:
        """Calibrate a decoder for a head; returns it with the validation score of the pair."""
        logits = [logits_of(head, readout, track) for track in valid.tracks]
        times = [track.times for track in valid.tracks]
        decoder = self.task.calibrate(name, logits, times, valid.references)
        estimates = decoded(self.task, head, readout, valid, decoder)
        value = self.task.validate(valid.references, estimates)
        if np.isnan(value):
            raise InputError(
                f"task={self.task.display_name}: {self.task.headline} is undefined on every validation track, so it "
                "cannot choose a layer; put tracks with more to score into the valid split"
            )
        return decoder, cast(SelectionField, head.selection | {"metric": self.task.headline, "value": value})

    def _resampled(self, references: list[Any], estimates: list[Any]) -> dict[str, Floats]:
        return self.task.resample(references, estimates, resample_counts(self.corpus.groups))

    def _without_seen(self, references: list[Any], estimates: list[Any]) -> Row:
        """Scores of the test tracks that were not seen in pretraining, where some were."""
        if not self.seen:
            return {}
        tracks = self.corpus.tracks["test"]
        unseen = [index for index, track in enumerate(tracks) if track.track_id not in self.seen]
        if not unseen:
            return {"unseen": {"scored": 0, "scores": {}}}
        references, estimates = ([column[index] for index in unseen] for column in (references, estimates))
        groups = [self.corpus.groups[index] for index in unseen]
        try:
            scores = self.task.score(references, estimates)
        except InputError:  # undefined on the tracks that are left, such as a tag that all of them have
            return {"unseen": {"scored": len(unseen), "scores": {}}}
        resampled = self.task.resample(references, estimates, resample_counts(groups))
        return {"unseen": {"scored": len(unseen), "scores": with_intervals(scores, resampled, groups)}}

    def _write_estimates(self, row: Row, estimates: Sequence[Any]) -> None:
        folder = self.folder / "estimates" / row["backbone"]["kind"] / row["decoder"]["name"] / cell_name(row)
        for track, estimate in zip(self.corpus.tracks["test"], estimates, strict=True):
            path = folder / f"{track.track_id}{self.task.suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            self.task.write(estimate, path)


def logits_of(head: Head, readout: str, track: TrackRows) -> Floats:
    """Logits of the examples of one track for one head and readout, (N, C)."""
    # As numpy: a tensor of one index would count as a number there, and drop an axis.
    logits: Floats = head.logits(track.rows[readout])[track.index[readout].numpy()]
    return logits


def decoded(task: Task, head: Head, readout: str, split: Split, decoder: Decoder) -> list[Any]:
    """Estimates of a split, track by track."""
    return [task.decode(logits_of(head, readout, track), track.times, track.seconds, decoder) for track in split.tracks]


def with_intervals(scores: Scores, resampled: dict[str, Floats], groups: Sequence[str]) -> dict[str, ScoreField]:
    """Each score with its 95 % interval over groups of tracks, and the number of tracks that define it.

    Args:
        scores: Scores of a split.
        resampled: Scores that are not means over tracks, in each resample: name -> (R,).
        groups: Group of each track of the split.
    """
    fields: dict[str, ScoreField] = {}
    for name, value in scores.corpus.items():
        low, high, number = float("nan"), float("nan"), len(groups)
        if name in scores.per_track:
            _, low, high = mean_interval(scores.per_track[name], groups)
            number = int((~np.isnan(scores.per_track[name])).sum())
        elif name in resampled and len(set(groups)) > 1:
            low, high = interval(resampled[name], value)
        fields[name] = {"mean": finite(value), "ci95": [finite(low), finite(high)], "n": number}
    return fields


def write_vocabulary(folder: Path, task: Task) -> None:
    """Write the labels that a task has learnt from its training split, if any."""
    if labels := getattr(task, "vocabulary", None):
        write_atomically(folder / "vocabulary.txt", "\n".join(labels) + "\n")


def _track_lines(row: Row, tracks: Sequence[Track], scores: Scores) -> Iterator[TrackLine]:
    cell = (row["task"], row["readout"], row["layer"], row["seed"], row["decoder"]["name"])
    for name, values in scores.per_track.items():
        for track, value in zip(tracks, values, strict=True):
            text = "" if np.isnan(value) else f"{value:.6f}"
            yield (track.track_id, *cell, name, text, row["backbone"]["kind"])
