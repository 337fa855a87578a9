"""Tempo estimation: beats per minute of a whole track, from a beat activation.

Conventions:
    Tempi in beats per minute (BPM).
    The annotation is ``beats``, not a number. The reference tempo T is 60 over the median time in seconds between beats
    of the whole track; nothing is trimmed. A track with fewer than two beats is left out of every mean.
    Training targets are those of beats.
    An estimate holds a slow and a fast tempo and the weight of the slow one, as the files of `mir_eval` do. Where one
    tempo is needed, it is the one with more weight.

Scored:
    ``accuracy1``: the estimate is within 4 % of T.
    ``accuracy2``: the estimate is within 4 % of T/3, T/2, T, 2T or 3T.
    ``p_score one_correct both_correct``: `mir_eval.tempo.detection` with its tolerance of 8 %, reference tempi
    (T/2, T) and all weight on T. ``p_score``: T is one of the two estimates; ``one_correct``: T or T/2 is;
    ``both_correct``: both are. The second reference is T/2 because a sequence of beats also repeats after two beats,
    while no annotation of beats states how a beat is divided.

Decoder: ``autocorrelation``. The strength of a tempo from 30 to 300 is the autocorrelation of the activation at its
period, times the root of the spectrum of that autocorrelation at its frequency. Both factors are needed: the
autocorrelation rates two periods like one, the spectrum rates two beats like one. Among the local maxima, the decoder
selects the strongest after weighting by a bell curve over octaves around the median tempo of the training split.
Validation chooses the width of the bell, and whether the spectrum counts: it misleads where much happens between beats.
Classical system: `librosa.feature.tempo`.

References:
    Gouyon et al., "An Experimental Comparison of Audio Tempo Induction Algorithms", IEEE TASLP 14(5), 2006: accuracies.
    Peeters, "Template-Based Estimation of Time-Varying Tempo", EURASIP JASP 2007: the product of both functions.

Shapes:  N examples   K tokens of a track   P tempi   G lags of the autocorrelation
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
from scipy.ndimage import maximum_filter1d
from scipy.signal import correlate
from torch import Tensor

from musictf.annotations import Beats
from musictf.tasks.base import Decoder, Floats, Scores, Task, track_means
from musictf.tasks.beat import at_librosa_rate, known_cross_entropy, sigmoid, widened

_SCORE_NAMES = ("accuracy1", "accuracy2", "p_score", "one_correct", "both_correct")
_FACTORS = (1 / 3, 1 / 2, 1, 2, 3)
_SLOWEST, _FASTEST = 30.0, 300.0  # beats per minute
_GRID = np.geomspace(_SLOWEST, _FASTEST, 232)  # 1 % from one to the next
_WIDTHS = (2.0, 1.0, 0.5, 0.25)  # octaves; of equal ones on validation the first is chosen
_MAX_LAG_SECONDS = 8.0  # two beats of the slowest second tempo; at longer lags, changes of tempo blur the peaks


@dataclass(frozen=True)
class Tempi:
    """Two tempi in beats per minute, as in the tempo files of `mir_eval`; all 0 where no tempo was found.

    Attributes:
        slow: The slower tempo.
        fast: The faster tempo.
        weight: Salience of the slower tempo, in [0, 1]; the faster one has the rest.
    """

    slow: float
    fast: float
    weight: float

    @property
    def main(self) -> float:
        """The tempo with more weight, the fast one if both have the same."""
        return self.slow if self.weight > 0.5 else self.fast


@dataclass(kw_only=True)
class TempoTask(Task):
    """Tempo from one beat activation.

    Attributes:
        tolerance: Of both accuracies, as a share of the reference tempo.
        target_width: Seconds to either side of a beat over which a training target falls to 0.
        typical: Median tempo in beats per minute; learnt from the training split.
    """

    name: ClassVar[str] = "tempo"
    annotation: ClassVar[str] = "beats"
    level: ClassVar[str] = "frame"
    headline: ClassVar[str] = "accuracy1"
    table_scores: ClassVar[tuple[str, ...]] = ("accuracy1", "accuracy2", "p_score")
    suffix: ClassVar[str] = ".tempo"
    decoders: ClassVar[tuple[str, ...]] = ("autocorrelation",)
    classical: ClassVar[str] = "librosa_tempo"

    tolerance: float = 0.04
    target_width: float = 0.05
    typical: float = 120.0

    def prepare(self, annotations: Sequence[Beats]) -> None:
        tempi = [tempo for tempo in map(reference_tempo, annotations) if tempo > 0]
        if tempi:
            self.typical = float(np.median(tempi))

    @property
    def num_outputs(self) -> int:
        return 1

    def encode(self, annotation: Beats, times: Floats) -> Tensor:
        return torch.from_numpy(widened(annotation.times, times, self.target_width)[:, None]).float()  # (K, 1)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return known_cross_entropy(logits, targets)

    def calibrate(
        self, decoder: str, logits: Sequence[Floats], times: Sequence[Floats], references: Sequence[Beats]
    ) -> Decoder:
        settings = [
            {"name": decoder, "typical": round(self.typical, 6), "octaves": width, "spectrum": spectrum}
            for spectrum in (True, False)
            for width in _WIDTHS
        ]
        scores = []
        for candidate in settings:
            estimates = [self.decode(track, t, 0.0, candidate) for track, t in zip(logits, times, strict=True)]
            scores.append(self.score(references, estimates).corpus.get(self.headline, 0.0))
        return settings[int(np.argmax(scores))]

    def decode(self, logits: Floats, times: Floats, seconds: float, decoder: Decoder) -> Tempi:
        return activation_tempi(sigmoid(logits[:, 0]), times, decoder)

    def score(self, references: Sequence[Beats], estimates: Sequence[Tempi]) -> Scores:
        rows = [tempo_scores(*pair, self.tolerance) for pair in zip(references, estimates, strict=True)]
        return track_means({name: [row[name] for row in rows] for name in _SCORE_NAMES})

    def details(self, references: Sequence[Beats], estimates: Sequence[Tempi]) -> dict[str, Any]:
        """Number of tracks without a reference tempo, and of estimates by their ratio to the reference tempo."""
        tempi = [reference_tempo(beats) for beats in references]
        ratios = [estimate.main / tempo for tempo, estimate in zip(tempi, estimates, strict=True) if tempo > 0]
        nearest = {
            name: sum(abs(ratio - factor) <= self.tolerance * factor for ratio in ratios)
            for name, factor in zip(("third", "half", "right", "double", "triple"), _FACTORS, strict=True)
        }
        num_others = len(ratios) - sum(nearest.values())
        return {"fewer_than_2_reference_beats": len(tempi) - len(ratios), "octaves": nearest | {"other": num_others}}

    def classical_estimate(self, waveform: npt.NDArray[np.float32], sample_rate: int) -> Tempi:
        waveform, sample_rate = at_librosa_rate(waveform, sample_rate)
        tempo = float(librosa.feature.tempo(y=waveform, sr=sample_rate)[0])
        return Tempi(tempo / 2, tempo, 0.0)  # librosa gives one tempo; half of it comes second, as in references

    def majority_estimate(self, annotations: Sequence[Beats], seconds: float) -> Tempi:
        return Tempi(self.typical / 2, self.typical, 0.0)

    def write(self, estimate: Tempi, path: Path) -> None:
        path.write_text(f"{estimate.slow:.6f}\t{estimate.fast:.6f}\t{estimate.weight:.6f}\n")


def reference_tempo(beats: Beats) -> float:
    """Beats per minute: 60 over the median time in seconds between beats; NaN for fewer than two beats."""
    return 60 / float(np.median(np.diff(beats.times))) if len(beats.times) > 1 else np.nan


def activation_tempi(activation: Floats, times: Floats, decoder: Decoder) -> Tempi:
    """The strongest tempo of an activation, and the better supported of its half and its double.

    Args:
        activation: Probability of a beat at each token, (K,).
        times: Token centres in seconds, evenly spaced, (K,).
        decoder: Settings: the ``typical`` tempo in beats per minute, the standard deviation of the bell curve around it
            in ``octaves``, and whether the ``spectrum`` counts.

    Returns:
        Both tempi, the strongest with more weight; all 0 for an activation that does not repeat.
    """
    if len(activation) < 4 or np.ptp(activation) < 1e-9:
        return Tempi(0.0, 0.0, 0.0)
    period = float(np.median(np.diff(times)))  # seconds between tokens
    correlation = autocorrelation(activation, round(_MAX_LAG_SECONDS / period))
    best = _strongest_tempo(correlation, period, decoder)
    if best == 0:
        return Tempi(0.0, 0.0, 0.0)
    candidates = np.array([best, best / 2, best * 2])
    strength, half, double = np.maximum(_correlation_at(candidates, correlation, period), 1e-9)
    # The clamps leave the strongest tempo the main one even where its half or double repeats more.
    if half >= double:
        return Tempi(best / 2, best, min(0.5, float(half / (strength + half))))
    return Tempi(best, best * 2, max(0.5 + 1e-6, float(strength / (strength + double))))


def _strongest_tempo(correlation: Floats, period: float, decoder: Decoder) -> float:
    """The tempo with the highest weighted strength, from the autocorrelation (G,); 0 where there is none."""
    strength = np.maximum(_correlation_at(_GRID, correlation, period), 0)  # (P,)
    # Half a Hann window: the lags fade out, which keeps the end of the autocorrelation from adding ripples.
    window = np.hanning(2 * len(correlation) + 1)[len(correlation) : -1]
    size = 1 << 14  # zero padding, for a spectrum finer than the grid of tempi
    spectrum = np.fft.rfft(window * correlation, size).real
    spectrum = np.interp(_GRID / 60, np.fft.rfftfreq(size, period), spectrum)  # (P,)
    if decoder["spectrum"]:
        strength = strength * np.sqrt(np.maximum(spectrum, 0))
    peaks = np.flatnonzero((strength >= maximum_filter1d(strength, 3)) & (strength > 0))
    if len(peaks) == 0:
        return 0.0
    bell = np.exp(-0.5 * (np.log2(_GRID[peaks] / decoder["typical"]) / decoder["octaves"]) ** 2)
    peak = int(peaks[(strength[peaks] * bell).argmax()])
    if not decoder["spectrum"]:
        return float(_GRID[peak])
    # At few lags a period, the spectrum locates a maximum more precisely than the autocorrelation.
    first = max(0, peak - 3)
    return float(_GRID[first + int(spectrum[first : peak + 4].argmax())])


def autocorrelation(activation: Floats, max_lag: int) -> Floats:
    """Autocorrelation of an activation (K,) at lags up to ``max_lag`` tokens or half the track, (G,); 1 at lag 0."""
    centred = activation - activation.mean()
    lags = np.arange(min(max_lag, len(centred) // 2) + 1)
    full = correlate(centred, centred, method="fft")[len(centred) - 1 :][: len(lags)]
    values: Floats = full / (len(centred) - lags)  # unbiased: divided by the number of products
    return values / values[0]


def _correlation_at(tempi: Floats, correlation: Floats, period: float) -> Floats:
    """Autocorrelation at the period of each tempo, (P,), from its values (G,) at lags ``period`` seconds apart."""
    return np.interp(60 / tempi / period, np.arange(len(correlation)), correlation, right=0.0)


def tempo_scores(reference: Beats, estimate: Tempi, tolerance: float = 0.04) -> dict[str, float]:
    """Scores of one track; NaN where the reference has no tempo."""
    tempo = reference_tempo(reference)
    if np.isnan(tempo):
        return dict.fromkeys(_SCORE_NAMES, np.nan)
    hits = [abs(estimate.main - factor * tempo) <= tolerance * factor * tempo for factor in _FACTORS]
    detection = mir_eval.tempo.detection(np.array([tempo / 2, tempo]), 0.0, np.array([estimate.slow, estimate.fast]))
    values = (hits[_FACTORS.index(1)], any(hits), *detection)  # detection: p_score, one_correct, both_correct
    return dict(zip(_SCORE_NAMES, map(float, values), strict=True))
