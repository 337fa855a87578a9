"""Baselines without heads: the majority answer, a classical system, and the ceiling.

The ceiling (``oracle``) decodes the true labels at the token rate: no probe of these tokens can exceed it by much,
however good its backbone.

Shapes:  K tokens of a track   C outputs
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from musictf.audio.io import audio_info, read_excerpt
from musictf.audio.token_grid import TokenGrid
from musictf.evaluation.study import Study
from musictf.results.rows import Row
from musictf.tasks.base import Floats

CLASSICAL_RATE = 22_050  # Hz, librosa's default, which its systems are tuned to


def majority(study: Study, advance: Callable[[], None]) -> None:
    """Score the estimate that ignores the audio; ``advance`` is called for each track."""
    training = study.corpus.references["train"]
    estimate = functools.lru_cache(maxsize=None)(lambda seconds: study.task.majority_estimate(training, seconds))
    is_timed = study.task.level == "frame"  # the estimate of a whole track does not depend on its duration
    estimates = []
    for track in study.corpus.tracks["test"]:
        estimates.append(estimate(audio_info(track.audio).seconds if is_timed else 0.0))
        advance()
    study.add(_cell("constant"), {"name": "constant"}, estimates)


def classical(study: Study, advance: Callable[[], None]) -> None:
    """Score the task's system without learning, on whole tracks; ``advance`` is called for each track."""
    estimates = []
    for track in study.corpus.tracks["test"]:
        num_samples = audio_info(track.audio).num_samples(CLASSICAL_RATE)
        waveform = read_excerpt(track.audio, 0, num_samples, CLASSICAL_RATE)
        estimates.append(study.task.classical_estimate(waveform, CLASSICAL_RATE))
        advance()
    study.add(_cell("audio"), {"name": study.task.classical}, estimates)


def oracle(study: Study, advance: Callable[[], None], grid: TokenGrid) -> None:
    """Score the true labels on a token grid with every decoder, calibrated on validation like that of a probe."""
    task, corpus = study.task, study.corpus
    # Of each track: logits (K, C) of the true labels, token times (K,), and the duration in seconds.
    truth: dict[str, list[tuple[Floats, Floats, float]]] = {"valid": [], "test": []}
    for split, tracks in truth.items():
        for track, reference in zip(corpus.tracks[split], corpus.references[split], strict=True):
            info = audio_info(track.audio)
            times = grid.times(grid.num_tokens(info.num_samples(grid.sample_rate)))
            tracks.append((task.oracle_logits(reference, times), times, info.seconds))
    for name in task.decoders:
        valid_logits, valid_times, _ = map(list, zip(*truth["valid"], strict=True))
        decoder = task.calibrate(name, valid_logits, valid_times, corpus.references["valid"])
        estimates = [task.decode(*track, decoder) for track in truth["test"]]
        study.add(_cell("targets"), decoder, estimates)
        advance()


def _cell(readout: str) -> Row:
    # One row, with no choice of layer or seed behind it.
    return {"readout": readout, "layer": 0, "seed": 0, "selected": True}
