"""Contrastive pretraining of a backbone: NT-Xent on the class token, nothing on the sequence tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor

from musictf.audio.augment import Augment, AugmentConfig
from musictf.audio.randomness import uniform
from musictf.errors import InputError
from musictf.models.backbone import Backbone
from musictf.models.projection import projection_head
from musictf.objectives.ntxent import nt_xent
from musictf.pretraining.excerpts import Batch, waveforms
from musictf.pretraining.gather import gather
from musictf.pretraining.grad_cache import GradCache
from musictf.pretraining.guard import Guard, GuardConfig
from musictf.pretraining.meters import alignment, effective_rank, positive_negative_gap, uniformity
from musictf.pretraining.optim import OptimConfig, adamw, cosine, learning_rate

_SPREAD = 0x9E3779B97F4A7C15  # odd, 2**64 over the golden ratio
_DROPPING = 1 << 10  # stream of randomness of token dropping, apart from those of the augmentations


@dataclass(kw_only=True)
class NTXent:
    """NT-Xent and its projection head.

    The projection and its widths were not found in the paper [NF]; the temperature is that of its predecessor.

    Attributes:
        temperature: Divides the cosine similarities.
        projection: Head that training discards: none, or mlp.
        widths: Widths of the layers of the mlp.
    """

    temperature: float = 0.1
    projection: str = "none"
    widths: list[int] = field(default_factory=lambda: [1024, 1024, 2048])

    def __post_init__(self) -> None:
        if self.projection not in {"none", "mlp"}:
            raise InputError(f"objective.projection={self.projection!r} is unknown: one of none, mlp")
        if not self.widths or min(self.widths) < 1:
            raise InputError(f"objective.widths={self.widths}: at least one width, each at least 1")
        if not self.temperature > 0:
            raise InputError(f"objective.temperature={self.temperature} must be positive")


@dataclass(kw_only=True)
class StepConfig:
    """How a step is computed.

    Attributes:
        micro_batch: Pairs of this rank that are embedded at a time; None: all. The gradient is that of the whole batch.
        token_dropping: Share of the frames that training does not look at, drawn anew for every view.
        compile: Compile the encoder (a minute at the start, faster steps on GPUs).
        activation_checkpointing: Compute each block again on the way back instead of keeping what it made.
    """

    micro_batch: int | None = None
    token_dropping: float = 0.0
    compile: bool = False
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.micro_batch is not None and self.micro_batch < 1:
            raise InputError(f"micro_batch={self.micro_batch} must be at least 1 pair")
        if not 0 <= self.token_dropping < 1:
            raise InputError(f"token_dropping={self.token_dropping} must be a share in [0, 1)")


def refuse_split_norm(projection: str, num_ranks: int, on_cpu: bool) -> None:
    """Stop before a loss depends on how a batch is spread over processes.

    Raises:
        InputError: each of several processes would normalise its own part of a batch.
    """
    if num_ranks > 1 and projection == "mlp" and on_cpu:
        raise InputError(
            "objective.projection=mlp on several CPU processes: its BatchNorm would see each process alone; "
            "use projection=none, or GPUs, where it is synchronised"
        )


class ContrastivePretraining(L.LightningModule):
    """Two excerpts of a track in, each class token must find its partner among all of the batch, on all ranks.

    Args:
        backbone: What is trained.
        objective: The contrast.
        optim: Optimiser and schedule.
        max_steps: Length of the schedule.
        log_every: Steps between logged values.
        step: How a step is computed.
        augment: What is done to the waveforms on their way.
        guard: What happens when a step goes wrong.
        seed: Source of everything random about a view, with the number of its example.
    """

    def __init__(
        self,
        backbone: Backbone,
        objective: NTXent,
        optim: OptimConfig,
        max_steps: int,
        log_every: int = 10,
        *,
        step: StepConfig | None = None,
        augment: AugmentConfig | None = None,
        guard: GuardConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = projection_head(objective.projection, backbone.encoder.config.embed_dim, objective.widths)
        self.augment = Augment(augment or AugmentConfig(), backbone.sample_rate)
        self.guard = Guard(guard or GuardConfig())
        self.objective, self.optim, self.max_steps, self.log_every = objective, optim, max_steps, log_every
        self.step = step or StepConfig()
        # Runs of other seeds draw from other stretches of the 64-bit numbers, whatever the seed.
        self._offset = (seed * _SPREAD + 2**63) % 2**64 - 2**63
        self._before: list[Tensor] = []
        encode = backbone.encoder.class_token_of_last
        self._encode: Callable[..., Tensor] = torch.compile(encode) if self.step.compile else encode
        # By name, and now: a strategy that splits parameters over ranks makes vectors of all of them.
        self._matrices = {name for name, parameter in self.named_parameters() if parameter.ndim > 1}
        self._replay: GradCache | None = None

    def class_tokens(self, batch: Batch) -> Tensor:
        """Class tokens of n pairs on their way to the loss, (2n, D), the first views before the second ones."""
        batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        waveform = waveforms(batch)
        if self.training and not self.augment.config.off:
            waveform = self.augment(waveform, self._seeds(batch))
        mel = self.backbone.front_end(waveform)
        kept = self._kept(mel, batch) if self.step.token_dropping and self.training else None
        return self._encode(mel, kept, self.step.activation_checkpointing and self.training)

    def contrast(self, batch: Batch, class_tokens: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Loss, whether each view found its partner, and the embeddings (n, D) of both views."""
        tokens = self.class_tokens(batch) if class_tokens is None else class_tokens
        first, second = self.projection(tokens).chunk(2)
        tracks = batch["track"].to(self.device, non_blocking=True)
        loss, found = nt_xent(
            first,
            second,
            temperature=self.objective.temperature,
            tracks=tracks,
            all_first=gather(first.float()),
            all_second=gather(second.float()),
            all_tracks=gather(tracks),
            rank=self.global_rank,
        )
        return loss, found, first.detach().float(), second.detach().float()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self._before = [buffer.clone() for buffer in self.projection.buffers()]
        size = self.step.micro_batch
        if size is not None and size < len(batch["first"]):
            self._replay = GradCache(self.class_tokens, batch, size)
        loss, found, first, second = self.contrast(batch, self._replay.embeddings if self._replay else None)
        self.guard.saw_loss(gather(loss.detach()[None]).mean() if self.guard.config.spike else loss.detach())
        if (self.global_step + 1) % self.log_every == 0:  # meters cost more than they tell at every step
            self._log_meters("train", loss, found, first, second)
            self.log("train/learning_rate", learning_rate(self.global_step, self.max_steps, self.optim))
        return loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Of a batch in parts: first down to the embeddings, then part by part to the weights."""
        super().backward(loss, *args, **kwargs)
        if self._replay is not None:
            with self.trainer.precision_plugin.forward_context():
                self._replay.backward([p for p in self.backbone.parameters() if p.requires_grad])
            self._replay = None

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        size = self.step.micro_batch or len(batch["first"])
        self._log_meters("valid", *self.contrast(batch, GradCache(self.class_tokens, batch, size).embeddings.detach()))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return adamw(self, self.optim, self._matrices)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Schedules as pure functions of the step, so that a resumed run cannot lose them."""
        step = self.global_step
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, self.max_steps, self.optim)
            if group["decays"]:
                config = self.optim
                group["weight_decay"] = cosine(step, self.max_steps, config.weight_decay, config.final_weight_decay)

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clip, and let the guard tell the optimiser on the device whether this step may be taken."""
        norm = self._clipped_norm()
        optimizer.found_inf = self.guard.saw_norm(norm, self.global_step)
        for buffer, before in zip(self.projection.buffers(), self._before, strict=True):  # statistics of batch norm
            buffer.copy_(torch.where(optimizer.found_inf > 0, before, buffer))
        if (self.global_step + 1) % self.log_every == 0:
            self.log("train/gradient_norm", norm)

    def on_fit_start(self) -> None:
        """Refuse what would make the loss depend on how a batch is spread over processes."""
        refuse_split_norm(self.objective.projection, self.trainer.world_size, self.device.type == "cpu")

    def _clipped_norm(self) -> Tensor:
        """Norm of all gradients before they are clipped, a scalar on the device."""
        strategy = self.trainer.strategy
        whole = getattr(strategy.model, "clip_grad_norm_", None)
        if whole is not None:  # FSDP: each rank holds a part of every gradient
            norm: Tensor = whole(self.optim.gradient_clip)
            return norm
        return torch.nn.utils.clip_grad_norm_(self.parameters(), self.optim.gradient_clip)

    def _seeds(self, batch: Batch) -> Tensor:
        """A number for each view, (2n,), the same wherever and whenever it is drawn."""
        examples = batch["example"]
        return torch.cat([examples * 2, examples * 2 + 1]) + self._offset

    def _kept(self, mel: Tensor, batch: Batch) -> Tensor:
        """Frames to keep, (2n, T') in ascending order."""
        num_frames = mel.shape[-1]
        num_kept = max(1, round((1 - self.step.token_dropping) * num_frames))
        drawn = uniform(self._seeds(batch), _DROPPING, num_frames)
        return drawn.argsort(dim=1)[:, :num_kept].sort(dim=1).values

    def _log_meters(self, stage: str, loss: Tensor, found: Tensor, first: Tensor, second: Tensor) -> None:
        first, second = gather(first), gather(second)  # the rank of a part is not that of the whole
        values = {
            "loss": loss.detach(),
            "accuracy": found.float().mean(),
            "alignment": alignment(first, second),
            "uniformity": uniformity(first),
            "effective_rank": effective_rank(first),
            "positive_negative_gap": positive_negative_gap(first, second),
        }
        for name, value in values.items():
            on_bar = name in {"loss", "accuracy"} and stage == "train"
            self.log(f"{stage}/{name}", value, prog_bar=on_bar, sync_dist=True, batch_size=len(first))
