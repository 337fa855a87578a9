"""Linear probing: affine heads on frozen features, many trained in one pass and selected on validation.

Each head minimises mean loss + weight_decay / 2 * |W|^2 on standardised features, with biases not regularised, by Adam
with a cosine schedule. scikit-learn's logistic regression minimises the same with C = 1 / (num_examples *
weight_decay). A seed determines the initial weights and the order of examples. Each head keeps its best weights on
validation and stops on its own.

Trying all learning rates in one pass follows DINOv2. The objective, optimiser and schedule are our choice.

References:
    Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024, appendix B.3.

Shapes:  S seeds   R readouts   L layers   K settings (learning rate, weight decay)   N examples   D embedding
         C outputs
"""

from __future__ import annotations

import itertools
import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from musictf.distributed import TrainerConfig
from musictf.errors import InputError
from musictf.features.readouts import Split
from musictf.probing.heads import Head, HeadGrid, finite_or_raise, statistics
from musictf.tasks.base import Task

_VALID_BATCH = 8192  # examples
Batch = tuple[list[Tensor], Tensor]  # features (N, L, D) of each readout, targets (N, ...)


@dataclass(kw_only=True)
class ProbeConfig:
    """How heads are trained.

    Attributes:
        learning_rates: Every one is tried.
        weight_decays: Every one is tried with each learning rate.
        steps: Highest number of optimiser steps.
        batch_size: Examples per step.
        valid_every: Steps between validations.
        valid_examples: Highest number of validation examples, evenly spaced, on which weights and settings are
            selected; layers and thresholds are selected on all of them.
        patience: Validations without improvement after which a head stops.
    """

    learning_rates: list[float] = field(default_factory=lambda: [3e-4, 1e-3, 3e-3, 1e-2, 3e-2])
    weight_decays: list[float] = field(default_factory=lambda: [1e-4])
    steps: int = 600
    batch_size: int = 1024
    valid_every: int = 60
    valid_examples: int = 16384
    patience: int = 3

    def __post_init__(self) -> None:
        if not self.learning_rates or min(self.learning_rates) <= 0:
            raise InputError(f"probe.learning_rates={self.learning_rates}: give one or more positive numbers")
        if not self.weight_decays or min(self.weight_decays) < 0:
            raise InputError(f"probe.weight_decays={self.weight_decays}: give one or more numbers from 0")
        if min(self.steps, self.batch_size, self.valid_every, self.valid_examples, self.patience) < 1:
            raise InputError("probe: steps, batch_size, valid_every, valid_examples and patience must be at least 1")
        self.valid_every = min(self.valid_every, self.steps)
        if self.steps % self.valid_every:
            raise InputError(
                f"probe.steps={self.steps} must be a multiple of probe.valid_every={self.valid_every}, "
                "or the last steps are never validated"
            )

    @property
    def settings(self) -> list[tuple[float, float]]:
        """Every learning rate with every weight decay: the K settings."""
        return list(itertools.product(self.learning_rates, self.weight_decays))


class LinearProbe(L.LightningModule):
    """One affine head for every seed, readout, layer and setting, all trained by the same steps.

    Attributes:
        best_loss: Lowest validation loss of each head so far, (S, R, L, K).
        best_weights: Weights (L, D, C) and biases (L, C) with that loss, by (seed, readout, setting).
        wait_count: Validations since each head improved, (S, R, L, K).
    """

    def __init__(self, task: Task, grid: HeadGrid, config: ProbeConfig) -> None:
        super().__init__()
        self.task, self.grid, self.config = task, grid, config
        self.best_loss = torch.full(grid.shape, math.inf)
        cells = itertools.product(*(range(grid.shape[axis]) for axis in (0, 1, 3)))
        self.best_weights = {cell: tuple(part.detach().clone() for part in grid.parts(*cell)) for cell in cells}
        self.wait_count = torch.zeros(grid.shape, dtype=torch.int64)
        self._loss_sums, self._num_targets = torch.zeros(grid.shape), 0.0
        self._loss_of_each = torch.vmap(task.loss, in_dims=(0, None))

    @property
    def is_active(self) -> Tensor:
        """Which heads are still trained, (S, R, L, K)."""
        return self.wait_count < self.config.patience

    def training_step(self, batch: list[Batch], batch_idx: int) -> Tensor:
        # Heads share no parameter, so the gradient of the sum is the gradient of each head's own loss.
        losses = []
        for seed, readout, settings in self._active_settings():
            features, targets = batch[seed]  # each seed has its own order of examples
            losses.append(self._loss_of_each(self.grid(features[readout], seed, readout, settings), targets).sum())
        return torch.stack(losses).sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        features, targets = batch
        # The last batch is shorter, and masked targets do not count: batches weigh as their loss is a mean over.
        num_targets = self.task.weight(targets)
        for seed, readout, settings in self._active_settings():
            losses = self._loss_of_each(self.grid(features[readout], seed, readout, settings), targets)  # (L * K,)
            self._loss_sums[seed, readout][:, settings] += losses.cpu().view(-1, len(settings)) * num_targets
        self._num_targets += num_targets

    def on_validation_epoch_end(self) -> None:
        """Keep the weights of each head that improved; stop training when no head is active."""
        losses = torch.where(self.is_active, self._loss_sums / self._num_targets, torch.inf)
        finite_or_raise(torch.fmin(losses, self.best_loss), f"task={self.task.display_name}")
        is_better = losses < self.best_loss
        for seed, readout, settings in self._active_settings():
            for setting in settings:
                layers = is_better[seed, readout, :, setting]
                parts = self.grid.parts(seed, readout, setting)
                for best, part in zip(self.best_weights[seed, readout, setting], parts, strict=True):
                    best[layers] = part.detach().cpu()[layers]
        self.best_loss = torch.where(is_better, losses, self.best_loss)
        self.wait_count = torch.where(is_better, 0, self.wait_count + 1)
        self._loss_sums, self._num_targets = torch.zeros_like(self._loss_sums), 0.0
        self.trainer.should_stop = not self.is_active.any()

    def configure_optimizers(self) -> Any:
        groups = []
        for setting, (rate, decay) in enumerate(self.config.settings):
            cells = itertools.product(*map(range, self.grid.shape[:2]))
            weights, biases = zip(*(self.grid.parts(seed, readout, setting) for seed, readout in cells))
            groups.append({"params": weights, "lr": rate, "weight_decay": decay})
            groups.append({"params": biases, "lr": rate, "weight_decay": 0.0})
        optimizer = torch.optim.Adam(groups, fused=True)  # Adam's weight decay is the gradient of an L2 penalty
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.config.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def best_heads(self, seed: int, readout: int, layers: Sequence[int]) -> list[Head]:
        """The head with the lowest validation loss of each layer.

        Args:
            seed: Index into the S seeds.
            readout: Index into the R readouts.
            layers: Numbers of the L layers in the backbone.
        """
        losses = self.best_loss[seed, readout]  # (L, K)
        mean, scale = self.grid.mean[readout].cpu(), self.grid.scale[readout].cpu()  # (L, D)
        heads = []
        for column, (layer, setting) in enumerate(zip(layers, losses.argmin(dim=1).tolist(), strict=True)):
            rate, decay = self.config.settings[setting]
            weight, bias = (best[column] for best in self.best_weights[seed, readout, setting])
            loss = float(losses[column, setting])
            selection = {"split": "valid", "loss": loss, "lr": rate, "weight_decay": decay}
            heads.append(Head(layer, column, weight, bias, mean[column], scale[column], selection))
        return heads

    def _active_settings(self) -> Iterator[tuple[int, int, list[int]]]:
        """Index of each seed and readout, with the settings that are still trained in at least one layer."""
        is_active = self.is_active.any(dim=2)  # (S, R, K)
        for seed, readout in itertools.product(*map(range, self.grid.shape[:2])):
            if settings := is_active[seed, readout].nonzero().flatten().tolist():
                yield seed, readout, settings


def fit(
    task: Task,
    train: Split,
    valid: Split,
    layers: Sequence[int],
    config: ProbeConfig,
    trainer: TrainerConfig,
    seeds: Sequence[int],
    advance: Callable[[], None] = lambda: None,
) -> dict[tuple[str, int], list[Head]]:
    """Train heads of every readout, layer, seed and setting together, and select the best setting per layer.

    Args:
        task: Prepared on the training annotations.
        train: Training split; all of its readouts are probed.
        valid: Validation split.
        layers: Numbers of the L layers in the backbone.
        config: Settings of training.
        trainer: Which device to train on; one process.
        seeds: Of the initial weights and of the order of examples.
        advance: Called after each step.

    Returns:
        By readout and seed, one head per layer.

    Raises:
        InputError: no target of a split is known.
    """
    for name, targets in (("train", train.targets), ("valid", valid.targets)):
        if not task.weight(targets):
            raise InputError(
                f"task={task.display_name}: no {name} track has a target that is known; give the {name} split tracks "
                "with labels that the task uses"
            )
    moments = [statistics(rows) for rows in train.rows.values()]
    mean, scale = (torch.stack(column) for column in zip(*moments, strict=True))  # (R, L, D)
    probe = LinearProbe(task, HeadGrid(len(config.settings), mean, scale, task.num_outputs, seeds), config)
    train_sampler = _ShuffledBatches(len(train.targets), config.batch_size, seeds)
    valid_sampler = _EvenlySpaced(len(valid.targets), config)
    with _silent_lightning(), tempfile.TemporaryDirectory() as scratch:
        lightning_trainer = L.Trainer(
            accelerator=trainer.accelerator,
            devices=1,
            precision="32-true",
            max_steps=config.steps,
            max_epochs=-1,  # batches have no end
            val_check_interval=config.valid_every,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=scratch,
            callbacks=[_AfterEachStep(advance)],
        )
        lightning_trainer.fit(
            probe,
            DataLoader(_Examples(train), batch_sampler=train_sampler, collate_fn=lambda batches: batches),
            DataLoader(_Examples(valid), batch_sampler=valid_sampler, collate_fn=lambda batches: batches[0]),
        )
    cells = itertools.product(enumerate(train.rows), enumerate(seeds))
    return {(readout, seed): probe.best_heads(s, r, layers) for (r, readout), (s, seed) in cells}


class _AfterEachStep(L.Callback):
    def __init__(self, advance: Callable[[], None]) -> None:
        self.advance = advance

    def on_train_batch_end(self, *_: Any) -> None:
        self.advance()


@contextmanager
def _silent_lightning() -> Iterator[None]:
    """Hide Lightning's banners and advice, which every fit would repeat."""
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
    """Features and targets by whole batches of example indices: one gather instead of a look-up per example."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __getitems__(self, batches: list[Tensor]) -> list[Batch]:  # one batch of indices for each seed
        return [self[examples] for examples in batches]

    def __getitem__(self, examples: Tensor) -> Batch:
        # index_select is ten times faster than indexing for float16
        rows = [rows.index_select(0, self.split.index[name][examples]) for name, rows in self.split.rows.items()]
        return rows, self.split.targets[examples]


class _ShuffledBatches(Sampler[Any]):
    """Endless batches of example indices, one for each seed, in an order that the seed determines.

    Every example comes once before any comes twice; the incomplete last batch of each pass is dropped. Fewer examples
    than a batch has make one batch.
    """

    def __init__(self, num_examples: int, batch_size: int, seeds: Sequence[int]) -> None:
        self.num_examples, self.batch_size = num_examples, min(batch_size, num_examples)
        self.seeds = seeds

    def __iter__(self) -> Iterator[list[Tensor]]:
        yield from map(list, zip(*map(self._batches, self.seeds)))

    def _batches(self, seed: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(self.num_examples, generator=generator)
            for first in range(0, self.num_examples - self.batch_size + 1, self.batch_size):
                yield order[first : first + self.batch_size]


class _EvenlySpaced(Sampler[Any]):
    """Batches of validation examples in order: all of them, or ``config.valid_examples`` evenly spaced ones."""

    def __init__(self, num_examples: int, config: ProbeConfig) -> None:
        number = min(num_examples, config.valid_examples)
        self.examples = torch.arange(number) * num_examples // number

    def __iter__(self) -> Iterator[list[Tensor]]:
        yield from ([part] for part in self.examples.split(_VALID_BATCH))

    def __len__(self) -> int:
        return -(-len(self.examples) // _VALID_BATCH)
