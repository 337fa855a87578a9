"""Contrastive pretraining of a backbone: NT-Xent on the class token, no loss on the sequence tokens.

Shapes:  n pairs on this rank   N audio samples   F mel bands   T frames   D embedding

Without multiple ranks, micro-batches, augmentation and safeguards, a training step is::

    tokens = encoder.class_token_of_last(front_end(waveforms(batch)))  # (2n, D)
    first, second = projection(tokens).chunk(2)                        # (n, D) each
    loss, _ = nt_xent(first, second, tracks=batch["track"])

The networks are plain modules (`Backbone`, `projection_head`, `Augment`); `ContrastivePretraining` combines them
in a LightningModule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import lightning.pytorch as L
import torch
from torch import Tensor

from musictf.audio.augment import Augment, AugmentConfig
from musictf.audio.randomness import uniform
from musictf.errors import InputError
from musictf.models.backbone import Backbone
from musictf.models.projection import projection_head
from musictf.objectives.ntxent import nt_xent
from musictf.pretraining.collapse_measures import alignment, effective_rank, positive_negative_gap, uniformity
from musictf.pretraining.gather import gather
from musictf.pretraining.grad_cache import GradCache
from musictf.pretraining.guard import Guard, GuardConfig
from musictf.pretraining.optim import OptimConfig, adamw, cosine, learning_rate
from musictf.pretraining.pairs import Batch, waveforms

_SEED_STEP = 0x9E3779B97F4A7C15  # odd, 2**64 over the golden ratio
_TOKEN_DROPPING = 1 << 10  # stream of randomness, apart from those of the augmentations


@dataclass(kw_only=True)
class NTXent:
    """The contrastive objective.

    The projection and its widths are our choice; the temperature is that of earlier work by the paper's authors.

    Attributes:
        temperature: Divides the cosine similarities before the softmax.
        projection: Head between class token and loss: ``none`` or ``mlp``.
        widths: Widths of the layers of ``mlp``, the last one that of the embedding in the loss.
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
        micro_batch: Pairs of a rank embedded at a time; None: all. The gradient is that of the batch.
        token_dropping: Share of frames hidden from the encoder in training, drawn for every view.
        compile: Compile the encoder: a minute at the start, faster steps on GPUs.
        activation_checkpointing: Recompute each block in the backward pass: less memory, more time.
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


class Contrast(NamedTuple):
    """Loss and embeddings of a batch.

    Attributes:
        loss: NT-Xent of this rank's views, a scalar.
        is_top1: Whether each view's positive is its most similar candidate, (2n,) bool.
        first: Embeddings of the first views, (n, D), detached.
        second: Embeddings of the second views, (n, D), detached.
    """

    loss: Tensor
    is_top1: Tensor
    first: Tensor
    second: Tensor


class ContrastivePretraining(L.LightningModule):
    """Two excerpts of a track are positives; the excerpts of other tracks in the batch, on all ranks, are negatives.

    Args:
        backbone: Front end and encoder to train.
        objective: Loss and projection head.
        optim: Optimiser and schedule.
        max_steps: Length of the schedule, in optimisation steps.
        log_every: Steps between logged values.
        step: How a step is computed.
        augment: Augmentations of the waveforms; None: none.
        guard: What to do about steps that diverge.
        seed: Source of all random draws for a view, together with the number of its example.
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
        # Spreads the seeds of runs over the signed 64-bit numbers, so that nearby seeds share no draws.
        self._seed_offset = (seed * _SEED_STEP + 2**63) % 2**64 - 2**63
        self._saved_buffers: list[Tensor] = []
        encode = backbone.encoder.class_token_of_last
        self._encode: Callable[..., Tensor] = torch.compile(encode) if self.step.compile else encode
        # Names, taken before fit: strategies that shard parameters flatten them to vectors.
        self._matrices = {name for name, parameter in self.named_parameters() if parameter.ndim > 1}
        self._grad_cache: GradCache | None = None

    # From a batch to its loss.

    def class_tokens(self, batch: Batch) -> Tensor:
        """Class tokens of n pairs, (2n, D), the first views before the second ones.

        Args:
            batch: ``first`` and ``second`` (n, N), ``gain`` (n, 2) and, for random draws, ``example`` (n,); any device.
        """
        batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        waveform = waveforms(batch)  # (2n, N)
        if self.training and not self.augment.config.off:
            waveform = self.augment(waveform, self._seeds(batch))
        mel = self.backbone.front_end(waveform)  # (2n, F, T)
        drops = self.training and self.step.token_dropping > 0
        kept = kept_frames(self._seeds(batch), mel.shape[-1], self.step.token_dropping) if drops else None
        return self._encode(mel, kept, self.step.activation_checkpointing and self.training)

    def contrast(self, batch: Batch, class_tokens: Tensor | None = None) -> Contrast:
        """The loss of this rank's pairs against the views of all ranks.

        Args:
            batch: n pairs, as for `class_tokens`, and ``track`` (n,).
            class_tokens: Their class tokens, (2n, D); None: compute them.
        """
        tokens = self.class_tokens(batch) if class_tokens is None else class_tokens
        first, second = self.projection(tokens).chunk(2)
        tracks = batch["track"].to(self.device, non_blocking=True)
        loss, is_top1 = nt_xent(
            first,
            second,
            temperature=self.objective.temperature,
            tracks=tracks,
            all_first=gather(first.float()),
            all_second=gather(second.float()),
            all_tracks=gather(tracks),
            rank=self.global_rank,
        )
        return Contrast(loss, is_top1, first.detach().float(), second.detach().float())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self._saved_buffers = [buffer.clone() for buffer in self.projection.buffers()]
        size = self.step.micro_batch
        if size is not None and size < len(batch["first"]):
            self._grad_cache = GradCache(self.class_tokens, batch, size)
        result = self.contrast(batch, self._grad_cache.embeddings if self._grad_cache else None)
        loss = result.loss.detach()
        # Where the guard compares losses, all ranks must compare the same one, or some would skip a step alone.
        self.guard.record_loss(gather(loss[None]).mean() if self.guard.config.spike else loss)
        if (self.global_step + 1) % self.log_every == 0:  # the measures are too slow for every step
            self._log_measures("train", result)
            self.log("train/learning_rate", learning_rate(self.global_step, self.max_steps, self.optim))
        return result.loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        size = self.step.micro_batch or len(batch["first"])
        tokens = GradCache(self.class_tokens, batch, size).embeddings.detach()
        self._log_measures("valid", self.contrast(batch, tokens))

    # From the loss to an optimisation step, in the order in which Lightning calls it.

    def on_fit_start(self) -> None:
        refuse_split_norm(self.objective.projection, self.trainer.world_size, self.device.type == "cpu")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return adamw(self, self.optim, self._matrices)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Differentiate the loss (a scalar); with micro-batches in two stages, first down to the class tokens."""
        super().backward(loss, *args, **kwargs)
        if self._grad_cache is not None:
            with self.trainer.precision_plugin.forward_context():
                self._grad_cache.backward([p for p in self.backbone.parameters() if p.requires_grad])
            self._grad_cache = None

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        # Schedules are functions of the step alone, so a resumed run needs no state for them.
        step, config = self.global_step, self.optim
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, self.max_steps, config)
            if group["decays"]:
                group["weight_decay"] = cosine(step, self.max_steps, config.weight_decay, config.final_weight_decay)

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clip the gradient, and let the guard mark on the device a step that must be skipped."""
        clip_sharded = getattr(self.trainer.strategy.model, "clip_grad_norm_", None)
        if clip_sharded is not None:  # FSDP: each rank holds a part of every gradient
            norm: Tensor = clip_sharded(self.optim.gradient_clip)
        else:
            norm = torch.nn.utils.clip_grad_norm_(self.parameters(), self.optim.gradient_clip)
        optimizer.found_inf = self.guard.skip_flag(norm, self.global_step)  # fused AdamW skips the step where it is 1
        # The forward pass has updated the statistics of batch norm; a skipped step takes that back.
        for buffer, saved in zip(self.projection.buffers(), self._saved_buffers, strict=True):
            buffer.copy_(torch.where(optimizer.found_inf > 0, saved, buffer))
        if (self.global_step + 1) % self.log_every == 0:
            self.log("train/gradient_norm", norm)

    def _seeds(self, batch: Batch) -> Tensor:
        """One seed for each view, (2n,): the same in both passes of GradCache, in any batch and on any rank."""
        return torch.cat([batch["example"] * 2, batch["example"] * 2 + 1]) + self._seed_offset

    def _log_measures(self, stage: str, result: Contrast) -> None:
        first, second = gather(result.first), gather(result.second)  # the rank of a part is not that of the whole
        values = {
            "loss": result.loss.detach(),
            "accuracy": result.is_top1.float().mean(),
            "alignment": alignment(first, second),
            "uniformity": uniformity(first),
            "effective_rank": effective_rank(first),
            "positive_negative_gap": positive_negative_gap(first, second),
        }
        for name, value in values.items():
            in_bar = name in {"loss", "accuracy"} and stage == "train"
            self.log(f"{stage}/{name}", value, prog_bar=in_bar, sync_dist=True, batch_size=len(first))


def kept_frames(seeds: Tensor, num_frames: int, dropped: float) -> Tensor:
    """Random frames that remain when a share of them is dropped.

    Args:
        seeds: One seed for each view, (2n,) int64.
        num_frames: Frames of a view, T.
        dropped: Share of frames to drop, in [0, 1).

    Returns:
        Indices of the frames to keep, (2n, T') in ascending order; T' is at least 1.
    """
    num_kept = max(1, round((1 - dropped) * num_frames))
    keys = uniform(seeds, _TOKEN_DROPPING, num_frames)  # (2n, T)
    return keys.argsort(dim=1)[:, :num_kept].sort(dim=1).values


def refuse_split_norm(projection: str, num_ranks: int, on_cpu: bool) -> None:
    """Refuse a loss that would depend on how a batch is spread over processes.

    Args:
        projection: ``objective.projection``.
        num_ranks: Number of processes.
        on_cpu: Whether they run on processors, where batch norm is not synchronised.

    Raises:
        InputError: each of several processes would normalise its own part of a batch.
    """
    if num_ranks > 1 and projection == "mlp" and on_cpu:
        raise InputError(
            "objective.projection=mlp on several CPU processes: its BatchNorm would normalise the part of each process "
            "alone; use projection=none, or GPUs, where it is synchronised"
        )
