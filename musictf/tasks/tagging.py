"""Tagging: the labels of a vocabulary that apply to a track; any number of them.

Conventions:
    The vocabulary is every tag of the training split, sorted. A tag that does not occur in training cannot be scored;
    ``details`` lists such tags.
    Probabilities of a track are the mean over its excerpts.
    Scores are macro means over the classes that have tracks with and without the tag in the split: a class without
    positives is undefined, not 0. ``classes_scored`` is the number of these classes.

Scored by torchmetrics: ``map``, the mean of average precisions (PR-AUC), and ``roc_auc``.

References:
    Davis and Goadrich, "The Relationship Between Precision-Recall and ROC Curves", ICML 2006: both areas, and why
    precision must not be interpolated linearly.

Shapes:  N examples   E excerpts of a track   C classes   R resamples
"""

from __future__ import annotations

import csv
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    multilabel_auroc,
    multilabel_average_precision,
)

from musictf.errors import InputError
from musictf.tasks.base import Decoder, Floats, Scores, Task, defined


@dataclass(kw_only=True)
class TaggingTask(Task):
    """Multi-label classification of whole tracks.

    Attributes:
        vocabulary: All tags, sorted; learnt from the training split.
    """

    name: ClassVar[str] = "tagging"
    annotation: ClassVar[str] = "tags"
    level: ClassVar[str] = "track"
    headline: ClassVar[str] = "map"
    table_scores: ClassVar[tuple[str, ...]] = ("map", "roc_auc")
    descriptive_scores: ClassVar[tuple[str, ...]] = ("classes_scored",)
    decoders: ClassVar[tuple[str, ...]] = ("mean_probability",)
    online_metric: ClassVar[str] = "tag_map"
    online_knn_metric: ClassVar[str] = "knn_accuracy"

    vocabulary: list[str] = field(default_factory=list)

    def prepare(self, annotations: Sequence[Sequence[str]]) -> None:
        self.vocabulary = sorted({tag for tags in annotations for tag in tags})
        if not self.vocabulary:
            raise InputError("task=tagging: no training track has a tag")

    @property
    def num_outputs(self) -> int:
        return len(self.vocabulary)

    def encode(self, annotation: Sequence[str], times: Floats) -> Tensor:
        return torch.tensor([float(tag in annotation) for tag in self.vocabulary])

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, targets)

    def decode(self, logits: Floats, times: Floats, seconds: float, decoder: Decoder) -> Floats:
        return (1 / (1 + np.exp(-logits.astype(np.float64)))).mean(axis=0)

    def score(self, references: Sequence[Sequence[str]], estimates: Sequence[Floats]) -> Scores:
        truth, probabilities = self._matrices(references, estimates)
        positives = truth.sum(axis=0)
        is_scored = (positives > 0) & (positives < len(truth))  # (C,)
        if not is_scored.any():
            raise InputError("task=tagging: no tag has tracks with and without it in this split; nothing to score")
        num_scored = int(is_scored.sum())
        estimate = torch.from_numpy(probabilities[:, is_scored])  # (num_tracks, num_scored)
        reference = torch.from_numpy(truth[:, is_scored]).long()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="torchmetrics")
            if num_scored == 1:  # torchmetrics refuses a multi-label problem with one label
                average_precision = binary_average_precision(estimate[:, 0], reference[:, 0])
                area = binary_auroc(estimate[:, 0], reference[:, 0])
            else:
                average_precision = multilabel_average_precision(estimate, reference, num_scored, average="macro")
                area = multilabel_auroc(estimate, reference, num_scored, average="macro")
        scored_tags = [tag for tag, keep in zip(self.vocabulary, is_scored, strict=True) if keep]
        return Scores(
            {"map": float(average_precision), "roc_auc": float(area)},
            details={"classes_scored": num_scored, "classes": len(self.vocabulary), "scored": scored_tags},
        )

    def resample(
        self, references: Sequence[Sequence[str]], estimates: Sequence[Floats], counts: Floats
    ) -> dict[str, Floats]:
        truth, probabilities = self._matrices(references, estimates)
        precision, area = weighted_ranking(truth, probabilities, counts)  # (R, C)
        # A resample may have no track of a class: its mean is over the other classes.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Mean of empty slice")
            return {"map": np.nanmean(precision, axis=1), "roc_auc": np.nanmean(area, axis=1)}

    def details(self, references: Sequence[Sequence[str]], estimates: Sequence[Floats]) -> dict[str, Any]:
        """Average precision, ROC-AUC and positives of each class, from probabilities (C,) of each track.

        ``unseen_tags`` counts the tags of the split that do not occur in training.
        """
        truth, probabilities = self._matrices(references, estimates)
        precision, area = weighted_ranking(truth, probabilities, np.ones((1, len(truth))))
        positives = truth.sum(axis=0)
        by_class = {
            tag: {"positives": int(positives[k]), "map": defined(precision[0, k]), "roc_auc": defined(area[0, k])}
            for k, tag in enumerate(self.vocabulary)
        }
        unseen = Counter(tag for tags in references for tag in set(tags) - set(self.vocabulary))
        return {"by_class": by_class, "unseen_tags": dict(sorted(unseen.items()))}

    def majority_estimate(self, annotations: Sequence[Sequence[str]], seconds: float) -> Floats:
        return np.mean([self.encode(tags, np.empty(0)).numpy() for tags in annotations], axis=0, dtype=np.float64)

    def write(self, estimate: Floats, path: Path) -> None:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("tag", "probability"))
            # repr keeps every digit, so that scoring the file gives the scores of the row
            writer.writerows((tag, repr(float(value))) for tag, value in zip(self.vocabulary, estimate, strict=True))

    def _matrices(self, references: Sequence[Sequence[str]], estimates: Sequence[Floats]) -> tuple[Floats, Floats]:
        truth = np.asarray([[float(tag in tags) for tag in self.vocabulary] for tags in references])
        return truth, np.asarray(estimates, dtype=np.float64)


def weighted_ranking(truth: Floats, probabilities: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Average precision and ROC-AUC of each class in resamples, where tracks count several times or not at all.

    Tracks of equal probability share a rank.

    Args:
        truth: 1 where a track has the tag, else 0, (num_tracks, C).
        probabilities: (num_tracks, C).
        counts: Number of times that each track counts, (R, num_tracks).

    Returns:
        Average precision and ROC-AUC, both (R, C); NaN where a resample has no positive or no negative of a class.
    """
    shape = (len(counts), truth.shape[1])
    precision, area = np.full(shape, np.nan), np.full(shape, np.nan)
    for column in range(truth.shape[1]):
        order = np.argsort(-probabilities[:, column], kind="stable")
        ranked = probabilities[order, column]
        # Index of the last track with the same probability: a threshold takes all of a tie or nothing.
        last_of_tie = np.searchsorted(-ranked, -ranked, side="right") - 1
        positive, negative = counts[:, order] * truth[order, column], counts[:, order] * (1 - truth[order, column])
        hits, misses = positive.cumsum(axis=1)[:, last_of_tie], negative.cumsum(axis=1)[:, last_of_tie]
        num_positive, num_negative = positive.sum(axis=1), negative.sum(axis=1)
        usable = (num_positive > 0) & (num_negative > 0)
        in_tie = np.zeros_like(negative)  # at the last track of a tie: the negatives in it
        np.add.at(in_tie.T, last_of_tie, negative.T)
        tied = in_tie[:, last_of_tie]
        with np.errstate(divide="ignore", invalid="ignore"):
            average = np.nansum(positive * hits / (hits + misses), axis=1) / num_positive
            # Pairs of a positive and a negative in the right order; a tie counts one half (Mann-Whitney).
            ordered = (positive * (num_negative[:, None] - misses + tied / 2)).sum(axis=1)
            precision[usable, column] = average[usable]
            area[usable, column] = (ordered / (num_positive * num_negative))[usable]
    return precision, area
