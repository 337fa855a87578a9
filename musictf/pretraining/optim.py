"""AdamW with cosine schedules of learning rate and weight decay; no decay on biases and norms.

The recipe is that of the paper's group. Their peak learning rate is not published; 1.5e-4 is inferred from their
minimum. The default here is our choice.
"""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass

import torch
from torch import nn

from musictf.errors import InputError


@dataclass(kw_only=True)
class OptimConfig:
    """AdamW and its schedules.

    Attributes:
        learning_rate: Peak learning rate, reached at the end of the warm-up.
        min_learning_rate: Learning rate of the last step.
        warmup: Share of the run in which the learning rate rises linearly.
        beta1: Decay of the mean of the gradient.
        beta2: Decay of the mean of the squared gradient.
        weight_decay: Decoupled weight decay of the first step.
        final_weight_decay: Weight decay of the last step; a cosine joins both.
        gradient_clip: Largest norm of the whole gradient; .inf: no clipping.
    """

    learning_rate: float = 1e-3
    min_learning_rate: float = 1.5e-6
    warmup: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.98
    weight_decay: float = 0.04
    final_weight_decay: float = 0.01
    gradient_clip: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf or not 0 <= self.warmup < 1:
            raise InputError("optim: learning_rate must be positive and warmup a share in [0, 1)")
        if not 0 <= self.min_learning_rate <= self.learning_rate:
            raise InputError(f"optim.min_learning_rate={self.min_learning_rate} must be from 0 to learning_rate")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise InputError(f"optim: beta1 ({self.beta1}) and beta2 ({self.beta2}) must be in [0, 1)")
        if not (self.weight_decay >= 0 and self.final_weight_decay >= 0):
            raise InputError("optim: weight_decay and final_weight_decay must not be negative")
        if not self.gradient_clip > 0:
            raise InputError(f"optim.gradient_clip={self.gradient_clip} must be positive; .inf turns clipping off")


def adamw(module: nn.Module, config: OptimConfig, matrices: Set[str] | None = None) -> torch.optim.AdamW:
    """AdamW over two groups: matrices with weight decay; biases, norms and other vectors without.

    Args:
        module: Module to train.
        config: Rates and decays.
        matrices: Names of the parameters that decay; None: those with more than one axis.
    """
    parameters = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    decaying = {name for name, parameter in parameters.items() if parameter.ndim > 1} if matrices is None else matrices
    groups = [
        {
            "params": [parameter for name, parameter in parameters.items() if name in decaying],
            "weight_decay": config.weight_decay,
            "decays": True,
        },
        {
            "params": [parameter for name, parameter in parameters.items() if name not in decaying],
            "weight_decay": 0.0,
            "decays": False,
        },
    ]
    # Fused: one kernel a step, and the only variant that can skip a step without waiting for the host (``found_inf``).
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True)


def learning_rate(step: int, max_steps: int, config: OptimConfig) -> float:
    """Learning rate of step ``step`` (from 0) of ``max_steps``: linear warm-up, then a cosine to the minimum."""
    warmup = max(1, round(config.warmup * max_steps))
    if step < warmup:  # not 0 at the first step, which would be wasted
        return config.learning_rate * (step + 1) / warmup
    return cosine(step - warmup, max_steps - warmup, config.learning_rate, config.min_learning_rate)


def cosine(step: int, num_steps: int, first: float, last: float) -> float:
    """Half a cosine from ``first`` at step 0 to ``last`` at ``num_steps`` and after."""
    progress = min(1.0, step / max(1, num_steps))
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * progress))
