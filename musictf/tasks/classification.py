"""Classification: which one label of a vocabulary a track has, a genre or an instrument.

Conventions: the vocabulary is every class of the training split, sorted; probabilities of a track are the mean over its
excerpts, and the class of the greatest is the answer (of equal ones the first). A track of a class that training never
showed does not train, cannot be right, and is counted (``unseen``); it is never left out.

Scored: ``accuracy``, and ``macro_f1``, the mean F1 over the classes that occur among references or estimates, as
`sklearn.metrics.f1_score` with ``average="macro"`` has it; a class that is only one of the two counts with 0.
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
    """Single-label classification of whole tracks by the annotation ``label``."""

    name: ClassVar[str] = "classification"
    annotation: ClassVar[str] = "genre"
    level: ClassVar[str] = "track"
    headline: ClassVar[str] = "accuracy"
    shown_scores: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")
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
                f"task={self.display_name}: the training tracks are of {len(self.vocabulary)} class "
                f"({', '.join(self.vocabulary)}); two are the least that can be told apart"
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
        names, wanted, found = self._classes(references, estimates)
        right = (wanted == found).astype(np.float64)
        f1 = _macro_f1(wanted, found, len(names), np.ones((1, len(wanted))))
        return Scores(
            {"accuracy": float(right.mean()), "macro_f1": float(f1[0])},
            {"accuracy": right},
            {"classes": len(self.vocabulary), "unseen": int((wanted >= len(self.vocabulary)).sum())},
        )

    def resample(self, references: Sequence[str], estimates: Sequence[Floats], counts: Floats) -> dict[str, Floats]:
        names, wanted, found = self._classes(references, estimates)
        return {"macro_f1": _macro_f1(wanted, found, len(names), counts)}

    def details(self, references: Sequence[str], estimates: Sequence[Floats]) -> dict[str, Any]:
        """Each class, and ``counts[i][j]`` of ``confusion``: tracks of the i-th of its ``labels`` taken for the j-th.

        Precision is None for a class that is never estimated, recall for one that never occurs.
        """
        names, wanted, found = self._classes(references, estimates)
        table = np.zeros((len(names), len(names)), dtype=np.int64)
        np.add.at(table, (wanted, found), 1)
        hits, tracks, answers = table.diagonal(), table.sum(axis=1), table.sum(axis=0)
        with np.errstate(invalid="ignore"):
            columns = {"precision": hits / answers, "recall": hits / tracks, "f1": 2 * hits / (tracks + answers)}
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
        return np.bincount([int(self.encode(a, np.empty(0))) for a in annotations], minlength=self.num_outputs) / len(
            annotations
        )

    def write(self, estimate: Floats, path: Path) -> None:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("class", "probability"))
            writer.writerows((name, repr(float(value))) for name, value in zip(self.vocabulary, estimate, strict=True))

    def _text(self, label: Any) -> str:
        if not isinstance(label, str) or not label.strip():
            raise InputError(
                f"task={self.display_name}: {label!r} is not a class; give each track one text as {self.label!r}"
            )
        return label.strip()

    def _classes(self, references: Sequence[str], estimates: Sequence[Floats]) -> tuple[list[str], Any, Any]:
        """Names of all classes, those training never showed last, and class of each reference and estimate."""
        texts = [self._text(label) for label in references]
        names = [*self.vocabulary, *sorted(set(texts) - set(self.vocabulary))]
        index = {name: k for k, name in enumerate(names)}
        return names, np.array([index[text] for text in texts]), np.array([int(e.argmax()) for e in estimates])


def _macro_f1(wanted: Any, found: Any, num_classes: int, counts: Floats) -> Floats:
    """Macro F1 when track i counts ``counts[r, i]`` times, (R,)."""
    is_wanted, is_found = np.eye(num_classes)[wanted], np.eye(num_classes)[found]
    hits, occurs = counts @ (is_wanted * is_found), counts @ (is_wanted + is_found)
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.filterwarnings("ignore", message="Mean of empty slice")
        values: Floats = np.nanmean(2 * hits / occurs, axis=1)
    return values
