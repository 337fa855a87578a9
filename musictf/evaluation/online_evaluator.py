"""Online evaluation: a linear probe and nearest neighbours, computed every few hundred steps during pretraining.

A few tracks of a labelled corpus are drawn by a hash, a third of them from its valid split. Probes are fitted on the
train tracks and scored on the valid tracks; the test split is never read. A probe is a ridge regression in closed form,
its penalty chosen on a fifth of the train tracks. The values show a trend; results come from ``musictf probe``.

Each task defines whether it is evaluated online, which targets are fitted, and the name of its score
(`Task.online_metric`, `Task.online_targets`). A new task needs no change here. Logged on rank 0, under stable names:

    ``online/chord_accuracy_layerL``: share of tokens whose chord (24 triads and ``N``) is right; others are masked.
    ``online/beat_ap_layerL``: average precision of beat tokens, those whose training target exceeds one half: a beat
        within 25 ms or half a token. Chance is their share of all tokens, about .1.
    ``online/tag_map``: mean average precision over tags, of the mean class token of a track at the highest layer.
    ``online/knn_accuracy``: a tag is assigned to an excerpt of a valid track where most of its nearest train excerpts
        (cosine of class tokens at the highest layer) have it; balanced accuracy, mean over tags. Chance is .5.
    ``online/retrieval_accuracy``: share of excerpts of valid tracks whose nearest other excerpt is of the same track.

Training is not affected: no global random numbers, no gradient, modes of modules restored, nothing left on the device.
Features are in float32 under any autocast. They are computed eagerly, so that a compiled training step is not compiled
again. There are no collectives: the other ranks wait at the next collective of the training step.

Which tracks, readouts and scores are evaluated is our choice; the paper has no online evaluation.

Shapes:  E excerpts   N audio samples   T tokens of an excerpt   D embedding   n examples   C outputs
"""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor

import musictf.tasks
from musictf.audio.io import audio_info, read_excerpt
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

PENALTIES: Floats = np.logspace(1, -5, 7)  # per example; the strongest first, because the first of equals is chosen
_HELD_OUT = 5  # every fifth train track chooses the penalty
_BATCH = 16  # excerpts in one forward pass


def online_tasks() -> dict[str, type[Task]]:
    """Every task that takes part in online evaluation, by name."""
    for module in pkgutil.iter_modules(musictf.tasks.__path__):
        importlib.import_module(f"musictf.tasks.{module.name}")
    return {task.name: task for task in Task.__subclasses__() if task.online_metric}


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
    tasks: list[str] = field(default_factory=lambda: ["tagging", "chord", "beat"])

    def __post_init__(self) -> None:
        for name, least in (("every", 1), ("num_tracks", 4), ("neighbours", 1)):
            if getattr(self, name) < least:
                raise InputError(f"online_probe.{name}={getattr(self, name)} must be at least {least}")
        if self.root in ("", []):
            raise InputError("online_probe.root=FOLDER is needed: a manifest corpus, or a list of them")
        if not self.seconds > 0:  # refuses NaN as well
            raise InputError(f"online_probe.seconds={self.seconds} must be positive")
        if self.layers is not None and (not self.layers or min(self.layers) < 0):
            raise InputError(f"online_probe.layers={self.layers}: name at least one, from 0, or leave it out")
        if not self.tasks or set(self.tasks) - online_tasks().keys():
            raise InputError(f"online_probe.tasks={self.tasks}: any of {', '.join(sorted(online_tasks()))}")

    def corpus(self) -> Dataset:
        """The labelled corpus."""
        return Synthetic(num_tracks=2 * self.num_tracks) if self.root is None else Manifest(root=self.root)


class OnlineProbing(L.Callback):
    """Evaluates ``pl_module.backbone`` before the first step, every ``config.every`` steps and after the last."""

    def __init__(self, config: OnlineProbe) -> None:
        self.config = config
        self._evaluator: OnlineEvaluator | None = None
        self._last_step = -1  # of the last evaluation

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # On every rank, though only rank 0 evaluates: a corpus that cannot be used then stops all ranks.
        evaluator = OnlineEvaluator(self.config, cast(Backbone, pl_module.backbone))
        self._last_step = -1
        if trainer.is_global_zero:
            self._evaluator = evaluator
            print(f"online probe: {evaluator.summary}", file=sys.stderr)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == 0:  # a resumed run has had this evaluation
            self._evaluate(trainer, pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step % self.config.every == 0:
            self._evaluate(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._evaluate(trainer, pl_module)
        self._evaluator = None

    def _evaluate(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # With gradient accumulation several batches end at the same step.
        if self._evaluator is None or trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        values = self._evaluator.values(cast(Backbone, pl_module.backbone), pl_module.device)
        for logger in trainer.loggers:
            logger.log_metrics(values, step=self._last_step - 1)  # Lightning numbers steps from 0


class OnlineEvaluator:
    """Excerpts and targets of the drawn tracks, and the scores of a backbone on them.

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
            probe_tasks = [online_probe_task(online_tasks()[name](), self.excerpts) for name in config.tasks]
        except InputError as error:
            raise InputError(f"online_probe.root: {str(error).removeprefix('dataset.root: ')}") from None
        self.probe_tasks = [probe_task for probe_task in probe_tasks if probe_task is not None]
        if not self.probe_tasks:
            raise InputError(
                f"online_probe.tasks={config.tasks}: {corpus.label} has too few labels for any of them; each needs "
                "them on two of the drawn train tracks, and valid tracks that differ in them"
            )
        names = ", ".join(probe_task.task.name for probe_task in self.probe_tasks)
        is_valid = self.excerpts.is_valid
        self.summary = f"{names} on {corpus.label}, {np.sum(~is_valid)} tracks to fit and {np.sum(is_valid)} to score"

    def values(self, backbone: Backbone, device: torch.device) -> dict[str, float]:
        """Scores of a backbone by their logged names; a score that is undefined is left out."""
        class_tokens, tokens = embeddings(backbone, self.excerpts.waveforms, self.layers, device)
        track_index = self.excerpts.track_index
        is_valid = self.excerpts.is_valid[track_index]  # (E,)
        values = {"online/retrieval_accuracy": retrieval_accuracy(class_tokens[is_valid], track_index[is_valid])}
        for probe_task in self.probe_tasks:
            task = probe_task.task
            if task.level == "frame":
                for layer in self.layers:
                    values[f"online/{task.online_metric}_layer{layer}"] = probed(tokens[layer], probe_task)
                continue
            num_tracks = len(self.excerpts.tracks)
            clips = np.stack(
                [class_tokens[track_index == k].mean(axis=0) for k in range(num_tracks)]
            )  # (num_tracks, D)
            values[f"online/{task.online_metric}"] = probed(clips, probe_task)
            if task.online_knn_metric:
                is_known, is_query = (np.isin(track_index, rows) for rows in (probe_task.train, probe_task.valid))
                truth = probe_task.targets[track_index]  # (E, C): every excerpt has the labels of its track
                assigned = knn_tags(class_tokens[is_known], truth[is_known], class_tokens[is_query], self.neighbours)
                values[f"online/{task.online_knn_metric}"] = balanced_accuracy(assigned, truth[is_query] > 0.5)
        return {name: value for name, value in values.items() if not np.isnan(value)}


class Excerpts(NamedTuple):
    """Excerpts of the drawn tracks, track by track."""

    tracks: list[Track]
    waveforms: Tensor  # (E, N)
    times: Floats  # (E, T), token centres in seconds from the start of the track
    track_index: np.ndarray  # (E,)
    is_valid: np.ndarray  # (num_tracks,)


class OnlineProbeTask(NamedTuple):
    """Targets of a task for all examples, and which examples each purpose uses.

    Examples are the tokens of all excerpts for tasks of level ``frame``, the tracks for tasks of level ``track``.
    """

    task: Task
    targets: Floats  # (n, C)
    fit: np.ndarray  # indices of examples, as are all that follow
    held_out: np.ndarray
    valid: np.ndarray
    measure: Callable[[Floats, Floats], float]  # of estimates (n, C) and targets (n, C); NaN where undefined

    @property
    def train(self) -> np.ndarray:
        """Indices (n,) of the examples on which the probe is fitted once its penalty is chosen."""
        return np.concatenate([self.fit, self.held_out])


def drawn_tracks(tracks: Sequence[Track], config: OnlineProbe) -> list[Track]:
    """Train tracks and then valid tracks, first those with labels for most tasks, within these in the order of a hash.

    Raises:
        InputError: one of the splits has no labelled track.
    """
    annotations = {online_tasks()[name]().annotation_name for name in config.tasks}

    def rank(track: Track) -> tuple[int, str]:
        return -len(annotations & track.labels.keys()), hashlib.sha256(track.track_id.encode()).hexdigest()

    ranked = sorted((track for track in tracks if annotations & track.labels.keys()), key=rank)
    train, valid = ([track for track in ranked if track.split == split] for split in ("train", "valid"))
    for split, labelled in (("train", train), ("valid", valid)):
        if not labelled:
            raise InputError(f"no track of the {split} split has any of {', '.join(sorted(annotations))}")
    num_valid = min(len(valid), config.num_tracks // 3)
    return train[: config.num_tracks - num_valid] + valid[:num_valid]


def read_excerpts(tracks: list[Track], seconds: float, backbone: Backbone) -> Excerpts:
    """The middle ``seconds`` of each track, in whole excerpts.

    Raises:
        InputError: a track cannot be read or is shorter than an excerpt.
    """
    front_end, length = backbone.front_end.config, backbone.num_samples
    hop = front_end.hop_length
    waveforms, times, track_index = [], [], []
    for index, track in enumerate(tracks):
        available = audio_info(track.audio).num_samples(front_end.sample_rate)
        if available < length:
            raise InputError(
                f"{track.audio}: shorter than an excerpt of {length / front_end.sample_rate:.1f} s; "
                "take it out of the manifest"
            )
        count = max(1, min(available, round(seconds * front_end.sample_rate)) // length)
        start = (available - count * length) // 2 // hop * hop  # on the token grid of the track
        waveform = read_excerpt(track.audio, start, count * length, front_end.sample_rate, front_end.normalise)
        waveforms.append(torch.from_numpy(waveform).view(count, length))
        starts = start + length * np.arange(count)
        times += [front_end.frame_times(front_end.num_frames(length), int(first)) for first in starts]
        track_index += [index] * count
    is_valid = np.array([track.split == "valid" for track in tracks])
    return Excerpts(tracks, torch.cat(waveforms), np.stack(times), np.array(track_index), is_valid)


def online_probe_task(task: Task, excerpts: Excerpts) -> OnlineProbeTask | None:
    """Targets of a task, or None where the labels of the tracks leave nothing to fit or nothing to score.

    Raises:
        InputError: an annotation cannot be read.
    """
    annotations: list[Any] = [track.annotation(task.annotation_name) for track in excerpts.tracks]
    is_labelled = np.array([annotation is not None for annotation in annotations])
    train, valid = np.flatnonzero(is_labelled & ~excerpts.is_valid), np.flatnonzero(is_labelled & excerpts.is_valid)
    # An empty list of tags counts as an annotation, but nothing can be learnt from empty ones alone.
    if len(train) < 2 or not any(np.size(annotations[index]) for index in train):
        return None
    task.prepare([annotations[index] for index in train])
    if task.level == "track":
        times, track_index = [np.empty(0)] * len(annotations), np.arange(len(annotations))
        track_of_example = track_index
    else:
        times, track_index = list(excerpts.times), excerpts.track_index
        track_of_example = np.repeat(track_index, excerpts.times.shape[1])
    targets, measure = _targets(task, [annotations[index] for index in track_index], times)
    is_known = ~np.isnan(targets[:, 0])
    # Whole tracks are held out, so that no track is in two parts.
    parts = (np.delete(train, np.s_[::_HELD_OUT]), train[::_HELD_OUT], valid)
    fit, held_out, valid = (np.flatnonzero(is_known & np.isin(track_of_example, part)) for part in parts)
    is_scored = not np.isnan(measure(targets[valid], targets[valid]))
    return OnlineProbeTask(task, targets, fit, held_out, valid, measure) if len(fit) and is_scored else None


def _targets(
    task: Task, annotations: Sequence[Any], times: Sequence[Floats]
) -> tuple[Floats, Callable[[Floats, Floats], float]]:
    """Targets (n, C) in [0, 1] of excerpts or tracks, NaN where unknown, and the measure that fits them."""
    encoded = [
        None if annotation is None else task.online_targets(annotation, token_times)
        for annotation, token_times in zip(annotations, times, strict=True)
    ]
    like = next(part for part in encoded if part is not None)  # all have the same shape
    join = np.stack if task.level == "track" else np.concatenate
    if like.is_floating_point():
        missing = np.full(like.shape, np.nan)
        parts = [missing if part is None else part.numpy().astype(np.float64) for part in encoded]
        return join(parts), mean_average_precision
    classes = join([np.full(like.shape, MASKED) if part is None else part.numpy() for part in encoded])
    one_hot = np.eye(task.num_outputs)[classes]
    return np.where((classes == MASKED)[:, None], np.nan, one_hot), accuracy


@torch.no_grad()
def embeddings(
    backbone: Backbone, waveforms: Tensor, layers: Sequence[int], device: torch.device
) -> tuple[Floats, dict[int, Floats]]:
    """Class tokens of the highest layer and sequence tokens of each layer, of a backbone in eval mode, in float64.

    Args:
        backbone: Its modes are restored, even after an error.
        waveforms: (E, N).
        layers: Ascending.
        device: Of the backbone.

    Returns:
        Class tokens (E, D), and sequence tokens (E * T, D) by layer.
    """
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()
    class_tokens: list[np.ndarray] = []
    tokens: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}
    try:
        with torch.compiler.set_stance("force_eager"), torch.autocast(device.type, enabled=False):
            for batch in waveforms.split(_BATCH):
                output = backbone(batch.to(device), layers)
                class_tokens.append(output.class_token[layers[-1]].float().cpu().numpy())
                for layer in layers:
                    tokens[layer].append(output.sequence[layer].flatten(0, 1).float().cpu().numpy())
    finally:
        for module, was_training in modes.items():
            module.training = was_training
    sequence = {layer: np.concatenate(parts).astype(np.float64) for layer, parts in tokens.items()}
    return np.concatenate(class_tokens).astype(np.float64), sequence


def probed(features: Floats, probe_task: OnlineProbeTask) -> float:
    """Score of a linear probe on the valid examples, its penalty chosen on the held-out ones; features (n, D)."""
    _, targets, fit, held_out, valid, measure = probe_task
    train = probe_task.train
    deviation = features[train].std(axis=0)
    features = features / np.where(deviation > 0, deviation, 1.0)  # ridge penalises all features alike
    estimates = ridge(features[fit], targets[fit], features[held_out], PENALTIES)  # (penalties, n, C)
    scores = [measure(estimate, targets[held_out]) for estimate in estimates]
    best = int(np.nan_to_num(scores, nan=-1.0).argmax())
    estimate = ridge(features[train], targets[train], features[valid], PENALTIES[best : best + 1])[0]
    return measure(estimate, targets[valid])
