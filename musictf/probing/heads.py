"""Affine heads: trained many at a time, and saved with the statistics and labels that applying them needs.

Shapes:  S seeds   R readouts   L layers   K settings (learning rate, weight decay)   D embedding   C outputs
         N, n examples
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from musictf.tasks.base import Floats

_TENSORS = ("weight", "bias", "mean", "scale")


@dataclass
class Head:
    """One trained head of one layer; it includes standardisation with the statistics of the training split."""

    layer: int  # its number in the backbone
    column: int  # its index among the L layers of the features
    weight: Tensor  # (D, C)
    bias: Tensor  # (C,)
    mean: Tensor  # (D,)
    scale: Tensor  # (D,)
    selection: dict[str, Any]

    def logits(self, rows: Tensor) -> Floats:
        """Logits (n, C) of features (n, L, D), in float32."""
        centred = rows[:, self.column].float() - self.mean  # (n, D)
        values: Floats = (centred @ (self.weight / self.scale[:, None]) + self.bias).numpy()
        return values


class HeadGrid(nn.Module):
    """Affine heads for every seed, readout, layer and setting.

    Heads share no parameter and the optimiser is element-wise, so training them together equals training each alone.
    Memory in float32: five numbers (value, gradient, Adam's two moments, best so far) for each of S R L K (D + 1) C
    parameters, and N L K C logits and their gradients at a time.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num_settings: int, mean: Tensor, scale: Tensor, num_outputs: int, seeds: Sequence[int]) -> None:
        super().__init__()
        num_readouts, num_layers, dim = mean.shape
        self.shape = (len(seeds), num_readouts, num_layers, num_settings)
        # All heads of a seed start from the same weights: they differ only in features and settings.
        starts = [torch.randn(dim, num_outputs, generator=torch.Generator().manual_seed(seed)) * 0.01 for seed in seeds]
        cells = list(itertools.product(range(len(seeds)), range(num_readouts), range(num_settings)))
        self._number = {cell: number for number, cell in enumerate(cells)}
        self.weights = nn.ParameterList(starts[seed].repeat(num_layers, 1, 1) for seed, _, _ in cells)
        self.biases = nn.ParameterList(torch.zeros(num_layers, num_outputs) for _ in cells)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def parts(self, seed: int, readout: int, setting: int) -> tuple[nn.Parameter, nn.Parameter]:
        """Weights (L, D, C) and biases (L, C) of the heads of a seed, readout and setting, each given by its index."""
        number = self._number[seed, readout, setting]
        return self.weights[number], self.biases[number]

    def forward(self, features: Tensor, seed: int, readout: int, settings: Sequence[int]) -> Tensor:
        """Features (N, L, D) to the logits of all heads of a seed, a readout and K settings: (L * K, N, C)."""
        weights, biases = zip(*(self.parts(seed, readout, setting) for setting in settings))
        scale = self.scale[readout][..., None]  # (L, D, 1)
        centred = (features.float() - self.mean[readout]).transpose(0, 1)  # (L, N, D)
        # Dividing the weights by the scale instead of the features: there are fewer weights. One product for all K.
        logits = torch.baddbmm(torch.cat(biases, dim=-1)[:, None], centred, torch.cat(weights, dim=-1) / scale)
        num_layers, num_examples, _ = logits.shape  # (L, N, K * C)
        split = logits.view(num_layers, num_examples, len(settings), -1)
        return split.transpose(1, 2).reshape(num_layers * len(settings), num_examples, -1)


def statistics(rows: Tensor, block: int = 8192) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of training features, (n, L, D) -> (L, D) each; computed in float64.

    Args:
        rows: Features, in any precision.
        block: Examples converted to float64 at a time.
    """
    total = torch.zeros(rows.shape[1:], dtype=torch.float64)
    square = torch.zeros_like(total)
    for part in rows.split(block):
        part = part.double()
        total += part.sum(dim=0)
        square += part.square().sum(dim=0)
    mean = total / len(rows)
    deviation = (square / len(rows) - mean.square()).clamp(min=0).sqrt()
    # A constant feature is centred only: dividing by its deviation would amplify rounding errors.
    scale = torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation))
    return mean.float(), scale.float()


def save_heads(heads: Sequence[Head], path: Path, description: dict[str, Any]) -> None:
    """Write the heads of several layers to one safetensors file, atomically.

    Args:
        heads: One per layer.
        path: Of the file.
        description: Task, labels, readout and seed, for the metadata; the selection of each head is added.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {f"layer{head.layer}.{name}": getattr(head, name).contiguous() for head in heads for name in _TENSORS}
    selections = {str(head.layer): head.selection for head in heads}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    save_file(tensors, str(temporary), metadata={"musictf": json.dumps(description | {"selections": selections})})
    os.replace(temporary, path)


def load_heads(path: Path) -> list[Head]:
    """Heads of a file by ascending layer; an empty list if the file is missing or incomplete."""
    try:
        with safe_open(str(path), framework="pt") as file:
            selections = json.loads(file.metadata()["musictf"])["selections"]
            layers = sorted(map(int, selections))
            return [
                Head(
                    layer,
                    column,
                    **{name: file.get_tensor(f"layer{layer}.{name}").clone() for name in _TENSORS},
                    selection=selections[str(layer)],
                )
                for column, layer in enumerate(layers)
            ]
    except (FileNotFoundError, SafetensorError):
        return []


def finite_or_raise(losses: Tensor, where: str) -> None:
    """Raise if no setting of some head has a finite validation loss: then its features are not finite.

    Args:
        losses: (..., K).
        where: Begins the message.

    Raises:
        FloatingPointError: some head has no finite loss.
    """
    broken = ~torch.isfinite(losses).any(dim=-1)  # a single diverged learning rate is no error
    if broken.any():
        raise FloatingPointError(
            f"{where}: every validation loss of {int(broken.sum())} of {broken.numel()} heads is NaN or infinite"
        )
