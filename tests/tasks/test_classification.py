"""Classification against scikit-learn: classes that one side lacks, and resampled tracks."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from musictf.errors import InputError
from musictf.tasks.base import MASKED
from musictf.tasks.classification import ClassificationTask

CLASSES = ["a", "b", "c", "d"]


@pytest.fixture
def task():
    made = ClassificationTask()
    made.prepare(CLASSES)
    return made


def answers(labels):
    """Probabilities that are highest for the given labels."""
    return [np.eye(len(CLASSES))[CLASSES.index(label)] * 0.6 + 0.1 for label in labels]


def random_split(seed, num_tracks=40, classes=CLASSES):
    generator = np.random.default_rng(seed)
    references = [str(label) for label in generator.choice(classes, num_tracks)]
    estimates = [str(label) for label in generator.choice(CLASSES, num_tracks)]
    same = generator.random(num_tracks) < 0.5
    return references, [r if s and r in CLASSES else e for r, e, s in zip(references, estimates, same, strict=True)]


@pytest.mark.parametrize(
    "classes",
    [CLASSES, ["a", "b"], [*CLASSES, "0 unseen"], ["0 unseen"]],
    ids=["all", "absent", "unseen", "only unseen"],
)
def test_scores_are_those_of_scikit_learn(task, classes):
    references, estimates = random_split(0, classes=classes)
    scores = task.score(references, answers(estimates))
    assert scores.corpus["accuracy"] == pytest.approx(accuracy_score(references, estimates))
    assert scores.corpus["macro_f1"] == pytest.approx(f1_score(references, estimates, average="macro", zero_division=0))
    assert scores.per_track["accuracy"].tolist() == [float(r == e) for r, e in zip(references, estimates, strict=True)]
    assert "macro_f1" not in scores.per_track


def test_a_class_that_occurs_nowhere_does_not_count(task):
    scores = task.score(["a", "b"], answers(["a", "b"]))
    assert scores.corpus == {"accuracy": 1.0, "macro_f1": 1.0}


def test_a_class_absent_from_training_is_wrong_and_counted_and_never_dropped(task):
    scores = task.score(["a", "new", "new", "other"], answers(["a", "b", "a", "c"]))
    assert scores.corpus["accuracy"] == 0.25
    assert scores.details == {"classes": 4, "unseen": 3}
    details = task.details(["a", "new", "new", "other"], answers(["a", "b", "a", "c"]))
    assert details["unseen_classes"] == ["new", "other"]
    assert details["by_class"]["new"] == {"tracks": 2, "precision": None, "recall": 0.0, "f1": 0.0}
    assert np.sum(details["confusion"]["counts"]) == 4
    assert task.encode("new", np.empty(0)) == MASKED
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    alone = torch.nn.functional.cross_entropy(logits[:1], torch.tensor([2]))
    torch.testing.assert_close(task.loss(logits, torch.tensor([2, MASKED, MASKED])), alone)


def test_details_are_those_of_scikit_learn(task):
    references, estimates = random_split(1, classes=["a", "b", "c"])
    details = task.details(references, answers(estimates))
    labels = details["confusion"]["labels"]
    assert labels == CLASSES
    assert details["confusion"]["counts"] == confusion_matrix(references, estimates, labels=labels).tolist()
    columns = precision_recall_fscore_support(references, estimates, labels=labels, zero_division=np.nan)
    for k, name in enumerate(labels):
        row = details["by_class"][name]
        assert row["tracks"] == columns[3][k]
        for key, column in zip(("precision", "recall", "f1"), columns, strict=False):
            assert row[key] == (None if np.isnan(column[k]) else pytest.approx(column[k])), (name, key)
    assert details["by_class"]["d"]["recall"] is None


def test_counting_tracks_is_repeating_them(task):
    references, estimates = random_split(2, num_tracks=12, classes=[*CLASSES, "0 unseen"])
    counts = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), size=50).astype(float)
    resampled = task.resample(references, answers(estimates), counts)
    assert set(resampled) == {"macro_f1"}
    for value, count in zip(resampled["macro_f1"], counts, strict=True):
        drawn = np.repeat(np.arange(12), count.astype(int))
        truth, resampled_estimates = [references[k] for k in drawn], [estimates[k] for k in drawn]
        assert value == pytest.approx(f1_score(truth, resampled_estimates, average="macro", zero_division=0))


def test_a_track_is_the_mean_of_the_probabilities_of_its_excerpts_not_of_their_logits(task):
    logits = np.array([[40.0, 0, 0, 0], [0, 8.0, 0, 0], [0, 8.0, 0, 0]], dtype=np.float32)
    estimate = task.decode(logits, np.arange(3), 12.0, {"name": "mean_probability"})
    np.testing.assert_allclose(estimate, softmax(logits.astype(float), axis=1).mean(axis=0), rtol=1e-12)
    assert estimate.argmax() == 1 != logits.mean(axis=0).argmax()


def test_of_equal_probabilities_the_first_class_is_the_estimate(task):
    same = [np.full(4, 0.25)] * 3
    assert task.score(["a", "b", "a"], same).per_track["accuracy"].tolist() == [1, 0, 1]


def test_the_label_is_the_annotation_and_the_name():
    task = ClassificationTask(label="instrument")
    assert (task.display_name, task.annotation_name) == ("instrument", "instrument")
    assert ClassificationTask().display_name == "genre"


def test_the_vocabulary_is_the_sorted_classes_of_training():
    task = ClassificationTask()
    task.prepare(["rock", " jazz ", "rock", "blues"])
    assert task.vocabulary == ["blues", "jazz", "rock"]
    assert task.encode("jazz", np.empty(0)) == 1
    assert task.num_outputs == 3


@pytest.mark.parametrize("label", [["rock"], 3, None, " "])
def test_a_label_that_is_no_text_is_refused(label):
    with pytest.raises(InputError, match="task=genre: .* is not a class") as error:
        ClassificationTask().prepare(["rock", label])
    assert repr(label) in str(error.value)


def test_a_single_class_is_refused():
    with pytest.raises(InputError, match=r"task=instrument: the training tracks have only 1 class \(piano\)"):
        ClassificationTask(label="instrument").prepare(["piano", "piano"])


def test_the_majority_estimate_is_the_most_frequent_class(task):
    estimate = task.majority_estimate(["b", "c", "b", "a"], 9.0)
    np.testing.assert_allclose(estimate, [0.25, 0.5, 0.25, 0])
    assert task.score(["b", "a"], [estimate] * 2).corpus["accuracy"] == 0.5
