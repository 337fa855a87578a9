"""The base class of all downstream tasks, and what they share.

A new task is one file in this folder with one `Task` subclass, found by its ``name``. A probe calls the
methods of a task in this order: ``prepare`` on the training annotations, ``encode`` an annotation as a training target,
``loss`` of logits against targets, ``calibrate`` a decoder on validation, ``decode`` logits into an estimate in musical
terms, ``score`` estimates against annotations.

Conventions:
    An example is a token for tasks of level ``frame`` and an excerpt for tasks of level ``track``.
    References are annotations as distributed, never targets turned back into annotations.
    A larger score is better, for every score.

Shapes:  N examples   C outputs   K tokens of a track   E excerpts of a track   R resamples
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

Floats = npt.NDArray[np.float64]
Decoder = dict[str, Any]  # settings of a decoder: its ``name``, and what ``calibrate`` chose

CERTAIN = 12.0  # logit of a true class: a probability of 1 - 6e-6
MASKED = -1  # target of an example without a class: it is neither trained on nor counted


@dataclass
class Scores:
    """Scores of a split.

    Attributes:
        corpus: Value of each score over the split.
        per_track: For scores that are means over tracks, the value of each track, (num_tracks,); NaN where a track
            leaves the score undefined.
        details: Counts that scoring yields at no extra cost (``classes_scored``); plain numbers, texts, lists and
            dicts. Tables by class come from `Task.details`.
    """

    corpus: dict[str, float]
    per_track: dict[str, Floats] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Task:
    """A downstream task. Subclasses are dataclasses whose fields are the keys of ``task.*``.

    Attributes:
        name: Identifies the class, in ``task=NAME``.
        annotation: Field of a manifest with the annotation of a track.
        level: ``frame`` for one target a token, ``track`` for one target a track.
        headline: The score that selects on validation.
        table_scores: Scores that tables show, the headline first; empty: all scores.
        descriptive_scores: Scores that are neither good nor bad: never bold, never compared.
        suffix: Suffix of the files with estimates.
        decoders: Names of all decoders; the first one selects on validation.
        classical: Name of the system without learning that ``classical_estimate`` runs; empty if there is none.
        online_metric: Name of the score that the online probe logs during pretraining; empty if the task takes no part.
        online_knn_metric: Name of the nearest-neighbour score that the online probe logs besides, for tasks of level
            ``track`` whose targets are 0 or 1; empty if there is none.
    """

    name: ClassVar[str] = ""
    annotation: ClassVar[str] = ""
    level: ClassVar[str] = "frame"
    headline: ClassVar[str] = ""
    table_scores: ClassVar[tuple[str, ...]] = ()
    descriptive_scores: ClassVar[tuple[str, ...]] = ()
    suffix: ClassVar[str] = ".csv"
    decoders: ClassVar[tuple[str, ...]] = ("default",)
    classical: ClassVar[str] = ""
    online_metric: ClassVar[str] = ""
    online_knn_metric: ClassVar[str] = ""

    @property
    def display_name(self) -> str:
        """Name of the task in rows, tables and files: ``name``, unless a field gives another (`ClassificationTask`)."""
        return self.name

    @property
    def annotation_name(self) -> str:
        """The annotation that is probed: ``annotation``, unless a field gives another (`ClassificationTask`)."""
        return self.annotation

    def prepare(self, annotations: Sequence[Any]) -> None:
        """Learn from the training annotations what encoding needs: a vocabulary, a typical duration."""

    @property
    def num_outputs(self) -> int:
        """Logits per example."""
        raise NotImplementedError

    def encode(self, annotation: Any, times: Floats) -> Tensor:
        """Training targets of a track: class indices (integers), or activations in [0, 1] (floats).

        Args:
            annotation: Of the track.
            times: Token centres in seconds, (K,).

        Returns:
            (K,) or (K, C) for level ``frame``; () or (C,) for level ``track``. Unknown targets are `MASKED` among class
            indices and NaN among activations.
        """
        raise NotImplementedError

    def online_targets(self, annotation: Any, times: Floats) -> Tensor:
        """Targets of the online probe: by default those of ``encode``; a subclass may leave outputs out.

        The online probe scores class indices (K,) by accuracy, and activations (K, C) by mean average precision.
        """
        return self.encode(annotation, times)

    def oracle_logits(self, annotation: Any, times: Floats) -> Floats:
        """Logits (K, C) at token times in seconds (K,) that state the targets; 0 where a target is unknown."""
        targets = self.encode(annotation, times)
        if targets.is_floating_point():
            certain = torch.logit(targets.double().nan_to_num(0.5), eps=1e-6).clamp(-CERTAIN, CERTAIN)
            return np.asarray(certain.numpy())
        known = F.one_hot(targets.clamp(min=0), self.num_outputs) * (targets != MASKED)[:, None]  # (K, C)
        return np.asarray((CERTAIN * known).double().numpy())

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of one head, (N, C) against the targets of N examples, (); must work under `torch.vmap`."""
        raise NotImplementedError

    def weight(self, targets: Tensor) -> float:
        """Number of known targets, over which ``loss`` is a mean; targets as in ``encode``, (N,) or (N, C)."""
        known = ~targets.isnan() if targets.is_floating_point() else targets != MASKED
        return float(known.sum())

    def calibrate(self, decoder: str, logits: Sequence[Floats], times: Sequence[Floats], references: Any) -> Decoder:
        """Settings of a decoder, chosen on the validation tracks; at least its ``name``.

        Args:
            decoder: One of ``decoders``.
            logits: Of each track, (K, C) for level ``frame``, (E, C) for level ``track``.
            times: Token centres of each track in seconds, (K,).
            references: Annotation of each track.
        """
        return {"name": decoder}

    def decode(self, logits: Floats, times: Floats, seconds: float, decoder: Decoder) -> Any:
        """Estimate of one track.

        Args:
            logits: (K, C) for level ``frame``, (E, C) for level ``track``.
            times: Token centres in seconds, (K,).
            seconds: Duration of the track.
            decoder: Settings, from ``calibrate``.
        """
        raise NotImplementedError

    def score(self, references: Sequence[Any], estimates: Sequence[Any]) -> Scores:
        """Scores of a whole split, from one reference and one estimate per track."""
        raise NotImplementedError

    def validate(self, references: Sequence[Any], estimates: Sequence[Any]) -> float:
        """The headline score of a split, which selects on validation; NaN where it is undefined."""
        return self.score(references, estimates).corpus.get(self.headline, float("nan"))

    def resample(self, references: Sequence[Any], estimates: Sequence[Any], counts: Floats) -> dict[str, Floats]:
        """Corpus values when track i counts ``counts[r, i]`` times, (R, num_tracks) -> (R,) for each score.

        Needed only for scores that are not means over tracks.
        """
        return {}

    def details(self, references: Sequence[Any], estimates: Sequence[Any]) -> dict[str, Any]:
        """Tables by class, confusions and counts of a split; computed for selected heads only.

        Plain numbers, texts, lists and dicts; None where a value is undefined, never NaN.
        """
        return {}

    def classical_estimate(self, waveform: npt.NDArray[np.float32], sample_rate: int) -> Any:
        """Estimate of a track by the system that ``classical`` names, from the waveform (num_samples,) alone."""
        raise NotImplementedError

    def majority_estimate(self, annotations: Sequence[Any], seconds: float) -> Any:
        """Estimate for a track of ``seconds`` that depends on the training annotations only, not on the audio."""
        raise NotImplementedError

    def write(self, estimate: Any, path: Path) -> None:
        """Write an estimate in the file format of its annotation."""
        raise NotImplementedError


def track_means(values: Mapping[str, Sequence[float] | Floats]) -> Scores:
    """Scores that are means over tracks.

    Args:
        values: Value of each track for each score, (num_tracks,); NaN where a track leaves the score undefined.

    Returns:
        Each mean is over the tracks where its score is defined; a score that is defined nowhere is left out.
    """
    per_track = {name: np.asarray(column, dtype=np.float64) for name, column in values.items()}
    defined_values = {name: column[~np.isnan(column)] for name, column in per_track.items()}
    corpus = {name: float(column.mean()) for name, column in defined_values.items() if len(column)}
    return Scores(corpus, {name: per_track[name] for name in corpus})


def masked_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of logits (N, C) over the examples whose class is known, (N,); 0 where all are `MASKED`.

    Under `torch.vmap` this is as fast as gathering from a log-softmax by hand.
    """
    # The clamp keeps a batch without any known class at 0 instead of NaN.
    total = F.cross_entropy(logits, targets, ignore_index=MASKED, reduction="sum")
    return total / (targets != MASKED).sum().clamp(min=1)


def mean_softmax(logits: Floats) -> Floats:
    """Class probabilities of a track, (C,): the mean over its excerpts (E, C), in float64."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    probabilities: Floats = (shifted / shifted.sum(axis=1, keepdims=True)).mean(axis=0)
    return probabilities


def defined(value: float) -> float | None:
    """A number for `Task.details`: None instead of NaN."""
    return None if np.isnan(value) else float(value)
