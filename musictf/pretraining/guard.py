"""Steps that go wrong: not taken, written down, and counted against a budget.

Whether a step is wrong is decided on the device and told to the optimiser there (``found_inf``, which fused AdamW
heeds): weights and moments stay as they were, and no step waits for the host. The host looks every ``log_every`` steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from musictf.errors import InputError
from musictf.files import write_atomically

FILE_NAME = "bad_batches.jsonl"
_WARM_UP, _INERTIA = 50, 0.98  # steps before a spike can be told, and the memory of the running mean


@dataclass(kw_only=True)
class GuardConfig:
    """What counts as a wrong step, and how many are forgiven.

    Attributes:
        budget: Wrong steps that are skipped before the run stops.
        spike: A loss above this many times its running mean is wrong too; 0: only what is not finite.
    """

    budget: int = 0
    spike: float = 0.0

    def __post_init__(self) -> None:
        if self.budget < 0:
            raise InputError(f"guard.budget={self.budget} must not be negative")
        if self.spike != 0 and not self.spike > 1:
            raise InputError(f"guard.spike={self.spike}: a multiple of the usual loss, above 1, or 0 for none")


class Diverged(Exception):
    """More steps went wrong than the budget forgives."""


@dataclass(frozen=True)
class BadStep:
    """A step that was not taken; ``number`` counts from 1."""

    number: int
    loss: float
    gradient_norm: float


class Guard(nn.Module):
    """Judges each step on the device; its buffers travel with the checkpoint."""

    mean_loss: Tensor
    num_seen: Tensor
    num_skipped: Tensor

    def __init__(self, config: GuardConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean_loss", torch.zeros(()))
        self.register_buffer("num_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("num_skipped", torch.zeros((), dtype=torch.int64))
        self._loss = torch.zeros(())
        self._seen: list[tuple[int, Tensor]] = []

    def saw_loss(self, loss: Tensor) -> None:
        """Take in the loss of the step, a scalar; where spikes are watched, the same on every rank."""
        self._loss = loss.float()

    def saw_norm(self, norm: Tensor, step: int) -> Tensor:
        """Judge a step by its gradient norm, a scalar, and its loss; answers 1.0 where it must not be taken, else 0.0.

        Args:
            norm: Norm of all gradients, over all ranks.
            step: Steps done before this one.
        """
        wrong = ~torch.isfinite(norm)  # a loss that is not finite has such a gradient, on every rank
        if self.config.spike:
            spikes = (self.num_seen >= _WARM_UP) & (self._loss > self.config.spike * self.mean_loss)
            wrong = wrong | spikes | ~torch.isfinite(self._loss)
            inertia = _INERTIA * (self.num_seen > 0)
            self.mean_loss = torch.where(wrong, self.mean_loss, inertia * self.mean_loss + (1 - inertia) * self._loss)
            self.num_seen = self.num_seen + ~wrong  # of the mean: a run that begins to watch later warms up then
        self.num_skipped = self.num_skipped + wrong
        self._seen.append((step + 1, torch.stack([wrong.float(), self._loss, norm.float()])))
        return wrong.float()

    def bad_steps(self) -> list[BadStep]:
        """Wrong steps since the last call. Waits for the device."""
        seen, self._seen = self._seen, []
        values = torch.stack([value for _, value in seen]).tolist() if seen else []
        return [BadStep(step, loss, norm) for (step, _), (wrong, loss, norm) in zip(seen, values, strict=True) if wrong]


class GuardWatch(L.Callback):
    """Writes down whose music was in a wrong step, and ends the run once the budget is spent.

    Args:
        path: ``bad_batches.jsonl`` of the run.
        tracks: Names of the tracks of a step, by its number.
        every: Steps between looks.
    """

    def __init__(self, path: Path, tracks: Callable[[int], list[str]], every: int) -> None:
        self.path, self.tracks, self.every = path, tracks, every

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step % self.every == 0:
            self.look(pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.look(pl_module)

    def look(self, module: Any) -> None:
        """Read what the guard saw; also before a checkpoint, which would forget it.

        Raises:
            Diverged: more steps were wrong than the budget forgives, in this process or before it.
        """
        guard: Guard = module.guard
        bad = guard.bad_steps()
        if bad:
            self._write(bad)
        skipped, budget = int(guard.num_skipped), guard.config.budget
        if skipped > budget:
            where = "".join(
                f"step {step.number}: loss {step.loss:.4g}, gradient norm {step.gradient_norm:.4g}; "
                for step in bad[:1]
            )
            raise Diverged(
                f"{where}{skipped} steps were wrong and not taken, guard.budget={budget} forgives fewer "
                f"({self.path} names their tracks); lower optim.learning_rate, leave the tracks out, "
                "or raise guard.budget"
            )

    @rank_zero_only
    def _write(self, bad: list[BadStep]) -> None:
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        known = {json.loads(line)["step"]: line for line in lines}  # of a resumed run, some are made once more
        for step in bad:
            values = {"step": step.number, "loss": str(step.loss), "gradient_norm": str(step.gradient_norm)}
            known[step.number] = json.dumps(values | {"tracks": self.tracks(step.number)})
        write_atomically(self.path, "".join(f"{known[number]}\n" for number in sorted(known)))
