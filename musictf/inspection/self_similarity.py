"""Self-similarity matrices of a track, how two of them compare, and where they show a boundary.

Shapes:  N tokens   S bins of a track   D features   L layers   P pairs of bins   R orders of the bins

Features are averaged over bins of equal length, so the size of a matrix does not grow with the track beyond a limit;
bins keep their times. Cosines are taken after the mean over the track is removed, because without that all tokens look
alike. Two matrices are compared without the pairs near the diagonal, where every bin is similar to its neighbours.

References:
    J. Foote, "Automatic audio segmentation using a measure of audio novelty", ICME 2000: the checkerboard kernel.
    L. Song et al., "Feature selection via dependence maximization", JMLR 13, 2012: the unbiased HSIC in `alignments`.
    S. Kornblith et al., "Similarity of neural network representations revisited", ICML 2019: CKA.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Floats = npt.NDArray[np.float64]
Order = npt.NDArray[np.int64]

_BLOCK = 4096  # rows read from disk at once
_FLAT = 1e-9  # HSIC below which features do not vary; that of features scaled by `_kernel` is about 1


def bin_width(num_tokens: int, token_seconds: float, bin_seconds: float, limit: int) -> int:
    """Tokens in a bin: about ``bin_seconds`` long, longer where a track would have more than ``limit`` bins."""
    return max(1, round(bin_seconds / token_seconds), -(-num_tokens // limit))


def binned(values: npt.NDArray[np.floating], width: int) -> Floats:
    """Means over bins of ``width`` rows, (N, ...) -> (S, ...); the last bin holds the remaining rows.

    Rows may be mapped from disk: they are read block by block.

    Example:
        >>> binned(np.array([1.0, 3.0, 5.0, 7.0, 9.0]), 2)
        array([2., 6., 9.])
    """
    size = width * max(1, _BLOCK // width)  # whole bins in each block
    means = []
    for block in (values[first : first + size] for first in range(0, len(values), size)):
        starts = np.arange(0, len(block), width)
        sums = np.add.reduceat(np.asarray(block, dtype=np.float64), starts, axis=0)
        counts = np.diff(np.append(starts, len(block)))
        means.append(sums / counts.reshape(-1, *[1] * (values.ndim - 1)))
    return np.concatenate(means)


def cosine_matrix(features: Floats) -> Floats:
    """Cosine similarity of all bins after the mean is removed, (S, D) -> (S, S) in [-1, 1].

    A bin that does not differ from the mean has no direction: its similarity to every bin is 0.
    """
    centred = features - features.mean(axis=0)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    # Where all features are equal, what is left after centring is rounding error.
    has_direction = length > 1e-6 * np.linalg.norm(features, axis=1, keepdims=True).max(initial=0.0)
    unit = np.where(has_direction, centred / np.where(has_direction, length, 1.0), 0.0)
    matrix: Floats = unit @ unit.T
    return matrix


def pairs_apart(number: int, gap: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First and second bins of all pairs at least ``gap`` bins apart, (P,) each; every pair once."""
    first, second = np.triu_indices(number, max(1, gap))
    return first, second


def standard_ranks(values: Floats) -> Floats:
    """Ranks of values, (P,), with mean 0 and length 1; NaN where all are equal.

    The inner product of two of them is Spearman's correlation.
    """
    return _standardised(rankdata(values)) if len(values) else np.empty(0)


class LayerMatrices:
    """Self-similarity of the layers of a track, prepared for comparisons.

    Args:
        layers: Features, (L, S, D).
        gap: Pairs of bins nearer to each other than this many bins are left out of rank correlations.
    """

    def __init__(self, layers: Floats, gap: int) -> None:
        self.pairs = pairs_apart(layers.shape[1], gap)
        self.ranks = np.array([standard_ranks(cosine_matrix(layer)[self.pairs]) for layer in layers])  # (L, P)
        self._layers = layers

    @functools.cached_property
    def kernels(self) -> list[Floats]:
        """Linear kernel of each layer for the alignment, (S, S) each."""
        return [_kernel(layer) for layer in self._layers]

    @functools.cached_property
    def norms(self) -> Floats:
        """HSIC of each layer with itself, (L,)."""
        return np.array([_hsic(kernel, kernel) for kernel in self.kernels])


class ReferenceMatrix:
    """What layers are compared with, prepared.

    Args:
        matrix: Self-similarity for rank correlations, (S, S).
        features: Features for alignments, (S, D).
    """

    def __init__(self, matrix: Floats, features: Floats) -> None:
        self.matrix = matrix
        self.ranks = rankdata(matrix).reshape(matrix.shape)
        self.kernel = _kernel(features)
        self.norm = _hsic(self.kernel, self.kernel) if len(matrix) > 3 else 0.0


def rank_correlations(layers: LayerMatrices, reference: ReferenceMatrix, orders: Sequence[Order]) -> Floats:
    """Spearman's correlation of layers with a reference whose bins are put in several orders.

    In an ascending order the value is Spearman's exactly. In any other one, ranks are those among all pairs of the
    matrix: ranking again for every order would cost more than everything else, and differs by little.

    Args:
        layers: L layers.
        reference: The reference.
        orders: Bins of the reference in another order each, R of (S,).

    Returns:
        (R, L); NaN where there is no pair, or a matrix has the same value for all pairs.
    """
    first, second = layers.pairs
    if len(first) < 2:
        return np.full((len(orders), len(layers.ranks)), np.nan)
    ranks = [
        standard_ranks(reference.matrix[first, second])
        if (np.diff(order) > 0).all()
        else _standardised(reference.ranks[order[first], order[second]])
        for order in orders
    ]
    correlations: Floats = np.array(ranks) @ layers.ranks.T  # (R, P) @ (P, L)
    return correlations


def alignments(layers: LayerMatrices, reference: ReferenceMatrix, orders: Sequence[Order]) -> Floats:
    """Linear centred kernel alignment (CKA) of layers with a reference whose bins are put in several orders.

    With the unbiased HSIC: 0 on average for independent bins, however many features there are, and 1 where one is a
    rotation or a scaling of the other. Smooth series with nothing in common lie above 0; the shifted null model
    measures how far.

    Args:
        layers: L layers.
        reference: The reference.
        orders: Bins of the reference in another order each, R of (S,).

    Returns:
        (R, L); NaN where one side does not vary, or there are fewer than four bins.
    """
    if len(reference.kernel) < 4:  # the unbiased HSIC divides by S - 3
        return np.full((len(orders), len(layers.ranks)), np.nan)
    moved = (reference.kernel[np.ix_(order, order)] for order in orders)
    crossed = np.array([[_hsic(kernel, other) for kernel in layers.kernels] for other in moved])  # (R, L)
    varies = (layers.norms > _FLAT) & (reference.norm > _FLAT)
    size = np.sqrt(np.where(varies, layers.norms * reference.norm, 1.0))
    values: Floats = np.where(varies, crossed / size, np.nan)
    return values


def novelty(matrix: Floats, half_width: int) -> Floats:
    """Checkerboard novelty: how much the bins before each bin differ from those after it, (S, S) -> (S,), at least 0.

    Args:
        matrix: Self-similarity, (S, S).
        half_width: Half the width of the tapered checkerboard kernel, in bins; beyond the track's ends similarity
            is 0.
    """
    size = min(half_width, max(1, len(matrix) // 2))
    offsets = np.arange(-size, size) + 0.5
    side = np.sign(offsets) * np.exp(-2 * (offsets / size) ** 2)
    kernel = np.outer(side, side)
    padded = np.pad(matrix, size)
    blocks = np.lib.stride_tricks.sliding_window_view(padded, (2 * size, 2 * size))  # a view: nothing is copied
    diagonal = blocks[np.arange(len(matrix)), np.arange(len(matrix))]  # block k lies around the start of bin k
    scores: Floats = np.einsum("kij,ij->k", diagonal, kernel) / np.abs(kernel).sum()
    return np.maximum(scores, 0.0)


def _standardised(ranks: Floats) -> Floats:
    centred = ranks - ranks.mean()
    # Not `np.dot`: threads of BLAS cost more than they save on vectors of this length.
    length = np.sqrt(np.einsum("i,i->", centred, centred))
    return centred / length if length > 0 else np.full(len(ranks), np.nan)


def _kernel(features: Floats) -> Floats:
    """Inner products of all pairs of bins, (S, D) -> (S, S), features scaled to a variance of 1, the diagonal 0."""
    centred = features - features.mean(axis=0)
    scale = np.sqrt(np.mean(centred**2) * centred.shape[1])
    largest = np.abs(features).max(initial=0.0)
    kernel: Floats = np.zeros((len(features),) * 2)
    if scale > 1e-6 * largest:  # below that the features differ by rounding only
        kernel = (centred / scale) @ (centred / scale).T
    np.fill_diagonal(kernel, 0.0)
    return kernel


def _hsic(first: Floats, second: Floats) -> float:
    """Unbiased HSIC of two kernels whose diagonals are 0, (S, S) each; equation 5 of Song et al."""
    number = len(first)
    sums = first.sum(axis=0), second.sum(axis=0)
    total = float(sums[0].sum() * sums[1].sum())
    value = float(np.einsum("ij,ij->", first, second)) + total / ((number - 1) * (number - 2))
    return (value - 2 * float(sums[0] @ sums[1]) / (number - 2)) / (number * (number - 3))
