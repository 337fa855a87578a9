"""Two processes beside one: `musictf pretrain` of the mini preset on a packed corpus with the same batch.

Each process has one thread and one loader worker; they talk over gloo. Runs of one and of two follow each other in
alternating order; what counts is the median of the examples a second that all of them logged after their start. All of
a step is in it: reading, front end, network, the loss over both ranks' views, averaging gradients, update. Two cores
are needed for it to mean anything.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from frame import Measurement, Settings
from real_runs import packed, pretrained

TRACKS, QUICK_TRACKS = 90, 8
ORDER = (1, 2, 2, 1)
TARGET = 1.8

_RANKS = ["trainer.accelerator=cpu", "trainer.strategy=ddp"]


def measure(settings: Settings) -> list[Measurement]:
    """Train with one process and with two, in turn."""
    keys = (
        ["max_steps=4", "log_every=2", "batch_size=4"]
        if settings.quick
        else ["max_steps=10", "log_every=2", "batch_size=64"]
    )
    speeds: dict[int, list[float]] = {1: [], 2: []}
    with packed(settings.corpus, QUICK_TRACKS if settings.quick else TRACKS) as folder:
        for devices in ORDER[:2] if settings.quick else ORDER:
            ranks = ["trainer.accelerator=cpu"] if devices == 1 else [*_RANKS, f"trainer.devices={devices}"]
            speeds[devices] += pretrained(folder, 1, [*keys, *ranks]).speeds
    return rows(speeds[1], speeds[2])


def rows(one: Sequence[float], two: Sequence[float]) -> list[Measurement]:
    """What the speeds say."""
    alone, together = statistics.median(one), statistics.median(two)
    ratio = together / alone
    return [
        Measurement(
            name="two gloo processes",
            value=together,
            unit="pairs / s",
            against=f"one process of one thread, same batch: {alone:.4g} pairs / s",
            ratio=ratio,
            target=TARGET,
            met=ratio >= TARGET,
        )
    ]
