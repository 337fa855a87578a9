"""Embeddings of all ranks, with a gradient that reaches the rank they came from.

Shapes:  n rows on each rank

The gradient of a gathered tensor is summed over ranks, and each rank takes its own rows of it. Together with DDP's
average over ranks this is the gradient of the whole batch on one process. Local negatives, a detached gather or an
averaged gradient give another gradient; the tests compare all three with the exact one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.num_rows = len(tensor)
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)  # autograd may still own the original
        dist.all_reduce(gradient, op=dist.ReduceOp.SUM)  # every rank's loss depends on these rows
        first = dist.get_rank() * ctx.num_rows
        return gradient[first : first + ctx.num_rows]


def gather(tensor: Tensor) -> Tensor:
    """Rows of every rank in rank order, (n, ...) -> (world_size * n, ...); the tensor itself on one process."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return tensor
    return _Gather.apply(tensor)
