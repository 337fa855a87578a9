"""Progress bar of a pretraining run."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import TQDMProgressBar


class Bar(TQDMProgressBar):
    """Steps of the whole run, also after a resume, with loss, accuracy and the share of time spent waiting for data.

    Args:
        every: Optimisation steps from one update to the next.
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
        if self._train_progress_bar is not None:  # a run may fail before its first step, and so before the bar exists
            self._train_progress_bar.close()  # so that the error message begins on a line of its own

    def get_metrics(self, *args: Any) -> dict[str, int | str | float | dict[str, float]]:
        """Texts behind the bar: loss and accuracy of the batch, and the share of time spent waiting for data."""
        metrics = super().get_metrics(*args)
        texts: dict[str, int | str | float | dict[str, float]] = {}
        for name in ("loss", "accuracy"):
            if f"train/{name}" in metrics:
                texts[name] = f"{float(str(metrics[f'train/{name}'])):.3f}"
        if "data_wait" in metrics:
            texts["waiting"] = f"{float(str(metrics['data_wait'])):.0%}"
        return texts

    def _begin(self, trainer: L.Trainer) -> None:
        bar = self.train_progress_bar
        bar.initial = bar.n = trainer.global_step  # ``initial`` keeps the speed that of this process alone
        bar.total = trainer.max_steps
        bar.set_description("pretraining")
