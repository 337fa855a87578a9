"""The line that people look at while a run goes on."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import TQDMProgressBar


class Bar(TQDMProgressBar):
    """Steps of the whole run, also after a resume, and few words behind them.

    Args:
        every: Steps from one update to the next.
    """

    def __init__(self, every: int) -> None:
        super().__init__(refresh_rate=every)

    def on_train_start(self, *args: Any) -> None:
        super().on_train_start(*args)
        self._begin(args[0])

    def on_train_epoch_start(self, trainer: L.Trainer, *args: Any) -> None:
        super().on_train_epoch_start(trainer, *args)
        self._begin(trainer)

    def on_exception(self, *args: Any) -> None:
        if self._train_progress_bar is not None:  # what ends a run before its first step comes sooner than the bar
            self._train_progress_bar.close()  # so that what is said next has a line of its own

    def get_metrics(self, *args: Any) -> dict[str, int | str | float | dict[str, float]]:
        """Loss and accuracy of the batch, and what share of the time went by waiting for data."""
        found = super().get_metrics(*args)
        words: dict[str, int | str | float | dict[str, float]] = {}
        for name in ("loss", "accuracy"):
            if f"train/{name}" in found:
                words[name] = f"{float(str(found[f'train/{name}'])):.3f}"
        if "data_wait" in found:
            words["waiting"] = f"{float(str(found['data_wait'])):.0%}"
        return words

    def _begin(self, trainer: L.Trainer) -> None:
        bar = self.train_progress_bar
        bar.initial = bar.n = trainer.global_step  # its speed is that of this process
        bar.total = trainer.max_steps
        bar.set_description("pretraining")
