"""Scores of embeddings without gradient descent: ridge regression, nearest neighbours, and their measures.

Everything is in float64. A score is NaN where it is undefined.

Shapes:  n, m examples   D embedding   C outputs   P penalties
"""

from __future__ import annotations

import numpy as np

from musictf.tasks.base import Floats
from musictf.tasks.tagging import weighted_ranking


def ridge(features: Floats, targets: Floats, queries: Floats, penalties: Floats) -> Floats:
    """Estimates of ridge regressions with intercept, all outputs and penalties in one solve.

    Args:
        features: (n, D).
        targets: (n, C).
        queries: Features to estimate targets for, (m, D).
        penalties: Factors of the squared weights per example, (P,): the sum of squared errors gets n times as much.

    Returns:
        (P, m, C).
    """
    mean, intercept = features.mean(axis=0), targets.mean(axis=0)
    centred = features - mean  # centring both sides solves for the intercept, which is not penalised
    gram, moment = centred.T @ centred, centred.T @ (targets - intercept)  # (D, D), (D, C)
    penalised = gram + (len(features) * penalties)[:, None, None] * np.eye(len(gram))  # (P, D, D)
    weights = np.linalg.solve(penalised, np.broadcast_to(moment, (len(penalties), *moment.shape)))
    estimates: Floats = (queries - mean) @ weights + intercept
    return estimates


def accuracy(estimates: Floats, targets: Floats) -> float:
    """Share of examples whose highest estimate is that of their class, (n, C) and (n, C); NaN without examples."""
    return float((estimates.argmax(axis=1) == targets.argmax(axis=1)).mean()) if len(targets) else np.nan


def mean_average_precision(estimates: Floats, targets: Floats) -> float:
    """Average precision, (n, C) and (n, C), as a mean over the outputs that have targets above and below one half.

    NaN where no output has both.
    """
    precision, _ = weighted_ranking((targets > 0.5).astype(np.float64), estimates, np.ones((1, len(targets))))
    return _mean(precision[0])


def knn_tags(embeddings: Floats, truth: Floats, queries: Floats, neighbours: int) -> np.ndarray:
    """Tags that more than half of the nearest embeddings have, by cosine similarity.

    Args:
        embeddings: Of examples with known tags, (n, D).
        truth: 1 where an example has the tag, else 0, (n, C).
        queries: Embeddings to assign tags to, (m, D).
        neighbours: Number of nearest embeddings; all if there are fewer.

    Returns:
        Booleans (m, C).
    """
    cosine = _unit(queries) @ _unit(embeddings).T  # (m, n)
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :neighbours]
    shares: Floats = truth[nearest].mean(axis=1)
    return shares > 0.5


def balanced_accuracy(assigned: np.ndarray, truth: np.ndarray) -> float:
    """Mean of sensitivity and specificity, then mean over the tags that have both, booleans (n, C) and (n, C)."""
    with np.errstate(invalid="ignore"):
        sensitivity = (assigned & truth).sum(axis=0) / truth.sum(axis=0)
        specificity = (~assigned & ~truth).sum(axis=0) / (~truth).sum(axis=0)
    return _mean((sensitivity + specificity) / 2)


def retrieval_accuracy(embeddings: Floats, track_index: np.ndarray) -> float:
    """Share of excerpts whose nearest other excerpt is of the same track, among tracks with several excerpts.

    Args:
        embeddings: (n, D).
        track_index: Which track each excerpt is of, (n,).

    Returns:
        NaN where no track has several excerpts, or there is only one track.
    """
    has_other = np.flatnonzero((track_index[:, None] == track_index).sum(axis=1) > 1)
    if len(has_other) == 0 or len(set(track_index)) < 2:
        return np.nan
    cosine = _unit(embeddings[has_other]) @ _unit(embeddings).T
    cosine[np.arange(len(has_other)), has_other] = -np.inf  # an excerpt is not its own neighbour
    return float((track_index[cosine.argmax(axis=1)] == track_index[has_other]).mean())


def _unit(embeddings: Floats) -> Floats:
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / np.maximum(length, np.finfo(np.float64).tiny)


def _mean(values: Floats) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else np.nan
