"""Watching a backbone learn while it trains: a linear probe and a kNN, cheap enough for every few hundred steps.

Shapes:  E excerpts   N audio samples   T tokens of an excerpt   D embedding   n examples   C outputs   P penalties

A few tracks of a labelled corpus are drawn by a hash, a third of them from its valid split; probes are fitted on the
train ones and scored on the valid ones, and the test split is never touched. A probe is a ridge regression in closed
form, its penalty chosen on a fifth of the train tracks. Numbers show a trend; results come from ``musictf probe``.

Logged, rank 0 only, under names for good:
    ``online/chord_accuracy_layerL``: share of tokens whose chord (24 triads and ``N``) is right; others are masked.
    ``online/beat_ap_layerL``: average precision of beat tokens. A token counts as one where the beat task's training
        target exceeds one half: a beat within 25 ms or half a token. Chance is their share, about .1.
    ``online/tag_map``: mean average precision over tags, of the mean class token of a track at the highest layer.
    ``online/knn_accuracy``: a tag is assigned to an excerpt of a valid track where most of its nearest train excerpts
        (cosine of class tokens at the highest layer) have it; balanced accuracy, mean over tags. Chance is .5.
    ``online/retrieval_accuracy``: share of excerpts of valid tracks whose nearest other one is of the same track.

Training does not notice: no global random numbers, no gradient, modes put back, nothing left on the device. Features
are in float32 whatever the autocast, and computed eagerly, so that a compiled training step is never compiled anew.
There is no collective: other ranks just reach the next one sooner, and wait there.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor

from musictf.audio.io import audio_info, read_excerpt
from musictf.audio.spectrogram import LogMelConfig
from musictf.datasets.base import Dataset, Track, require_audio
from musictf.datasets.manifest import Manifest
from musictf.errors import InputError
from musictf.evaluation.closed_form import (
    accuracy,
    balanced_accuracy,
    knn_tags,
    mean_average_precision,
    retrieval_accuracy,
    ridge,
)
from musictf.models.backbone import Backbone
from musictf.synthesis.synthetic import Synthetic
from musictf.tasks.base import MASKED, Floats, Task
from musictf.tasks.beat import BeatTask
from musictf.tasks.chord import ChordTask
from musictf.tasks.tagging import TaggingTask

TASKS: dict[str, type[Task]] = {"tagging": TaggingTask, "chord": ChordTask, "beat": BeatTask}
PENALTIES: Floats = np.logspace(1, -5, 7)  # for each example; the strongest first, for it wins a tie
_HELD_OUT = 5  # every fifth train track chooses the penalty
_BATCH = 16  # excerpts that go through the backbone at once


@dataclass(kw_only=True)
class OnlineProbe:
    """Probes of a backbone while it is pretrained.

    Attributes:
        root: Folder of a manifest corpus, or a list of them; null means synthetic songs.
        every: Steps between two evaluations. There is one before the first step and one after the last as well.
        num_tracks: Tracks to draw from the corpus.
        seconds: Length in seconds of what is used of each track, from its middle; at least one excerpt.
        layers: Layers to probe for chords and beats; null means the middle and the last.
        neighbours: Neighbours of an excerpt in the kNN for tags.
        tasks: Any of tagging, chord, beat; those without labels in the corpus are left out.
    """

    root: Any = None
    every: int = 500
    num_tracks: int = 60
    seconds: float = 12.0
    layers: list[int] | None = None
    neighbours: int = 10
    tasks: list[str] = field(default_factory=lambda: list(TASKS))

    def __post_init__(self) -> None:
        for name, least in (("every", 1), ("num_tracks", 4), ("neighbours", 1)):
            if getattr(self, name) < least:
                raise InputError(f"online_probe.{name}={getattr(self, name)} must be at least {least}")
        if self.root in ("", []):
            raise InputError("online_probe.root=FOLDER is needed: a manifest corpus, or a list of them")
        if not self.seconds > 0:
            raise InputError(f"online_probe.seconds={self.seconds} must be positive")
        if self.layers is not None and (not self.layers or min(self.layers) < 0):
            raise InputError(f"online_probe.layers={self.layers}: name at least one, from 0, or leave it out")
        if not self.tasks or set(self.tasks) - TASKS.keys():
            raise InputError(f"online_probe.tasks={self.tasks}: any of {', '.join(TASKS)}")

    def corpus(self) -> Dataset:
        """The labelled corpus."""
        return Synthetic(num_tracks=2 * self.num_tracks) if self.root is None else Manifest(root=self.root)


class OnlineProbing(L.Callback):
    """Looks at ``pl_module.backbone`` before the first step, every ``config.every`` steps and after the last."""

    def __init__(self, config: OnlineProbe) -> None:
        self.config = config
        self._watch: OnlineEvaluator | None = None
        self._seen = -1  # step of the last look

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # On every rank, though one is enough: what is wrong with the corpus then stops all of them.
        watch = OnlineEvaluator(self.config, cast(Backbone, pl_module.backbone))
        self._seen = -1
        if trainer.is_global_zero:
            self._watch = watch
            print(f"online probe: {watch.summary}", file=sys.stderr)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == 0:
            self._look(trainer, pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step % self.config.every == 0:
            self._look(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._look(trainer, pl_module)
        self._watch = None

    def _look(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._watch is None or trainer.global_step == self._seen:
            return
        self._seen = trainer.global_step
        values = self._watch.values(cast(Backbone, pl_module.backbone), pl_module.device)
        for logger in trainer.loggers:
            logger.log_metrics(values, step=self._seen - 1)  # Lightning numbers steps from 0


class OnlineEvaluator:
    """Excerpts and targets of the drawn tracks, and the values of a backbone on them.

    Raises:
        InputError: the corpus cannot be read, or has too few labels; the message begins with the key.
    """

    def __init__(self, config: OnlineProbe, backbone: Backbone) -> None:
        self.neighbours = config.neighbours
        self.layers = sorted(set(config.layers or (backbone.depth // 2, backbone.depth)))
        if self.layers[-1] > backbone.depth:
            raise InputError(f"online_probe.layers={config.layers}: this backbone has layers 0 to {backbone.depth}")
        try:
            corpus = config.corpus()
            tracks = drawn_tracks(corpus.all_tracks(), config)
            require_audio(tracks, corpus.label)
            self.excerpts = read_excerpts(tracks, config.seconds, backbone)
            found = [online_probe_task(name, self.excerpts) for name in config.tasks]
        except InputError as error:
            raise InputError(f"online_probe.root: {str(error).removeprefix('dataset.root: ')}") from None
        self.probe_tasks = [one for one in found if one is not None]
        if not self.probe_tasks:
            raise InputError(
                f"online_probe.tasks={config.tasks}: {corpus.label} has too few labels for any of them; each needs "
                "them on two of the drawn train tracks, and valid tracks that differ in them"
            )
        served = ", ".join(one.name for one in self.probe_tasks)
        is_valid = self.excerpts.is_valid
        self.summary = f"{served} on {corpus.label}, {np.sum(~is_valid)} tracks to fit and {np.sum(is_valid)} to score"

    def values(self, backbone: Backbone, device: torch.device) -> dict[str, float]:
        """Everything that is logged, by name."""
        classes, tokens = embeddings(backbone, self.excerpts.waveforms, self.layers, device)
        owner, is_valid = self.excerpts.owner, self.excerpts.is_valid[self.excerpts.owner]
        values = {"online/retrieval_accuracy": retrieval_accuracy(classes[is_valid], owner[is_valid])}
        for one in self.probe_tasks:
            if one.name == "tagging":
                clips = np.stack([classes[owner == k].mean(axis=0) for k in range(len(self.excerpts.tracks))])
                values["online/tag_map"] = probed(clips, one)
                values["online/knn_accuracy"] = self._knn_accuracy(classes, one)
                continue
            name = "chord_accuracy" if one.name == "chord" else "beat_ap"
            for layer in self.layers:
                values[f"online/{name}_layer{layer}"] = probed(tokens[layer], one)
        return {name: value for name, value in values.items() if not np.isnan(value)}

    def _knn_accuracy(self, classes: Floats, tagging: OnlineProbeTask) -> float:
        owner = self.excerpts.owner
        known, asked = (np.isin(owner, rows) for rows in (tagging.train, tagging.valid))
        truth = tagging.targets[owner]
        assigned = knn_tags(classes[known], truth[known], classes[asked], self.neighbours)
        return balanced_accuracy(assigned, truth[asked] > 0.5)


class Excerpts(NamedTuple):
    """Excerpts of the drawn tracks, track by track."""

    tracks: list[Track]
    waveforms: Tensor  # (E, N)
    times: Floats  # (E, T), token centres in seconds from the start of the track
    owner: np.ndarray  # (E,), index of the track
    is_valid: np.ndarray  # (num_tracks,)


class OnlineProbeTask(NamedTuple):
    """What a task asks: targets of all examples, and which of them each purpose takes."""

    name: str
    targets: Floats  # (n, C); examples are tokens of all excerpts, or tracks
    fit: np.ndarray  # indices of examples
    held_out: np.ndarray
    valid: np.ndarray

    @property
    def train(self) -> np.ndarray:
        """What the penalty is chosen with and the probe is fitted on, in the end."""
        return np.concatenate([self.fit, self.held_out])

    @property
    def measure(self) -> Callable[[Floats, Floats], float]:
        """Score of estimates (n, C) against targets (n, C); NaN where nothing can be told."""
        return accuracy if self.name == "chord" else mean_average_precision


def drawn_tracks(tracks: Sequence[Track], config: OnlineProbe) -> list[Track]:
    """Train tracks and then valid tracks, those with most of the wanted labels first and otherwise by a hash.

    Raises:
        InputError: one of the splits has no labelled track.
    """
    wanted = {TASKS[name].annotation for name in config.tasks}

    def place(track: Track) -> tuple[int, str]:
        return -len(wanted & track.labels.keys()), hashlib.sha256(track.track_id.encode()).hexdigest()

    ordered = sorted((track for track in tracks if wanted & track.labels.keys()), key=place)
    train, valid = ([track for track in ordered if track.split == split] for split in ("train", "valid"))
    for split, found in (("train", train), ("valid", valid)):
        if not found:
            raise InputError(f"no track of the {split} split has any of {', '.join(sorted(wanted))}")
    num_valid = min(len(valid), config.num_tracks // 3)
    return train[: config.num_tracks - num_valid] + valid[:num_valid]


def read_excerpts(tracks: list[Track], seconds: float, backbone: Backbone) -> Excerpts:
    """The middle of each track in whole excerpts.

    Raises:
        InputError: a track cannot be read or is shorter than an excerpt.
    """
    front_end, length = backbone.front_end.config, backbone.num_samples
    waveforms, times, owner = [], [], []
    for index, track in enumerate(tracks):
        start, count = _middle(track.audio, seconds, front_end, length)
        waveform = read_excerpt(track.audio, start, count * length, front_end.sample_rate, front_end.normalise)
        waveforms.append(torch.from_numpy(waveform).view(count, length))
        starts = start + length * np.arange(count)
        times += [front_end.frame_times(front_end.num_frames(length), int(first)) for first in starts]
        owner += [index] * count
    is_valid = np.array([track.split == "valid" for track in tracks])
    return Excerpts(tracks, torch.cat(waveforms), np.stack(times), np.array(owner), is_valid)


def _middle(path: Path, seconds: float, front_end: LogMelConfig, length: int) -> tuple[int, int]:
    """First sample, on the token grid, and number of excerpts of ``length`` samples."""
    available = audio_info(path).num_samples(front_end.sample_rate)
    if available < length:
        raise InputError(
            f"{path}: shorter than an excerpt of {length / front_end.sample_rate:.1f} s; take it out of the manifest"
        )
    count = max(1, min(available, round(seconds * front_end.sample_rate)) // length)
    return (available - count * length) // 2 // front_end.hop_length * front_end.hop_length, count


def online_probe_task(name: str, excerpts: Excerpts) -> OnlineProbeTask | None:
    """Targets of a task, or None where the tracks' labels leave nothing to fit or nothing to tell apart.

    Raises:
        InputError: an annotation cannot be read.
    """
    task = TASKS[name]()
    annotations = [track.annotation(task.annotation) for track in excerpts.tracks]
    labelled = np.array([annotation is not None for annotation in annotations])
    train, valid = np.flatnonzero(labelled & ~excerpts.is_valid), np.flatnonzero(labelled & excerpts.is_valid)
    if len(train) < 2 or not any(annotations[index] for index in train):
        return None
    task.prepare([annotations[index] for index in train])
    fit, held_out = np.delete(train, np.s_[::_HELD_OUT]), train[::_HELD_OUT]
    if task.level == "track":
        targets = np.stack([_targets(task, one, np.empty(0)) for one in annotations])
        found = OnlineProbeTask(name, targets, fit, held_out, valid)
    else:
        owners = enumerate(excerpts.owner)
        targets = np.concatenate([_targets(task, annotations[owner], excerpts.times[e]) for e, owner in owners])
        owner, known = np.repeat(excerpts.owner, excerpts.times.shape[1]), ~np.isnan(targets[:, 0])
        found = OnlineProbeTask(
            name, targets, *(np.flatnonzero(known & np.isin(owner, ids)) for ids in (fit, held_out, valid))
        )
    estimable = [len(found.fit), not np.isnan(found.measure(found.targets[found.valid], found.targets[found.valid]))]
    return found if all(estimable) else None


def _targets(task: Task, annotation: Any, times: Floats) -> Floats:
    """Targets (T, C) of an excerpt or (C,) of a track in [0, 1]; NaN where they are not known."""
    if annotation is None:
        shape = (
            (task.num_outputs,)
            if task.level == "track"
            else (len(times), 1 if task.name == "beat" else task.num_outputs)
        )
        return np.full(shape, np.nan)
    targets = task.encode(annotation, times).numpy().astype(np.float64)
    if task.name == "chord":
        one_hot: Floats = np.eye(task.num_outputs)[targets.astype(np.int64)]
        return np.where((targets == MASKED)[:, None], np.nan, one_hot)
    return targets[:, :1] if task.name == "beat" else targets  # of beats, not of downbeats


@torch.no_grad()
def embeddings(
    backbone: Backbone, waveforms: Tensor, layers: Sequence[int], device: torch.device
) -> tuple[Floats, dict[int, Floats]]:
    """Class tokens (E, D) of the highest layer and sequence tokens (E * T, D) of each, from a backbone in eval mode."""
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()
    classes: list[np.ndarray] = []
    tokens: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}
    try:
        with torch.compiler.set_stance("force_eager"), torch.autocast(device.type, enabled=False):
            for batch in waveforms.split(_BATCH):
                output = backbone(batch.to(device), layers)
                classes.append(output.class_token[layers[-1]].float().cpu().numpy())
                for layer in layers:
                    tokens[layer].append(output.sequence[layer].flatten(0, 1).float().cpu().numpy())
    finally:
        for module, was_training in modes.items():
            module.training = was_training
    joined = {layer: np.concatenate(parts).astype(np.float64) for layer, parts in tokens.items()}
    return np.concatenate(classes).astype(np.float64), joined


def probed(features: Floats, task: OnlineProbeTask) -> float:
    """Score on the valid examples of a linear probe, its penalty chosen on the held-out ones; features (n, D)."""
    spread = features[task.train].std(axis=0)
    features = features / np.where(spread > 0, spread, 1.0)
    estimates = ridge(features[task.fit], task.targets[task.fit], features[task.held_out], PENALTIES)
    wanted = task.targets[task.held_out]
    best = int(np.nan_to_num([task.measure(each, wanted) for each in estimates], nan=-1.0).argmax())
    chosen = PENALTIES[best : best + 1]
    estimate = ridge(features[task.train], task.targets[task.train], features[task.valid], chosen)[0]
    return task.measure(estimate, task.targets[task.valid])
