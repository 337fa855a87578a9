"""What watches a pretraining run: the metrics file, the checkpoints, and a clean stop on Ctrl-C."""

from __future__ import annotations

import csv
import io
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as L
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers.logger import Logger

from musictf.runs import write_atomically

Sink = Callable[[Mapping[str, float], int], None]


class MetricsFile(Logger):
    """``metrics.csv``: a row a logged step, a column a value, one name for good; a resumed run goes on in it.

    Args:
        path: The file.
        sinks: Others that want the same values with the step, such as Weights & Biases.
    """

    def __init__(self, path: Path, sinks: tuple[Sink, ...] = ()) -> None:
        super().__init__()
        self.path, self.sinks = path, sinks
        self.rows: dict[int, dict[str, float]] = {}
        if path.is_file():
            with open(path, newline="") as file:
                for row in csv.DictReader(file):
                    values = {name: float(value) for name, value in row.items() if value and name != "step"}
                    self.rows[int(row["step"])] = values

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The run folder's ``config.yaml`` holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = {name: float(value) for name, value in metrics.items() if "/" in name}
        if not values:
            return
        done = int(step or 0) + 1  # Lightning numbers steps from 0; the file says how many are done
        self.rows.setdefault(done, {}).update(values)
        self.save()
        for sink in self.sinks:
            sink(values, done)

    def forget_after(self, step: int) -> None:
        """Drop what an interrupted run logged after the checkpoint it is resumed from."""
        self.rows = {row_step: values for row_step, values in self.rows.items() if row_step <= step}

    @rank_zero_only
    def save(self) -> None:
        if not self.rows:  # Lightning asks before the first step: a file without values would look like progress
            return
        names = sorted({name for values in self.rows.values() for name in values})
        text = io.StringIO()
        writer = csv.DictWriter(text, ["step", *names], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"step": step, **self.rows[step]} for step in sorted(self.rows))
        write_atomically(self.path, text.getvalue())


class Interrupted(Exception):
    """The run was asked to stop and did, with a checkpoint to go on from."""


class StopCleanly(L.Callback):
    """On Ctrl-C: finish the step, its log and its validation, write the checkpoint, stop. A second one does not wait.

    Signals reach the ranks at different steps, so ranks agree every ``agree_every`` steps before any of them stops.
    """

    def __init__(self, checkpoint: Path, agree_every: int) -> None:
        self.checkpoint, self.agree_every = checkpoint, agree_every
        self.asked = self._saved = False
        self._before: Any = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Not earlier: Lightning would take this handler for the one to put back after the run.
        self._before = signal.signal(signal.SIGINT, self._ask)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        stop = self.asked
        if trainer.world_size > 1:
            if trainer.global_step % self.agree_every:
                return
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop:
            trainer.save_checkpoint(self.checkpoint)
            self._saved = True

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if self._saved:  # not at once: the values of the last step are logged, and it is validated, after its end
            raise Interrupted(f"stopped after step {trainer.global_step}")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def checkpoints(folder: Path, every: int, monitor: str) -> list[L.Callback]:
    """``last.ckpt`` every ``every`` steps and at the end, ``best.ckpt`` by the lowest ``monitor``."""
    return [
        ModelCheckpoint(folder, filename="last", every_n_train_steps=every, save_top_k=1, enable_version_counter=False),
        ModelCheckpoint(folder, filename="best", monitor=monitor, mode="min", enable_version_counter=False)
        if monitor.startswith("valid/")
        else ModelCheckpoint(
            folder,
            filename="best",
            monitor=monitor,
            mode="min",
            every_n_train_steps=every,
            enable_version_counter=False,
        ),
    ]
