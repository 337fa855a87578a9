"""Four measures of the embeddings of a batch that show learning or collapse.

Shapes:  n pairs   D embedding; embeddings are normalised to unit length here.

References:
    Wang & Isola, "Understanding contrastive representation learning through alignment and uniformity", ICML 2020.
    Roy & Vetterli, "The effective rank", EUSIPCO 2007.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def alignment(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared distance of positives, (n, D) x 2 -> scalar in [0, 4]; 0 when the views of every pair agree."""
    return (F.normalize(first, dim=-1) - F.normalize(second, dim=-1)).square().sum(dim=-1).mean()


def uniformity(embeddings: Tensor) -> Tensor:
    """Log of the mean Gaussian potential of all pairs, (n, D) -> scalar; 0 when all points coincide, less is better."""
    return torch.pdist(F.normalize(embeddings, dim=-1)).square().mul(-2).exp().mean().log()


def effective_rank(embeddings: Tensor) -> Tensor:
    """Exponential of the entropy of the singular values, (n, D) -> scalar in [1, min(n, D)]; NaN if an entry is."""
    if not embeddings.isfinite().all():  # the decomposition would raise in a run that diverges
        return embeddings.new_full((), torch.nan)
    values = torch.linalg.svdvals(F.normalize(embeddings, dim=-1))
    shares = values / values.sum()
    return torch.special.entr(shares).sum().exp()


def positive_negative_gap(first: Tensor, second: Tensor) -> Tensor:
    """Mean cosine of positives less that of negatives, (n, D) x 2 -> scalar; 0 when all points coincide.

    Unlike `alignment` it does not reward a collapse. NaN for a single pair, which has no negatives.
    """
    first, second = F.normalize(first, dim=-1), F.normalize(second, dim=-1)
    num_negatives = 2 * len(first) * (2 * len(first) - 2)  # of all 2n views
    positives = (first * second).sum()
    with_themselves = first.square().sum() + second.square().sum()
    # The sum over all pairs of views is the squared length of their sum: linear in n.
    negatives = (first.sum(dim=0) + second.sum(dim=0)).square().sum() - with_themselves - 2 * positives
    return positives / len(first) - (negatives / num_negatives if num_negatives else torch.nan)
