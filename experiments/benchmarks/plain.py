"""The plain ways to train a linear head, as one writes them without musictf: what its study is measured against.

``head_from_features``: a LightningModule with one ``nn.Linear``, a ``TensorDataset`` and a shuffling ``DataLoader``.
``seconds_a_step``: excerpts are read from audio and encoded by the frozen backbone again at every step.

Shapes:  N examples   D embedding   C outputs   B excerpts   T tokens of an excerpt
Conventions: seconds; a target of -1 is unknown and neither trains nor counts. Initial weights and the order of examples
are those that musictf's study has for a seed, so that the losses of both can be compared.
"""

from __future__ import annotations

import itertools
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import librosa
import lightning.pytorch as L
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, TensorDataset

from musictf.datasets.base import Track
from musictf.models.backbone import Backbone
from musictf.probing.linear_probe import ProbeConfig
from musictf.tasks.base import MASKED, Task

_WARM_UP = 2  # steps before the clock is read


class PlainHead(L.LightningModule):
    """One linear head with one learning rate."""

    def __init__(
        self, embed_dim: int, num_outputs: int, seed: int, learning_rate: float, weight_decay: float, steps: int
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(embed_dim, num_outputs)
        start = torch.randn(embed_dim, num_outputs, generator=torch.Generator().manual_seed(seed))
        self.linear.weight.data = 0.01 * start.T.contiguous()
        nn.init.zeros_(self.linear.bias)
        self.learning_rate, self.weight_decay, self.steps = learning_rate, weight_decay, steps

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        features, targets = batch
        return F.cross_entropy(self.linear(features), targets, ignore_index=MASKED)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        features, targets = batch
        known = int((targets != MASKED).sum())
        if known:
            loss = F.cross_entropy(self.linear(features), targets, ignore_index=MASKED)
            self.log("valid/loss", loss, batch_size=known, on_step=False, on_epoch=True)

    def configure_optimizers(self) -> Any:
        groups = [
            {"params": [self.linear.weight], "weight_decay": self.weight_decay},
            {"params": [self.linear.bias], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.Adam(groups, lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Shuffled(Sampler[int]):
    """Examples in another order each epoch, as ``DataLoader(shuffle=True)`` has them, and at the same cost."""

    def __init__(self, num_examples: int, seed: int) -> None:
        self.num_examples, self.generator = num_examples, torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[int]:
        yield from torch.randperm(self.num_examples, generator=self.generator).tolist()

    def __len__(self) -> int:
        return self.num_examples


def head_from_features(
    train: TensorDataset,
    valid: TensorDataset,
    head: PlainHead,
    order: Shuffled,
    config: ProbeConfig,
    accelerator: str,
    whole_batches: bool = False,
) -> tuple[float, int]:
    """Train one head with Lightning; best weights are kept, and it stops when validation has had enough.

    Args:
        train: Standardised features (N, D) and classes (N,).
        valid: The same of the validation examples.
        head: What to train.
        order: Of the training examples.
        config: Steps, batch size, validation and patience.
        accelerator: Lightning's name of the device.
        whole_batches: Index tensors once a batch instead of once an example; most people do not.

    Returns:
        The lowest validation loss, and the steps that were taken.
    """
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        best = ModelCheckpoint(folder, monitor="valid/loss", save_top_k=1)
        trainer = L.Trainer(
            accelerator=accelerator,
            devices=1,
            max_steps=config.steps,
            max_epochs=-1,
            val_check_interval=config.valid_every,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[best, EarlyStopping("valid/loss", patience=config.patience)],
        )
        batch_size = min(config.batch_size, len(train))
        if whole_batches:
            batches = DataLoader(train, sampler=BatchSampler(order, batch_size, drop_last=True), batch_size=None)
        else:
            batches = DataLoader(train, batch_size, sampler=order, drop_last=True)
        trainer.fit(head, batches, DataLoader(valid, config.batch_size))
        assert best.best_model_score is not None
        return float(best.best_model_score), trainer.global_step


class Excerpts(Dataset[Any]):
    """Excerpts of tracks, read and decoded whenever they are asked for: waveform (samples,) and classes (T,)."""

    def __init__(self, tracks: Sequence[Track], references: Sequence[Any], task: Task, backbone: Backbone) -> None:
        self.task, self.front_end, self.length = task, backbone.front_end.config, backbone.num_samples
        hop = self.length / 2 / backbone.sample_rate
        self.cuts = [
            (track, reference, float(start))
            for track, reference in zip(tracks, references, strict=True)
            for start in np.arange(0, librosa.get_duration(path=track.audio), hop)
        ]

    def __len__(self) -> int:
        return len(self.cuts)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        track, reference, start = self.cuts[index]
        rate = self.front_end.sample_rate
        waveform, _ = librosa.load(track.audio, sr=rate, offset=start, duration=self.length / rate)
        waveform = librosa.util.fix_length(waveform, size=self.length)
        times = start + self.front_end.frame_times(self.front_end.num_frames(self.length))
        return torch.from_numpy(waveform), self.task.encode(reference, times)


def seconds_a_step(
    excerpts: Excerpts, backbone: Backbone, readout: str, layer: int, config: ProbeConfig, steps: int, device: str
) -> float:
    """Mean seconds of a training step that reads audio, encodes it and trains one head; validation is left out.

    A step sees as many excerpts as hold about ``config.batch_size`` tokens.
    """
    tokens = backbone.encoder.config.max_frames
    loader = DataLoader(excerpts, batch_size=max(1, config.batch_size // tokens), shuffle=True)
    head = nn.Linear(backbone.embed_dim, excerpts.task.num_outputs).to(device)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    endless = itertools.chain.from_iterable(itertools.repeat(loader))
    started = 0.0
    for step, (waveforms, targets) in enumerate(itertools.islice(endless, _WARM_UP + steps)):
        if step == _WARM_UP:
            started = time.perf_counter()
        with torch.no_grad():
            features = _embedded(backbone, waveforms.to(device), readout, layer)
        logits = head(features).flatten(0, 1)
        loss = F.cross_entropy(logits, targets.flatten().to(device), ignore_index=MASKED, reduction="sum")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # waits for the device
    return (time.perf_counter() - started) / steps


def _embedded(backbone: Backbone, waveforms: Tensor, readout: str, layer: int) -> Tensor:
    """Features of every token of excerpts, (B, T, D)."""
    output = backbone(waveforms, [layer])
    class_token, sequence = output.class_token[layer][:, None], output.sequence[layer]
    if readout == "sequence":
        return sequence
    if readout == "average":
        class_token = torch.cat([class_token, sequence], dim=1).mean(dim=1, keepdim=True)
    return class_token.expand_as(sequence)


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's banners and advice would bury the table."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
