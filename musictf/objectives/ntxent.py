"""NT-Xent: each view must find its partner among all views of the batch, in memory that does not grow with its square.

Shapes:  n pairs on this rank   m pairs of the whole batch (m = n on one rank)   D embedding   R rows of a block

The similarities of 2n views to 2m candidates are never whole: R rows of them exist at a time, and what the gradient
needs is taken from them before they go. It is the softmax less the target, and the softmax of a row is known as soon as
its row is: one pass makes the loss and both gradients, nothing is computed again on the way back.

References:
    Chen et al., "A simple framework for contrastive learning of visual representations", ICML 2020, eq. 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK_ENTRIES = 1 << 22  # similarities at a time by default, 16 MiB: large enough for fast products, small for a cache


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
    block_rows: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss of this rank's 2n views against all 2m views of the batch.

    With the gathered views of every rank and a gather whose gradient sums over ranks, the mean over ranks of this loss
    and of its gradients are those of the whole batch on one rank. Computed in float32 whatever the autocast; can be
    differentiated once.

    Args:
        first: One view of each pair, (n, D), any scale.
        second: The other view, (n, D).
        temperature: Divides the cosine similarities.
        tracks: Track of each pair, (n,) integers: pairs of one track are not each other's negatives. None: all are.
        all_first: First views of all ranks in rank order, (m, D); ``first`` itself on one rank.
        all_second: Second views likewise.
        all_tracks: Tracks likewise, (m,).
        rank: Position of this rank's pairs among all, in blocks of n.
        block_rows: Views whose similarities exist at a time; changes memory and nothing else.

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
    if tracks is not None:
        all_tracks = (tracks if all_tracks is None else all_tracks).repeat(2)
        tracks = tracks.repeat(2)
    with torch.autocast(first.device.type, enabled=False):
        views = F.normalize(torch.cat([first, second]).float(), dim=-1)
        candidates = F.normalize(torch.cat([all_first, all_second]).float(), dim=-1)
        itself, partner = _columns(len(first), len(all_first), rank, first.device)
        rows = block_rows or max(1, _BLOCK_ENTRIES // len(candidates))
        loss, found = _Streamed.apply(views, candidates, itself, partner, tracks, all_tracks, temperature, rows)
    return loss, found


class _Streamed(torch.autograd.Function):
    """Mean cross-entropy of views against candidates, all unit vectors, block by block."""

    @staticmethod
    def forward(
        ctx: Any,
        views: Tensor,
        candidates: Tensor,
        itself: Tensor,
        partner: Tensor,
        tracks: Tensor | None,
        all_tracks: Tensor | None,
        temperature: float,
        rows: int,
    ) -> tuple[Tensor, Tensor]:
        wanted = any(ctx.needs_input_grad[:2])
        scaled = views / temperature
        # One allocation for all blocks; the gradient of a block of rows is written in its place at once.
        buffer = views.new_empty(min(rows, len(views)), len(candidates))
        losses, found = views.new_empty(len(views)), torch.empty(len(views), dtype=torch.bool, device=views.device)
        for_views = torch.empty_like(views) if wanted else None
        for_candidates = torch.zeros_like(candidates) if wanted else None
        for block in _blocks(len(views), rows):
            similarity = torch.mm(scaled[block], candidates.T, out=buffer[: block.stop - block.start])
            target = partner[block, None]
            _hide(similarity, itself[block, None], target, tracks, all_tracks, block)
            of_partner = similarity.gather(1, target)
            highest, nearest = similarity.max(dim=1, keepdim=True)
            found[block] = (nearest == target)[:, 0]
            total = similarity.sub_(highest).exp_().sum(dim=1, keepdim=True)
            losses[block] = (highest + total.log() - of_partner)[:, 0]
            if for_views is not None and for_candidates is not None:
                similarity.div_(total).scatter_add_(1, target, torch.full_like(total, -1.0))
                torch.mm(similarity, candidates, out=for_views[block])
                for_candidates.addmm_(similarity.T, scaled[block])
        if for_views is not None and for_candidates is not None:
            ctx.save_for_backward(for_views.div_(temperature * len(views)), for_candidates.div_(len(views)))
        ctx.mark_non_differentiable(found)
        return losses.mean(), found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        for_views, for_candidates = ctx.saved_tensors
        return for_views * slope, for_candidates * slope, None, None, None, None, None, None


def _blocks(num_rows: int, rows: int) -> Iterator[slice]:
    for start in range(0, num_rows, rows):
        yield slice(start, min(start + rows, num_rows))


def _columns(num_own: int, num_all: int, rank: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Columns of each own view itself and of its partner, both (2n,)."""
    own = torch.arange(num_own, device=device) + rank * num_own
    return torch.cat([own, own + num_all]), torch.cat([own + num_all, own])


def _hide(
    similarity: Tensor, itself: Tensor, partner: Tensor, tracks: Tensor | None, all_tracks: Tensor | None, block: slice
) -> None:
    """Take a block's views themselves, and others of their tracks but the partner, out of the comparison (in place)."""
    if tracks is not None and all_tracks is not None:
        same = tracks[block, None] == all_tracks[None]
        same.scatter_(1, partner, False)
        similarity.masked_fill_(same, -torch.inf)
    similarity.scatter_(1, itself, -torch.inf)
