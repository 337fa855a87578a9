"""Speed of a run, its waiting for data, its memory, and the time left.

Waiting for data is the time in which Lightning fetches the next training batch, as reported to its profiler. It
includes neither validation nor checkpoints nor other callbacks. It is measured on the host, which runs ahead of an
accelerator: it bounds the idle time of the accelerator from above.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import lightning.pytorch as L
import torch
from lightning.pytorch.profilers import Profiler

_FETCH = ".train_dataloader_next"  # end of the name of Lightning's profiler action


class FetchClock(Profiler):
    """Seconds spent on fetching training batches; passes every action on to the profiler it replaces."""

    def __init__(self, inner: Profiler) -> None:
        super().__init__()
        self.inner, self.seconds, self._since = inner, 0.0, 0.0

    def start(self, action_name: str) -> None:
        self.inner.start(action_name)
        if action_name.endswith(_FETCH):
            self._since = perf_counter()

    def stop(self, action_name: str) -> None:
        if action_name.endswith(_FETCH):
            self.seconds += perf_counter() - self._since
        self.inner.stop(action_name)


class Mark(NamedTuple):
    """Progress of a run: steps done, the time, and the time waited for data so far, in seconds."""

    step: int
    time: float
    waited: float


class Speedometer(L.Callback):
    """Logs speed, waiting, memory and time left every ``log_every`` steps; the bar shows waiting and time left too.

    ``train/examples_per_second`` counts all ranks. ``train/data_wait`` is the share of wall time in which rank 0 waits
    for data. ``train/memory_gb`` is the peak memory of rank 0 in 1e9 bytes (allocated on the GPU; without one,
    resident, loader processes not included). ``train/hours_left`` assumes the mean speed of this process so far,
    validation and checkpoints included, the first step excluded, which starts loaders and compiles.

    Args:
        max_steps: Optimisation steps of the whole run.
        batch_size: Examples of an optimisation step, over all ranks.
        log_every: Steps between logged values; the trainer's ``log_every_n_steps``.
    """

    def __init__(self, max_steps: int, batch_size: int, log_every: int) -> None:
        self.max_steps, self.batch_size, self.log_every = max_steps, batch_size, log_every
        self._clock: FetchClock | None = None
        self._first: Mark | None = None
        self._second: Mark | None = None
        self._logged = Mark(0, 0.0, 0.0)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        public: Any = trainer  # its stub lacks the profiler
        self._clock = public.profiler = FetchClock(public.profiler)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if self._first is None:  # not in on_train_start, where other callbacks may take long
            self._first = self._logged = self._mark(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        now = self._mark(trainer)
        if now.step == self._logged.step:  # gradients are still being accumulated
            return
        if self._second is None:
            self._second = now
        if now.step % self.log_every:
            return
        seconds = max(now.time - self._logged.time, sys.float_info.epsilon)
        waiting, left = (now.waited - self._logged.waited) / seconds, self.seconds_left(now)
        values = {
            "train/examples_per_second": (now.step - self._logged.step) * self.batch_size / seconds,
            "train/data_wait": waiting,
            "train/memory_gb": peak_memory(trainer.strategy.root_device) / 1e9,
            "train/hours_left": left / 3600,
        }
        pl_module.log_dict(values)
        pl_module.log_dict({"data_wait": waiting, "minutes_left": left / 60}, prog_bar=True, logger=False)
        self._logged = now

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._clock is not None:
            public: Any = trainer
            public.profiler, self._clock = self._clock.inner, None

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)

    def seconds_left(self, now: Mark) -> float:
        """Estimate for the rest of the run, in seconds, from the steps that this process has made."""
        assert self._first is not None
        assert self._second is not None
        origin = self._second if now.step > self._second.step else self._first  # without the slow first step
        return (self.max_steps - now.step) * (now.time - origin.time) / (now.step - origin.step)

    def _mark(self, trainer: L.Trainer) -> Mark:
        return Mark(trainer.global_step, perf_counter(), self._clock.seconds if self._clock else 0.0)


def peak_memory(device: torch.device) -> int:
    """Peak memory of this process in bytes: allocated on a CUDA device, or resident without one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.is_file():  # not getrusage: its peak includes that of the process that started this one
        return 1024 * int(status.read_text().partition("VmHWM:")[2].split()[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS reports bytes, others kibibytes
