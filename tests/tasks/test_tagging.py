"""Tagging against scikit-learn: absent classes, logits that look like probabilities, and resampled tracks."""

import csv

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.functional.classification import multilabel_auroc, multilabel_average_precision

from musictf.errors import InputError
from musictf.tasks.tagging import TaggingTask, weighted_ranking

TAGS = ["a", "b", "c", "d"]


@pytest.fixture
def task():
    made = TaggingTask()
    made.prepare([[tag] for tag in TAGS])
    return made


def random_split(seed, num_tracks=40, ties=False):
    generator = np.random.default_rng(seed)
    truth = (generator.random((num_tracks, len(TAGS))) < 0.3).astype(float)
    truth[0], truth[1] = 0, 1  # every class has both
    probabilities = generator.random((num_tracks, len(TAGS)))
    return truth, probabilities.round(1) if ties else probabilities


def tags_of(truth):
    return [[tag for tag, present in zip(TAGS, row, strict=True) if present] for row in truth]


def macro(truth, probabilities, measure):
    return np.mean([measure(truth[:, c], probabilities[:, c]) for c in range(truth.shape[1])])


@pytest.mark.parametrize("ties", [False, True])
def test_scores_are_those_of_scikit_learn_and_torchmetrics(task, ties):
    truth, probabilities = random_split(0, ties=ties)
    scores = task.score(tags_of(truth), list(probabilities)).corpus
    assert scores["map"] == pytest.approx(macro(truth, probabilities, average_precision_score), abs=1e-6)
    assert scores["roc_auc"] == pytest.approx(macro(truth, probabilities, roc_auc_score), abs=1e-6)
    tensors = torch.from_numpy(probabilities), torch.from_numpy(truth).long()
    assert scores["map"] == pytest.approx(float(multilabel_average_precision(*tensors, len(TAGS))), abs=1e-6)
    assert scores["roc_auc"] == pytest.approx(float(multilabel_auroc(*tensors, len(TAGS))), abs=1e-6)


@pytest.mark.parametrize("value", [0, 1], ids=["without positives", "without negatives"])
def test_a_class_of_one_kind_leaves_the_mean_and_is_counted(task, value):
    truth, probabilities = random_split(1)
    truth[:, 2] = value
    scores = task.score(tags_of(truth), list(probabilities))
    kept = [0, 1, 3]
    assert scores.corpus["map"] == pytest.approx(macro(truth[:, kept], probabilities[:, kept], average_precision_score))
    assert scores.corpus["roc_auc"] == pytest.approx(macro(truth[:, kept], probabilities[:, kept], roc_auc_score))
    assert scores.details == {"classes_scored": 3, "classes": 4, "scored": ["a", "b", "d"]}


@pytest.mark.filterwarnings("ignore:No positive samples:UserWarning")
def test_an_absent_class_is_not_averaged_in_as_0_as_torchmetrics_does(task):
    truth, probabilities = random_split(1)
    truth[:, 2] = 0
    theirs = float(multilabel_auroc(torch.from_numpy(probabilities), torch.from_numpy(truth).long(), len(TAGS)))
    ours = task.score(tags_of(truth), list(probabilities)).corpus["roc_auc"]
    assert theirs == pytest.approx(0.75 * ours, abs=1e-6)


def test_a_split_without_any_class_to_score_is_an_error(task):
    with pytest.raises(InputError, match="nothing to score"):
        task.score([["a"], ["a"]], [np.full(4, 0.5)] * 2)


def test_logits_between_0_and_1_are_logits_all_the_same(task):
    logits = np.random.default_rng(2).uniform(0, 1, (5, 4)).astype(np.float32)
    np.testing.assert_allclose(task.decode(logits, np.arange(5), 20.0, {}), expit(logits).mean(axis=0), rtol=1e-6)


def test_a_track_is_the_mean_of_the_probabilities_of_its_excerpts_not_of_their_logits(task):
    logits = np.array([[-30.0, 0, 2, 8], [2.0, 0, 2, -8], [2.0, 1, 2, 0]], dtype=np.float32)
    estimate = task.decode(logits, np.arange(3), 12.0, {"name": "mean_probability"})
    np.testing.assert_allclose(estimate, expit(logits.astype(float)).mean(axis=0), rtol=1e-12)
    assert abs(estimate[0] - expit(logits[:, 0].mean())) > 0.5


def test_probabilities_near_1_keep_their_order(task):
    first, second = (task.decode(np.full((2, 4), value, np.float32), np.arange(2), 8.0, {}) for value in (20.0, 21.0))
    assert (second > first).all()


@pytest.mark.parametrize("ties", [False, True])
def test_counting_tracks_is_repeating_them(ties):
    truth, probabilities = random_split(3, num_tracks=25, ties=ties)
    counts = np.random.default_rng(4).multinomial(25, np.full(25, 1 / 25), size=40).astype(float)
    precision, area = weighted_ranking(truth, probabilities, counts)
    for resample, count in enumerate(counts):
        drawn = np.repeat(np.arange(25), count.astype(int))
        for column in range(truth.shape[1]):
            labels, values = truth[drawn, column], probabilities[drawn, column]
            if labels.min() == labels.max():
                assert np.isnan([precision[resample, column], area[resample, column]]).all()
                continue
            assert precision[resample, column] == pytest.approx(average_precision_score(labels, values))
            assert area[resample, column] == pytest.approx(roc_auc_score(labels, values))


def test_a_resample_that_lost_a_class_is_the_mean_of_the_others(task):
    truth = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [0, 1, 0, 1]], dtype=float)
    truth[:, 3] = [1, 0, 0]
    probabilities = np.random.default_rng(5).random((3, 4))
    counts = np.array([[1.0, 2.0, 0.0], [0.0, 2.0, 1.0]])
    resampled = task.resample(tags_of(truth), list(probabilities), counts)
    drawn = [0, 1, 1]
    assert resampled["map"][0] == pytest.approx(macro(truth[drawn], probabilities[drawn], average_precision_score))
    assert np.isnan(resampled["map"][1])  # tracks 1 and 2 differ in no class


def test_the_vocabulary_is_the_sorted_tags_of_the_training_split_and_nothing_else(task):
    made = TaggingTask()
    made.prepare([["b", "a"], [], ["c", "b"]])
    assert made.vocabulary == ["a", "b", "c"]
    assert made.encode(["c", "never seen"], np.empty(0)).tolist() == [0.0, 0.0, 1.0]
    assert made.num_outputs == 3


def test_training_tracks_without_a_single_tag_are_an_error():
    with pytest.raises(InputError, match="no training track has a tag"):
        TaggingTask().prepare([[], []])


def test_the_majority_estimate_is_the_frequency_of_each_tag_and_ranks_by_chance(task):
    estimate = task.majority_estimate([["a"], ["a", "b"], [], ["a"]], seconds=9.0)
    np.testing.assert_allclose(estimate, [0.75, 0.25, 0, 0])
    truth, _ = random_split(6)
    scores = task.score(tags_of(truth), [estimate] * len(truth)).corpus
    assert scores["roc_auc"] == pytest.approx(0.5)
    assert scores["map"] == pytest.approx(truth.mean())


def test_tags_with_commas_and_quotes_survive_the_file(tmp_path):
    made = TaggingTask()
    made.prepare([["rock, hard", 'the "blues"']])
    made.write(np.array([0.25, 0.5]), tmp_path / "t.csv")
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["tag"], float(row["probability"])) for row in rows] == [("rock, hard", 0.25), ('the "blues"', 0.5)]


def test_details_are_those_of_scikit_learn_and_name_what_could_not_be_scored(task):
    truth, probabilities = random_split(7)
    truth[:, 2] = 0
    references = tags_of(truth)
    references[0] = [*references[0], "never trained"]
    references[3] = [*references[3], "never trained", "never trained"]
    details = task.details(references, list(probabilities))
    assert details["unseen_tags"] == {"never trained": 2}
    assert details["by_class"]["c"] == {"positives": 0, "map": None, "roc_auc": None}
    for column, tag in ((0, "a"), (1, "b"), (3, "d")):
        row = details["by_class"][tag]
        assert row["positives"] == truth[:, column].sum()
        assert row["map"] == pytest.approx(average_precision_score(truth[:, column], probabilities[:, column]))
        assert row["roc_auc"] == pytest.approx(roc_auc_score(truth[:, column], probabilities[:, column]))


def test_tracks_with_equal_probabilities_share_a_rank(task):
    truth, _ = random_split(8)
    scores = task.score(tags_of(truth), [np.full(4, 0.3)] * len(truth)).corpus
    assert scores["roc_auc"] == pytest.approx(0.5)
    assert scores["map"] == pytest.approx(truth.mean(axis=0).mean())


def test_a_single_tag_that_can_be_scored_is_scored():
    task = TaggingTask()
    task.prepare([["a", "b"], ["b"]])
    generator = np.random.default_rng(0)
    references, estimates = [["a", "b"] if k % 3 else ["b"] for k in range(20)], list(generator.random((20, 2)))
    scores = task.score(references, estimates)
    truth, probabilities = np.array(["a" in tags for tags in references]), np.array(estimates)[:, 0]
    assert scores.details["classes_scored"] == 1
    assert scores.corpus["map"] == pytest.approx(average_precision_score(truth, probabilities))
    assert scores.corpus["roc_auc"] == pytest.approx(roc_auc_score(truth, probabilities))
