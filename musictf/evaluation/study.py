"""One study: heads of all layers on one system, readout and seed, chosen on validation, scored on test once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from musictf.datasets.base import Track, split_digest
from musictf.errors import InputError
from musictf.evaluation.corpus import Corpus
from musictf.evaluation.rows import PER_TRACK, Row, finite
from musictf.evaluation.statistics import interval, mean_interval, resample_counts
from musictf.probing.heads import Head, save_heads
from musictf.probing.module import ProbeConfig, fit
from musictf.probing.readouts import Split
from musictf.runs import TrainerConfig, write_atomically
from musictf.tasks.base import Decoder, Scores, Task

TrackLine = tuple[Any, ...]


@dataclass
class Study:
    """What a study needs to know, and the rows it has made.

    ``origin`` holds the fields that all rows of the run share: run, git, versions, dataset.
    """

    task: Task
    corpus: Corpus
    folder: Path
    origin: Row
    backbone: Row
    rows: list[Row] = field(default_factory=list)
    track_lines: list[TrackLine] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.digest = split_digest(self.corpus.tracks["test"])  # reads every annotation: once, not for each row

    def probe(
        self,
        splits: dict[str, Split],
        readout: str,
        layers: list[int],
        seed: int,
        config: ProbeConfig,
        trainer: TrainerConfig,
        seconds: dict[str, float],
    ) -> Row:
        """Train, choose, score and write one readout with one seed; returns the chosen row."""
        started = time.perf_counter()
        heads = fit(self.task, splits["train"], splits["valid"], layers, config, trainer, seed)
        seconds = seconds | {"fit": time.perf_counter() - started}
        started = time.perf_counter()
        primary, *others = self.task.decoders
        jobs = [(head, *self._select(head, splits["valid"], primary)) for head in heads]
        for head, _, selection in jobs:
            head.selection = selection
        chosen = max(heads, key=lambda head: head.selection["value"])
        jobs += [(chosen, *self._select(chosen, splits["valid"], name)) for name in others]
        first = len(self.rows)
        for head, decoder, selection in jobs:
            estimates = decoded(self.task, head, splits["test"], decoder)
            cell = {"readout": readout, "layer": head.layer, "seed": seed, "selected": head is chosen}
            self._add(cell, decoder, splits["test"].references, estimates, selection)
        seconds = seconds | {"decode": time.perf_counter() - started}
        for row in self.rows[first:]:
            row["seconds"] = seconds
        path = self.folder / "heads" / self.backbone["kind"] / f"{self.task.title}_{readout}_seed{seed}.safetensors"
        about = {"task": self.task.title, "readout": readout, "selected": chosen.layer}
        save_heads(heads, path, about | {"labels": list(getattr(self.task, "vocabulary", ()))})
        return next(row for row in self.rows[first:] if row["selected"])

    def constant(self, seconds: Sequence[float]) -> None:
        """Score the answer that ignores the audio: the floor under every floor."""
        training = self.corpus.references["train"]
        references = self.corpus.references["test"]
        estimates = [self.task.constant(training, duration) for duration in seconds]
        cell = {"readout": "constant", "layer": 0, "seed": 0, "selected": True}
        self._add(cell, {"name": "constant"}, references, estimates, None)
        self.rows[-1]["seconds"] = {}

    def _select(self, head: Head, valid: Split, name: str) -> tuple[Decoder, Row]:
        """Calibrate a decoder for a head, and note what the pair of them scores on validation."""
        decoder = self._calibrated(head, valid, name)
        scores = self.task.score(valid.references, decoded(self.task, head, valid, decoder))
        if self.task.headline not in scores.corpus:
            raise InputError(
                f"task={self.task.title}: {self.task.headline} is undefined on every validation track, so nothing can "
                "be chosen by it; put tracks with more to score into the valid split"
            )
        return decoder, head.selection | {"metric": self.task.headline, "value": scores.corpus[self.task.headline]}

    def _calibrated(self, head: Head, valid: Split, name: str) -> Decoder:
        logits = [head.logits(track.rows)[track.index] for track in valid.tracks]
        return self.task.calibrate(name, logits, [track.times for track in valid.tracks], valid.references)

    def _add(
        self, cell: Row, decoder: Decoder, references: list[Any], estimates: list[Any], selection: Row | None
    ) -> None:
        scores = self.task.score(references, estimates)
        tracks = self.corpus.tracks["test"]
        row = self.origin | {
            "backbone": self.backbone,
            "task": self.task.title,
            "split": {"name": "test", "digest": self.digest, "expected": self.corpus.expected, "scored": len(tracks)},
            **cell,
            "selection": selection and {key: finite(v) if key == "value" else v for key, v in selection.items()},
            "scores": with_intervals(self.task, scores, references, estimates),
            "details": scores.details,
            "decoder": decoder,
            "per_track": PER_TRACK,
        }
        self.rows.append(row)
        self.track_lines += _track_lines(row, tracks, scores)
        if row["selected"]:
            self._write_estimates(row, tracks, estimates)

    def _write_estimates(self, row: Row, tracks: Sequence[Track], estimates: Sequence[Any]) -> None:
        cell = f"{row['task']}_{row['readout']}_layer{row['layer']}_seed{row['seed']}"
        folder = self.folder / "estimates" / self.backbone["kind"] / row["decoder"]["name"] / cell
        for track, estimate in zip(tracks, estimates, strict=True):
            path = folder / f"{track.track_id}{self.task.suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            self.task.write(estimate, path)


def decoded(task: Task, head: Head, split: Split, decoder: Decoder) -> list[Any]:
    """Estimates of a split, track by track."""
    return [
        task.decode(head.logits(track.rows)[track.index], track.times, track.seconds, decoder) for track in split.tracks
    ]


def with_intervals(task: Task, scores: Scores, references: list[Any], estimates: list[Any]) -> Row:
    """Each score with its 95 % interval over tracks and the number of tracks that define it."""
    counts = resample_counts(len(references))
    resampled = task.resample(references, estimates, counts)
    intervals: Row = {}
    for name, value in scores.corpus.items():
        if name in scores.per_track:
            _, low, high = mean_interval(scores.per_track[name])
            number = int((~np.isnan(scores.per_track[name])).sum())
        elif name in resampled:
            low, high = interval(resampled[name])
            number = len(references)
        else:
            low, high, number = float("nan"), float("nan"), len(references)
        intervals[name] = {"mean": finite(value), "ci95": [finite(low), finite(high)], "n": number}
    return intervals


def write_vocabulary(folder: Path, task: Task) -> None:
    """Write the labels a task learnt from its training split, where it has any."""
    if labels := getattr(task, "vocabulary", None):
        write_atomically(folder / "vocabulary.txt", "\n".join(labels) + "\n")


def _track_lines(row: Row, tracks: Sequence[Track], scores: Scores) -> Iterator[TrackLine]:
    cell = (row["task"], row["readout"], row["layer"], row["seed"], row["decoder"]["name"])
    for name, values in scores.per_track.items():
        for track, value in zip(tracks, values, strict=True):
            shown = "" if np.isnan(value) else f"{value:.6f}"
            yield (track.track_id, *cell, name, shown, row["backbone"]["kind"])
