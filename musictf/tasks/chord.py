"""Chords: who sounds when.

Conventions: seconds; training targets are the 24 major and minor triads and ``N``, labels outside them (``X``, ``sus``,
``dim``, ``aug``) are masked, not renamed; scoring compares intervals with the *original* labels, per track. A token
belongs to the interval its centre lies in; decoded boundaries lie half-way between token centres.

Scored by `mir_eval.chord`: ``root thirds triads majmin sevenths tetrads mirex``, each weighted by duration within the
track, ``seg``, and ``coverage``, the share of reference time that ``majmin`` compares at all. A score that no part of
a track defines is NaN there and leaves the mean. Decoders: ``argmax`` of each token, and ``viterbi``
(`librosa.sequence`) whose chance to stay comes from the mean chord duration of the training split.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import librosa
import mir_eval
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from musictf.annotations import Chords, write_chords
from musictf.tasks.base import Decoder, Floats, Scores, Task, track_means

_PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
VOCABULARY = tuple(f"{root}:{quality}" for quality in ("maj", "min") for root in _PITCH_CLASSES) + ("N",)
NO_CHORD = len(VOCABULARY) - 1
MASKED = -1

_TRIADS = np.array([[1, 0, 0, 0, 1, 0, 0, 1], [1, 0, 0, 1, 0, 0, 0, 1]])  # semitones 0 to 7, as majmin compares
_COMPARISONS = ("root", "thirds", "triads", "majmin", "sevenths", "tetrads", "mirex")


@dataclass(kw_only=True)
class Chord(Task):
    """Major and minor triads and no-chord, from frame to interval."""

    name: ClassVar[str] = "chord"
    annotation: ClassVar[str] = "chords"
    level: ClassVar[str] = "frame"
    headline: ClassVar[str] = "majmin"
    suffix: ClassVar[str] = ".lab"
    decoders: ClassVar[tuple[str, ...]] = ("argmax", "viterbi")

    mean_seconds: float = 2.0  # of a chord; learnt from the training split

    def prepare(self, annotations: Sequence[Chords]) -> None:
        durations = np.concatenate([np.diff(chords.intervals).ravel() for chords in annotations])
        self.mean_seconds = float(durations.mean())

    @property
    def num_outputs(self) -> int:
        return len(VOCABULARY)

    def encode(self, annotation: Chords, times: Floats) -> Tensor:
        classes = chord_classes(annotation.labels)
        index = np.searchsorted(annotation.intervals[:, 0], times, side="right") - 1
        inside = (index >= 0) & (times < annotation.intervals[index, 1])
        return torch.from_numpy(np.where(inside, classes[index], MASKED))

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        # A short batch may be masked altogether: it must weigh nothing, not be NaN.
        total = F.cross_entropy(logits, targets, ignore_index=MASKED, reduction="sum")
        return total / (targets != MASKED).sum().clamp(min=1)

    def decode(self, logits: Floats, times: Floats, seconds: float, decoder: Decoder) -> Chords:
        if decoder["name"] == "argmax":
            return merged_chords(logits.argmax(axis=1), times, seconds)
        return merged_chords(_viterbi(logits, times, self.mean_seconds), times, seconds)

    def calibrate(self, decoder: str, logits: Sequence[Floats], times: Sequence[Floats], references: object) -> Decoder:
        return {"name": decoder} | ({"mean_seconds": round(self.mean_seconds, 6)} if decoder == "viterbi" else {})

    def score(self, references: Sequence[Chords], estimates: Sequence[Chords]) -> Scores:
        rows = [chord_scores(*pair) for pair in zip(references, estimates, strict=True)]
        return track_means({name: [row[name] for row in rows] for name in rows[0]})

    def constant(self, annotations: Sequence[Chords], seconds: float) -> Chords:
        durations = np.zeros(len(VOCABULARY))
        for chords in annotations:
            classes = chord_classes(chords.labels)
            known = classes != MASKED
            np.add.at(durations, classes[known], np.diff(chords.intervals).ravel()[known])
        return Chords(np.array([[0.0, seconds]]), [VOCABULARY[int(durations.argmax())]])

    def write(self, estimate: Chords, path: Path) -> None:
        write_chords(path, estimate)


def chord_classes(labels: Sequence[str]) -> np.ndarray:
    """Vocabulary index of each Harte label, (n,); ``MASKED`` where it is neither major, minor nor ``N``."""
    roots, bitmaps, _ = mir_eval.chord.encode_many(list(labels))  # ninths stay out of the triad, as in majmin
    classes = np.full(len(labels), MASKED)
    for quality, triad in enumerate(_TRIADS):
        matches = (roots >= 0) & (bitmaps[:, :8] == triad).all(axis=1)
        classes[matches] = quality * len(_PITCH_CLASSES) + roots[matches]
    classes[[label == mir_eval.chord.NO_CHORD for label in labels]] = NO_CHORD
    return classes


def merged_chords(classes: np.ndarray, times: Floats, seconds: float) -> Chords:
    """Intervals of equal classes, from 0 to the end of the track.

    Args:
        classes: Vocabulary index of each token, (K,).
        times: Token centres in seconds, (K,).
        seconds: Duration of the track; tokens centred after it are left out.
    """
    classes, times = classes[times < seconds], times[times < seconds]
    changes = np.flatnonzero(np.diff(classes)) + 1
    boundaries = np.concatenate([[0.0], (times[changes - 1] + times[changes]) / 2, [seconds]])
    firsts = np.concatenate([[0], changes])
    return Chords(np.column_stack([boundaries[:-1], boundaries[1:]]), [VOCABULARY[k] for k in classes[firsts]])


def chord_scores(reference: Chords, estimate: Chords) -> dict[str, float]:
    """Scores of one track, as `mir_eval.chord.evaluate` computes them, but NaN where it would call nothing 0."""
    start, end = reference.intervals.min(), reference.intervals.max()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="mir_eval")
        intervals, labels = mir_eval.util.adjust_intervals(
            estimate.intervals, estimate.labels, start, end, mir_eval.chord.NO_CHORD, mir_eval.chord.NO_CHORD
        )
        # mir_eval leaves an empty interval where an estimate changes exactly at the end of the reference.
        kept = np.flatnonzero(np.diff(intervals).ravel() > 0)
        intervals, labels = intervals[kept], [labels[k] for k in kept]
        merged, wanted, found = mir_eval.util.merge_labeled_intervals(
            reference.intervals, reference.labels, intervals, labels
        )
        durations = mir_eval.util.intervals_to_durations(merged)
        scores = {}
        for name in _COMPARISONS:
            comparisons = getattr(mir_eval.chord, name)(wanted, found)
            compared = durations[comparisons >= 0].sum()
            scores[name] = mir_eval.chord.weighted_accuracy(comparisons, durations) if compared > 0 else np.nan
            if name == "majmin":
                scores["coverage"] = compared / durations.sum()
        scores["seg"] = mir_eval.chord.seg(
            mir_eval.chord.merge_chord_intervals(reference.intervals, reference.labels),
            mir_eval.chord.merge_chord_intervals(intervals, labels),
        )
    return {name: float(value) for name, value in scores.items()}


def _viterbi(logits: Floats, times: Floats, mean_seconds: float) -> np.ndarray:
    if len(times) < 2:
        return logits.argmax(axis=1)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    stay = np.clip(1 - float(np.median(np.diff(times))) / mean_seconds, 0.05, 0.999)
    transition = librosa.sequence.transition_loop(len(VOCABULARY), stay)
    states: np.ndarray = librosa.sequence.viterbi_discriminative(probabilities.T, transition)
    return states
