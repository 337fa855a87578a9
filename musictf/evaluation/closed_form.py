"""Reading embeddings without training anything: ridge regression, nearest neighbours, and their scores.

Shapes:  n, m examples   D embedding   C outputs   P penalties

Everything is in float64. A score is NaN where nothing can be told.
"""

from __future__ import annotations

import numpy as np

from musictf.tasks.base import Floats
from musictf.tasks.tagging import weighted_ranking


def ridge(features: Floats, targets: Floats, others: Floats, penalties: Floats) -> Floats:
    """Estimates of ridge regressions with intercept, all outputs in one solve.

    Args:
        features: (n, D).
        targets: (n, C).
        others: What to estimate for, (m, D).
        penalties: Of the squared weights, for each example, (P,): the penalty of the sum of squares is n times that.

    Returns:
        (P, m, C).
    """
    mean, level = features.mean(axis=0), targets.mean(axis=0)
    centred = features - mean
    gram, moment = centred.T @ centred, centred.T @ (targets - level)
    loaded = gram + (len(features) * penalties)[:, None, None] * np.eye(len(gram))
    weights = np.linalg.solve(loaded, np.broadcast_to(moment, (len(penalties), *moment.shape)))
    estimates: Floats = (others - mean) @ weights + level
    return estimates


def accuracy(estimates: Floats, targets: Floats) -> float:
    """Share of examples whose highest estimate is that of their class, (n, C) x 2; NaN without examples."""
    return float((estimates.argmax(axis=1) == targets.argmax(axis=1)).mean()) if len(targets) else np.nan


def mean_average_precision(estimates: Floats, targets: Floats) -> float:
    """Mean over the outputs with targets above and below one half, (n, C) x 2; NaN where there is none."""
    precision, _ = weighted_ranking((targets > 0.5).astype(np.float64), estimates, np.ones((1, len(targets))))
    return _mean(precision[0])


def knn_tags(embeddings: Floats, truth: Floats, others: Floats, neighbours: int) -> np.ndarray:
    """Which tags most of the nearest embeddings have, by cosine; a tie means no.

    Args:
        embeddings: Whose tags are known, (n, D).
        truth: 0 or 1, (n, C).
        others: Whose tags are asked for, (m, D).
        neighbours: How many vote; all where there are fewer.

    Returns:
        Booleans (m, C).
    """
    cosine = _unit(others) @ _unit(embeddings).T
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :neighbours]
    votes: Floats = truth[nearest].mean(axis=1)
    return votes > 0.5


def balanced_accuracy(assigned: np.ndarray, truth: np.ndarray) -> float:
    """Mean of sensitivity and specificity, then over the tags that have both, booleans (n, C) x 2."""
    with np.errstate(invalid="ignore"):
        sensitivity = (assigned & truth).sum(axis=0) / truth.sum(axis=0)
        specificity = (~assigned & ~truth).sum(axis=0) / (~truth).sum(axis=0)
    return _mean((sensitivity + specificity) / 2)


def retrieval_accuracy(embeddings: Floats, owner: np.ndarray) -> float:
    """Share of embeddings (n, D) whose nearest other one has the same owner (n,), of those whose owner has several.

    NaN where no owner has several, or there is one owner only.
    """
    several = np.flatnonzero((owner[:, None] == owner).sum(axis=1) > 1)
    if len(several) == 0 or len(set(owner)) < 2:
        return np.nan
    cosine = _unit(embeddings[several]) @ _unit(embeddings).T
    cosine[np.arange(len(several)), several] = -np.inf
    return float((owner[cosine.argmax(axis=1)] == owner[several]).mean())


def _unit(embeddings: Floats) -> Floats:
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / np.maximum(length, np.finfo(np.float64).tiny)


def _mean(values: Floats) -> float:
    """Mean of what is defined; NaN where nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else np.nan
