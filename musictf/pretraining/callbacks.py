"""What a pretraining run leaves step by step: the metrics file and the checkpoints.

Conventions: a checkpoint of step N is written when all that step N says, its validation included, is on file. So a
run that is killed at any instant and goes on from it neither lacks a value nor has one twice.
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
    """The run came to a stop before its end, with a checkpoint to go on from."""


class KeepCheckpoints(L.Callback):
    """``last.ckpt`` every ``every`` steps and at the end, ``best.ckpt`` by the lowest score, and numbered ones.

    Lightning's own callback writes before the values of the step are logged and before its validation: what is lost
    by a kill in between is not done again.

    Args:
        folder: Where they go.
        every: Steps from one ``last.ckpt`` to the next.
        keep_every: Steps from one numbered checkpoint, kept for good, to the next; 0 keeps none.
        monitor: The logged value that is lowest at the best step.
        score_every: Steps from one such value to the next; it is logged at every multiple.

    Attributes:
        before_writing: Has a last look at the module; what it raises keeps the checkpoint from being written.
    """

    def __init__(self, folder: Path, every: int, keep_every: int, monitor: str, score_every: int) -> None:
        self.folder, self.every, self.keep_every = folder, every, keep_every
        self.monitor, self.on_validation = monitor, monitor.startswith("valid/")
        self.score_every = score_every
        self.before_writing: Callable[[L.LightningModule], None] = lambda module: None
        self.best_score, self.best_step = math.inf, 0
        self._score = math.inf
        self._held: dict[str, Any] | None = None
        self._is_last = False

    def state_dict(self) -> dict[str, Any]:
        return {"best_score": self.best_score, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if (self.folder / BEST).is_file():  # without it, the best is yet to come
            self.best_score, self.best_step = state_dict["best_score"], state_dict["best_step"]

    def hold(self, trainer: L.Trainer) -> None:
        """Take the state after the step that has just been done, to be written as the last one."""
        self._is_last = True
        # What `Trainer.save_checkpoint` writes. Taken at the one hook from which Lightning resumes without training
        # or validating a step twice; the tensors are not changed before the next step.
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
        (checkpoint, self._held), (score, self._score) = (self._held, None), (self._score, math.inf)
        step = checkpoint["global_step"]
        names = [step_name(step)] if self.keep_every and step % self.keep_every == 0 else []
        if score < self.best_score:
            self.best_score, self.best_step = score, step
            names.append(BEST)
        if self._is_last:
            names.append(LAST)
        # What callbacks know by now, after the validation; so this one stands first among them.
        states = {callback.state_key: callback.state_dict() for callback in trainer.callbacks}  # type: ignore[attr-defined]
        checkpoint["callbacks"].update({key: state for key, state in states.items() if state})
        self._save(trainer, checkpoint, names)

    def _save(self, trainer: L.Trainer, checkpoint: dict[str, Any], names: list[str]) -> None:
        trouble = None
        try:
            for name in names:
                trainer.strategy.save_checkpoint(checkpoint, self.folder / name)
        except OSError as error:
            trouble = (
                f"step {checkpoint['global_step']}: {self.folder / name} could not be written "
                f"({error.strerror or error}), the one before it is whole; make room"
            )
        trouble = trainer.strategy.broadcast(trouble)  # rank 0 writes, and all ranks stop or none
        if trouble is not None:
            leave(trainer, trouble)


def leave(trainer: L.Trainer, reason: str) -> NoReturn:
    """Stop, on all ranks at once: rank 0 says why, the others end in silence and without a failure of their own.

    Lightning kills rank 0, in whatever it still has to write, five seconds after another rank has failed.
    """
    if trainer.is_global_zero:
        raise Interrupted(reason)
    raise SystemExit(0)


def _value(trainer: L.Trainer, name: str) -> float:
    return float(trainer.callback_metrics.get(name, math.inf))
