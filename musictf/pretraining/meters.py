"""Is the representation learning or collapsing? Three numbers of a batch of embeddings.

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
    """Exponential of the entropy of the singular values, (n, D) -> scalar in [1, min(n, D)]."""
    values = torch.linalg.svdvals(F.normalize(embeddings, dim=-1))
    shares = values / values.sum()
    return torch.special.entr(shares).sum().exp()
