"""Self-similarity matrices of a track, how two of them compare, and where they say that something new begins.

Shapes:  N tokens   S bins of a track   D features

Features are averaged over bins of equal length, so that a matrix has a size that its track's length does not change
beyond a limit; bins keep their times. Cosines are taken after the mean over the track is removed: without that all
tokens look alike. Two matrices are compared without what lies near the diagonal, where everything is similar to its
neighbour.

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

_BLOCK = 4096  # rows that are read at once
_FLAT = 1e-9  # HSIC of features that vary by about 1 is of the order of 1


def bin_width(num_tokens: int, token_seconds: float, bin_seconds: float, limit: int) -> int:
    """Tokens in a bin: about ``bin_seconds`` long, longer where a track would have more than ``limit`` bins."""
    return max(1, round(bin_seconds / token_seconds), -(-num_tokens // limit))


def binned(values: npt.NDArray[np.floating], width: int) -> Floats:
    """Means over bins of ``width`` rows, (N, ...) -> (S, ...); the last bin holds what is left.

    Rows may be mapped from disk: they are read block by block.

    Example:
        >>> binned(np.array([1.0, 3.0, 5.0, 7.0, 9.0]), 2)
        array([2., 6., 9.])
    """
    size = width * max(1, _BLOCK // width)
    return np.concatenate([_block_means(values[first : first + size], width) for first in range(0, len(values), size)])


def cosine_matrix(features: Floats) -> Floats:
    """Cosine similarity of all bins after the mean is removed, (S, D) -> (S, S) in [-1, 1].

    A bin that does not differ from the mean is similar to nothing (0).
    """
    centred = features - features.mean(axis=0)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    # What rounding leaves of features that are all the same has no direction.
    is_there = length > 1e-6 * np.linalg.norm(features, axis=1, keepdims=True).max(initial=0.0)
    unit = np.where(is_there, centred / np.where(is_there, length, 1.0), 0.0)
    matrix: Floats = unit @ unit.T
    return matrix


def pairs_apart(number: int, gap: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pairs of bins that are at least ``gap`` bins apart, each once."""
    first, second = np.triu_indices(number, max(1, gap))
    return first, second


def standard_ranks(values: Floats) -> Floats:
    """Ranks with mean 0 and length 1, so that their product is Spearman's correlation; NaN where all are equal."""
    return _standardised(rankdata(values)) if len(values) else np.empty(0)


class Layered:
    """Layers of a track over some bins, prepared for comparisons.

    Args:
        layers: Features (L, S, D).
        gap: Pairs nearer than so many bins are left out of rank correlations.
    """

    def __init__(self, layers: Floats, gap: int) -> None:
        self.pairs = pairs_apart(layers.shape[1], gap)
        self.ranks = np.array([standard_ranks(cosine_matrix(layer)[self.pairs]) for layer in layers])  # (L, P)
        self._layers = layers

    @functools.cached_property
    def kernels(self) -> list[Floats]:
        """Products of all pairs of bins of each layer, for the alignment."""
        return [_kernel(layer) for layer in self._layers]

    @functools.cached_property
    def norms(self) -> Floats:
        """HSIC of each layer with itself, (L,)."""
        return np.array([_hsic(kernel, kernel) for kernel in self.kernels])


class Held:
    """What layers are held against, prepared: a matrix (S, S) for ranks and features (S, D) for the alignment."""

    def __init__(self, matrix: Floats, features: Floats) -> None:
        self.matrix = matrix
        self.ranks = rankdata(matrix).reshape(matrix.shape)
        self.kernel = _kernel(features)
        self.norm = _hsic(self.kernel, self.kernel) if len(matrix) > 3 else 0.0


def rank_correlations(layers: Layered, held: Held, orders: Sequence[Order]) -> Floats:
    """Spearman's correlation of layers with a matrix whose bins stand in some orders.

    In an ascending order the value is Spearman's exactly. In another one, ranks are those among all pairs of the
    matrix: taken anew for every order they would cost more than everything else, and differ by little.

    Args:
        layers: L of them.
        held: The matrix.
        orders: Bins of the matrix in another order each, (S,), R of them.

    Returns:
        (R, L); NaN where there is no pair, or a matrix says the same of all.
    """
    first, second = layers.pairs
    if len(first) < 2:
        return np.full((len(orders), len(layers.ranks)), np.nan)
    found = [
        standard_ranks(held.matrix[first, second])
        if _is_ascending(order)
        else _standardised(held.ranks[order[first], order[second]])
        for order in orders
    ]
    correlations: Floats = np.array(found) @ layers.ranks.T
    return correlations


def alignments(layers: Layered, held: Held, orders: Sequence[Order]) -> Floats:
    """Linear centred kernel alignment (CKA) of layers with features whose bins stand in some orders.

    With the unbiased HSIC: 0 on average for independent bins, however many features there are; 1 where one is a
    rotation or a scaling of the other. Smooth series with nothing in common lie above 0: the shifted null says how far.

    Args:
        layers: L of them.
        held: The features.
        orders: Bins of the features in another order each, (S,), R of them.

    Returns:
        (R, L); NaN where one does not vary, or there are fewer than four bins.
    """
    if len(held.kernel) < 4:
        return np.full((len(orders), len(layers.ranks)), np.nan)
    moved = (held.kernel[np.ix_(order, order)] for order in orders)
    crossed = np.array([[_hsic(kernel, other) for kernel in layers.kernels] for other in moved])
    is_there = (layers.norms > _FLAT) & (held.norm > _FLAT)
    size = np.sqrt(np.where(is_there, layers.norms * held.norm, 1.0))
    found: Floats = np.where(is_there, crossed / size, np.nan)
    return found


def novelty(matrix: Floats, half_width: int) -> Floats:
    """How much the past of each bin differs from its future, (S, S) -> (S,), never below 0.

    Args:
        matrix: Self-similarity.
        half_width: Of the checkerboard kernel, in bins; it is tapered, and beyond the track's ends nothing counts.
    """
    size = min(half_width, max(1, len(matrix) // 2))
    offsets = np.arange(-size, size) + 0.5
    side = np.sign(offsets) * np.exp(-2 * (offsets / size) ** 2)
    kernel = np.outer(side, side)
    padded = np.pad(matrix, size)
    blocks = np.lib.stride_tricks.sliding_window_view(padded, (2 * size, 2 * size))
    diagonal = blocks[np.arange(len(matrix)), np.arange(len(matrix))]  # block k lies around the start of bin k
    scores: Floats = np.einsum("kij,ij->k", diagonal, kernel) / np.abs(kernel).sum()
    return np.maximum(scores, 0.0)


def _block_means(values: npt.NDArray[np.floating], width: int) -> Floats:
    starts = np.arange(0, len(values), width)
    sums = np.add.reduceat(np.asarray(values, dtype=np.float64), starts, axis=0)
    means: Floats = sums / np.diff(np.append(starts, len(values))).reshape(-1, *[1] * (values.ndim - 1))
    return means


def _is_ascending(order: Order) -> bool:
    return bool((np.diff(order) > 0).all())


def _standardised(ranks: Floats) -> Floats:
    centred = ranks - ranks.mean()
    length = np.sqrt(np.einsum("i,i->", centred, centred))  # not by BLAS, whose threads cost more than they save here
    return centred / length if length > 0 else np.full(len(ranks), np.nan)


def _kernel(features: Floats) -> Floats:
    """Products of all pairs of bins, (S, S), features scaled to vary by about 1, the diagonal left out."""
    centred = features - features.mean(axis=0)
    scale = np.sqrt(np.mean(centred**2) * centred.shape[1])
    largest = np.abs(features).max(initial=0.0)
    kernel: Floats = np.zeros((len(features),) * 2)
    if scale > 1e-6 * largest:  # less is rounding
        kernel = (centred / scale) @ (centred / scale).T
    np.fill_diagonal(kernel, 0.0)
    return kernel


def _hsic(first: Floats, second: Floats) -> float:
    """Unbiased estimate from two kernels without their diagonals, (S, S) each; equation 5 of Song et al."""
    number = len(first)
    sums = first.sum(axis=0), second.sum(axis=0)
    total = float(sums[0].sum() * sums[1].sum())
    value = float(np.einsum("ij,ij->", first, second)) + total / ((number - 1) * (number - 2))
    return (value - 2 * float(sums[0] @ sums[1]) / (number - 2)) / (number * (number - 3))
