"""Onset curves: the attention maps of each head reduced to curves over the tokens of a track.

The paper shows onsets in attention maps; how it reads them is not public. These three curves are our choice:

``received``   attention that a token receives from the sequence tokens, 1 if attention is even (class row left out)
``class_row``  attention from the class token to a token, 1 if attention is even
``change``     how much the attention of neighbouring queries differs at a token: total variation, 0 to 1

Shapes:  B batch   L blocks   H heads   K = 1 + T tokens of an excerpt   C curves   N tokens of a track

Maps are computed exactly, because fused kernels return none. Each batch of maps is reduced to curves at once, and
curves are stitched over the track like features, so memory does not grow with the length of the track.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from musictf.datasets.base import Track
from musictf.errors import InputError
from musictf.features.extract import FeatureConfig, TensorSpec, stored, stored_tensors
from musictf.models.encoder import Encoder, Output
from musictf.results.names import ATTENTION_CURVES

CURVES_VERSION = 1


@dataclass
class TrackCurves:
    """Curves of every block and head over a track."""

    values: npt.NDArray[np.float32]  # (N, L, H, C), blocks 1 to depth
    times: npt.NDArray[np.float64]  # token centres in seconds, (N,)


def onset_curves(attention: Tensor) -> Tensor:
    """Curves of attention maps, (B, H, K, K) -> (B, H, C, T); rows are queries, token 0 is the class token.

    Example:
        >>> onset_curves(torch.full((1, 1, 5, 5), 0.2))[0, 0, :, 0]  # even attention, a fifth of it to the class token
        tensor([0.8000, 0.8000, 0.0000])
    """
    among = attention[:, :, 1:, 1:]  # (B, H, T, T)
    num_tokens = among.shape[-1]
    # Times T: the values do not depend on the length of the excerpt.
    received = num_tokens * among.mean(dim=2)  # (B, H, T)
    class_row = num_tokens * attention[:, :, 0, 1:]
    steps = 0.5 * (among[:, :, 1:] - among[:, :, :-1]).abs().sum(dim=-1)  # between a token and the next, (B, H, T - 1)
    # A token's centre lies half way between two steps; the first and the last token have a step on one side only.
    before, after = (torch.cat(pair, dim=-1) for pair in ((steps[..., :1], steps), (steps, steps[..., -1:])))
    change = 0.5 * (before + after)
    return torch.stack([received, class_row, change], dim=2)


@dataclass(frozen=True)
class AttentionCurves:
    """What extraction keeps for `track_curves`: the curves of every block and head, stitched over the track."""

    layers: None = None
    attention: bool = True

    def identity(self, encoder: Encoder) -> dict[str, Any]:
        return {
            "preset": f"{encoder.name}, attention curves",
            "curves_version": CURVES_VERSION,
            "layers": list(range(1, encoder.depth + 1)),
            "precision": "float32",
        }

    def tensors(self, encoder: Encoder) -> dict[str, TensorSpec]:
        return {
            "curves": TensorSpec((encoder.depth, encoder.num_heads, len(ATTENTION_CURVES)), "float32", by_token=True)
        }

    def reduced(self, output: Output) -> dict[str, Tensor]:
        maps = output.attention
        curves = torch.stack([onset_curves(maps[layer].float()) for layer in sorted(maps)], dim=1)  # (B, L, H, C, T)
        return {"curves": curves.cpu().permute(0, 4, 1, 2, 3)}

    def rows(self, reduced: Mapping[str, Tensor], index: int, num_tokens: int) -> dict[str, Tensor]:
        return {"curves": reduced["curves"][index][:num_tokens]}


def track_curves(
    encoder: Encoder,
    tracks: Sequence[Track],
    config: FeatureConfig,
    device: str = "cpu",
    advance: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Curves of whole tracks, in the feature store; computed where it lacks them. `read_curves` reads one.

    Args:
        encoder: With attention maps.
        tracks: The tracks.
        config: How tracks are cut into excerpts.
        device: Where the encoder runs.
        advance: Called once for each track that is done.

    Raises:
        InputError: the encoder has no attention maps.
    """
    if encoder.num_heads == 0:
        raise InputError(f"backbone={encoder.kind} has no attention maps")
    return stored(encoder, tracks, AttentionCurves(), config, device, advance)


def read_curves(path: Path) -> TrackCurves:
    """Curves of one track from the store.

    Raises:
        InputError: the entry was removed from the store since it was computed.
    """
    tensors = stored_tensors(path)
    return TrackCurves(tensors["curves"].numpy(), tensors["times"].numpy())
