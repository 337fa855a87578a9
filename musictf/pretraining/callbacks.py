"""Files that a pretraining run writes during training: metrics and checkpoints.

Conventions: the checkpoint of step N is written after all values of step N, its validation included, are in the metrics
file. So a run that is killed at any instant and resumed has every value exactly once.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as L
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers.logger import Logger

from musictf.files import write_atomically
from musictf.pretraining.checkpoints import BEST, LAST, step_name

Sink = Callable[[Mapping[str, float], int], None]


class MetricsFile(Logger):
    """``metrics.csv``: one row for each logged step, one column for each value; a resumed run extends it.

    Args:
        path: The file.
        sinks: Further receivers of the same values, such as Weights & Biases.
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
        """Nothing: the run folder's ``config.yaml`` holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = {name: float(value) for name, value in metrics.items() if "/" in name}  # without Lightning's "epoch"
        if not values:
            return
        done = int(step or 0) + 1  # Lightning numbers steps from 0; the file counts the steps done
        self.rows.setdefault(done, {}).update(values)
        self.save()
        for sink in self.sinks:
            sink(values, done)

    def forget_after(self, step: int) -> None:
        """Drop the rows that an interrupted run logged after the checkpoint it is resumed from."""
        self.rows = {row_step: values for row_step, values in self.rows.items() if row_step <= step}

    @rank_zero_only
    def save(self) -> None:
        if not self.rows:  # Lightning saves before the first step too; an empty file would look like progress
            return
        names = sorted({name for values in self.rows.values() for name in values})
        # The whole file is written each time: columns may be added, and readers never see a partial row.
        text = io.StringIO()
        writer = csv.DictWriter(text, ["step", *names], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"step": step, **self.rows[step]} for step in sorted(self.rows))
        write_atomically(self.path, text.getvalue())


class Interrupted(Exception):
    """The run stopped before its end, with a checkpoint to resume from."""


class KeepCheckpoints(L.Callback):
    """``last.ckpt`` every ``every`` steps and at the end, ``best.ckpt`` at the lowest score, and numbered checkpoints.

    Lightning's own callback writes before the values of the step are logged and before its validation. A kill in
    between would lose them, because the resumed run does not repeat that step.

    Args:
        folder: Folder of the checkpoints.
        every: Steps from one ``last.ckpt`` to the next.
        keep_every: Steps from one permanent, numbered checkpoint to the next; 0: none.
        monitor: Name of the logged score; the step where it is lowest is the best.
        score_every: Steps from one score to the next; it is logged at every multiple.

    Attributes:
        before_writing: Called with the module before a checkpoint is written; may raise to prevent it.
    """

    def __init__(self, folder: Path, every: int, keep_every: int, monitor: str, score_every: int) -> None:
        self.folder, self.every, self.keep_every = folder, every, keep_every
        self.monitor, self.on_validation = monitor, monitor.startswith("valid/")
        self.score_every = score_every
        self.before_writing: Callable[[L.LightningModule], None] = lambda module: None
        self.best_score, self.best_step = math.inf, 0
        self._score = math.inf
        self._held: dict[str, Any] | None = None  # a checkpoint that waits for the values of its step
        self._is_last = False  # whether it is to become ``last.ckpt``

    def state_dict(self) -> dict[str, Any]:
        return {"best_score": self.best_score, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if (self.folder / BEST).is_file():  # a resume from another folder starts without a best step
            self.best_score, self.best_step = state_dict["best_score"], state_dict["best_step"]

    def hold(self, trainer: L.Trainer) -> None:
        """Take the state after the current step, to be written as ``last.ckpt`` once its values are logged."""
        self._is_last = True
        # The content of `Trainer.save_checkpoint`. It is taken in on_train_batch_end, the only hook from which
        # Lightning resumes without training or validating a step twice. The tensors do not change before the next step.
        self._held = self._held or trainer._checkpoint_connector.dump_checkpoint(weights_only=False)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        due = [every for every in (self.every, self.keep_every, self.score_every) if every and step % every == 0]
        if due or step == trainer.max_steps:
            self.hold(trainer)
            self._is_last = step % self.every == 0 or step == trainer.max_steps
        if not self.on_validation and step % self.score_every == 0:
            self._score = _value(trainer, self.monitor)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.on_validation:
            self._score = _value(trainer, self.monitor)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self._write(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        if self._held is None:
            return
        self.before_writing(trainer.lightning_module)
        checkpoint, score = self._held, self._score
        self._held, self._score = None, math.inf
        step = checkpoint["global_step"]
        names = [step_name(step)] if self.keep_every and step % self.keep_every == 0 else []
        if score < self.best_score:
            self.best_score, self.best_step = score, step
            names.append(BEST)
        if self._is_last:
            names.append(LAST)
        # State of the callbacks after the validation. This one is first among them, so none has begun the next step.
        states = {callback.state_key: callback.state_dict() for callback in trainer.callbacks}  # type: ignore[attr-defined]
        checkpoint["callbacks"].update({key: state for key, state in states.items() if state})
        self._save(trainer, checkpoint, names)

    def _save(self, trainer: L.Trainer, checkpoint: dict[str, Any], names: list[str]) -> None:
        """Write a checkpoint under each name; if that fails on rank 0, stop all ranks."""
        reason = None
        try:
            for name in names:
                trainer.strategy.save_checkpoint(checkpoint, self.folder / name)
        except OSError as error:
            reason = (
                f"step {checkpoint['global_step']}: {self.folder / name} could not be written "
                f"({error.strerror or error}), the previous one is whole; free disk space"
            )
        reason = trainer.strategy.broadcast(reason)  # only rank 0 writes, but either all ranks stop or none
        if reason is not None:
            stop_all_ranks(trainer, reason)


def stop_all_ranks(trainer: L.Trainer, reason: str) -> NoReturn:
    """End the run; to be called on all ranks at once.

    Rank 0 reports the reason. The others exit with status 0: five seconds after another rank has failed, Lightning
    would kill rank 0, which may still be writing.

    Raises:
        Interrupted: on rank 0.
        SystemExit: on the other ranks.
    """
    if trainer.is_global_zero:
        raise Interrupted(reason)
    raise SystemExit(0)


def _value(trainer: L.Trainer, name: str) -> float:
    return float(trainer.callback_metrics.get(name, math.inf))
