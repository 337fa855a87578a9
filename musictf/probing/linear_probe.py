"""Linear probing: affine heads on frozen features, all of a study in one pass, chosen on validation.

Shapes:  S seeds   R readouts   L layers   K settings (learning rate, weight decay)   N examples   C outputs

What is minimised: mean loss + weight_decay / 2 * |W|^2 on standardised features, biases free, by Adam with a cosine
schedule; scikit-learn's logistic regression minimises the same with C = 1 / (num_examples * weight_decay). A seed is an
initialisation and an order of examples. Each head remembers its best weights on validation and stops by itself.
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

_VALID_BATCH = 8192
Batch = tuple[list[Tensor], Tensor]  # features (N, L, D) of each readout, targets (N, ...)


@dataclass(kw_only=True)
class ProbeConfig:
    """How heads are trained.

    Attributes:
        learning_rates: Tried side by side.
        weight_decays: Tried side by side with each learning rate.
        steps: At most so many, of ``batch_size`` examples.
        batch_size: Examples a step.
        valid_every: Steps between validations.
        valid_examples: At most so many validation examples, evenly spaced, decide about weights and settings; layers
            and thresholds are chosen on all of them.
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
    """Heads for every seed, readout, layer and setting, each with its own best weights on validation."""

    def __init__(self, task: Task, grid: HeadGrid, config: ProbeConfig) -> None:
        super().__init__()
        self.task, self.grid, self.config = task, grid, config
        self.best_loss = torch.full(grid.shape, math.inf)  # (S, R, L, K)
        cells = itertools.product(*(range(grid.shape[axis]) for axis in (0, 1, 3)))
        self.best = {cell: tuple(part.detach().clone() for part in grid.parts(*cell)) for cell in cells}
        self.waited = torch.zeros(grid.shape, dtype=torch.int64)
        self._sums, self._count = torch.zeros(grid.shape), 0.0
        self._losses = torch.vmap(task.loss, in_dims=(0, None))

    @property
    def running(self) -> Tensor:
        """Which heads still learn, (S, R, L, K)."""
        return self.waited < self.config.patience

    def training_step(self, batch: list[Batch], batch_idx: int) -> Tensor:
        losses = []
        for seed, readout, settings in self._busy():
            features, targets = batch[seed]
            losses.append(self._losses(self.grid(features[readout], seed, readout, settings), targets).sum())
        return torch.stack(losses).sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        features, targets = batch
        for seed, readout, settings in self._busy():
            losses = self._losses(self.grid(features[readout], seed, readout, settings), targets)
            self._sums[seed, readout][:, settings] += losses.cpu().view(-1, len(settings)) * self.task.weight(targets)
        self._count += self.task.weight(targets)

    def on_validation_epoch_end(self) -> None:
        """Keep, head by head, the weights with the lowest validation loss so far; a head that stopped has its own."""
        losses = torch.where(self.running, self._sums / self._count, torch.inf)
        finite_or_raise(torch.fmin(losses, self.best_loss), f"task={self.task.display_name}")
        better = losses < self.best_loss
        for seed, readout, settings in self._busy():
            for setting in settings:
                self._keep(better[seed, readout, :, setting], seed, readout, setting)
        self.best_loss = torch.where(better, losses, self.best_loss)
        self.waited = torch.where(better, 0, self.waited + 1)
        self._sums, self._count = torch.zeros_like(self._sums), 0.0
        self.trainer.should_stop = not self.running.any()

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

    def heads(self, seed: int, readout: int, layers: Sequence[int]) -> list[Head]:
        """For each layer the head whose setting has the lowest validation loss; seed and readout by number."""
        losses = self.best_loss[seed, readout]  # (L, K)
        mean, scale = self.grid.mean[readout].cpu(), self.grid.scale[readout].cpu()
        found = []
        for column, (layer, setting) in enumerate(zip(layers, losses.argmin(dim=1).tolist(), strict=True)):
            rate, decay = self.config.settings[setting]
            weight, bias = (kept[column] for kept in self.best[seed, readout, setting])
            loss = float(losses[column, setting])
            selection = {"split": "valid", "loss": loss, "lr": rate, "weight_decay": decay}
            found.append(Head(layer, column, weight, bias, mean[column], scale[column], selection))
        return found

    def _busy(self) -> Iterator[tuple[int, int, list[int]]]:
        """Seeds and readouts, by number, with the settings that still learn in some layer."""
        busy = self.running.any(dim=2)  # (S, R, K)
        for seed, readout in itertools.product(*map(range, self.grid.shape[:2])):
            if settings := busy[seed, readout].nonzero().flatten().tolist():
                yield seed, readout, settings

    def _keep(self, layers: Tensor, seed: int, readout: int, setting: int) -> None:
        for kept, part in zip(self.best[seed, readout, setting], self.grid.parts(seed, readout, setting)):
            kept[layers] = part.detach().cpu()[layers]


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
    """Train heads of every readout, layer and seed together, and keep one a layer.

    Args:
        task: Prepared on the training annotations.
        train: Training split; its readouts are the ones that are probed.
        valid: Validation split.
        layers: What the L layers are called.
        config: How to train.
        trainer: Where to train; one process.
        seeds: Of the initial weights and of the order of examples.
        advance: Called after each step.

    Returns:
        For each readout and seed the heads, one a layer.

    Raises:
        InputError: no target of a split is known.
    """
    for name, targets in (("train", train.targets), ("valid", valid.targets)):
        if not task.weight(targets):
            raise InputError(
                f"task={task.display_name}: no {name} track has a target that is known; nothing can be learnt"
            )
    moments = [statistics(rows) for rows in train.rows.values()]
    mean, scale = (torch.stack(column) for column in zip(*moments, strict=True))
    probe = LinearProbe(task, HeadGrid(len(config.settings), mean, scale, task.num_outputs, seeds), config)
    sampler = _Shuffled(len(train.targets), config.batch_size, seeds)
    with _silent_lightning(), tempfile.TemporaryDirectory() as scratch:
        lightning_trainer = L.Trainer(
            accelerator=trainer.accelerator,
            devices=1,
            precision="32-true",
            max_steps=config.steps,
            max_epochs=-1,
            val_check_interval=config.valid_every,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=scratch,
            callbacks=[_Advance(advance)],
        )
        lightning_trainer.fit(
            probe,
            DataLoader(_Examples(train), batch_sampler=sampler, collate_fn=_same),
            DataLoader(_Examples(valid), batch_sampler=_Spread(len(valid.targets), config), collate_fn=_first),
        )
    named = itertools.product(enumerate(train.rows), enumerate(seeds))
    return {(readout, seed): probe.heads(s, r, layers) for (r, readout), (s, seed) in named}


class _Advance(L.Callback):
    def __init__(self, advance: Callable[[], None]) -> None:
        self.advance = advance

    def on_train_batch_end(self, *_: Any) -> None:
        self.advance()


@contextmanager
def _silent_lightning() -> Iterator[None]:
    """A probe fits several times: Lightning's banners and advice would bury the results."""
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
    """Whole batches of examples at once, one for each seed: a gather instead of a thousand look-ups."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __getitems__(self, batches: list[Tensor]) -> list[Batch]:
        return [self[examples] for examples in batches]

    def __getitem__(self, examples: Tensor) -> Batch:
        # index_select: ten times the speed of indexing on rows of float16
        rows = [rows.index_select(0, self.split.index[name][examples]) for name, rows in self.split.rows.items()]
        return rows, self.split.targets[examples]


class _Shuffled(Sampler[Any]):
    """Batches without end, for each seed in its own order, every example once before any comes twice.

    A corpus shorter than a batch gives short batches.
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


class _Spread(Sampler[Any]):
    """Validation examples, all of them or so many evenly spaced, in order."""

    def __init__(self, num_examples: int, config: ProbeConfig) -> None:
        number = min(num_examples, config.valid_examples)
        self.examples = torch.arange(number) * num_examples // number

    def __iter__(self) -> Iterator[list[Tensor]]:
        yield from ([part] for part in self.examples.split(_VALID_BATCH))

    def __len__(self) -> int:
        return -(-len(self.examples) // _VALID_BATCH)


def _same(batch: Any) -> Any:
    return batch


def _first(batch: list[Batch]) -> Batch:
    return batch[0]
