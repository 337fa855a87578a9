"""Is the representation learning or collapsing? Four numbers of a batch of embeddings.

Shapes:  n pairs   D embedding; embeddings are normalised here.

References:
    Wang & Isola, "Understanding contrastive representation learning through alignment and uniformity", ICML 2020.
    Roy & Vetterli, "The effective rank", EUSIPCO 2007.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def alignment(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared distance of partners, (n, D) x 2 -> scalar in [0, 4]; 0 when views agree."""
    return (F.normalize(first, dim=-1) - F.normalize(second, dim=-1)).square().sum(dim=-1).mean()


def uniformity(embeddings: Tensor) -> Tensor:
    """Log of the mean Gaussian potential of all pairs, (n, D) -> scalar; 0 when all points are one, lower is better."""
    return torch.pdist(F.normalize(embeddings, dim=-1)).square().mul(-2).exp().mean().log()


def effective_rank(embeddings: Tensor) -> Tensor:
    """Exponential of the entropy of the singular values, (n, D) -> scalar in [1, min(n, D)]; NaN if an entry is."""
    if not embeddings.isfinite().all():  # the decomposition would raise, just when the meter is wanted
        return embeddings.new_full((), torch.nan)
    values = torch.linalg.svdvals(F.normalize(embeddings, dim=-1))
    shares = values / values.sum()
    return torch.special.entr(shares).sum().exp()


def positive_negative_gap(first: Tensor, second: Tensor) -> Tensor:
    """Mean cosine of partners less that of all others, of either view, (n, D) x 2 -> scalar; 0 when all points are one.

    Unlike `alignment` it does not reward a collapse; NaN for a single pair, which has no others.
    """
    first, second = F.normalize(first, dim=-1), F.normalize(second, dim=-1)
    num_others = 2 * len(first) * (2 * len(first) - 2)
    partners = (first * second).sum()
    own = first.square().sum() + second.square().sum()
    # All cosines at once are the squared length of the sum.
    others = (first.sum(dim=0) + second.sum(dim=0)).square().sum() - own - 2 * partners
    return partners / len(first) - (others / num_others if num_others else torch.nan)
