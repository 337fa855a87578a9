"""Beat tracking: the times of beats and downbeats.

Conventions:
    Times in seconds, ascending. The reference is the annotation, never targets turned back into times.
    `mir_eval` ignores events in the first 5 s of reference and estimate, and so do we, for downbeats as well.
    A beat counts within +-70 ms. Training targets are widened around events; references are not.
    A track with fewer than two reference beats after the first 5 s is left out of every mean; with fewer than two
    estimated beats it scores 0. Without bar positions, in reference or estimate, there is no downbeat score.

Scored by `mir_eval.beat`: ``f_measure cemgil goto p_score cmlc cmlt amlc amlt information_gain``, and
``downbeat_f_measure`` where bars are annotated.

Decoders, on the stitched activation of the whole track: ``peaks`` (local maxima over +-70 ms, refined by a parabola;
the threshold is chosen on validation) and ``dynamic_programming`` (`librosa.beat.beat_track` on the activation). In
both, a beat whose downbeat activation reaches a threshold chosen on validation starts a bar. Classical system:
`librosa.beat.beat_track` on the waveform.

References:
    Davies, Degara and Plumbley, "Evaluation Methods for Musical Audio Beat Tracking Algorithms", Queen Mary
    University of London, technical report C4DM-TR-09-06, 2009: the scores.
    Ellis, "Beat Tracking by Dynamic Programming", Journal of New Music Research 36(1), 2007: the second decoder.

Shapes:  N examples   K tokens of a track   n, m events (beats, downbeats, onsets)
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
_LIBROSA_RATE = 22050  # hertz; only at this rate is librosa's default hop of 512 samples 23 ms
_MIR_EVAL_NAMES = {
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
    """Beat and downbeat times from one activation each.

    Attributes:
        tolerance: Of the decoder ``peaks``, in seconds.
        target_width: Seconds to either side of a beat over which a training target falls to 0.
        beat_seconds: Median beat period; learnt from the training split.
    """

    name: ClassVar[str] = "beat"
    annotation: ClassVar[str] = "beats"
    level: ClassVar[str] = "frame"
    headline: ClassVar[str] = "f_measure"
    table_scores: ClassVar[tuple[str, ...]] = ("f_measure", "cemgil", "cmlt", "amlt", "downbeat_f_measure")
    suffix: ClassVar[str] = ".beats"
    decoders: ClassVar[tuple[str, ...]] = ("peaks", "dynamic_programming")
    classical: ClassVar[str] = "librosa_beat_track"
    online_metric: ClassVar[str] = "beat_ap"

    tolerance: float = 0.07
    target_width: float = 0.05
    beat_seconds: float = 0.5

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
        return torch.from_numpy(np.column_stack(columns)).float()  # (K, 2)

    def online_targets(self, annotation: Beats, times: Floats) -> Tensor:
        """Activations of beats alone, (K, 1): not every corpus annotates bars."""
        return self.encode(annotation, times)[:, :1]

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return known_cross_entropy(logits, targets)

    def calibrate(
        self, decoder: str, logits: Sequence[Floats], times: Sequence[Floats], references: Sequence[Beats]
    ) -> Decoder:
        activations = [sigmoid(track) for track in logits]  # (K, 2) each
        tracks = list(zip(activations, times, strict=True))
        settings: Decoder = {"name": decoder, "threshold": 0.0, "downbeat_threshold": 0.5}
        if decoder == "peaks":
            settings["threshold"], _ = best_threshold(
                [activation[:, 0] for activation in activations],
                [beats.times for beats in references],
                lambda value: [peak_times(a[:, 0], token_times, value, self.tolerance) for a, token_times in tracks],
            )
        # Bars are decided after beats: which of the estimated beats of annotated tracks are downbeats?
        downbeats = {k: beats.downbeats for k, beats in enumerate(references) if beats.downbeats is not None}
        estimated_beats = [self._beat_times(*tracks[k], settings) for k in downbeats]
        strengths = [
            np.interp(beats, times[k], activations[k][:, 1])
            for k, beats in zip(downbeats, estimated_beats, strict=True)
        ]
        if any(len(strength) for strength in strengths):
            settings["downbeat_threshold"], _ = best_threshold(
                strengths,
                list(downbeats.values()),
                lambda value: [beats[s >= value] for beats, s in zip(estimated_beats, strengths, strict=True)],
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
        """Number of tracks that have nothing to score, and of those that score 0 because they have too few beats."""
        num_references, num_estimates = (
            [len(mir_eval.beat.trim_beats(beats.times)) for beats in tracks] for tracks in (references, estimates)
        )
        return {
            "tracks": len(references),
            "fewer_than_2_reference_beats": sum(number < 2 for number in num_references),
            "fewer_than_2_estimated_beats": sum(number < 2 for number in num_estimates),
            "without_bars": sum(beats.positions is None for beats in references),
        }

    def classical_estimate(self, waveform: npt.NDArray[np.float32], sample_rate: int) -> Beats:
        waveform, sample_rate = at_librosa_rate(waveform, sample_rate)
        _, times = librosa.beat.beat_track(y=waveform, sr=sample_rate, units="time")
        return Beats(np.asarray(times, dtype=np.float64))

    def majority_estimate(self, annotations: Sequence[Beats], seconds: float) -> Beats:
        times = np.arange(0.0, seconds, self.beat_seconds)
        return Beats(times, np.arange(len(times)) % 4 + 1)  # in common time, from the first sample on

    def write(self, estimate: Beats, path: Path) -> None:
        write_beats(path, estimate, decimals=9)  # enough that scoring the file gives the scores of the row

    def _beat_times(self, activation: Floats, times: Floats, decoder: Decoder) -> Floats:
        if decoder["name"] == "peaks":
            return peak_times(activation[:, 0], times, decoder["threshold"], self.tolerance)
        return dynamic_programming_times(activation[:, 0], times)


def widened(events: Floats, times: Floats, width: float) -> Floats:
    """Training targets: 1 at an event, falling linearly to 0 over ``width`` or one token, whichever is longer.

    Args:
        events: Times in seconds, ascending, (n,).
        times: Token centres in seconds, ascending, (K,).
        width: In seconds, to either side.

    Returns:
        Activations in [0, 1], (K,).
    """
    if len(events) == 0 or len(times) == 0:
        return np.zeros(len(times))
    # At low token rates a beat would fall between two tokens and leave no target: hence at least one token.
    period = float(np.median(np.diff(times))) if len(times) > 1 else width
    after = np.searchsorted(events, times).clip(0, len(events) - 1)
    before = (after - 1).clip(0)
    distance = np.minimum(abs(times - events[after]), abs(times - events[before]))
    return np.clip(1 - distance / max(width, period), 0, 1)


def peak_times(activation: Floats, times: Floats, threshold: float, tolerance: float = 0.07) -> Floats:
    """Times of local maxima above a threshold, each refined by a parabola through its neighbours.

    Of a plateau the first token counts.

    Args:
        activation: Probability of each token, (K,).
        times: Token centres in seconds, evenly spaced, (K,).
        threshold: Probability that a peak must exceed.
        tolerance: Half width of the neighbourhood in which a peak is highest, in seconds; at least one token.

    Returns:
        Times in seconds, ascending, (n,).

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
    peaks = peaks[np.diff(peaks, prepend=-reach - 1) > reach]  # the first token of a plateau
    # Vertex of the parabola through three tokens, as a share of a token; none at the ends and where it is flat.
    inner = np.clip(peaks, 1, len(activation) - 2)
    left, middle, right = activation[inner - 1], activation[inner], activation[inner + 1]
    curvature = left - 2 * middle + right
    shift = np.where(
        (curvature < 0) & (inner == peaks), 0.5 * (left - right) / np.where(curvature < 0, curvature, -1), 0.0
    )
    refined: Floats = times[peaks] + np.clip(shift, -0.5, 0.5) * period
    return refined


def dynamic_programming_times(activation: Floats, times: Floats) -> Floats:
    """Beat times by the dynamic programming of `librosa.beat.beat_track`.

    Args:
        activation: Probability of each token, (K,).
        times: Token centres in seconds, evenly spaced, (K,).

    Returns:
        Times in seconds, ascending, (n,).
    """
    if len(activation) < 3 or not activation.max() > activation.min():
        return np.empty(0)
    hop = 512  # librosa takes a sample rate and a hop; only their ratio, the token rate, matters
    token_rate = 1 / float(np.median(np.diff(times)))  # hertz
    # librosa tends to place a beat on the very last token; appended silence keeps that beat outside of the track.
    envelope = np.pad(activation, (0, round(_TAIL_SECONDS * token_rate)), constant_values=activation.min())
    _, frames = librosa.beat.beat_track(onset_envelope=envelope, sr=hop * token_rate, hop_length=hop, trim=False)
    beats: Floats = times[frames[frames < len(times)]]
    return beats


def at_librosa_rate(waveform: npt.NDArray[np.float32], sample_rate: int) -> tuple[npt.NDArray[np.float32], int]:
    """A waveform (num_samples,) resampled to the rate that librosa's defaults assume, and that rate in hertz.

    Silence is appended to a waveform that is shorter than one analysis window, which librosa needs.
    """
    resampled = librosa.resample(waveform, orig_sr=sample_rate, target_sr=_LIBROSA_RATE)
    return np.pad(resampled, (0, max(0, _LIBROSA_WINDOW - len(resampled)))), _LIBROSA_RATE


def bar_positions(starts_bar: np.ndarray) -> np.ndarray:
    """Position of each beat in its bar, (n,), 1 for a downbeat; before the first downbeat positions begin at 2.

    Args:
        starts_bar: Which beats start a bar, booleans (n,).
    """
    positions = np.empty(len(starts_bar), dtype=np.int64)
    position = 1
    for index, is_downbeat in enumerate(starts_bar):
        position = 1 if is_downbeat else position + 1
        positions[index] = position
    return positions


def beat_scores(reference: Beats, estimate: Beats) -> dict[str, float]:
    """Scores of one track by `mir_eval.beat`; NaN where the reference leaves nothing to score."""
    scored_reference, scored_estimate = (mir_eval.beat.trim_beats(beats.times) for beats in (reference, estimate))
    if len(scored_reference) < 2:
        scores = dict.fromkeys(_MIR_EVAL_NAMES, np.nan)
    elif len(scored_estimate) < 2:
        scores = dict.fromkeys(_MIR_EVAL_NAMES, 0.0)
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="mir_eval")
            evaluated = mir_eval.beat.evaluate(reference.times, estimate.times)
        scores = {name: float(evaluated[key]) for name, key in _MIR_EVAL_NAMES.items()}
    bars, estimated_bars = reference.downbeats, estimate.downbeats
    scores["downbeat_f_measure"] = (
        np.nan if bars is None or estimated_bars is None else trimmed_f_measure(bars, estimated_bars)
    )
    return scores


def trimmed_f_measure(reference: Floats, estimate: Floats) -> float:
    """F-measure of times in seconds, (n,) and (m,), after the first 5 s.

    NaN without references, 0 without estimates.
    """
    reference, estimate = mir_eval.beat.trim_beats(reference), mir_eval.beat.trim_beats(estimate)
    if len(reference) == 0:
        return np.nan
    return float(mir_eval.beat.f_measure(reference, estimate)) if len(estimate) else 0.0


def best_threshold(
    values: Sequence[Floats],
    references: Sequence[Floats],
    decode: Callable[[float], list[Floats]],
    measure: Callable[[Floats, Floats], float] = trimmed_f_measure,
) -> tuple[float, float]:
    """The threshold with the best mean score over a split, and that score.

    Args:
        values: Of each track, what is compared with the threshold, (K,).
        references: Event times of each track in seconds, (n,).
        decode: Estimated times of every track in seconds, (m,), for a threshold.
        measure: Score of one track, reference first; NaN where the reference defines none.

    Returns:
        Threshold, and the mean score over all tracks, where a track without a score counts 0.
    """
    pooled = np.concatenate(values)
    # Quantiles follow the distribution of the values, even steps cover a range that few values fall into.
    even_steps = np.linspace(pooled.min(), pooled.max(), 12)[1:-1]
    candidates = np.unique(np.concatenate([np.quantile(pooled, np.linspace(0.1, 0.95, 10)), even_steps]))
    totals = []
    for candidate in candidates:
        estimates = decode(float(candidate))
        totals.append(np.nansum([measure(*pair) for pair in zip(references, estimates, strict=True)]))
    best = int(np.argmax(totals))
    return float(candidates[best]), float(totals[best] / len(references))


def known_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy, (), of logits (N, C) over the known targets (N, C), those that are not NaN."""
    known = ~targets.isnan()
    # NaN times 0 is NaN, also in the gradient: unknown targets are replaced before the loss and dropped after it.
    losses = F.binary_cross_entropy_with_logits(logits, targets.nan_to_num(), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


def sigmoid(logits: Floats) -> Floats:
    """Probabilities of logits, in float64; any shape, (...) -> (...)."""
    return 1 / (1 + np.exp(-logits.astype(np.float64)))
