"""Downbeat tracking: the times at which bars begin, from an activation of their own.

Conventions:
    As in `beat`: times in seconds, events in the first 5 s of reference and estimate ignored, +-70 ms.
    `BeatTask` selects downbeats among its beats. This task picks peaks of the downbeat activation alone, so that errors
    of the beats do not count twice.
    Tracks without bar positions are not trained on and are left out of every mean.

Scored by `mir_eval.beat`: ``f_measure``, and the continuity scores ``cmlt amlt``, which need two downbeats in the
reference.

Decoder: ``peaks``. The threshold and the width of the neighbourhood in which a peak is highest are chosen on
validation; the neighbourhood is at least one token to either side.

Shapes:  N examples   K tokens of a track   n downbeats
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import mir_eval
import numpy as np
import torch
from torch import Tensor

from musictf.annotations import Beats, write_beats
from musictf.errors import InputError
from musictf.tasks.base import Decoder, Floats, Scores, Task, track_means
from musictf.tasks.beat import best_threshold, known_cross_entropy, peak_times, sigmoid, trimmed_f_measure, widened

_WINDOWS = (0.07, 0.3, 0.7)  # seconds to either side; the fastest common bars last about 1 s, so no wider


@dataclass(kw_only=True)
class DownbeatTask(Task):
    """Downbeat times from one activation.

    Attributes:
        target_width: Seconds to either side of a downbeat over which a training target falls to 0.
        bar_seconds: Median duration of a bar; learnt from the training split.
    """

    name: ClassVar[str] = "downbeat"
    annotation: ClassVar[str] = "beats"
    level: ClassVar[str] = "frame"
    headline: ClassVar[str] = "f_measure"
    table_scores: ClassVar[tuple[str, ...]] = ("f_measure", "cmlt", "amlt")
    suffix: ClassVar[str] = ".beats"
    decoders: ClassVar[tuple[str, ...]] = ("peaks",)

    target_width: float = 0.05
    bar_seconds: float = 2.0

    def prepare(self, annotations: Sequence[Beats]) -> None:
        bars = [beats.downbeats for beats in annotations if beats.downbeats is not None]
        if not any(len(times) for times in bars):
            raise InputError("task=downbeat: no training track has a downbeat; give the beats positions in the bar")
        lengths = np.concatenate([np.diff(times) for times in bars])
        if len(lengths):
            self.bar_seconds = float(np.median(lengths))

    @property
    def num_outputs(self) -> int:
        return 1

    def encode(self, annotation: Beats, times: Floats) -> Tensor:
        downbeats = annotation.downbeats
        target = np.full(len(times), np.nan) if downbeats is None else widened(downbeats, times, self.target_width)
        return torch.from_numpy(target[:, None]).float()  # (K, 1)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return known_cross_entropy(logits, targets)

    def calibrate(
        self, decoder: str, logits: Sequence[Floats], times: Sequence[Floats], references: Sequence[Beats]
    ) -> Decoder:
        annotated = [k for k, beats in enumerate(references) if beats.downbeats is not None]
        settings: Decoder = {"name": decoder, "threshold": 0.5, "window": _WINDOWS[0]}
        if not annotated:
            return settings
        activations = [sigmoid(logits[k][:, 0]) for k in annotated]  # (K,) each
        downbeats = [references[k].times[references[k].positions == 1] for k in annotated]
        best_score = -1.0
        for window in _WINDOWS:
            threshold, score = best_threshold(
                activations,
                downbeats,
                lambda value, window=window: [  # type: ignore[misc]
                    peak_times(activation, times[k], value, window)
                    for k, activation in zip(annotated, activations, strict=True)
                ],
            )
            if score > best_score:  # of equal windows the narrowest
                best_score, settings = score, settings | {"threshold": threshold, "window": window}
        return settings

    def decode(self, logits: Floats, times: Floats, seconds: float, decoder: Decoder) -> Beats:
        downbeats = peak_times(sigmoid(logits[:, 0]), times, decoder["threshold"], decoder["window"])
        return Beats(downbeats, np.ones(len(downbeats), dtype=np.int64))  # position 1 in the bar, all of them

    def score(self, references: Sequence[Beats], estimates: Sequence[Beats]) -> Scores:
        rows = [downbeat_scores(*pair) for pair in zip(references, estimates, strict=True)]
        return track_means({name: [row[name] for row in rows] for name in rows[0]})

    def details(self, references: Sequence[Beats], estimates: Sequence[Beats]) -> dict[str, Any]:
        """Number of tracks that have nothing to score."""
        bars = [beats.downbeats for beats in references if beats.downbeats is not None]
        trimmed = [len(mir_eval.beat.trim_beats(times)) for times in bars]
        return {
            "tracks": len(references),
            "without_bars": len(references) - len(trimmed),
            "fewer_than_2_reference_downbeats": sum(number < 2 for number in trimmed),
        }

    def majority_estimate(self, annotations: Sequence[Beats], seconds: float) -> Beats:
        times = np.arange(0.0, seconds, self.bar_seconds)
        return Beats(times, np.ones(len(times), dtype=np.int64))

    def write(self, estimate: Beats, path: Path) -> None:
        write_beats(path, estimate, decimals=9)  # enough that scoring the file gives the scores of the row


def downbeat_scores(reference: Beats, estimate: Beats) -> dict[str, float]:
    """Scores of one track by `mir_eval.beat`; NaN where the reference leaves nothing to score."""
    if reference.downbeats is None:
        return dict.fromkeys(("f_measure", "cmlt", "amlt"), np.nan)
    downbeats = mir_eval.beat.trim_beats(reference.downbeats)
    estimated = mir_eval.beat.trim_beats(np.empty(0) if estimate.downbeats is None else estimate.downbeats)
    continuity = (np.nan,) * 4 if len(downbeats) < 2 else (0.0,) * 4
    if len(downbeats) > 1 and len(estimated) > 1:
        continuity = mir_eval.beat.continuity(downbeats, estimated)  # CMLc, CMLt, AMLc, AMLt
    return {"f_measure": trimmed_f_measure(downbeats, estimated), "cmlt": continuity[1], "amlt": continuity[3]}
