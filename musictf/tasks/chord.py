"""Chord recognition: intervals of a track and the chord that sounds in each.

Conventions:
    Times in seconds. Labels in the syntax of Harte; ``N`` is no chord, ``X`` an unknown one.
    Training targets are the 24 major and minor triads and ``N``. Labels outside of them (``X``, ``sus``, ``dim``,
    ``aug``) are masked, not renamed.
    A token belongs to the interval that its centre lies in. Decoded boundaries lie half-way between token centres.
    Scoring compares intervals with the *original* labels of each track.

Scored by `mir_eval.chord`: ``root thirds triads majmin sevenths tetrads mirex``, each weighted by duration within the
track; ``seg``; and ``coverage``, the share of reference time that ``majmin`` compares at all. A score that no part of a
track defines is NaN there and is left out of the mean over tracks. ``wcsr_NAME`` is the weighted chord symbol recall:
the same comparison over all tracks joined, so that each track weighs as much as its compared time.

Decoders: ``argmax`` of each token, and ``viterbi`` (`librosa.sequence`), whose probability to stay comes from the mean
chord duration of the training split. Classical system: chroma, 24 triad templates and the same Viterbi search.

References:
    Pauwels and Peeters, "Evaluating Automatically Estimated Chord Sequences", ICASSP 2013: the scores.
    Harte, "Towards Automatic Extraction of Harmony Information from Music Signals", PhD thesis, Queen Mary University
    of London, 2010: the syntax of labels, and the directional Hamming distance behind ``seg``.

Shapes:  N examples   K tokens of a track   n labels   R resamples   J = 7 comparisons
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
from musictf.tasks.chord_scores import (
    COMPARISONS,
    MAJMIN,
    MergedIntervals,
    agreed_and_compared_seconds,
    compare,
    merge_intervals,
    segmentation,
)
from musictf.tasks.chroma import PITCH_CLASSES, track_chroma

VOCABULARY = tuple(f"{root}:{quality}" for quality in ("maj", "min") for root in PITCH_CLASSES) + ("N",)
NO_CHORD = len(VOCABULARY) - 1
QUALITIES = ("maj", "min", "7", "maj7", "min7", "dim", "aug", "sus", "N", "other")

_TRIADS = np.array([[1, 0, 0, 0, 1, 0, 0, 1], [1, 0, 0, 1, 0, 0, 0, 1]])  # semitones 0 to 7, all that majmin reads
_QUALITY_OF = {"dim7": "dim", "hdim7": "dim", "sus2": "sus", "sus4": "sus"}
# Of the classical system:
_SHARPNESS = 5.0  # logits per unit of cosine between chroma and template; chosen on training tracks of POP909
_SILENCE_DECIBELS = -50.0  # relative to the loudest frame; quieter frames have no chord
_CLASSICAL_SECONDS = 2.0  # expected mean duration of a chord


@dataclass(kw_only=True)
class ChordTask(Task):
    """Chord intervals from the logits of 24 major and minor triads and no-chord.

    Attributes:
        mean_seconds: Mean duration of a chord; learnt from the training split.
    """

    name: ClassVar[str] = "chord"
    annotation: ClassVar[str] = "chords"
    level: ClassVar[str] = "frame"
    headline: ClassVar[str] = "majmin"
    table_scores: ClassVar[tuple[str, ...]] = ("majmin", "wcsr_majmin", "root", "mirex", "seg", "coverage")
    descriptive_scores: ClassVar[tuple[str, ...]] = ("coverage", "wcsr_coverage")
    suffix: ClassVar[str] = ".lab"
    decoders: ClassVar[tuple[str, ...]] = ("argmax", "viterbi")
    classical: ClassVar[str] = "chroma_templates"
    online_metric: ClassVar[str] = "chord_accuracy"

    mean_seconds: float = 2.0

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
        """Logits (K, 25) that state the annotation; a chord outside the vocabulary is the triad of its root and third.

        So the best estimate that the vocabulary allows is scored, masked targets included.
        """
        classes = nearest_classes(annotation.labels)
        index = (np.searchsorted(annotation.intervals[:, 0], times, side="right") - 1).clip(0)
        inside = (times >= annotation.intervals[0, 0]) & (times < annotation.intervals[index, 1])
        return CERTAIN * np.eye(len(VOCABULARY))[np.where(inside, classes[index], NO_CHORD)]

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return masked_cross_entropy(logits, targets)

    def decode(self, logits: Floats, times: Floats, seconds: float, decoder: Decoder) -> Chords:
        if decoder["name"] == "argmax":
            return merged_chords(logits.argmax(axis=1), times, seconds)
        return merged_chords(_viterbi(logits, times, self.mean_seconds), times, seconds)

    def calibrate(self, decoder: str, logits: Sequence[Floats], times: Sequence[Floats], references: object) -> Decoder:
        return {"name": decoder} | ({"mean_seconds": round(self.mean_seconds, 6)} if decoder == "viterbi" else {})

    def score(self, references: Sequence[Chords], estimates: Sequence[Chords]) -> Scores:
        merged = merge_intervals(references, estimates)
        agreed, compared = agreed_and_compared_seconds(merged)  # (num_tracks, J)
        seconds = merged.track_sums(merged.seconds)
        shares = np.divide(agreed, compared, out=np.full_like(agreed, np.nan), where=compared > 0)
        scores = track_means(
            dict(zip(COMPARISONS, shares.T, strict=True))
            | {"coverage": compared[:, MAJMIN] / seconds, "seg": segmentation(merged)}
        )
        recalls = _recalls(agreed, compared, seconds, np.ones((1, len(references))))
        scores.corpus |= {name: float(value[0]) for name, value in recalls.items() if not np.isnan(value[0])}
        return scores

    def resample(self, references: Sequence[Chords], estimates: Sequence[Chords], counts: Floats) -> dict[str, Floats]:
        merged = merge_intervals(references, estimates)
        return _recalls(*agreed_and_compared_seconds(merged), merged.track_sums(merged.seconds), counts)

    def details(self, references: Sequence[Chords], estimates: Sequence[Chords]) -> dict[str, Any]:
        """Seconds and accuracy by the quality of the reference chord, and a confusion table.

        ``confusion[q][p][d]`` counts seconds of reference quality q, where majmin compares it, estimated as quality p
        with a root d semitones above the right one. ``N`` has no root, so its cells hold one number.
        """
        merged = merge_intervals(references, estimates)
        return {"by_quality": _by_quality(merged), "confusion": _confusion(merged)}

    def classical_estimate(self, waveform: npt.NDArray[np.float32], sample_rate: int) -> Chords:
        chroma, times, level = track_chroma(waveform, sample_rate)  # (12, T), (T,), (T,)
        templates = np.array([np.roll(np.pad(triad, (0, 4)), root) for triad in _TRIADS for root in range(12)])
        cosine = chroma.T @ templates.T / np.sqrt(3)
        silent = np.where(level < _SILENCE_DECIBELS, 2.0, 0.0)  # 2 is more than any cosine
        logits = _SHARPNESS * np.column_stack([cosine, silent])
        return merged_chords(_viterbi(logits, times, _CLASSICAL_SECONDS), times, len(waveform) / sample_rate)

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
    """Vocabulary index of each Harte label, (n,); `MASKED` where it is neither major, minor nor ``N``."""
    # Bitmaps without the extended notes, as in majmin: C:maj9 is a major triad.
    roots, bitmaps, _ = mir_eval.chord.encode_many(list(labels))
    classes = np.full(len(labels), MASKED)
    for quality, triad in enumerate(_TRIADS):
        matches = (roots >= 0) & (bitmaps[:, :8] == triad).all(axis=1)
        classes[matches] = quality * len(PITCH_CLASSES) + roots[matches]
    classes[[label == mir_eval.chord.NO_CHORD for label in labels]] = NO_CHORD
    return classes


def nearest_classes(labels: Sequence[str]) -> np.ndarray:
    """Vocabulary index of the triad nearest to each label, (n,): on its root, minor where it has a minor third only."""
    roots, bitmaps, _ = mir_eval.chord.encode_many(list(labels))
    is_minor = (bitmaps[:, 3] == 1) & (bitmaps[:, 4] == 0)
    return np.where(roots >= 0, is_minor * len(PITCH_CLASSES) + roots, NO_CHORD)


def merged_chords(classes: np.ndarray, times: Floats, seconds: float) -> Chords:
    """Chords from one class a token: equal neighbours are joined, boundaries lie half-way between token centres.

    Args:
        classes: Vocabulary index of each token, (K,).
        times: Token centres in seconds, (K,).
        seconds: Duration of the track; tokens centred after it are left out.

    Returns:
        Intervals that cover the track from 0 to its end.
    """
    classes, times = classes[times < seconds], times[times < seconds]
    changes = np.flatnonzero(np.diff(classes)) + 1
    boundaries = np.concatenate([[0.0], (times[changes - 1] + times[changes]) / 2, [seconds]])
    firsts = np.concatenate([[0], changes])
    return Chords(np.column_stack([boundaries[:-1], boundaries[1:]]), [VOCABULARY[k] for k in classes[firsts]])


def _recalls(agreed: Floats, compared: Floats, seconds: Floats, counts: Floats) -> dict[str, Floats]:
    """Weighted chord symbol recalls when tracks count several times, (R, num_tracks) -> (R,) each; NaN for 0 / 0."""
    total = counts @ compared  # (R, J)
    shares = np.divide(counts @ agreed, total, out=np.full_like(total, np.nan), where=total > 0)
    recalls = {f"wcsr_{name}": share for name, share in zip(COMPARISONS, shares.T, strict=True)}
    return recalls | {"wcsr_coverage": total[:, MAJMIN] / (counts @ seconds)}


def chord_quality(label: str) -> str:
    """Which of `QUALITIES` a Harte label has; ninths and higher count as the seventh chord that they extend."""
    if label in (mir_eval.chord.NO_CHORD, mir_eval.chord.X_CHORD):
        return "N" if label == mir_eval.chord.NO_CHORD else "other"
    quality = mir_eval.chord.split(label, reduce_extended_chords=True)[1]
    if label.split(":")[-1].startswith("minmaj7"):  # mir_eval would reduce it to min
        return "other"
    quality = _QUALITY_OF.get(quality, quality)
    return quality if quality in QUALITIES else "other"


def _by_quality(merged: MergedIntervals) -> dict[str, dict[str, float | None]]:
    qualities = np.array([chord_quality(label) for label in merged.labels])[merged.reference]  # (I,)
    results = compare(merged)
    table: dict[str, dict[str, float | None]] = {}
    for quality in QUALITIES:
        selected = qualities == quality
        if not selected.any():
            continue
        table[quality] = {"seconds": float(merged.seconds[selected].sum())}
        for name in ("root", "majmin"):
            column = results[:, COMPARISONS.index(name)]
            compared = selected & (column >= 0)
            total = merged.seconds[compared].sum()
            table[quality][name] = float((merged.seconds * column)[compared].sum() / total) if compared.any() else None
    return table


def _confusion(merged: MergedIntervals) -> dict[str, dict[str, list[float] | float]]:
    classes = chord_classes(merged.labels)
    reference, estimate = classes[merged.reference], classes[merged.estimate]  # (I,)
    is_known = (reference != MASKED) & (estimate != MASKED)
    names = ("maj", "min", "N")  # of classes 0 to 11, 12 to 23 and 24
    table: dict[str, dict[str, list[float] | float]] = {}
    for row, reference_name in enumerate(names):
        table[reference_name] = {}
        for column, estimate_name in enumerate(names):
            selected = is_known & (reference // 12 == row) & (estimate // 12 == column)
            seconds, intervals = merged.seconds[selected], (estimate - reference)[selected] % 12
            by_root = np.bincount(intervals, seconds, 12)  # seconds by semitones above the right root
            has_root = "N" not in (reference_name, estimate_name)
            table[reference_name][estimate_name] = by_root.tolist() if has_root else float(seconds.sum())
    return table


def _viterbi(logits: Floats, times: Floats, mean_seconds: float) -> np.ndarray:
    """The most probable sequence of classes, (K,), from logits (K, 25), where chords last ``mean_seconds``."""
    if len(times) < 2:  # no token period to derive a probability from
        return logits.argmax(axis=1)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    # Geometric durations: a mean of d seconds at a token period of p is a probability to stay of 1 - p / d.
    stay = np.clip(1 - float(np.median(np.diff(times))) / mean_seconds, 0.05, 0.999)
    transition = librosa.sequence.transition_loop(len(VOCABULARY), stay)
    states: np.ndarray = librosa.sequence.viterbi_discriminative(probabilities.T, transition)
    return states
