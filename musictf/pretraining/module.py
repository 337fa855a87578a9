"""Contrastive pretraining of a backbone: NT-Xent on the class token, nothing on the sequence tokens."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor

from musictf.errors import InputError
from musictf.models.backbone import Backbone
from musictf.models.projection import projection_head
from musictf.objectives.ntxent import nt_xent
from musictf.pretraining.gather import gather
from musictf.pretraining.meters import alignment, effective_rank, uniformity
from musictf.pretraining.optim import OptimConfig, adamw, cosine, learning_rate


@dataclass(kw_only=True)
class NTXent:
    """The objective. Projection and its widths were not found in the paper; the temperature is its predecessor's."""

    temperature: float = 0.1
    projection: str = "none"
    widths: list[int] = field(default_factory=lambda: [1024, 1024, 2048])

    def __post_init__(self) -> None:
        if self.projection not in {"none", "mlp"}:
            raise InputError(f"objective.projection={self.projection!r} is unknown: one of none, mlp")
        if self.temperature <= 0:
            raise InputError(f"objective.temperature={self.temperature} must be positive")


class ContrastivePretraining(L.LightningModule):
    """Two excerpts of a track in, each class token must find its partner among all of the batch, on all ranks."""

    def __init__(
        self,
        backbone: Backbone,
        objective: NTXent,
        optim: OptimConfig,
        max_steps: int,
        batch_size: int,
        log_every: int = 10,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = projection_head(objective.projection, backbone.encoder.config.embed_dim, objective.widths)
        self.objective, self.optim, self.max_steps = objective, optim, max_steps
        self.batch_size, self.log_every = batch_size, log_every
        self._clock = (0, time.perf_counter())

    def contrast(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Loss, whether each view found its partner, and the embeddings (n, D) of both views."""
        mel = self.backbone.front_end(torch.cat([batch["first"], batch["second"]]))
        first, second = self.projection(self.backbone.encoder.class_token_of_last(mel)).chunk(2)
        loss, found = nt_xent(
            first,
            second,
            temperature=self.objective.temperature,
            tracks=batch["track"],
            all_first=gather(first.float()),
            all_second=gather(second.float()),
            all_tracks=gather(batch["track"]),
            rank=self.global_rank,
        )
        return loss, found, first.detach().float(), second.detach().float()

    def on_fit_start(self) -> None:
        """Refuse what would make the loss depend on how a batch is spread over processes."""
        if self.trainer.world_size > 1 and self.objective.projection == "mlp" and self.device.type == "cpu":
            raise InputError(
                "objective.projection=mlp on several CPU processes: its BatchNorm would see each process alone; "
                "use projection=none, or GPUs, where it is synchronised"
            )

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss, found, first, second = self.contrast(batch)
        if (self.global_step + 1) % self.log_every == 0:  # meters cost more than they tell at every step
            self._log_meters("train", loss, found, first, second)
            self.log("train/learning_rate", learning_rate(self.global_step, self.max_steps, self.optim))
            self.log("train/examples_per_second", self._speed())
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._log_meters("valid", *self.contrast(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return adamw(self, self.optim)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Schedules as pure functions of the step, so that a resumed run cannot lose them."""
        step = self.global_step
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, self.max_steps, self.optim)
            if group["decays"]:
                config = self.optim
                group["weight_decay"] = cosine(step, self.max_steps, config.weight_decay, config.final_weight_decay)

    def _log_meters(self, stage: str, loss: Tensor, found: Tensor, first: Tensor, second: Tensor) -> None:
        values = {
            "loss": loss.detach(),
            "accuracy": found.float().mean(),
            "alignment": alignment(first, second),
            "uniformity": uniformity(first),
            "effective_rank": effective_rank(first),
        }
        for name, value in values.items():
            on_bar = name in {"loss", "accuracy"} and stage == "train"
            self.log(f"{stage}/{name}", value, prog_bar=on_bar, sync_dist=True, batch_size=len(first))

    def _speed(self) -> float:
        """Pairs a second over all ranks since the last call."""
        step, now = self.global_step, time.perf_counter()
        (before, then), self._clock = self._clock, (step, now)
        return (step - before) * self.batch_size / (now - then) if step > before else 0.0
