"""Onsets: the times at which notes begin.

Conventions: seconds, ascending, notes that begin together written once; nothing is trimmed; an onset counts within
+-50 ms, each at most once. A track without reference onsets leaves every mean; without estimated ones it scores 0.
Tokens cannot tell apart what is nearer than they are: ``details`` says how many references share a token.

Scored by `mir_eval.onset`: ``f_measure precision recall``. Decoder: ``peaks`` of the activation, highest within
+-30 ms or one token, refined by a parabola, threshold from validation. Classical: `librosa.onset.onset_detect`.
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

_NAMES = ("f_measure", "precision", "recall")


@dataclass(kw_only=True)
class OnsetTask(Task):
    """Onset times from one activation."""

    name: ClassVar[str] = "onset"
    annotation: ClassVar[str] = "onsets"
    level: ClassVar[str] = "frame"
    headline: ClassVar[str] = "f_measure"
    shown_scores: ClassVar[tuple[str, ...]] = ("f_measure", "precision", "recall")
    suffix: ClassVar[str] = ".txt"
    decoders: ClassVar[tuple[str, ...]] = ("peaks",)
    classical: ClassVar[str] = "librosa_onset"

    tolerance: float = 0.05  # seconds, of scoring
    window: float = 0.03  # seconds to either side within which a peak is the highest
    target_width: float = 0.03  # seconds to either side over which a training target falls to 0
    onset_seconds: float = 0.25  # median time between onsets; learnt from the training split
    token_seconds: float = 0.0  # between two tokens; learnt when a decoder is calibrated

    def prepare(self, annotations: Sequence[Floats]) -> None:
        gaps = np.concatenate([np.empty(0), *(np.diff(onsets) for onsets in annotations)])
        if len(gaps):
            self.onset_seconds = float(np.median(gaps))

    @property
    def num_outputs(self) -> int:
        return 1

    def encode(self, annotation: Floats, times: Floats) -> Tensor:
        return torch.from_numpy(widened(annotation, times, self.target_width)[:, None]).float()

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return known_cross_entropy(logits, targets)

    def calibrate(
        self, decoder: str, logits: Sequence[Floats], times: Sequence[Floats], references: Sequence[Floats]
    ) -> Decoder:
        steps = np.concatenate([np.empty(0), *(np.diff(track) for track in times)])
        self.token_seconds = float(np.median(steps)) if len(steps) else 0.0
        activations = [sigmoid(track[:, 0]) for track in logits]
        pairs = list(zip(activations, times, strict=True))
        threshold, _ = best_threshold(
            activations,
            references,
            lambda value: [peak_times(track, t, value, self.window) for track, t in pairs],
            lambda wanted, found: onset_scores(wanted, found, self.tolerance)["f_measure"],
        )
        return {"name": decoder, "threshold": threshold}

    def decode(self, logits: Floats, times: Floats, seconds: float, decoder: Decoder) -> Floats:
        return peak_times(sigmoid(logits[:, 0]), times, decoder["threshold"], self.window)

    def score(self, references: Sequence[Floats], estimates: Sequence[Floats]) -> Scores:
        rows = [onset_scores(*pair, self.tolerance) for pair in zip(references, estimates, strict=True)]
        return track_means({name: [row[name] for row in rows] for name in _NAMES})

    def details(self, references: Sequence[Floats], estimates: Sequence[Floats]) -> dict[str, Any]:
        """Counts of onsets; ``merged`` references share a token with an earlier one (None: token rate unknown)."""
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
    """Number of onsets whose nearest token is already that of an earlier onset.

    Example:
        >>> merged_onsets(np.array([0.0, 0.01, 0.1, 0.2]), 0.05)
        1
    """
    return len(onsets) - len(np.unique(np.round(onsets / token_seconds)))


def onset_scores(reference: Floats, estimate: Floats, tolerance: float = 0.05) -> dict[str, float]:
    """Scores of one track by `mir_eval.onset`; NaN without reference onsets, 0 without estimates."""
    if len(reference) == 0 or len(estimate) == 0:
        return dict.fromkeys(_NAMES, np.nan if len(reference) == 0 else 0.0)
    values = mir_eval.onset.f_measure(reference, estimate, window=tolerance)
    return dict(zip(_NAMES, map(float, values), strict=True))
