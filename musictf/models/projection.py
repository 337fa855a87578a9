"""Projection heads: between the class token and the contrastive loss, discarded after pretraining.

The paper's abstract names no head; its authors' earlier work used an MLP 1024-1024-2048 with BatchNorm and ReLU. Both
are available: ``none`` and ``mlp``.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from musictf.errors import InputError


def projection_head(kind: str, in_features: int, widths: Sequence[int]) -> nn.Module:
    """The projection head of an objective.

    Args:
        kind: ``none`` (identity) or ``mlp`` (Linear, BatchNorm and ReLU for each width but the last, then Linear).
        in_features: Length of the class token.
        widths: Widths of the layers of ``mlp``.

    Raises:
        InputError: the kind is unknown.
    """
    if kind == "none":
        return nn.Identity()
    if kind != "mlp":
        raise InputError(f"objective.projection={kind!r} is unknown: one of none, mlp")
    layers: list[nn.Module] = []
    for width in widths[:-1]:
        layers += [nn.Linear(in_features, width), nn.BatchNorm1d(width), nn.ReLU()]
        in_features = width
    return nn.Sequential(*layers, nn.Linear(in_features, widths[-1]))
