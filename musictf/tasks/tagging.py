"""Tagging: which labels of a vocabulary apply to a track.

Conventions: the vocabulary is every tag of the training split, sorted; probabilities of a track are the mean over its
excerpts, in float32 or better; scores are macro means over the classes that have tracks with and without the tag
in the split, and ``classes_scored`` says how many those are (a class without positives is undefined, not 0). A tag that
training never showed cannot be scored; ``details`` names it.

Scored: ``map``, the mean of average precisions, and ``roc_auc``, both by torchmetrics.
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
    """Multi-label classification of whole tracks."""

    name: ClassVar[str] = "tagging"
    annotation: ClassVar[str] = "tags"
    level: ClassVar[str] = "track"
    headline: ClassVar[str] = "map"
    shown_scores: ClassVar[tuple[str, ...]] = ("map", "roc_auc")
    descriptive_scores: ClassVar[tuple[str, ...]] = ("classes_scored",)
    decoders: ClassVar[tuple[str, ...]] = ("mean_probability",)

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
        scored = _has_both(truth)
        if not scored.any():
            raise InputError("task=tagging: no tag has tracks with and without it in this split; nothing to score")
        labels = int(scored.sum())
        predicted = torch.from_numpy(probabilities[:, scored])
        wanted = torch.from_numpy(truth[:, scored]).long()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="torchmetrics")
            if labels == 1:  # torchmetrics calls one label no multi-label problem
                average_precision = binary_average_precision(predicted[:, 0], wanted[:, 0])
                area = binary_auroc(predicted[:, 0], wanted[:, 0])
            else:
                average_precision = multilabel_average_precision(predicted, wanted, labels, average="macro")
                area = multilabel_auroc(predicted, wanted, labels, average="macro")
        names = [tag for tag, has_both in zip(self.vocabulary, scored, strict=True) if has_both]
        return Scores(
            {"map": float(average_precision), "roc_auc": float(area)},
            details={"classes_scored": labels, "classes": len(self.vocabulary), "scored": names},
        )

    def resample(
        self, references: Sequence[Sequence[str]], estimates: Sequence[Floats], counts: Floats
    ) -> dict[str, Floats]:
        truth, probabilities = self._matrices(references, estimates)
        precision, area = weighted_ranking(truth, probabilities, counts)
        # A resample may lack a class altogether: its mean is over the classes that are left.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Mean of empty slice")
            return {"map": np.nanmean(precision, axis=1), "roc_auc": np.nanmean(area, axis=1)}

    def details(self, references: Sequence[Sequence[str]], estimates: Sequence[Floats]) -> dict[str, Any]:
        """Average precision, ROC-AUC and tracks of each class, and the tags that training never showed."""
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
            writer.writerows((tag, repr(float(value))) for tag, value in zip(self.vocabulary, estimate, strict=True))

    def _matrices(self, references: Sequence[Sequence[str]], estimates: Sequence[Floats]) -> tuple[Floats, Floats]:
        truth = np.asarray([[float(tag in tags) for tag in self.vocabulary] for tags in references])
        return truth, np.asarray(estimates, dtype=np.float64)


def weighted_ranking(truth: Floats, probabilities: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Average precision and ROC-AUC of each class when tracks are counted several times or not at all.

    Tracks of equal probability are ranked together. NaN where a class has no positive or no negative left.

    Args:
        truth: 0 or 1, (num_tracks, C).
        probabilities: (num_tracks, C).
        counts: How often each track counts, (R, num_tracks).

    Returns:
        Average precision and ROC-AUC, both (R, C).
    """
    shape = (len(counts), truth.shape[1])
    precision, area = np.full(shape, np.nan), np.full(shape, np.nan)
    for column in range(truth.shape[1]):
        order = np.argsort(-probabilities[:, column], kind="stable")
        ranked = probabilities[order, column]
        last_of_tie = np.searchsorted(-ranked, -ranked, side="right") - 1
        positive, negative = counts[:, order] * truth[order, column], counts[:, order] * (1 - truth[order, column])
        hits, misses = positive.cumsum(axis=1)[:, last_of_tie], negative.cumsum(axis=1)[:, last_of_tie]
        num_positive, num_negative = positive.sum(axis=1), negative.sum(axis=1)
        usable = (num_positive > 0) & (num_negative > 0)
        tied = _within_ties(negative, last_of_tie)
        with np.errstate(divide="ignore", invalid="ignore"):
            average = np.nansum(positive * hits / (hits + misses), axis=1) / num_positive
            below = (positive * (num_negative[:, None] - misses + tied / 2)).sum(axis=1)
            precision[usable, column] = average[usable]
            area[usable, column] = (below / (num_positive * num_negative))[usable]
    return precision, area


def _within_ties(negative: Floats, last_of_tie: np.ndarray) -> Floats:
    """Count of negatives that share each track's probability, (R, num_tracks)."""
    totals = np.zeros_like(negative)
    np.add.at(totals.T, last_of_tie, negative.T)
    return totals[:, last_of_tie]


def _has_both(truth: Floats) -> np.ndarray:
    return (truth.sum(axis=0) > 0) & (truth.sum(axis=0) < len(truth))
