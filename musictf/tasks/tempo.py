"""Tempo: how many beats a minute, read from a beat activation.

Conventions: beats per minute. The annotation is ``beats``, not a number: the reference tempo T is 60 over the median
time between beats of the whole track, nothing trimmed; a track with fewer than two beats leaves every mean. Training
targets are those of beats. An estimate holds a slow and a fast tempo and the weight of the slow one, as the files of
mir_eval do; the heavier of the two is its one answer.

Scored: ``accuracy1``, the one answer lies within 4 % of T; ``accuracy2``, or within 4 % of T/3, T/2, 2T or 3T; and by
`mir_eval.tempo.detection` with its tolerance of 8 % and the reference tempi (T/2, T), all weight on T: ``p_score``, T
is one of the two estimates, ``one_correct``, T or T/2 is, ``both_correct``, both are. The second reference is T/2
because a beat train repeats after two beats by construction, while no beat annotation says what divides a beat.

Decoder: ``autocorrelation``. A tempo from 30 to 300 is as strong as the autocorrelation of the activation at its period
times the root of that autocorrelation's spectrum at its frequency: the first alone rates two periods like one, the
second two beats like one. Of the local maxima the one is the answer that is strongest under a bell over octaves around
the median tempo of the training split; validation chooses the width of the bell, and whether the spectrum counts (where
much happens between the beats it misleads). Classical: `librosa.feature.tempo`.

References:
    Gouyon et al., "An Experimental Comparison of Audio Tempo Induction Algorithms", IEEE TASLP 14(5), 2006: accuracies.
    Peeters, "Template-Based Estimation of Time-Varying Tempo", EURASIP JASP 2007: the product of both functions.
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

_NAMES = ("accuracy1", "accuracy2", "p_score", "one_correct", "both_correct")
_FACTORS = (1 / 3, 1 / 2, 1, 2, 3)
_SLOWEST, _FASTEST = 30.0, 300.0  # beats per minute
_GRID = np.geomspace(_SLOWEST, _FASTEST, 232)  # 1 % from one to the next
_WIDTHS = (2.0, 1.0, 0.5, 0.25)  # octaves; where validation is undecided the first that is best
_MAX_LAG_SECONDS = 8.0  # two beats of the slowest second tempo; longer lags blur when a player breathes


@dataclass(frozen=True)
class Tempi:
    """A slow and a fast tempo in beats per minute, and the weight in [0, 1] of the slow one; all 0 for no answer."""

    slow: float
    fast: float
    weight: float

    @property
    def main(self) -> float:
        """The heavier tempo, the fast one where both weigh the same."""
        return self.slow if self.weight > 0.5 else self.fast


@dataclass(kw_only=True)
class TempoTask(Task):
    """Tempo from one beat activation."""

    name: ClassVar[str] = "tempo"
    annotation: ClassVar[str] = "beats"
    level: ClassVar[str] = "frame"
    headline: ClassVar[str] = "accuracy1"
    shown_scores: ClassVar[tuple[str, ...]] = ("accuracy1", "accuracy2", "p_score")
    suffix: ClassVar[str] = ".tempo"
    decoders: ClassVar[tuple[str, ...]] = ("autocorrelation",)
    classical: ClassVar[str] = "librosa_tempo"

    tolerance: float = 0.04  # of the accuracies
    target_width: float = 0.05  # seconds to either side over which a training target falls to 0
    typical: float = 120.0  # beats per minute; the median of the training split

    def prepare(self, annotations: Sequence[Beats]) -> None:
        tempi = [tempo for tempo in map(reference_tempo, annotations) if tempo > 0]
        if tempi:
            self.typical = float(np.median(tempi))

    @property
    def num_outputs(self) -> int:
        return 1

    def encode(self, annotation: Beats, times: Floats) -> Tensor:
        return torch.from_numpy(widened(annotation.times, times, self.target_width)[:, None]).float()

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
        rights = []
        for choice in settings:
            estimates = [self.decode(track, t, 0.0, choice) for track, t in zip(logits, times, strict=True)]
            rights.append(self.score(references, estimates).corpus.get(self.headline, 0.0))
        return settings[int(np.argmax(rights))]

    def decode(self, logits: Floats, times: Floats, seconds: float, decoder: Decoder) -> Tempi:
        return activation_tempi(sigmoid(logits[:, 0]), times, decoder)

    def score(self, references: Sequence[Beats], estimates: Sequence[Tempi]) -> Scores:
        rows = [tempo_scores(*pair, self.tolerance) for pair in zip(references, estimates, strict=True)]
        return track_means({name: [row[name] for row in rows] for name in _NAMES})

    def details(self, references: Sequence[Beats], estimates: Sequence[Tempi]) -> dict[str, Any]:
        """Tracks without a tempo, and how many answers are which multiple of the right one."""
        tempi = [reference_tempo(beats) for beats in references]
        ratios = [estimate.main / tempo for tempo, estimate in zip(tempi, estimates, strict=True) if tempo > 0]
        nearest = {
            name: sum(abs(ratio - factor) <= self.tolerance * factor for ratio in ratios)
            for name, factor in zip(("third", "half", "right", "double", "triple"), _FACTORS, strict=True)
        }
        others = len(ratios) - sum(nearest.values())
        return {"fewer_than_2_reference_beats": len(tempi) - len(ratios), "octaves": nearest | {"other": others}}

    def classical_estimate(self, waveform: npt.NDArray[np.float32], sample_rate: int) -> Tempi:
        waveform, sample_rate = at_librosa_rate(waveform, sample_rate)
        tempo = float(librosa.feature.tempo(y=waveform, sr=sample_rate)[0])
        return Tempi(tempo / 2, tempo, 0.0)  # it gives one answer; T/2 is what the reference adds to its own

    def majority_estimate(self, annotations: Sequence[Beats], seconds: float) -> Tempi:
        return Tempi(self.typical / 2, self.typical, 0.0)

    def write(self, estimate: Tempi, path: Path) -> None:
        path.write_text(f"{estimate.slow:.6f}\t{estimate.fast:.6f}\t{estimate.weight:.6f}\n")


def reference_tempo(beats: Beats) -> float:
    """60 over the median time between beats; NaN for fewer than two."""
    return 60 / float(np.median(np.diff(beats.times))) if len(beats.times) > 1 else np.nan


def activation_tempi(activation: Floats, times: Floats, decoder: Decoder) -> Tempi:
    """The strongest tempo of an activation, and of its half and its double the one whose period repeats more.

    Args:
        activation: Probability of a beat at each token, (K,).
        times: Token centres in seconds, evenly spaced, (K,).
        decoder: ``typical`` tempo in beats per minute, how many ``octaves`` from there it may well be, and whether the
            ``spectrum`` counts.

    Returns:
        Both tempi, the strongest with the greater weight; all 0 for an activation in which nothing repeats.
    """
    if len(activation) < 4 or np.ptp(activation) < 1e-9:
        return Tempi(0.0, 0.0, 0.0)
    period = float(np.median(np.diff(times)))
    lags = autocorrelation(activation, round(_MAX_LAG_SECONDS / period))
    best = _strongest(lags, period, decoder)
    if best == 0:
        return Tempi(0.0, 0.0, 0.0)
    own, half, double = np.maximum(_repeats(np.array([best, best / 2, best * 2]), lags, period), 1e-9)
    if half >= double:
        return Tempi(best / 2, best, min(0.5, float(half / (own + half))))
    return Tempi(best, best * 2, max(0.5 + 1e-6, float(own / (own + double))))


def _strongest(lags: Floats, period: float, decoder: Decoder) -> float:
    """The strongest tempo, 0 where there is none."""
    strength, spectrum = np.maximum(_repeats(_GRID, lags, period), 0), _spectrum(_GRID, lags, period)
    if decoder["spectrum"]:
        strength = strength * np.sqrt(np.maximum(spectrum, 0))
    peaks = np.flatnonzero((strength >= maximum_filter1d(strength, 3)) & (strength > 0))
    if len(peaks) == 0:
        return 0.0
    bell = np.exp(-0.5 * (np.log2(_GRID[peaks] / decoder["typical"]) / decoder["octaves"]) ** 2)
    peak = int(peaks[(strength[peaks] * bell).argmax()])
    if not decoder["spectrum"]:
        return float(_GRID[peak])
    # The spectrum places a maximum better than lags do, of which few fall into a period.
    first = max(0, peak - 3)
    return float(_GRID[first + int(spectrum[first : peak + 4].argmax())])


def autocorrelation(activation: Floats, max_lag: int) -> Floats:
    """Correlation of an activation (K,) with itself, lags 0 to ``max_lag`` or half the track, 1 at lag 0."""
    centred = activation - activation.mean()
    lags = np.arange(min(max_lag, len(centred) // 2) + 1)
    full = correlate(centred, centred, method="fft")[len(centred) - 1 :][: len(lags)]
    values: Floats = full / (len(centred) - lags)  # as many products stand behind every lag
    return values / values[0]


def _repeats(tempi: Floats, lags: Floats, period: float) -> Floats:
    """Autocorrelation at the period of each tempo, from its values at lags ``period`` seconds apart."""
    return np.interp(60 / tempi / period, np.arange(len(lags)), lags, right=0.0)


def _spectrum(tempi: Floats, lags: Floats, period: float) -> Floats:
    """Spectrum of the autocorrelation at the frequency of each tempo."""
    window = np.hanning(2 * len(lags) + 1)[len(lags) : -1]
    size = 1 << 14
    return np.interp(tempi / 60, np.fft.rfftfreq(size, period), np.fft.rfft(window * lags, size).real)


def tempo_scores(reference: Beats, estimate: Tempi, tolerance: float = 0.04) -> dict[str, float]:
    """Scores of one track; NaN where the reference has no tempo."""
    tempo = reference_tempo(reference)
    if np.isnan(tempo):
        return dict.fromkeys(_NAMES, np.nan)
    hits = [abs(estimate.main - factor * tempo) <= tolerance * factor * tempo for factor in _FACTORS]
    found = mir_eval.tempo.detection(np.array([tempo / 2, tempo]), 0.0, np.array([estimate.slow, estimate.fast]))
    values = (hits[_FACTORS.index(1)], any(hits), *found)
    return dict(zip(_NAMES, map(float, values), strict=True))
