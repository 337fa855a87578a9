"""Beats and downbeats: the times at which people tap.

Conventions: seconds; the reference is the annotation, never frames turned back to times; `mir_eval` leaves out the
first 5 s of both lists, and so do we, for downbeats as well; a beat counts within +-70 ms. Training targets are
widened, scoring is not. Tracks are decoded whole, from stitched activations. A track with fewer than two reference
beats after the first 5 s leaves every mean; fewer than two estimated beats score 0. An estimate without bars has no
downbeat score.

Scored by `mir_eval.beat`: ``f_measure cemgil goto p_score cmlc cmlt amlc amlt information_gain``, and
``downbeat_f_measure`` where bars are annotated. Decoders: ``peaks`` (local maxima over +-70 ms, refined by a parabola,
threshold from validation) and ``dynamic_programming`` (`librosa.beat.beat_track` on the activation). In both, a beat
whose downbeat activation exceeds a threshold from validation starts a bar. Classical: `librosa.beat.beat_track`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import librosa
import mir_eval
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.ndimage import maximum_filter1d
from torch import Tensor

from musictf.annotations import Beats, write_beats
from musictf.tasks.base import Decoder, Floats, Scores, Task, track_means

_TAIL_SECONDS = 2.0
_LIBROSA_WINDOW = 2048  # samples
_LIBROSA_RATE = 22050  # hertz; librosa's default hop of 512 samples is 23 ms only here
_NAMES = {
    "f_measure": "F-measure",
    "cemgil": "Cemgil",
    "goto": "Goto",
    "p_score": "P-score",
    "cmlc": "Correct Metric Level Continuous",
    "cmlt": "Correct Metric Level Total",
    "amlc": "Any Metric Level Continuous",
    "amlt": "Any Metric Level Total",
    "information_gain": "Information gain",
}


@dataclass(kw_only=True)
class BeatTask(Task):
    """Beat and downbeat times from one activation each."""

    name: ClassVar[str] = "beat"
    annotation: ClassVar[str] = "beats"
    level: ClassVar[str] = "frame"
    headline: ClassVar[str] = "f_measure"
    shown_scores: ClassVar[tuple[str, ...]] = ("f_measure", "cemgil", "cmlt", "amlt", "downbeat_f_measure")
    suffix: ClassVar[str] = ".beats"
    decoders: ClassVar[tuple[str, ...]] = ("peaks", "dynamic_programming")
    classical: ClassVar[str] = "librosa_beat_track"

    tolerance: float = 0.07  # seconds
    target_width: float = 0.05  # seconds to either side over which a training target falls to 0
    beat_seconds: float = 0.5  # median beat period; learnt from the training split

    def prepare(self, annotations: Sequence[Beats]) -> None:
        periods = [np.diff(beats.times) for beats in annotations if len(beats.times) > 1]
        if periods:
            self.beat_seconds = float(np.median(np.concatenate(periods)))

    @property
    def num_outputs(self) -> int:
        return 2

    def encode(self, annotation: Beats, times: Floats) -> Tensor:
        downbeats = annotation.downbeats
        unknown = np.full(len(times), np.nan)
        columns = [
            widened(annotation.times, times, self.target_width),
            unknown if downbeats is None else widened(downbeats, times, self.target_width),
        ]
        return torch.from_numpy(np.column_stack(columns)).float()

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return known_cross_entropy(logits, targets)

    def calibrate(
        self, decoder: str, logits: Sequence[Floats], times: Sequence[Floats], references: Sequence[Beats]
    ) -> Decoder:
        activations = [sigmoid(track) for track in logits]
        pairs = list(zip(activations, times, strict=True))
        settings: Decoder = {"name": decoder, "threshold": 0.0, "downbeat_threshold": 0.5}
        if decoder == "peaks":
            settings["threshold"], _ = best_threshold(
                [track[:, 0] for track in activations],
                [beats.times for beats in references],
                lambda value: [peak_times(track[:, 0], t, value, self.tolerance) for track, t in pairs],
            )
        bars = {k: beats.downbeats for k, beats in enumerate(references) if beats.downbeats is not None}
        found = [self._beat_times(*pairs[k], settings) for k in bars]
        strengths = [np.interp(beats, pairs[k][1], activations[k][:, 1]) for k, beats in zip(bars, found, strict=True)]
        if any(len(strength) for strength in strengths):
            settings["downbeat_threshold"], _ = best_threshold(
                strengths,
                list(bars.values()),
                lambda value: [beats[s >= value] for beats, s in zip(found, strengths, strict=True)],
            )
        return settings

    def decode(self, logits: Floats, times: Floats, seconds: float, decoder: Decoder) -> Beats:
        activation = sigmoid(logits)
        beats = self._beat_times(activation, times, decoder)
        starts_bar = np.interp(beats, times, activation[:, 1]) >= decoder["downbeat_threshold"]
        return Beats(beats, bar_positions(starts_bar))

    def score(self, references: Sequence[Beats], estimates: Sequence[Beats]) -> Scores:
        rows = [beat_scores(*pair) for pair in zip(references, estimates, strict=True)]
        return track_means({name: [row[name] for row in rows] for name in rows[0]})

    def details(self, references: Sequence[Beats], estimates: Sequence[Beats]) -> dict[str, Any]:
        """How many tracks have nothing to score, or score 0 for want of beats."""
        wanted, found = ([len(mir_eval.beat.trim_beats(b.times)) for b in side] for side in (references, estimates))
        return {
            "tracks": len(wanted),
            "fewer_than_2_reference_beats": sum(number < 2 for number in wanted),
            "fewer_than_2_estimated_beats": sum(number < 2 for number in found),
            "without_bars": sum(beats.positions is None for beats in references),
        }

    def classical_estimate(self, waveform: npt.NDArray[np.float32], sample_rate: int) -> Beats:
        waveform, sample_rate = at_librosa_rate(waveform, sample_rate)
        _, times = librosa.beat.beat_track(y=waveform, sr=sample_rate, units="time")
        return Beats(np.asarray(times, dtype=np.float64))

    def majority_estimate(self, annotations: Sequence[Beats], seconds: float) -> Beats:
        times = np.arange(0.0, seconds, self.beat_seconds)
        return Beats(times, np.arange(len(times)) % 4 + 1)

    def write(self, estimate: Beats, path: Path) -> None:
        write_beats(path, estimate, decimals=9)  # so that scores of what is written are the scores of the row

    def _beat_times(self, activation: Floats, times: Floats, decoder: Decoder) -> Floats:
        if decoder["name"] == "peaks":
            return peak_times(activation[:, 0], times, decoder["threshold"], self.tolerance)
        return dynamic_programming_times(activation[:, 0], times)


def widened(events: Floats, times: Floats, width: float) -> Floats:
    """Training targets in [0, 1] at token times, (K,): 1 at an event, falling to 0 over ``width`` or one token."""
    if len(events) == 0 or len(times) == 0:
        return np.zeros(len(times))
    period = float(np.median(np.diff(times))) if len(times) > 1 else width
    after = np.searchsorted(events, times).clip(0, len(events) - 1)
    before = (after - 1).clip(0)
    distance = np.minimum(abs(times - events[after]), abs(times - events[before]))
    return np.clip(1 - distance / max(width, period), 0, 1)


def peak_times(activation: Floats, times: Floats, threshold: float, tolerance: float = 0.07) -> Floats:
    """Times in seconds of local maxima above a threshold, each refined by a parabola through its neighbours.

    The neighbourhood is the tolerance in tokens, at least one to either side, whatever the token rate; of a plateau the
    first token counts.

    Args:
        activation: Probability of each token, (K,).
        times: Token centres in seconds, evenly spaced, (K,).
        threshold: What a peak must exceed.
        tolerance: Half width of the neighbourhood in seconds.

    Example:
        >>> peak_times(np.array([0.0, 0.9, 0.0, 0.6, 0.0]), np.arange(5) / 10, 0.5)
        array([0.1, 0.3])
    """
    if len(activation) < 3:
        return np.empty(0)
    period = float(np.median(np.diff(times)))
    reach = max(1, round(tolerance / period))
    highest = activation == maximum_filter1d(activation, 2 * reach + 1, mode="constant", cval=-np.inf)
    peaks = np.flatnonzero(highest & (activation > threshold))
    peaks = peaks[np.diff(peaks, prepend=-reach - 1) > reach]
    inner = np.clip(peaks, 1, len(activation) - 2)
    left, middle, right = activation[inner - 1], activation[inner], activation[inner + 1]
    bend = left - 2 * middle + right
    shift = np.where((bend < 0) & (inner == peaks), 0.5 * (left - right) / np.where(bend < 0, bend, -1), 0.0)
    refined: Floats = times[peaks] + np.clip(shift, -0.5, 0.5) * period
    return refined


def dynamic_programming_times(activation: Floats, times: Floats) -> Floats:
    """Beat times in seconds that librosa's tracker reads from an activation (K,) at evenly spaced token times."""
    if len(activation) < 3 or not activation.max() > activation.min():
        return np.empty(0)
    hop = 512  # librosa wants a rate and a hop; only their ratio, the token rate, matters
    rate = 1 / float(np.median(np.diff(times)))
    # librosa likes to end on the very last token: let that be silence after the track.
    envelope = np.pad(activation, (0, round(_TAIL_SECONDS * rate)), constant_values=activation.min())
    _, frames = librosa.beat.beat_track(onset_envelope=envelope, sr=hop * rate, hop_length=hop, trim=False)
    found: Floats = times[frames[frames < len(times)]]
    return found


def at_librosa_rate(waveform: npt.NDArray[np.float32], sample_rate: int) -> tuple[npt.NDArray[np.float32], int]:
    """A waveform (N,) at the rate that the defaults of librosa's trackers are meant for, and that rate in hertz.

    What is shorter than the one window they need ends in silence.
    """
    resampled = librosa.resample(waveform, orig_sr=sample_rate, target_sr=_LIBROSA_RATE)
    return np.pad(resampled, (0, max(0, _LIBROSA_WINDOW - len(resampled)))), _LIBROSA_RATE


def bar_positions(starts_bar: np.ndarray) -> np.ndarray:
    """Position of each beat in its bar, (n,), from which beats start one; beats before the first count from 2."""
    positions = np.empty(len(starts_bar), dtype=np.int64)
    position = 1
    for index, is_downbeat in enumerate(starts_bar):
        position = 1 if is_downbeat else position + 1
        positions[index] = position
    return positions


def beat_scores(reference: Beats, estimate: Beats) -> dict[str, float]:
    """Scores of one track by `mir_eval.beat`; NaN where the reference leaves nothing to score."""
    wanted, found = mir_eval.beat.trim_beats(reference.times), mir_eval.beat.trim_beats(estimate.times)
    if len(wanted) < 2:
        scores = dict.fromkeys(_NAMES, np.nan)
    elif len(found) < 2:
        scores = dict.fromkeys(_NAMES, 0.0)
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="mir_eval")
            evaluated = mir_eval.beat.evaluate(reference.times, estimate.times)
        scores = {name: float(evaluated[key]) for name, key in _NAMES.items()}
    bars, heard = reference.downbeats, estimate.downbeats
    scores["downbeat_f_measure"] = np.nan if bars is None or heard is None else trimmed_f_measure(bars, heard)
    return scores


def trimmed_f_measure(reference: Floats, estimate: Floats) -> float:
    """F-measure of events after the first 5 s; NaN without reference events, 0 without estimates."""
    wanted, found = mir_eval.beat.trim_beats(reference), mir_eval.beat.trim_beats(estimate)
    if len(wanted) == 0:
        return np.nan
    return float(mir_eval.beat.f_measure(wanted, found)) if len(found) else 0.0


def best_threshold(
    values: Sequence[Floats],
    references: Sequence[Floats],
    decode: Callable[[float], list[Floats]],
    measure: Callable[[Floats, Floats], float] = trimmed_f_measure,
) -> tuple[float, float]:
    """The threshold that scores best over a split, and its score.

    Args:
        values: What is compared with the threshold, track by track; quantiles of it and even steps are tried.
        references: Event times in seconds, track by track.
        decode: Estimated times of every track for a threshold.
        measure: Score of one track, reference first; NaN where the reference defines none.

    Returns:
        Threshold, and the mean score over the tracks (0 for those without one).
    """
    candidates = _candidates(np.concatenate(values))
    scores = [
        np.nansum(
            [measure(reference, found) for reference, found in zip(references, decode(float(value)), strict=True)]
        )
        for value in candidates
    ]
    best = int(np.argmax(scores))
    return float(candidates[best]), float(scores[best] / len(references))


def known_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy of (N, C) over the targets that are known, that is, not NaN."""
    known = ~targets.isnan()
    losses = F.binary_cross_entropy_with_logits(logits, targets.nan_to_num(), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


def sigmoid(logits: Floats) -> Floats:
    """Probabilities of logits, in float64."""
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def _candidates(values: Floats) -> Floats:
    steps = np.linspace(values.min(), values.max(), 12)[1:-1]
    return np.unique(np.concatenate([np.quantile(values, np.linspace(0.1, 0.95, 10)), steps]))
