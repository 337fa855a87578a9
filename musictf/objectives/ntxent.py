"""NT-Xent: each view is classified among all views of the batch, in memory linear in the size of the batch.

Shapes:  n pairs on this rank   m pairs of the whole batch (m = n on one rank)   D embedding   R rows of a block

The similarities of 2n views to 2m candidates are never stored whole: R rows exist at a time. The gradient of a row is
its softmax less its one-hot target, and the softmax of a row is known as soon as the row is. So one pass computes the
loss and both gradients, and the backward pass only scales them.

References:
    Chen et al., "A simple framework for contrastive learning of visual representations", ICML 2020, eq. 1.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Similarities of a block by default, 16 MiB: large enough for fast products, small enough for a cache.
_BLOCK_ENTRIES = 1 << 22


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
        block_rows: Rows of a block; changes the memory and nothing else.

    Returns:
        Loss, a scalar, and whether each view's positive is its most similar candidate (top-1), (2n,) bool.

    Example:
        >>> same = torch.ones(4, 2)  # all candidates are equally similar: chance among 2m - 1 candidates
        >>> loss, _ = nt_xent(same, same)
        >>> bool(torch.isclose(loss, torch.tensor(7.0).log()))
        True
    """
    all_first = first if all_first is None else all_first
    all_second = second if all_second is None else all_second
    if tracks is not None:
        all_tracks = (tracks if all_tracks is None else all_tracks).repeat(2)  # (2m,)
        tracks = tracks.repeat(2)
    # Columns of the similarity matrix: candidate i is the first view of pair i, candidate m + i the second.
    first_index = torch.arange(len(first), device=first.device) + rank * len(first)
    second_index = first_index + len(all_first)
    self_index, positive_index = torch.cat([first_index, second_index]), torch.cat([second_index, first_index])  # (2n,)
    with torch.autocast(first.device.type, enabled=False):  # half precision is too coarse for the softmax
        views = F.normalize(torch.cat([first, second]).float(), dim=-1)  # (2n, D)
        candidates = F.normalize(torch.cat([all_first, all_second]).float(), dim=-1)  # (2m, D)
        rows = block_rows or max(1, _BLOCK_ENTRIES // len(candidates))
        loss, is_top1 = _BlockwiseCrossEntropy.apply(
            views, candidates, self_index, positive_index, tracks, all_tracks, temperature, rows
        )
    return loss, is_top1


class _BlockwiseCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of views against candidates, all unit vectors, block by block."""

    @staticmethod
    def forward(
        ctx: Any,
        views: Tensor,
        candidates: Tensor,
        self_index: Tensor,
        positive_index: Tensor,
        tracks: Tensor | None,
        all_tracks: Tensor | None,
        temperature: float,
        rows: int,
    ) -> tuple[Tensor, Tensor]:
        needs_gradient = any(ctx.needs_input_grad[:2])
        scaled = views / temperature
        # One allocation for all blocks; the gradient of a block overwrites its similarities.
        buffer = views.new_empty(min(rows, len(views)), len(candidates))  # (R, 2m)
        losses, is_top1 = views.new_empty(len(views)), torch.empty(len(views), dtype=torch.bool, device=views.device)
        grad_views = torch.empty_like(views) if needs_gradient else None
        grad_candidates = torch.zeros_like(candidates) if needs_gradient else None
        for start in range(0, len(views), rows):
            block = slice(start, min(start + rows, len(views)))
            similarity = torch.mm(scaled[block], candidates.T, out=buffer[: block.stop - block.start])
            target = positive_index[block, None]
            own_tracks = None if tracks is None else tracks[block]
            mask_non_negatives(similarity, self_index[block], positive_index[block], own_tracks, all_tracks)
            positive = similarity.gather(1, target)
            row_max, top1_index = similarity.max(dim=1, keepdim=True)
            is_top1[block] = (top1_index == target)[:, 0]
            # Log-sum-exp in place. The largest entry is subtracted first, so that exp cannot overflow.
            total = similarity.sub_(row_max).exp_().sum(dim=1, keepdim=True)
            losses[block] = (row_max + total.log() - positive)[:, 0]
            if grad_views is not None and grad_candidates is not None:
                # Softmax less one-hot: the gradient of the cross-entropy at the similarities.
                similarity.div_(total).scatter_add_(1, target, torch.full_like(total, -1.0))
                torch.mm(similarity, candidates, out=grad_views[block])
                grad_candidates.addmm_(similarity.T, scaled[block])
        if grad_views is not None and grad_candidates is not None:
            ctx.save_for_backward(grad_views.div_(temperature * len(views)), grad_candidates.div_(len(views)))
        ctx.mark_non_differentiable(is_top1)
        return losses.mean(), is_top1

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_views, grad_candidates = ctx.saved_tensors
        return grad_views * grad_loss, grad_candidates * grad_loss, None, None, None, None, None, None


def mask_non_negatives(
    similarity: Tensor, self_index: Tensor, positive_index: Tensor, tracks: Tensor | None, all_tracks: Tensor | None
) -> None:
    """Set to minus infinity, in place, what is neither the positive of a view nor one of its negatives.

    That is the view itself, and all other views of its track.

    Args:
        similarity: Similarities of a block, (R, 2m).
        self_index: Column of each view itself, (R,).
        positive_index: Column of each view's positive, (R,).
        tracks: Track of each view, (R,); None: other views of a track are negatives.
        all_tracks: Track of each candidate, (2m,).
    """
    if tracks is not None and all_tracks is not None:
        is_same_track = tracks[:, None] == all_tracks[None]  # (R, 2m)
        is_same_track.scatter_(1, positive_index[:, None], False)
        similarity.masked_fill_(is_same_track, -torch.inf)
    similarity.scatter_(1, self_index[:, None], -torch.inf)
