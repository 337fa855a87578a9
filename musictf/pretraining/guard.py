"""Steps that diverge: skipped, written to a file, and counted against a budget.

Whether a step is bad is decided on the device and passed to the optimiser there (``found_inf``, which fused AdamW
supports): weights and moments do not change, and no step waits for the host. The host checks every ``log_every``
steps.
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
_WARM_UP = 50  # steps before a loss counts as a spike: the running mean must settle first
_MOMENTUM = 0.98  # of the running mean of the loss


@dataclass(kw_only=True)
class GuardConfig:
    """Which steps are skipped as bad, and how many.

    Attributes:
        budget: Bad steps that may be skipped before the run stops.
        spike: Multiple of its running mean above which a loss is bad; 0: only non-finite values are.
    """

    budget: int = 0
    spike: float = 0.0

    def __post_init__(self) -> None:
        if self.budget < 0:
            raise InputError(f"guard.budget={self.budget} must not be negative")
        if self.spike != 0 and not self.spike > 1:
            raise InputError(
                f"guard.spike={self.spike}: a multiple of the running mean of the loss, above 1, or 0 for none"
            )


class Diverged(Exception):
    """More steps were bad than ``guard.budget`` allows."""


@dataclass(frozen=True)
class BadStep:
    """A step that was skipped; ``number`` counts from 1."""

    number: int
    loss: float
    gradient_norm: float


class Guard(nn.Module):
    """Decides on the device whether a step is bad; its buffers are part of the checkpoint."""

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
        self._unread: list[tuple[int, Tensor]] = []  # step and (is bad, loss, norm), still on the device

    def record_loss(self, loss: Tensor) -> None:
        """Keep the loss of the step (a scalar) for `skip_flag`; if ``spike`` is set, the same on every rank."""
        self._loss = loss.float()

    def skip_flag(self, norm: Tensor, step: int) -> Tensor:
        """Whether a step is bad, by its gradient norm and its loss.

        Args:
            norm: Norm of all gradients over all ranks, a scalar ().
            step: Steps done before this one.

        Returns:
            A scalar () on the device: 1.0 where the step must be skipped, else 0.0.
        """
        is_bad = ~torch.isfinite(norm)  # a loss that is not finite has such a gradient, on every rank
        if self.config.spike:
            is_spike = (self.num_seen >= _WARM_UP) & (self._loss > self.config.spike * self.mean_loss)
            is_bad = is_bad | is_spike | ~torch.isfinite(self._loss)
            momentum = _MOMENTUM * (self.num_seen > 0)  # 0 at first: the mean starts at the first loss
            updated = momentum * self.mean_loss + (1 - momentum) * self._loss
            self.mean_loss = torch.where(is_bad, self.mean_loss, updated)
            # Counts losses in the mean, not steps: a run that sets ``spike`` on resume warms up first.
            self.num_seen = self.num_seen + ~is_bad
        self.num_skipped = self.num_skipped + is_bad
        self._unread.append((step + 1, torch.stack([is_bad.float(), self._loss, norm.float()])))
        return is_bad.float()

    def bad_steps(self) -> list[BadStep]:
        """Bad steps since the last call. Waits for the device."""
        steps, self._unread = self._unread, []
        # One transfer for all steps.
        values = torch.stack([value for _, value in steps]).tolist() if steps else []
        return [
            BadStep(step, loss, norm) for (step, _), (is_bad, loss, norm) in zip(steps, values, strict=True) if is_bad
        ]


class GuardWatch(L.Callback):
    """Writes the tracks of bad steps to a file, and ends the run once the budget is spent.

    Args:
        path: ``bad_batches.jsonl`` of the run.
        tracks: Identifiers of the tracks of a step, by its number.
        every: Steps between checks.
    """

    def __init__(self, path: Path, tracks: Callable[[int], list[str]], every: int) -> None:
        self.path, self.tracks, self.every = path, tracks, every

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step % self.every == 0:
            self.check(pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.check(pl_module)

    def check(self, module: Any) -> None:
        """Read the guard's bad steps; also called before a checkpoint, which does not hold the unread ones.

        Raises:
            Diverged: more steps were bad than the budget allows, in this process or before it.
        """
        guard: Guard = module.guard
        bad = guard.bad_steps()
        if bad:
            self._write(bad)
        skipped, budget = int(guard.num_skipped), guard.config.budget
        if skipped > budget:
            # Empty in a resumed run that spent its budget before.
            example = "".join(
                f"step {step.number}: loss {step.loss:.4g}, gradient norm {step.gradient_norm:.4g}; "
                for step in bad[:1]
            )
            raise Diverged(
                f"{example}{skipped} steps were bad and skipped, guard.budget={budget} allows fewer "
                f"({self.path} names their tracks); lower optim.learning_rate, leave the tracks out, "
                "or raise guard.budget"
            )

    @rank_zero_only
    def _write(self, bad: list[BadStep]) -> None:
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        by_step = {json.loads(line)["step"]: line for line in lines}  # a resumed run repeats some steps
        for step in bad:
            values = {"step": step.number, "loss": str(step.loss), "gradient_norm": str(step.gradient_norm)}
            by_step[step.number] = json.dumps(values | {"tracks": self.tracks(step.number)})
        write_atomically(self.path, "".join(f"{by_step[number]}\n" for number in sorted(by_step)))
