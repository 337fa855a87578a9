"""Closed-form probes against scikit-learn, and where a score is undefined."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.metrics import average_precision_score, balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from musictf.evaluation.closed_form import (
    accuracy,
    balanced_accuracy,
    knn_tags,
    mean_average_precision,
    retrieval_accuracy,
    ridge,
)

PENALTIES = np.array([10.0, 1e-2, 1e-5])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def data(rng):
    """60 examples off the origin whose five outputs depend on them, 20 others, and their outputs."""
    features = rng.normal(3.0, 2.0, (80, 7))
    targets = features @ rng.normal(size=(7, 5)) + rng.normal(size=(80, 5)) + 4.0
    return features[:60], targets[:60], features[60:], targets[60:]


def test_ridge_is_that_of_scikit_learn(data):
    features, targets, others, _ = data
    estimates = ridge(features, targets, others, PENALTIES)
    assert estimates.shape == (3, 20, 5)
    for estimate, penalty in zip(estimates, PENALTIES, strict=True):
        oracle = Ridge(alpha=60 * penalty).fit(features, targets)
        np.testing.assert_allclose(estimate, oracle.predict(others), rtol=0, atol=1e-9)


def test_the_highest_output_is_the_class_of_a_ridge_classifier(data):
    features, targets, others, other_targets = data
    classes = targets.argmax(axis=1)
    (estimate,) = ridge(features, np.eye(5)[classes], others, PENALTIES[1:2])
    oracle = RidgeClassifier(alpha=60 * PENALTIES[1]).fit(features, classes)
    np.testing.assert_array_equal(estimate.argmax(axis=1), oracle.predict(others))
    expected = oracle.score(others, other_targets.argmax(axis=1))
    assert accuracy(estimate, np.eye(5)[other_targets.argmax(axis=1)]) == pytest.approx(expected)
    assert 0.3 < expected < 1


def test_features_that_say_nothing_give_the_mean(data):
    _, targets, _, _ = data
    estimates = ridge(np.ones((60, 4)), targets, np.ones((2, 4)), PENALTIES)
    np.testing.assert_allclose(estimates, np.broadcast_to(targets.mean(axis=0), (3, 2, 5)))


def test_average_precision_is_that_of_scikit_learn(rng):
    targets = rng.random((50, 4))
    targets[:, 3] = 0.2  # nobody has it: it cannot be scored
    estimates = (targets + rng.normal(size=(50, 4))).round(1)  # some are equal
    expected = np.mean([average_precision_score(targets[:, k] > 0.5, estimates[:, k]) for k in range(3)])
    assert mean_average_precision(estimates, targets) == pytest.approx(expected)
    assert np.isnan(mean_average_precision(estimates[:, 3:], targets[:, 3:]))


@pytest.mark.parametrize("neighbours", [1, 4, 5])
def test_the_votes_are_those_of_scikit_learn(rng, neighbours):
    embeddings = rng.normal(size=(90, 3)) * rng.uniform(0.1, 10, (90, 1))  # lengths must not matter
    truth = (embeddings[:, :2] / np.linalg.norm(embeddings, axis=1, keepdims=True) > 0.1).astype(float)
    oracle = KNeighborsClassifier(neighbours, metric="cosine").fit(embeddings[:60], truth[:60])
    assigned = knn_tags(embeddings[:60], truth[:60], embeddings[60:], neighbours)
    np.testing.assert_array_equal(assigned, oracle.predict(embeddings[60:]) > 0.5)
    expected = [balanced_accuracy_score(truth[60:, k] > 0.5, assigned[:, k]) for k in range(2)]
    assert balanced_accuracy(assigned, truth[60:] > 0.5) == pytest.approx(np.mean(expected))
    assert 0.8 < np.mean(expected) < 1


def test_more_neighbours_than_there_are_all_vote(rng):
    truth = np.array([[1.0], [1.0], [0.0]])
    assert knn_tags(rng.normal(size=(3, 2)), truth, rng.normal(size=(4, 2)), 10).all()


def test_a_tag_that_all_or_none_have_leaves_the_mean():
    truth = np.array([[True, True, False], [False, True, False]])
    assert balanced_accuracy(truth, truth) == 1
    assert balanced_accuracy(~truth, truth) == 0
    assert np.isnan(balanced_accuracy(truth[:, 1:], truth[:, 1:]))


def test_retrieval_finds_the_nearest_other_by_direction():
    angles = np.deg2rad([0, 10, 40, 45, 90, 180])
    embeddings = np.array([1, 9, 1, 9, 1, 1])[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
    owner = np.array([7, 7, 3, 5, 5, 2])
    # Of those with a partner, 0, 10 and 90 degrees find it; 45 is nearest to 40, of another owner.
    assert retrieval_accuracy(embeddings, owner) == pytest.approx(3 / 4)


def test_nothing_retrieves_itself_even_where_all_others_point_away():
    angles = np.deg2rad([0, 180, 100, 260])
    assert retrieval_accuracy(np.column_stack([np.cos(angles), np.sin(angles)]), np.array([1, 1, 2, 2])) == 0


def test_retrieval_without_a_choice_is_undefined(rng):
    assert np.isnan(retrieval_accuracy(rng.normal(size=(3, 2)), np.array([0, 1, 2])))
    assert np.isnan(retrieval_accuracy(rng.normal(size=(3, 2)), np.array([1, 1, 1])))
    assert np.isnan(accuracy(np.empty((0, 3)), np.empty((0, 3))))
