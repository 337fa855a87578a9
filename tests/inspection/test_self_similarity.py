"""Matrices, what correlates them, and novelty, against definitions from outside."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from musictf.inspection.self_similarity import (
    LayerMatrices,
    ReferenceMatrix,
    alignments,
    bin_width,
    binned,
    cosine_matrix,
    novelty,
    pairs_apart,
    rank_correlations,
)


def smooth(seed, number=120, dim=6, width=9):
    noise = np.random.default_rng(seed).standard_normal((number + width - 1, dim))
    return np.array([noise[k : k + width].mean(axis=0) for k in range(number)])


def unbiased_hsic(first, second):
    """Equation 5 of Song et al. (2012), with matrices written out."""
    m, one = len(first), np.ones(len(first))
    k, l = first @ first.T, second @ second.T  # noqa: E741
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    value = (
        np.trace(k @ l) + (one @ k @ one) * (one @ l @ one) / ((m - 1) * (m - 2)) - 2 / (m - 2) * (one @ k @ l @ one)
    )
    return value / (m * (m - 3))


def plain_cka(x, y):
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return unbiased_hsic(x, y) / np.sqrt(unbiased_hsic(x, x) * unbiased_hsic(y, y))


def order(number):
    return [np.arange(number)]


def held(features):
    return ReferenceMatrix(cosine_matrix(features), features)


def test_bins_are_means_and_the_last_holds_what_is_left():
    values = np.random.default_rng(0).random((23, 3, 2))
    found = binned(values, 5)
    assert found.shape == (5, 3, 2)
    for k in range(5):
        np.testing.assert_allclose(found[k], values[5 * k : 5 * k + 5].mean(axis=0))
    times = np.arange(23) * 0.032
    np.testing.assert_allclose(binned(times, 5)[-1], np.mean([20, 21, 22]) * 0.032)
    np.testing.assert_array_equal(binned(values, 1), values)


def test_bins_have_the_requested_length_unless_there_were_too_many():
    assert bin_width(1000, 0.032, 0.25, 768) == 8
    assert bin_width(10_000, 0.032, 0.25, 768) == 14
    assert -(-10_000 // 14) <= 768 < -(-10_000 // 13)
    assert bin_width(100, 0.032, 0.001, 768) == 1


def test_cosines_are_those_of_differences_from_the_mean():
    features = np.random.default_rng(1).standard_normal((20, 5))
    matrix = cosine_matrix(features)
    centred = features - features.mean(axis=0)
    for i, j in ((0, 0), (3, 7), (19, 2)):
        expected = centred[i] @ centred[j] / np.linalg.norm(centred[i]) / np.linalg.norm(centred[j])
        assert matrix[i, j] == pytest.approx(expected)
    np.testing.assert_allclose(cosine_matrix(features + 100.0), matrix, atol=1e-9)
    np.testing.assert_allclose(cosine_matrix(3 * features), matrix, atol=1e-9)
    assert (np.abs(matrix) <= 1 + 1e-12).all()


def test_what_does_not_vary_is_similar_to_nothing():
    assert (cosine_matrix(np.full((6, 4), 0.1)) == 0).all()
    features = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    assert (cosine_matrix(features)[2] == 0).all()


@pytest.mark.parametrize("gap", [0, 1, 5, 119, 300])
def test_pairs_are_those_far_enough_apart(gap):
    expected = {(i, j) for i in range(120) for j in range(i + 1, 120) if j - i >= gap}
    assert set(zip(*map(np.ndarray.tolist, pairs_apart(120, gap)), strict=True)) == expected


@pytest.mark.parametrize("levels", [None, 3])
def test_in_true_order_the_value_is_spearmans(levels):
    layers = np.array([smooth(k) for k in range(3)])
    other = smooth(9) if levels is None else np.eye(levels)[np.random.default_rng(9).integers(0, levels, 120)]
    found = rank_correlations(LayerMatrices(layers, 16), held(other), order(120))
    first, second = np.triu_indices(120, 16)
    expected = [spearmanr(cosine_matrix(x)[first, second], cosine_matrix(other)[first, second])[0] for x in layers]
    np.testing.assert_allclose(found[0], expected, atol=1e-10)


def test_near_the_diagonal_nothing_counts():
    features = smooth(3)
    matrix = cosine_matrix(features)
    near = np.abs(np.subtract.outer(np.arange(120), np.arange(120))) < 16
    spoiled = np.where(near, 50.0, matrix)
    layered = LayerMatrices(features[None], 16)
    found = rank_correlations(layered, ReferenceMatrix(spoiled, features), order(120))
    assert found[0, 0] == pytest.approx(1.0)
    assert (
        rank_correlations(LayerMatrices(features[None], 15), ReferenceMatrix(spoiled, features), order(120))[0, 0]
        < 0.99
    )


def test_another_order_moves_rows_and_columns():
    features, turn = smooth(4), np.roll(np.arange(120), 40)
    layered, moved = LayerMatrices(features[None], 8), held(features[turn])
    assert rank_correlations(layered, moved, [np.argsort(turn)])[0, 0] > 0.99
    assert rank_correlations(layered, moved, order(120))[0, 0] < 0.5
    assert alignments(layered, moved, [np.argsort(turn)])[0, 0] == pytest.approx(1.0)


def test_alignment_is_that_of_the_paper():
    layers = np.array([smooth(k) for k in range(2)])
    other = layers[0] @ np.random.default_rng(0).standard_normal((6, 4)) + smooth(7, dim=4)
    found = alignments(LayerMatrices(layers, 4), held(other), order(120))
    np.testing.assert_allclose(found[0], [plain_cka(x, other) for x in layers], atol=1e-10)


def test_alignment_sees_neither_rotation_nor_scale_nor_place():
    features = np.random.default_rng(2).standard_normal((60, 6))
    turned = np.linalg.qr(np.random.default_rng(3).standard_normal((6, 6)))[0]
    found = alignments(LayerMatrices(features[None], 1), held(7.0 * features @ turned + 3.0), order(60))
    assert found[0, 0] == pytest.approx(1.0)


def test_unrelated_features_align_to_nothing_however_many_there_are():
    values = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        layers = LayerMatrices(rng.standard_normal((1, 30, 200)), 1)
        values.append(alignments(layers, held(rng.standard_normal((30, 150))), order(30))[0, 0])
    assert abs(np.mean(values)) < 0.03


def test_moved_bins_of_smooth_series_correlate_with_nothing_and_align_by_smoothness_alone():
    ranks, cka = [], []
    for seed in range(20):
        features = smooth(seed)
        orders = [np.roll(np.arange(120), turn) for turn in (30, 50, 70)]
        orders += [np.random.default_rng(seed).permutation(120) for _ in range(3)]
        layered, other = LayerMatrices(features[None], 10), held(features)
        ranks.append(rank_correlations(layered, other, orders))
        cka.append(alignments(layered, other, orders))
    assert np.abs(np.mean(ranks, axis=0)).max() < 0.06
    shifted, mixed = np.mean(cka, axis=0)[:3], np.mean(cka, axis=0)[3:]
    assert np.abs(mixed).max() < 0.06
    assert (shifted > 0.1).all()  # smooth series align by themselves: that is what the shifted null is there to say


def test_what_does_not_vary_has_no_value():
    layers = np.array([smooth(0), np.full((120, 6), 0.3)])
    flat = np.full((120, 4), 2.0)
    for compare in (rank_correlations, alignments):
        assert np.isnan(compare(LayerMatrices(layers, 8), held(smooth(1)), order(120))[0]).tolist() == [False, True]
        assert np.isnan(compare(LayerMatrices(layers, 8), held(flat), order(120))).all()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_too_few_bins_have_no_value(number):
    layered, other = LayerMatrices(smooth(0, number)[None], 2), held(smooth(1, number))
    assert np.isnan(alignments(layered, other, order(number))).all()
    assert np.isnan(rank_correlations(layered, other, order(number))).all()


@pytest.mark.parametrize("place", [20, 37, 60])
def test_novelty_is_highest_where_one_block_gives_way_to_another(place):
    features = np.repeat([[1.0, 0.0], [0.0, 1.0]], [place, 80 - place], axis=0)
    scores = novelty(cosine_matrix(features), 8)
    assert scores.shape == (80,)
    assert (scores >= 0).all()
    assert scores.argmax() == place  # the first bin of the new block
    assert scores[place] == pytest.approx(1.0)


def test_a_kernel_wider_than_the_track_is_cut_to_it():
    features = np.repeat([[1.0, 0.0], [0.0, 1.0]], [5, 5], axis=0)
    assert novelty(cosine_matrix(features), 500).argmax() == 5
    assert novelty(np.ones((1, 1)), 4).shape == (1,)
