"""What a task is: a question about music, from annotation to score.

A new task is one file in this folder with one ``Task`` subclass, and one file in ``conf/task/``. Its five answers, in
the order a probe asks for them: ``encode`` an annotation as a target, the ``loss`` of logits against it, ``decode``
logits into an estimate a musician would recognise, ``score`` estimates against annotations, and the ``majority_estimate`` of someone who has not listened.

Shapes:  N examples   C outputs   K tokens of a track
Conventions: an example is a token for tasks of level ``frame``, an excerpt for tasks of level ``track``; references
are annotations as distributed, never reduced targets; every score is larger for better.
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
Decoder = dict[str, Any]

CERTAIN = 12.0  # logit of what is true: a probability of 1 - 6e-6
MASKED = -1  # target of an example that has no class: it neither trains nor counts


@dataclass
class Scores:
    """Scores of a split.

    Attributes:
        corpus: Value of each score over the split.
        per_track: For scores that are means over tracks, the value of each track, (num_tracks,); NaN where a track
            leaves the score undefined.
        details: Counts that cost nothing (``classes_scored``); plain numbers, texts, lists and dicts. Tables by
            class come from `Task.details`.
    """

    corpus: dict[str, float]
    per_track: dict[str, Floats] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Task:
    """A downstream task; subclasses are dataclasses whose fields are the keys of their file in ``conf/task/``."""

    name: ClassVar[str] = ""
    annotation: ClassVar[str] = ""
    level: ClassVar[str] = "frame"  # or "track"
    headline: ClassVar[str] = ""  # the score that selects on validation
    shown_scores: ClassVar[tuple[str, ...]] = ()  # what tables show, the headline first; empty: all scores
    descriptive_scores: ClassVar[tuple[str, ...]] = ()  # without better or worse: never bold, never compared
    suffix: ClassVar[str] = ".csv"  # of estimate files
    decoders: ClassVar[tuple[str, ...]] = ("default",)  # the first one selects
    classical: ClassVar[str] = ""  # a system without learning that ``classical_estimate`` runs, if there is one

    @property
    def display_name(self) -> str:
        """What rows and tables call this task."""
        return self.name

    @property
    def annotation_name(self) -> str:
        """The annotation of a track that this task is about."""
        return self.annotation

    def prepare(self, annotations: Sequence[Any]) -> None:
        """Learn from the training annotations what is needed before encoding: a vocabulary, a rate."""

    @property
    def num_outputs(self) -> int:
        """Logits per example."""
        raise NotImplementedError

    def encode(self, annotation: Any, times: Floats) -> Tensor:
        """Targets: (K, ...) at token times in seconds for level ``frame``, one target for level ``track``."""
        raise NotImplementedError

    def oracle_logits(self, annotation: Any, times: Floats) -> Floats:
        """Logits (K, C) at token times of who knows the truth; where it has no target they say nothing."""
        targets = self.encode(annotation, times)
        if targets.is_floating_point():
            sure = torch.logit(targets.double().nan_to_num(0.5), eps=1e-6).clamp(-CERTAIN, CERTAIN)
            return np.asarray(sure.numpy())
        known = F.one_hot(targets.clamp(min=0), self.num_outputs) * (targets != MASKED)[:, None]
        return np.asarray((CERTAIN * known).double().numpy())

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of one head, (N, C) against the targets of N examples; must work under `torch.vmap`."""
        raise NotImplementedError

    def weight(self, targets: Tensor) -> float:
        """How many targets the mean in ``loss`` is over: masked classes and unknown (NaN) activations do not count."""
        known = ~targets.isnan() if targets.is_floating_point() else targets != MASKED
        return float(known.sum())

    def calibrate(self, decoder: str, logits: Sequence[Floats], times: Sequence[Floats], references: Any) -> Decoder:
        """Settings of a decoder, chosen on the validation tracks; at least its ``name``."""
        return {"name": decoder}

    def decode(self, logits: Floats, times: Floats, seconds: float, decoder: Decoder) -> Any:
        """Estimate of one track of ``seconds`` from its logits: (K, C) tokens or (E, C) excerpts."""
        raise NotImplementedError

    def score(self, references: Sequence[Any], estimates: Sequence[Any]) -> Scores:
        """Scores of a whole split, one reference and one estimate a track."""
        raise NotImplementedError

    def validate(self, references: Sequence[Any], estimates: Sequence[Any]) -> float:
        """The headline of a split, which chooses on validation; NaN where it is undefined."""
        return self.score(references, estimates).corpus.get(self.headline, float("nan"))

    def resample(self, references: Sequence[Any], estimates: Sequence[Any], counts: Floats) -> dict[str, Floats]:
        """Corpus values when track i counts ``counts[r, i]`` times, (R, num_tracks) -> (R,) each.

        Needed only for scores that are not means over tracks.
        """
        return {}

    def details(self, references: Sequence[Any], estimates: Sequence[Any]) -> dict[str, Any]:
        """What else there is to say about a split, for chosen heads only: tables by class, confusions, counts.

        Plain numbers, texts, lists and dicts; None where a value is undefined, never NaN.
        """
        return {}

    def classical_estimate(self, waveform: npt.NDArray[np.float32], sample_rate: int) -> Any:
        """Estimate of a track by the classical system that ``classical`` names, from the waveform (N,) alone."""
        raise NotImplementedError

    def majority_estimate(self, annotations: Sequence[Any], seconds: float) -> Any:
        """Estimate for any track of ``seconds`` that only the training annotations inform."""
        raise NotImplementedError

    def write(self, estimate: Any, path: Path) -> None:
        """Write an estimate in the format its annotation has."""
        raise NotImplementedError


def track_means(values: Mapping[str, Sequence[float] | Floats]) -> Scores:
    """Scores whose corpus value is the mean over the tracks where it is defined."""
    per_track = {name: np.asarray(column, dtype=np.float64) for name, column in values.items()}
    scored = {name: column[~np.isnan(column)] for name, column in per_track.items()}
    corpus = {name: float(column.mean()) for name, column in scored.items() if len(column)}
    return Scores(corpus, {name: per_track[name] for name in corpus})


def masked_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of (N, C) over the examples whose class is known, (N,); 0 where all are ``MASKED``.

    Under `torch.vmap` this is as fast as gathering from a log-softmax by hand.
    """
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
