"""How long a run waits for its data: `musictf pretrain` of the mini preset on a packed corpus, one worker, two threads.

On a GPU the same, with the threads it then has: its steps are shorter, so it waits longer.
"""

from __future__ import annotations

import statistics

from frame import Measurement, Settings, accelerator
from real_runs import Logged, packed, pretrained

TRACKS, QUICK_TRACKS = 90, 8
THREADS = 2
TARGET = 0.03  # of the time


def measure(settings: Settings) -> list[Measurement]:
    """Train for a while and read what the run says of itself."""
    keys = ["max_steps=4", "log_every=2", "batch_size=4"] if settings.quick else ["max_steps=20", "log_every=4"]
    with packed(settings.corpus, QUICK_TRACKS if settings.quick else TRACKS) as folder:
        return rows(pretrained(folder, THREADS, [*keys, f"trainer.accelerator={accelerator(settings.device)}"]))


def rows(found: Logged) -> list[Measurement]:
    """What the run says."""
    share, speed = statistics.fmean(found.waits), statistics.median(found.speeds)
    return [
        Measurement(
            name="data",
            value=share,
            unit="of the time",
            against=f"a packed corpus, default batch, 1 worker, {THREADS} threads: {speed:.4g} pairs / s",
            target=TARGET,
            met=share < TARGET,
        )
    ]
