"""Onset detection: the times at which notes begin.

Conventions:
    Times in seconds, ascending. Notes that begin together are one onset. Nothing is trimmed.
    An onset counts within +-50 ms; each reference and each estimate is matched at most once.
    A track without reference onsets is left out of every mean; without estimated onsets it scores 0.
    Onsets that share a token cannot be told apart: ``details`` counts them.

Scored by `mir_eval.onset`: ``f_measure precision recall``.

Decoder: ``peaks`` of the activation, highest within +-30 ms or one token and refined by a parabola; the threshold is
chosen on validation. Classical system: `librosa.onset.onset_detect`.

References:
    Bello et al., "A Tutorial on Onset Detection in Music Signals", IEEE Transactions on Speech and Audio Processing
    13(5), 2005: the tolerance.

Shapes:  N examples   K tokens of a track   n, m onsets
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

from musictf.annotations import write_onsets
from musictf.tasks.base import Decoder, Floats, Scores, Task, track_means
from musictf.tasks.beat import at_librosa_rate, best_threshold, known_cross_entropy, peak_times, sigmoid, widened

_SCORE_NAMES = ("f_measure", "precision", "recall")


@dataclass(kw_only=True)
class OnsetTask(Task):
    """Onset times from one activation.

    Attributes:
        tolerance: Of scoring, in seconds.
        window: Seconds to either side within which a peak is highest.
        target_width: Seconds to either side of an onset over which a training target falls to 0.
        onset_seconds: Median time between onsets; learnt from the training split.
        token_seconds: Time between two tokens; learnt when a decoder is calibrated.
    """

    name: ClassVar[str] = "onset"
    annotation: ClassVar[str] = "onsets"
    level: ClassVar[str] = "frame"
    headline: ClassVar[str] = "f_measure"
    table_scores: ClassVar[tuple[str, ...]] = ("f_measure", "precision", "recall")
    suffix: ClassVar[str] = ".txt"
    decoders: ClassVar[tuple[str, ...]] = ("peaks",)
    classical: ClassVar[str] = "librosa_onset"

    tolerance: float = 0.05
    window: float = 0.03
    target_width: float = 0.03
    onset_seconds: float = 0.25
    token_seconds: float = 0.0

    def prepare(self, annotations: Sequence[Floats]) -> None:
        # The empty array stands for a split without annotations.
        gaps = np.concatenate([np.empty(0), *(np.diff(onsets) for onsets in annotations)])
        if len(gaps):
            self.onset_seconds = float(np.median(gaps))

    @property
    def num_outputs(self) -> int:
        return 1

    def encode(self, annotation: Floats, times: Floats) -> Tensor:
        return torch.from_numpy(widened(annotation, times, self.target_width)[:, None]).float()  # (K, 1)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return known_cross_entropy(logits, targets)

    def calibrate(
        self, decoder: str, logits: Sequence[Floats], times: Sequence[Floats], references: Sequence[Floats]
    ) -> Decoder:
        steps = np.concatenate([np.empty(0), *(np.diff(track) for track in times)])
        self.token_seconds = float(np.median(steps)) if len(steps) else 0.0
        activations = [sigmoid(track[:, 0]) for track in logits]  # (K,) each
        tracks = list(zip(activations, times, strict=True))
        threshold, _ = best_threshold(
            activations,
            references,
            lambda value: [peak_times(activation, t, value, self.window) for activation, t in tracks],
            lambda reference, estimate: onset_scores(reference, estimate, self.tolerance)["f_measure"],
        )
        return {"name": decoder, "threshold": threshold}

    def decode(self, logits: Floats, times: Floats, seconds: float, decoder: Decoder) -> Floats:
        return peak_times(sigmoid(logits[:, 0]), times, decoder["threshold"], self.window)

    def score(self, references: Sequence[Floats], estimates: Sequence[Floats]) -> Scores:
        rows = [onset_scores(*pair, self.tolerance) for pair in zip(references, estimates, strict=True)]
        return track_means({name: [row[name] for row in rows] for name in _SCORE_NAMES})

    def details(self, references: Sequence[Floats], estimates: Sequence[Floats]) -> dict[str, Any]:
        """Counts of onsets from times in seconds, (n,) of each track.

        ``merged`` is the number of references that share a token with an earlier one, None if that is unknown.
        """
        merged = [merged_onsets(onsets, self.token_seconds) for onsets in references] if self.token_seconds else None
        return {
            "reference_onsets": sum(map(len, references)),
            "estimated_onsets": sum(map(len, estimates)),
            "merged": None if merged is None else sum(merged),
            "token_seconds": self.token_seconds or None,
            "tracks_without_reference_onsets": sum(len(onsets) == 0 for onsets in references),
        }

    def classical_estimate(self, waveform: npt.NDArray[np.float32], sample_rate: int) -> Floats:
        waveform, sample_rate = at_librosa_rate(waveform, sample_rate)
        times = librosa.onset.onset_detect(y=waveform, sr=sample_rate, units="time")
        return np.asarray(times, dtype=np.float64)

    def majority_estimate(self, annotations: Sequence[Floats], seconds: float) -> Floats:
        return np.arange(0.0, seconds, self.onset_seconds)

    def write(self, estimate: Floats, path: Path) -> None:
        write_onsets(path, estimate)


def merged_onsets(onsets: Floats, token_seconds: float) -> int:
    """Number of onsets whose nearest token is also that of an earlier onset.

    Args:
        onsets: Times in seconds, ascending, (n,).
        token_seconds: Time between two tokens.

    Example:
        >>> merged_onsets(np.array([0.0, 0.01, 0.1, 0.2]), 0.05)
        1
    """
    return len(onsets) - len(np.unique(np.round(onsets / token_seconds)))


def onset_scores(reference: Floats, estimate: Floats, tolerance: float = 0.05) -> dict[str, float]:
    """Scores of one track by `mir_eval.onset`, from times in seconds, (n,) and (m,).

    NaN without reference onsets, 0 without estimates.
    """
    if len(reference) == 0 or len(estimate) == 0:
        return dict.fromkeys(_SCORE_NAMES, np.nan if len(reference) == 0 else 0.0)
    values = mir_eval.onset.f_measure(reference, estimate, window=tolerance)
    return dict(zip(_SCORE_NAMES, map(float, values), strict=True))
