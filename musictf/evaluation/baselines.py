"""What stands beside a probe without being one: the majority answer, a classical system, and the ceiling.

The ceiling (``oracle``) decodes the truth as it looks at the token rate: what no probe of these tokens can exceed by
much, however good its backbone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from musictf.audio.io import audio_info, read_excerpt
from musictf.audio.spectrogram import LogMelConfig
from musictf.datasets.base import Track
from musictf.evaluation.study import Study
from musictf.results.rows import Row
from musictf.tasks.base import Floats

LISTENING_RATE = 22_050  # Hz, librosa's own


def majority(study: Study, advance: Callable[[], None]) -> None:
    """Score the answer that ignores the audio: the baseline under every baseline."""
    training = study.corpus.references["train"]
    guess = functools.lru_cache(maxsize=None)(lambda seconds: study.task.majority_estimate(training, seconds))
    is_timed = study.task.level == "frame"  # the guess of a whole track does not depend on how long it lasts
    estimates = []
    for track in study.corpus.tracks["test"]:
        estimates.append(guess(audio_info(track.audio).seconds if is_timed else 0.0))
        advance()
    study.add(_cell("constant"), {"name": "constant"}, estimates)


def classical(study: Study, advance: Callable[[], None]) -> None:
    """Score the task's system without learning, on whole tracks."""
    estimates = []
    for track in study.corpus.tracks["test"]:
        num_samples = audio_info(track.audio).num_samples(LISTENING_RATE)
        waveform = read_excerpt(track.audio, 0, num_samples, LISTENING_RATE)
        estimates.append(study.task.classical_estimate(waveform, LISTENING_RATE))
        advance()
    study.add(_cell("audio"), {"name": study.task.classical}, estimates)


def oracle(study: Study, front_end: LogMelConfig, advance: Callable[[], None]) -> None:
    """Score the truth at the token rate with every decoder, calibrated on validation as that of a probe is."""
    task, corpus = study.task, study.corpus
    truth = {
        split: [
            _truth(study, track, reference, front_end)
            for track, reference in zip(corpus.tracks[split], corpus.references[split], strict=True)
        ]
        for split in ("valid", "test")
    }
    for name in task.decoders:
        logits, times, _ = map(list, zip(*truth["valid"], strict=True))
        decoder = task.calibrate(name, logits, times, corpus.references["valid"])
        estimates = [task.decode(*track, decoder) for track in truth["test"]]
        study.add(_cell("targets"), decoder, estimates)
        advance()


def _truth(study: Study, track: Track, reference: Any, front_end: LogMelConfig) -> tuple[Floats, Floats, float]:
    """Logits (K, C) that say the truth, token times (K,) and the duration in seconds."""
    info = audio_info(track.audio)
    times = front_end.frame_times(front_end.num_frames(info.num_samples(front_end.sample_rate)))
    return study.task.oracle_logits(reference, times), times, info.seconds


def _cell(readout: str) -> Row:
    return {"readout": readout, "layer": 0, "seed": 0, "selected": True}
