"""Classification: the one label of a vocabulary that a track has, such as a genre or an instrument.

Conventions:
    The vocabulary is every class of the training split, sorted.
    Class probabilities of a track are the mean over its excerpts. The class with the highest probability is the
    estimate; of equal ones the first.
    A track of a class that does not occur in training is masked in training and counts as wrong in scoring. It is never
    left out; ``unseen`` is the number of such tracks.

Scored: ``accuracy``; and ``macro_f1``, the mean F1 over the classes that occur among references or estimates, as
`sklearn.metrics.f1_score` with ``average="macro"``. A class that occurs among only one of the two has an F1 of 0.

Shapes:  N examples   E excerpts of a track   C classes of training   R resamples
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from musictf.errors import InputError
from musictf.tasks.base import MASKED, Decoder, Floats, Scores, Task, defined, masked_cross_entropy, mean_softmax


@dataclass(kw_only=True)
class ClassificationTask(Task):
    """Single-label classification of whole tracks.

    Attributes:
        label: The annotation that holds the class of a track; also the name of the task in rows and tables.
        vocabulary: All classes, sorted; learnt from the training split.
    """

    name: ClassVar[str] = "classification"
    annotation: ClassVar[str] = "genre"
    level: ClassVar[str] = "track"
    headline: ClassVar[str] = "accuracy"
    table_scores: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")
    descriptive_scores: ClassVar[tuple[str, ...]] = ("classes_scored",)
    decoders: ClassVar[tuple[str, ...]] = ("mean_probability",)

    label: str = "genre"
    vocabulary: list[str] = field(default_factory=list)

    @property
    def display_name(self) -> str:
        return self.label

    @property
    def annotation_name(self) -> str:
        return self.label

    def prepare(self, annotations: Sequence[str]) -> None:
        self.vocabulary = sorted({self._text(label) for label in annotations})
        if len(self.vocabulary) < 2:
            raise InputError(
                f"task={self.display_name}: the training tracks have only {len(self.vocabulary)} class "
                f"({', '.join(self.vocabulary)}); give at least two"
            )

    @property
    def num_outputs(self) -> int:
        return len(self.vocabulary)

    def encode(self, annotation: str, times: Floats) -> Tensor:
        text = self._text(annotation)
        return torch.tensor(self.vocabulary.index(text) if text in self.vocabulary else MASKED)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return masked_cross_entropy(logits, targets)

    def decode(self, logits: Floats, times: Floats, seconds: float, decoder: Decoder) -> Floats:
        return mean_softmax(logits)

    def score(self, references: Sequence[str], estimates: Sequence[Floats]) -> Scores:
        names, reference, estimate = self._classes(references, estimates)
        is_right = (reference == estimate).astype(np.float64)
        f1 = _macro_f1(reference, estimate, len(names), np.ones((1, len(reference))))
        return Scores(
            {"accuracy": float(is_right.mean()), "macro_f1": float(f1[0])},
            {"accuracy": is_right},
            {"classes": len(self.vocabulary), "unseen": int((reference >= len(self.vocabulary)).sum())},
        )

    def resample(self, references: Sequence[str], estimates: Sequence[Floats], counts: Floats) -> dict[str, Floats]:
        names, reference, estimate = self._classes(references, estimates)
        return {"macro_f1": _macro_f1(reference, estimate, len(names), counts)}

    def details(self, references: Sequence[str], estimates: Sequence[Floats]) -> dict[str, Any]:
        """Scores of each class, and a confusion table, from probabilities (C,) of each track.

        ``counts[i][j]`` of ``confusion`` is the number of tracks of the i-th of ``labels`` that are estimated as the
        j-th. Precision is None for a class that is never estimated, recall for a class that never occurs.
        """
        names, reference, estimate = self._classes(references, estimates)
        table = np.zeros((len(names), len(names)), dtype=np.int64)
        np.add.at(table, (reference, estimate), 1)
        hits, tracks, estimated = table.diagonal(), table.sum(axis=1), table.sum(axis=0)
        with np.errstate(invalid="ignore"):
            columns = {"precision": hits / estimated, "recall": hits / tracks, "f1": 2 * hits / (tracks + estimated)}
        by_class = {
            name: {"tracks": int(tracks[k])} | {key: defined(values[k]) for key, values in columns.items()}
            for k, name in enumerate(names)
        }
        return {
            "by_class": by_class,
            "confusion": {"labels": names, "counts": table.tolist()},
            "unseen_classes": names[len(self.vocabulary) :],
        }

    def majority_estimate(self, annotations: Sequence[str], seconds: float) -> Floats:
        classes = [int(self.encode(annotation, np.empty(0))) for annotation in annotations]
        return np.bincount(classes, minlength=self.num_outputs) / len(annotations)

    def write(self, estimate: Floats, path: Path) -> None:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("class", "probability"))
            # repr keeps every digit, so that scoring the file gives the scores of the row
            writer.writerows((name, repr(float(value))) for name, value in zip(self.vocabulary, estimate, strict=True))

    def _text(self, label: Any) -> str:
        if not isinstance(label, str) or not label.strip():
            raise InputError(
                f"task={self.display_name}: {label!r} is not a class; give each track one text as {self.label!r}"
            )
        return label.strip()

    def _classes(self, references: Sequence[str], estimates: Sequence[Floats]) -> tuple[list[str], Any, Any]:
        """Names of all classes, those not in training last, and the class of each reference and estimate."""
        texts = [self._text(label) for label in references]
        names = [*self.vocabulary, *sorted(set(texts) - set(self.vocabulary))]
        index = {name: k for k, name in enumerate(names)}
        return names, np.array([index[text] for text in texts]), np.array([int(e.argmax()) for e in estimates])


def _macro_f1(reference: Any, estimate: Any, num_classes: int, counts: Floats) -> Floats:
    """Macro F1 when track i counts ``counts[r, i]`` times, (R, num_tracks) -> (R,)."""
    is_reference, is_estimate = np.eye(num_classes)[reference], np.eye(num_classes)[estimate]  # (num_tracks, classes)
    # F1 = 2 TP / (2 TP + FP + FN), and the denominator is references plus estimates of the class
    hits, occurrences = counts @ (is_reference * is_estimate), counts @ (is_reference + is_estimate)
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.filterwarnings("ignore", message="Mean of empty slice")
        values: Floats = np.nanmean(2 * hits / occurrences, axis=1)  # 0 / 0: the class does not occur
    return values
