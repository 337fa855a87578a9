"""Keys: 24 classes in any spelling, and scores equal to those of mir_eval."""

import mir_eval
import numpy as np
import pytest
import torch

from musictf.errors import InputError
from musictf.tasks.key import KEYS, RELATIONS, KeyTask, key_class, key_score


@pytest.fixture
def task():
    return KeyTask()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("C major", "C major"),
        ("c Major", "C major"),
        ("a minor", "A minor"),
        ("Db minor", "C# minor"),
        ("F# major", "F# major"),
        ("Gb major", "F# major"),
        ("bb minor", "A# minor"),
        ("b minor", "B minor"),
        ("Cb major", "B major"),
        ("E# minor", "F minor"),
        ("E♭ major", "D# major"),
        ("Fbb:min", "D# minor"),
        ("Eb:maj", "D# major"),
        (" G  minor ", "G minor"),
    ],
)
def test_all_spellings_of_a_key_are_one_class(text, expected):
    assert KEYS[key_class(text)] == expected


def test_the_24_keys_are_24_classes_that_mir_eval_can_read():
    assert [key_class(key) for key in KEYS] == list(range(24))
    for key in KEYS:
        assert mir_eval.key.split_key_string(key) == (key_class(key) % 12, "major" if key_class(key) < 12 else "minor")


@pytest.mark.parametrize("text", ["", "C", "X", "H major", "C dorian", "Cmajor", "C major minor", "12", None, 3, ["C"]])
def test_text_that_is_no_key_is_refused(task, text):
    for ask in (lambda: task.encode(text, np.empty(0)), lambda: task.score(["C major", text], ["C major"] * 2)):
        with pytest.raises(InputError, match="is not one of the 24 keys") as error:
            ask()
        assert repr(text) in str(error.value)
        assert "\n" not in str(error.value)


def test_scores_are_those_of_mir_eval_for_every_pair(task):
    for reference in KEYS:
        scores = task.score([reference] * 24, KEYS).per_track
        assert scores["weighted"].tolist() == [mir_eval.key.weighted_score(reference, key) for key in KEYS]
        assert scores["accuracy"].tolist() == [float(reference == key) for key in KEYS]
    assert key_score("Db major", "C# major") == 1


@pytest.mark.parametrize(
    ("estimate", "relation", "value"),
    [
        ("C major", "exact", 1.0),
        ("G major", "fifth", 0.5),
        ("F major", "other", 0.0),  # a fifth below is no fifth above
        ("A minor", "relative", 0.3),
        ("C minor", "parallel", 0.2),
        ("G minor", "other", 0.0),
    ],
)
def test_the_score_of_an_error_depends_on_its_relation(task, estimate, relation, value):
    assert task.score(["C major"], [estimate]).corpus["weighted"] == value
    relations = task.details(["C major"], [estimate])["relations"]
    assert {name for name, share in relations.items() if share} == {relation}
    assert RELATIONS[value] in ("other", relation)


def test_details_count_by_distance_and_mode_whatever_the_tonic(task):
    references = ["C major", "D major", "E minor", "A minor"]
    estimates = ["G major", "A major", "G major", "A minor"]
    details = task.details(references, estimates)
    assert details["relations"] == {"exact": 0.25, "fifth": 0.5, "relative": 0.25, "parallel": 0.0, "other": 0.0}
    confusion = details["confusion"]
    assert confusion["major"]["major"][7] == 2
    assert confusion["minor"]["major"][3] == 1
    assert confusion["minor"]["minor"][0] == 1
    assert sum(sum(cell) for row in confusion.values() for cell in row.values()) == 4


def test_a_track_is_the_mean_of_the_probabilities_of_its_excerpts_not_of_their_logits(task):
    logits = np.zeros((3, 24), dtype=np.float32)
    logits[0, 5] = 40.0  # one excerpt with a large logit, two for another key
    logits[1:, 9] = 8.0
    assert logits.mean(axis=0).argmax() == 5
    assert task.decode(logits, np.arange(3), 12.0, {"name": "mean_probability"}) == KEYS[9]


def test_the_loss_is_torchs_cross_entropy(task):
    logits = torch.randn(9, 24, generator=torch.Generator().manual_seed(0))
    targets = torch.stack([task.encode(key, np.empty(0)) for key in KEYS[:18:2]])
    torch.testing.assert_close(task.loss(logits, targets), torch.nn.functional.cross_entropy(logits, targets))


def test_the_majority_estimate_is_the_most_frequent_key_of_training(task):
    assert task.majority_estimate(["C minor", "Db major", "C# major", "A major"], 9.0) == "C# major"
    assert task.majority_estimate(["D minor", "G major"], 9.0) == "G major"  # of equals, the first of the vocabulary


@pytest.mark.parametrize("tonic", [0, 1, 6, 10])
@pytest.mark.parametrize("mode", ["major", "minor"])
def test_templates_recognise_a_scale_with_its_triad(task, tonic, mode):
    rate = 16000
    steps = {"major": (0, 4, 7, 2, 4, 5, 7, 9, 11, 0), "minor": (0, 3, 7, 2, 3, 5, 7, 8, 10, 0)}[mode]
    times = np.arange(rate // 4) / rate
    tones = [np.sin(2 * np.pi * 220 * 2 ** ((tonic + step - 9) / 12) * times) for step in steps]
    assert key_class(task.classical_estimate(np.concatenate(tones).astype(np.float32) / 4, rate)) == key_class(
        f"{KEYS[tonic].split()[0]} {mode}"
    )


def test_estimates_are_written_as_mir_eval_reads_them(task, tmp_path):
    task.write("C# minor", tmp_path / "t.key")
    assert mir_eval.io.load_key(str(tmp_path / "t.key")) == "C# minor"
