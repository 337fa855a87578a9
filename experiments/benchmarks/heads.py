"""Our heads beside scikit-learn's logistic regression: same frames, same features, same penalty.

Both minimise mean loss + weight_decay / 2 * |W|^2 on features standardised with training statistics, so
``C = 1 / (num_frames * weight_decay)``. Ours chooses its learning rate and stops on validation; scikit-learn runs until
it converges. Both see the same training frames, evenly spaced where there are too many for scikit-learn. The score is
the share of frames of a test track whose chord class is right, frames without a class left out.

Shapes:  N frames   L layers   D embedding   C classes
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from frame import MINI, Measurement, Settings, accelerator
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

from musictf.datasets.base import SPLITS
from musictf.distributed import TrainerConfig
from musictf.evaluation.study import logits_of
from musictf.evaluation.task_tracks import Corpus, annotated
from musictf.features.extract import FeatureConfig, extract
from musictf.features.readouts import Split, scored_split, trained_split
from musictf.probing.heads import Head
from musictf.probing.linear_probe import ProbeConfig, fit
from musictf.results.statistics import paired_difference
from musictf.tasks.base import MASKED, Task
from musictf.tasks.chord import ChordTask

LAYERS = (1, MINI.depth)
READOUT = "sequence"
MOST_FRAMES = 30_000
TARGET = -0.01  # the least that the lower end of the interval of ours minus theirs may be

Floats = npt.NDArray[np.float64]


def measure(settings: Settings) -> list[Measurement]:
    """Accuracy of our heads minus that of scikit-learn's, on two layers."""
    task, most = ChordTask(), 2_000 if settings.quick else MOST_FRAMES
    corpus = annotated(settings.corpus, task, allow_missing=True)
    task.prepare(corpus.references["train"])
    splits = features(task, corpus, settings)
    frames = len(splits["train"].targets)
    splits["train"] = thinned(splits["train"], most)
    config = ProbeConfig(steps=60, learning_rates=[1e-2]) if settings.quick else ProbeConfig()
    trainer = TrainerConfig(accelerator=accelerator(settings.device))
    heads = fit(task, splits["train"], splits["valid"], LAYERS, config, trainer, seeds=[0])[READOUT, 0]
    about = f"{len(splits['train'].targets)} of {frames} training frames for both"
    return [compared(head, splits, corpus, about) for head in heads]


def features(task: Task, corpus: Corpus, settings: Settings) -> dict[str, Split]:
    """Splits of the two layers; those of training and validation with targets, that of test track by track."""
    backbone, found = settings.backbone(), {}
    for name in SPLITS:
        extracted = extract(backbone, corpus.tracks[name], LAYERS, FeatureConfig(), settings.device)
        make = scored_split if name == "test" else trained_split
        found[name] = make(task, extracted, corpus.references[name], [READOUT])
    return found


def thinned(split: Split, most: int) -> Split:
    """A split with at most so many of its examples that have a class, evenly spaced."""
    known = (split.targets != MASKED).nonzero().flatten()
    number = min(len(known), most)
    chosen = known[torch.arange(number) * len(known) // number]
    index = {name: rows[chosen] for name, rows in split.index.items()}
    return dataclasses.replace(split, index=index, targets=split.targets[chosen])


def compared(head: Head, splits: dict[str, Split], corpus: Corpus, about: str) -> Measurement:
    """One layer: the difference with its interval over groups of test tracks."""
    decay = head.selection["weight_decay"]
    theirs = logistic_regression(head, splits["train"], decay)
    ours, other = (
        accuracies(logits, splits["test"], corpus, ChordTask())
        for logits in (lambda track: logits_of(head, READOUT, track), theirs)
    )
    difference, low, high = paired_difference(ours, other, corpus.groups)
    return Measurement(
        name=f"layer {head.layer}",
        value=difference,
        unit="frame accuracy",
        against=(
            f"LogisticRegression(C=1/({len(splits['train'].targets)}*{decay:g})): {np.nanmean(other):.4f}, ours "
            f"{np.nanmean(ours):.4f}; difference [{low:+.4f}, {high:+.4f}] over {len(ours)} test tracks; {about}"
        ),
        target=TARGET,
        met=bool(low >= TARGET),
    )


def logistic_regression(head: Head, train: Split, weight_decay: float) -> Callable[..., Floats]:
    """Fit scikit-learn's on the frames of a split; returns scores of the C classes of a track, (N, C)."""
    rows = train.rows[READOUT].index_select(0, train.index[READOUT])[:, head.column].float()
    mean, scale = head.mean, head.scale
    model = LogisticRegression(C=1 / (len(rows) * weight_decay), max_iter=2000, tol=1e-5)
    model.fit(((rows - mean) / scale).double().numpy(), train.targets.numpy())

    def scores(track: object) -> Floats:
        features = track.rows[READOUT][track.index[READOUT], head.column].float()  # type: ignore[attr-defined]
        found = np.full((len(features), len(head.bias)), -np.inf)
        found[:, model.classes_] = model.decision_function(((features - mean) / scale).double().numpy())
        return found

    return scores


def accuracies(logits: Callable[..., Floats], test: Split, corpus: Corpus, task: Task) -> Floats:
    """Share of right frames of each test track; NaN for a track without a frame that has a class."""
    values = []
    for track, reference in zip(test.tracks, corpus.references["test"], strict=True):
        targets = task.encode(reference, track.times).numpy()
        known = targets != MASKED
        right = logits(track).argmax(axis=1)[known] == targets[known]
        values.append(right.mean() if known.any() else np.nan)
    return np.asarray(values)
