"""NT-Xent: each view must find its partner among all views of the batch.

Shapes:  n pairs on this rank   m pairs of the whole batch (m = n on one rank)   D embedding

References:
    Chen et al., "A simple framework for contrastive learning of visual representations", ICML 2020, eq. 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def nt_xent(
    first: Tensor,
    second: Tensor,
    *,
    temperature: float = 0.1,
    tracks: Tensor | None = None,
    all_first: Tensor | None = None,
    all_second: Tensor | None = None,
    all_tracks: Tensor | None = None,
    rank: int = 0,
) -> tuple[Tensor, Tensor]:
    """Loss of this rank's 2n views against all 2m views of the batch.

    With the gathered views of every rank and a gather whose gradient sums over ranks, the mean over ranks of this loss
    and of its gradients are those of the whole batch on one rank. Computed in float32 whatever the autocast.

    Args:
        first: One view of each pair, (n, D), any scale.
        second: The other view, (n, D).
        temperature: Divides the cosine similarities.
        tracks: Track of each pair, (n,) integers: pairs of one track are not each other's negatives. None: all are.
        all_first: First views of all ranks in rank order, (m, D); ``first`` itself on one rank.
        all_second: Second views likewise.
        all_tracks: Tracks likewise, (m,).
        rank: Position of this rank's pairs among all, in blocks of n.

    Returns:
        Loss, a scalar, and whether each view found its partner, (2n,) bool.

    Example:
        >>> same = torch.ones(4, 2)  # nothing tells views apart: chance among 2m - 1 candidates
        >>> loss, _ = nt_xent(same, same)
        >>> bool(torch.isclose(loss, torch.tensor(7.0).log()))
        True
    """
    all_first = first if all_first is None else all_first
    all_second = second if all_second is None else all_second
    with torch.autocast(first.device.type, enabled=False):
        views = F.normalize(torch.cat([first, second]).float(), dim=-1)
        candidates = F.normalize(torch.cat([all_first, all_second]).float(), dim=-1)
        similarity = views @ candidates.T / temperature  # (2n, 2m)
        itself, partner = _indices(len(first), len(all_first), rank, first.device)
        hidden = _same_track(tracks, all_tracks, similarity)
        hidden.scatter_(1, partner[:, None], False)
        hidden.scatter_(1, itself[:, None], True)
        similarity = similarity.masked_fill(hidden, -torch.inf)
        return F.cross_entropy(similarity, partner), similarity.detach().argmax(dim=1) == partner


def _indices(num_own: int, num_all: int, rank: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Columns of each own view itself and of its partner, both (2n,)."""
    own = torch.arange(num_own, device=device) + rank * num_own
    return torch.cat([own, own + num_all]), torch.cat([own + num_all, own])


def _same_track(tracks: Tensor | None, all_tracks: Tensor | None, similarity: Tensor) -> Tensor:
    """Which candidates come from the view's own track, (2n, 2m) bool."""
    if tracks is None:
        return torch.zeros_like(similarity, dtype=torch.bool)
    all_tracks = tracks if all_tracks is None else all_tracks
    return tracks.repeat(2)[:, None] == all_tracks.repeat(2)[None]
