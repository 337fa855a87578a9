"""Linear probing: affine heads on frozen features, several learning rates at once, chosen on validation.

Shapes:  H = R * L heads (learning rates, layers)   N examples   C outputs
"""

from __future__ import annotations

import logging
import math
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from musictf.errors import InputError
from musictf.probing.heads import Head, HeadGrid, finite_or_raise, statistics
from musictf.probing.readouts import Split
from musictf.runs import TrainerConfig
from musictf.tasks.base import Task

_VALID_BATCH = 8192


@dataclass(kw_only=True)
class ProbeConfig:
    """How heads are trained: steps of ``batch_size`` examples, validation loss every ``valid_every`` steps."""

    learning_rates: list[float] = field(default_factory=lambda: [1e-3, 3e-3, 1e-2])
    weight_decay: float = 0.01
    steps: int = 600
    batch_size: int = 1024
    valid_every: int = 60

    def __post_init__(self) -> None:
        if not self.learning_rates or min(self.learning_rates) <= 0:
            raise InputError(f"probe.learning_rates={self.learning_rates}: give one or more positive numbers")
        if min(self.steps, self.batch_size, self.valid_every) < 1:
            raise InputError("probe: steps, batch_size and valid_every must be at least 1")


class LinearProbe(L.LightningModule):
    """Heads for every learning rate and layer, each remembering its own best weights on validation."""

    def __init__(self, task: Task, grid: HeadGrid, config: ProbeConfig) -> None:
        super().__init__()
        self.task, self.grid, self.config = task, grid, config
        num_heads = len(config.learning_rates) * grid.mean.shape[0]
        self.best_loss = torch.full((num_heads,), math.inf)
        self.best = [parameter.detach().clone() for parameter in grid.parameters()]
        self._sums = torch.zeros(num_heads)
        self._count = 0
        self._losses = torch.vmap(task.loss, in_dims=(0, None))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        features, targets = batch
        return self._losses(self.grid(features), targets).sum()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        features, targets = batch
        self._sums += self._losses(self.grid(features), targets).cpu() * len(features)
        self._count += len(features)

    def on_validation_epoch_end(self) -> None:
        """Keep, head by head, the weights with the lowest validation loss so far."""
        losses = self._sums / self._count
        finite_or_raise(losses.reshape(len(self.config.learning_rates), -1), f"task={self.task.title}")
        better = losses < self.best_loss
        self.best_loss = torch.where(better, losses, self.best_loss)
        by_rate = better.reshape(len(self.config.learning_rates), -1)
        rates = [*by_rate, *by_rate]  # parameters come as all weights, then all biases, one of each a rate
        for kept, parameter, improved in zip(self.best, self.grid.parameters(), rates, strict=True):
            kept[improved] = parameter.detach()[improved].to(kept.device)
        self._sums, self._count = torch.zeros_like(self._sums), 0

    def configure_optimizers(self) -> Any:
        groups = [
            {"params": [weight, bias], "lr": rate}
            for weight, bias, rate in zip(self.grid.weights, self.grid.biases, self.config.learning_rates, strict=True)
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=self.config.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.config.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def heads(self, layers: list[int]) -> list[Head]:
        """For each layer the head whose learning rate has the lowest validation loss."""
        num_rates = len(self.config.learning_rates)
        losses = self.best_loss.reshape(num_rates, -1)
        chosen = losses.argmin(dim=0)
        mean, scale = self.grid.mean.cpu(), self.grid.scale.cpu()
        return [
            Head(
                layer,
                k,
                self.best[rate][k].cpu(),
                self.best[num_rates + rate][k].cpu(),
                mean[k],
                scale[k],
                {
                    "split": "valid",
                    "loss": float(losses[rate, k]),
                    "lr": self.config.learning_rates[rate],
                    "weight_decay": self.config.weight_decay,
                },
            )
            for k, (layer, rate) in enumerate(zip(layers, chosen.tolist(), strict=True))
        ]


def fit(
    task: Task, train: Split, valid: Split, layers: list[int], config: ProbeConfig, trainer: TrainerConfig, seed: int
) -> list[Head]:
    """Train heads of every layer on a readout, and keep one a layer.

    Args:
        task: Prepared on the training annotations.
        train: Training split, features (n, L, D).
        valid: Validation split.
        layers: What the L layers are called.
        config: How to train.
        trainer: Where to train; one process.
        seed: Of the initial weights and of the order of examples.
    """
    mean, scale = statistics(train.rows)
    probe = LinearProbe(task, HeadGrid(len(config.learning_rates), mean, scale, task.num_outputs, seed), config)
    with _silent_lightning(), tempfile.TemporaryDirectory() as scratch:
        lightning_trainer = L.Trainer(
            accelerator=trainer.accelerator,
            devices=1,
            precision="32-true",
            max_steps=config.steps,
            max_epochs=-1,
            val_check_interval=min(config.valid_every, config.steps),
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=scratch,
        )
        lightning_trainer.fit(
            probe,
            DataLoader(
                _Examples(train), batch_sampler=_Shuffled(len(train.index), config.batch_size, seed), collate_fn=_same
            ),
            DataLoader(_Examples(valid), batch_sampler=_Ordered(len(valid.index)), collate_fn=_same),
        )
    return probe.heads(layers)


@contextmanager
def _silent_lightning() -> Iterator[None]:
    """A probe fits dozens of times: Lightning's banners and advice would bury the results."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*val_check_interval.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
            yield
    finally:
        logger.setLevel(level)


class _Examples(Dataset[Any]):
    """Whole batches of examples at once: one gather instead of a thousand look-ups."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __getitems__(self, examples: list[int]) -> tuple[Tensor, Tensor]:
        chosen = torch.as_tensor(examples)
        # index_select: ten times the speed of indexing on rows of float16
        return self.split.rows.index_select(0, self.split.index[chosen]), self.split.targets[chosen]

    def __getitem__(self, example: int) -> tuple[Tensor, Tensor]:
        return self.split.rows[self.split.index[example]], self.split.targets[example]


class _Shuffled(Sampler[Any]):
    """Batches without end, every example once before any comes twice; a short corpus gives short batches."""

    def __init__(self, num_examples: int, batch_size: int, seed: int) -> None:
        self.num_examples, self.batch_size = num_examples, min(batch_size, num_examples)
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            order = torch.randperm(self.num_examples, generator=self.generator)
            for first in range(0, self.num_examples - self.batch_size + 1, self.batch_size):
                yield order[first : first + self.batch_size]


class _Ordered(Sampler[Any]):
    def __init__(self, num_examples: int) -> None:
        self.num_examples = num_examples

    def __iter__(self) -> Iterator[Tensor]:
        yield from torch.arange(self.num_examples).split(_VALID_BATCH)

    def __len__(self) -> int:
        return -(-self.num_examples // _VALID_BATCH)


def _same(batch: Any) -> Any:
    return batch
