"""Affine heads: many trained at once, few kept, each with the statistics and labels it needs.

Shapes:  R learning rates   L layers   D embedding   C outputs   N examples
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from musictf.tasks.base import Floats


@dataclass
class Head:
    """One trained head of one layer; standardisation with training statistics is part of it."""

    layer: int
    column: int  # of the layer among the L that features hold
    weight: Tensor  # (D, C)
    bias: Tensor  # (C,)
    mean: Tensor  # (D,)
    scale: Tensor  # (D,)
    selection: dict[str, Any]

    def logits(self, rows: Tensor) -> Floats:
        """Logits (n, C) of features (n, L, D), in float32."""
        standard = (rows[:, self.column].float() - self.mean) / self.scale
        values: Floats = (standard @ self.weight + self.bias).numpy()
        return values


class HeadGrid(nn.Module):
    """Affine heads for every learning rate and layer, fed by the same features.

    Heads share no parameter and AdamW is element-wise, so training them together is training each alone.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num_rates: int, mean: Tensor, scale: Tensor, num_outputs: int, seed: int) -> None:
        super().__init__()
        num_layers, dim = mean.shape
        generator = torch.Generator().manual_seed(seed)
        # All rates start from the same weights: they differ by their learning rate alone.
        start = torch.randn(num_layers, dim, num_outputs, generator=generator) * 0.01
        self.weights = nn.ParameterList(nn.Parameter(start.clone()) for _ in range(num_rates))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(num_layers, num_outputs)) for _ in range(num_rates))
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, L, D) to logits (R * L, N, C)."""
        standard = ((features.float() - self.mean) / self.scale).transpose(0, 1)  # (L, N, D)
        joined = torch.cat(list(self.weights), dim=-1)  # (L, D, R * C)
        logits = standard @ joined + torch.cat(list(self.biases), dim=-1)[:, None]
        num_layers, num_examples, _ = logits.shape
        split = logits.reshape(num_layers, num_examples, len(self.weights), -1)
        return split.permute(2, 0, 1, 3).reshape(len(self.weights) * num_layers, num_examples, -1)


def statistics(rows: Tensor, block: int = 8192) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of training features over rows, (n, L, D) -> (L, D) each, in float64 inside."""
    total = torch.zeros(rows.shape[1:], dtype=torch.float64)
    square = torch.zeros_like(total)
    for part in rows.split(block):
        part = part.double()
        total += part.sum(dim=0)
        square += part.square().sum(dim=0)
    mean = total / len(rows)
    deviation = (square / len(rows) - mean.square()).clamp(min=0).sqrt()
    # A feature that never changes is left as it is, not blown up.
    scale = torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation))
    return mean.float(), scale.float()


def save_heads(heads: list[Head], path: Path, description: dict[str, Any]) -> None:
    """Write heads with what is needed to use them: layer, selection, labels, in the metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"layer{head.layer}.{name}": getattr(head, name).contiguous()
        for head in heads
        for name in ("weight", "bias", "mean", "scale")
    }
    selections = {str(head.layer): head.selection for head in heads}
    save_file(tensors, str(path), metadata={"musictf": json.dumps(description | {"selections": selections})})


def finite_or_raise(losses: Tensor, where: str) -> None:
    """Stop at once when a layer has no finite validation loss, (R, L), at any rate: its features are broken."""
    broken = np.flatnonzero(~np.isfinite(losses.numpy()).any(axis=0))
    if len(broken):
        raise FloatingPointError(
            f"{where}: every validation loss of layers {broken.tolist()} (of {losses.shape[1]}) is NaN or infinite"
        )
