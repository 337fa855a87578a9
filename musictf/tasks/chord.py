"""Chords: who sounds when.

Conventions: seconds; training targets are the 24 major and minor triads and ``N``, labels outside them (``X``, ``sus``,
``dim``, ``aug``) are masked, not renamed; scoring compares intervals with the *original* labels, per track. A token
belongs to the interval its centre lies in; decoded boundaries lie half-way between token centres.

Scored by `mir_eval.chord`: ``root thirds triads majmin sevenths tetrads mirex``, each weighted by duration within the
track, ``seg``, and ``coverage``, the share of reference time that ``majmin`` compares at all. A score that no part of
a track defines is NaN there and leaves the mean over tracks. ``wcsr_NAME`` is the weighted chord symbol recall: the
same comparison with all tracks laid end to end, so that each weighs as much as the time of it that is compared.
Decoders: ``argmax`` of each token, and ``viterbi`` (`librosa.sequence`) whose chance to stay comes from the mean chord
duration of the training split. Classical: chroma, 24 triad templates and the same Viterbi search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import librosa
import mir_eval
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from musictf.annotations import Chords, write_chords
from musictf.tasks.base import CERTAIN, MASKED, Decoder, Floats, Scores, Task, masked_cross_entropy, track_means
from musictf.tasks.chord_agreement import COMPARISONS, MAJMIN, Stretches, compared, durations, segmentation, stretches
from musictf.tasks.chroma import PITCH_CLASSES, track_chroma

VOCABULARY = tuple(f"{root}:{quality}" for quality in ("maj", "min") for root in PITCH_CLASSES) + ("N",)
NO_CHORD = len(VOCABULARY) - 1
QUALITIES = ("maj", "min", "7", "maj7", "min7", "dim", "aug", "sus", "N", "other")

_TRIADS = np.array([[1, 0, 0, 0, 1, 0, 0, 1], [1, 0, 0, 1, 0, 0, 0, 1]])  # semitones 0 to 7, as majmin compares
_QUALITY_OF = {"dim7": "dim", "hdim7": "dim", "sus2": "sus", "sus4": "sus"}
_SHARPNESS = 5.0  # logits per unit of cosine between chroma and template; chosen on training tracks of pop909
_SILENCE_DECIBELS = -50.0  # under the loudest frame: no chord
_LISTEN_SECONDS = 2.0  # mean chord duration that the classical system expects


@dataclass(kw_only=True)
class ChordTask(Task):
    """Major and minor triads and no-chord, from frame to interval."""

    name: ClassVar[str] = "chord"
    annotation: ClassVar[str] = "chords"
    level: ClassVar[str] = "frame"
    headline: ClassVar[str] = "majmin"
    shown_scores: ClassVar[tuple[str, ...]] = ("majmin", "wcsr_majmin", "root", "mirex", "seg", "coverage")
    descriptive_scores: ClassVar[tuple[str, ...]] = ("coverage", "wcsr_coverage")
    suffix: ClassVar[str] = ".lab"
    decoders: ClassVar[tuple[str, ...]] = ("argmax", "viterbi")
    classical: ClassVar[str] = "chroma_templates"

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

    def oracle_logits(self, annotation: Chords, times: Floats) -> Floats:
        """Logits of who knows the truth; a chord outside the vocabulary is the triad of its root and third."""
        classes = nearest_classes(annotation.labels)
        index = (np.searchsorted(annotation.intervals[:, 0], times, side="right") - 1).clip(0)
        inside = (times >= annotation.intervals[0, 0]) & (times < annotation.intervals[index, 1])
        return CERTAIN * np.eye(len(VOCABULARY))[np.where(inside, classes[index], NO_CHORD)]

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        # A short batch may be masked altogether: it must weigh nothing, not be NaN.
        return masked_cross_entropy(logits, targets)

    def decode(self, logits: Floats, times: Floats, seconds: float, decoder: Decoder) -> Chords:
        if decoder["name"] == "argmax":
            return merged_chords(logits.argmax(axis=1), times, seconds)
        return merged_chords(_viterbi(logits, times, self.mean_seconds), times, seconds)

    def calibrate(self, decoder: str, logits: Sequence[Floats], times: Sequence[Floats], references: object) -> Decoder:
        return {"name": decoder} | ({"mean_seconds": round(self.mean_seconds, 6)} if decoder == "viterbi" else {})

    def score(self, references: Sequence[Chords], estimates: Sequence[Chords]) -> Scores:
        split = stretches(references, estimates)
        agreed, counted = durations(split)
        seconds = split.sums(split.seconds)
        shares = np.divide(agreed, counted, out=np.full_like(agreed, np.nan), where=counted > 0)
        scores = track_means(
            dict(zip(COMPARISONS, shares.T, strict=True))
            | {"coverage": counted[:, MAJMIN] / seconds, "seg": segmentation(split)}
        )
        recalls = _recalls(agreed, counted, seconds, np.ones((1, len(references))))
        scores.corpus |= {name: float(value[0]) for name, value in recalls.items() if not np.isnan(value[0])}
        return scores

    def resample(self, references: Sequence[Chords], estimates: Sequence[Chords], counts: Floats) -> dict[str, Floats]:
        split = stretches(references, estimates)
        return _recalls(*durations(split), split.sums(split.seconds), counts)

    def details(self, references: Sequence[Chords], estimates: Sequence[Chords]) -> dict[str, Any]:
        """Seconds and accuracy by the quality of the reference chord, and what is taken for what.

        ``confusion[q][p][d]`` counts seconds of reference quality q, where majmin compares it, estimated as quality p
        with a root d semitones above the right one; of ``N`` there is no root, so those cells hold one number.
        """
        split = stretches(references, estimates)
        return {"by_quality": _by_quality(split), "confusion": _confusion(split)}

    def classical_estimate(self, waveform: npt.NDArray[np.float32], sample_rate: int) -> Chords:
        chroma, times, level = track_chroma(waveform, sample_rate)
        templates = np.array([np.roll(np.pad(triad, (0, 4)), root) for triad in _TRIADS for root in range(12)])
        cosine = chroma.T @ templates.T / np.sqrt(3)
        silent = np.where(level < _SILENCE_DECIBELS, 2.0, 0.0)  # no cosine exceeds 1
        logits = _SHARPNESS * np.column_stack([cosine, silent])
        return merged_chords(_viterbi(logits, times, _LISTEN_SECONDS), times, len(waveform) / sample_rate)

    def majority_estimate(self, annotations: Sequence[Chords], seconds: float) -> Chords:
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
        classes[matches] = quality * len(PITCH_CLASSES) + roots[matches]
    classes[[label == mir_eval.chord.NO_CHORD for label in labels]] = NO_CHORD
    return classes


def nearest_classes(labels: Sequence[str]) -> np.ndarray:
    """Vocabulary index of the triad nearest to each label, (n,): its root, minor where it has a minor third."""
    roots, bitmaps, _ = mir_eval.chord.encode_many(list(labels))
    is_minor = (bitmaps[:, 3] == 1) & (bitmaps[:, 4] == 0)
    return np.where(roots >= 0, is_minor * len(PITCH_CLASSES) + roots, NO_CHORD)


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


def _recalls(agreed: Floats, counted: Floats, seconds: Floats, counts: Floats) -> dict[str, Floats]:
    """Weighted chord symbol recalls when tracks count several times, (R, num_tracks) -> (R,) each; NaN for 0 / 0."""
    weighed = counts @ counted
    shares = np.divide(counts @ agreed, weighed, out=np.full_like(weighed, np.nan), where=weighed > 0)
    recalls = {f"wcsr_{name}": share for name, share in zip(COMPARISONS, shares.T, strict=True)}
    return recalls | {"wcsr_coverage": weighed[:, MAJMIN] / (counts @ seconds)}


def chord_quality(label: str) -> str:
    """Which of ``QUALITIES`` a Harte label has; ninths and more count as the seventh chord they extend."""
    if label in (mir_eval.chord.NO_CHORD, mir_eval.chord.X_CHORD):
        return "N" if label == mir_eval.chord.NO_CHORD else "other"
    quality = mir_eval.chord.split(label, reduce_extended_chords=True)[1]
    if label.split(":")[-1].startswith("minmaj7"):  # mir_eval reduces it to min
        return "other"
    quality = _QUALITY_OF.get(quality, quality)
    return quality if quality in QUALITIES else "other"


def _by_quality(split: Stretches) -> dict[str, dict[str, float | None]]:
    qualities = np.array([chord_quality(label) for label in split.labels])[split.wanted]
    answers = compared(split)
    table: dict[str, dict[str, float | None]] = {}
    for quality in QUALITIES:
        chosen = qualities == quality
        if not chosen.any():
            continue
        table[quality] = {"seconds": float(split.seconds[chosen].sum())}
        for name in ("root", "majmin"):
            column = answers[:, COMPARISONS.index(name)]
            counted = chosen & (column >= 0)
            total = split.seconds[counted].sum()
            table[quality][name] = float((split.seconds * column)[counted].sum() / total) if counted.any() else None
    return table


def _confusion(split: Stretches) -> dict[str, dict[str, list[float] | float]]:
    classes = chord_classes(split.labels)
    wanted, found = classes[split.wanted], classes[split.found]
    names = ("maj", "min", "N")
    table: dict[str, dict[str, list[float] | float]] = {}
    for row, reference in enumerate(names):
        table[reference] = {}
        for column, estimate in enumerate(names):
            chosen = (wanted != MASKED) & (wanted // 12 == row) & (found != MASKED) & (found // 12 == column)
            seconds, rises = split.seconds[chosen], (found - wanted)[chosen] % 12
            by_root = np.bincount(rises, seconds, 12)
            table[reference][estimate] = float(seconds.sum()) if "N" in (reference, estimate) else by_root.tolist()
    return table


def _viterbi(logits: Floats, times: Floats, mean_seconds: float) -> np.ndarray:
    if len(times) < 2:
        return logits.argmax(axis=1)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    stay = np.clip(1 - float(np.median(np.diff(times))) / mean_seconds, 0.05, 0.999)
    transition = librosa.sequence.transition_loop(len(VOCABULARY), stay)
    states: np.ndarray = librosa.sequence.viterbi_discriminative(probabilities.T, transition)
    return states
