"""Chords: the vocabulary, intervals from tokens, and scores equal to those of mir_eval."""

import mir_eval
import numpy as np
import pytest
import torch

from musictf.annotations import Chords, write_chords
from musictf.tasks.chord import MASKED, NO_CHORD, VOCABULARY, ChordTask, chord_classes, merged_chords

COMPARISONS = ("root", "thirds", "triads", "majmin", "sevenths", "tetrads", "mirex")
RATES = [10, 15.625, 31.25, 50, 100]
ROOTS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


@pytest.fixture
def task():
    return ChordTask()


def one_hot(targets, strength=10.0):
    return (torch.nn.functional.one_hot(targets.clamp(min=0), len(VOCABULARY)) * strength).numpy()


def chord_scores(reference, estimate):
    """Scores of one track, without those that are undefined."""
    return {name: float(values[0]) for name, values in ChordTask().score([reference], [estimate]).per_track.items()}


def oracle(task, chords, times, seconds, name):
    return task.decode(one_hot(task.encode(chords, times)), times, seconds, {"name": name})


@pytest.mark.parametrize("quality", ["maj", "min"])
@pytest.mark.parametrize("root", range(12))
def test_each_of_the_24_triads_is_a_class_of_its_own(root, quality):
    (index,) = chord_classes([f"{ROOTS[root]}:{quality}"])
    assert index == (0 if quality == "maj" else 12) + root
    assert VOCABULARY[index] == f"{ROOTS[root]}:{quality}"


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("C", "C:maj"),
        ("Bb:maj", "A#:maj"),
        ("Cb:min", "B:min"),
        ("G:7", "G:maj"),
        ("G:maj7", "G:maj"),
        ("A:min7", "A:min"),
        ("A:minmaj7", "A:min"),
        ("F:9", "F:maj"),
        ("F:min9", "F:min"),
        ("D:maj6", "D:maj"),
        ("D:13", "D:maj"),
        ("C:maj/3", "C:maj"),
        ("C:maj/5", "C:maj"),
        ("E:min7/b3", "E:min"),
        ("C:7/b7", "C:maj"),
        ("C:maj(9)", "C:maj"),
        ("N", "N"),
    ],
)
def test_extended_chords_have_the_target_of_their_triad(label, expected):
    assert VOCABULARY[chord_classes([label])[0]] == expected


@pytest.mark.parametrize(
    "label", ["X", "C:sus4", "C:sus2", "C:dim", "C:aug", "C:dim7", "B:hdim7", "C:5", "C:1", "C:maj/2", "C:(1,3)"]
)
def test_labels_neither_major_nor_minor_are_masked_and_not_no_chord(label):
    assert chord_classes([label])[0] == MASKED != NO_CHORD


def test_a_label_trains_exactly_where_mir_eval_compares_it():
    labels = ["N", "X", *(f"E:{quality}" for quality in mir_eval.chord.QUALITIES if quality)]
    labels += ["E:maj(9)", "E:maj(2)", "E:7(#9)", "E:min(*5)", "E:(1,3,5)"]
    labels += [f"E:{quality}/{bass}" for quality in ("maj", "min", "7") for bass in ("3", "b3", "5", "2", "4", "b7")]
    for label, index in zip(labels, chord_classes(labels), strict=True):
        compared = mir_eval.chord.majmin([label], ["E:maj"])[0] >= 0
        assert compared == (index != MASKED), label
        if compared:
            assert mir_eval.chord.majmin([label], [VOCABULARY[index]])[0] == 1, label


def test_masked_tokens_and_tokens_outside_the_annotation_do_not_train(task):
    chords = Chords(np.array([[1.0, 2.0], [2.0, 3.0], [3.0, 4.0]]), ["C:maj", "X", "N"])
    targets = task.encode(chords, np.array([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5]))
    assert targets.tolist() == [MASKED, 0, 0, MASKED, MASKED, NO_CHORD, NO_CHORD, MASKED, MASKED]
    logits = torch.randn(9, 25, generator=torch.Generator().manual_seed(0))
    changed = logits.clone()
    changed[targets == MASKED] += 5 * torch.randn(5, 25)
    assert task.loss(logits, targets) == task.loss(changed, targets)
    known = targets != MASKED
    expected = torch.nn.functional.cross_entropy(logits[known], targets[known])
    torch.testing.assert_close(task.loss(logits, targets), expected)


def test_a_batch_in_which_everything_is_masked_has_loss_0_and_not_nan(task):
    logits = torch.randn(4, 25, requires_grad=True)
    loss = task.loss(logits, torch.full((4,), MASKED))
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("decoder", ["argmax", "viterbi"])
@pytest.mark.parametrize("rate", RATES)
def test_perfect_targets_score_exactly_what_the_token_grid_allows(task, triads, token_times, rate, decoder):
    for seed in range(3):
        seconds = 31.7
        reference, times = triads(seconds, seed), token_times(seconds, rate)
        classes = chord_classes(reference.labels)
        lost = 0.0
        for boundary, before, after in zip(reference.intervals[1:, 0], classes[:-1], classes[1:], strict=True):
            if before != after:
                first = np.flatnonzero(times >= boundary)[0]  # the first token of the new chord
                lost += abs((times[first - 1] + times[first]) / 2 - boundary)
        scores = task.score([reference], [oracle(task, reference, times, seconds, decoder)]).corpus
        assert scores["majmin"] == pytest.approx(1 - lost / seconds, abs=1e-9)
        assert scores["majmin"] > 1 - 0.5 / rate
        assert scores["coverage"] == 1


@pytest.mark.parametrize("decoder", ["argmax", "viterbi"])
@pytest.mark.parametrize("rate", RATES)
def test_perfect_targets_score_1_where_chords_change_between_tokens(task, triads, token_times, rate, decoder):
    reference, times = triads(30.0, 5), token_times(30.0, rate)
    period = 1 / rate
    inner = (np.floor(reference.intervals[1:, 0] / period) + 0.5) * period
    changes = np.concatenate([[0.0], inner, [30.0]])
    reference = Chords(np.column_stack([changes[:-1], changes[1:]]), reference.labels)
    scores = task.score([reference], [oracle(task, reference, times, 30.0, decoder)]).corpus
    assert scores["majmin"] == pytest.approx(1.0, abs=1e-12)
    assert scores["mirex"] == pytest.approx(1.0, abs=1e-12)
    assert scores["seg"] == pytest.approx(1.0, abs=1e-9)


def test_an_error_of_half_a_token_is_detected(task, triads, token_times):
    reference, times = triads(30.0, 5), token_times(30.0, 10)
    right = task.decode(one_hot(task.encode(reference, times)), times, 30.0, {"name": "argmax"})
    late = task.decode(one_hot(task.encode(reference, times)), times + 0.05, 30.0, {"name": "argmax"})
    assert task.score([reference], [late]).corpus["majmin"] < task.score([reference], [right]).corpus["majmin"] - 0.005


def test_viterbi_removes_a_flicker_that_argmax_keeps(task):
    times = np.arange(100) * 0.032
    logits = one_hot(torch.zeros(100, dtype=torch.long), 4.0)
    logits[50] = one_hot(torch.tensor([7]), 4.0)[0]
    assert len(task.decode(logits, times, 3.2, {"name": "argmax"}).labels) == 3
    assert task.decode(logits, times, 3.2, {"name": "viterbi"}).labels == ["C:maj"]


def test_estimates_fill_the_track_without_gaps_and_without_x(task, token_times):
    times = token_times(20.0)
    logits = np.random.default_rng(0).normal(size=(len(times), 25)).astype(np.float32)
    for decoder in task.decoders:
        estimate = task.decode(logits, times, 20.0, {"name": decoder})
        assert estimate.intervals[0, 0] == 0
        assert estimate.intervals[-1, 1] == 20.0
        np.testing.assert_array_equal(estimate.intervals[1:, 0], estimate.intervals[:-1, 1])
        assert (np.diff(estimate.intervals) > 0).all()
        assert set(estimate.labels) <= set(VOCABULARY)
        assert "X" not in estimate.labels
    assert "X" not in VOCABULARY


def test_tokens_after_the_end_of_the_track_are_left_out():
    merged = merged_chords(np.array([0, 0, 1, 2]), np.array([0.0, 1.0, 2.0, 3.0]), seconds=3.0)
    assert merged.labels == ["C:maj", "C#:maj"]
    np.testing.assert_array_equal(merged.intervals, [[0, 1.5], [1.5, 3.0]])


def test_a_track_of_one_token_is_one_chord(task):
    for decoder in task.decoders:
        assert task.decode(one_hot(torch.tensor([3])), np.zeros(1), 0.02, {"name": decoder}).labels == ["D#:maj"]


def test_no_chord_counts_as_a_chord(task):
    reference = Chords(np.array([[0.0, 1.0], [1.0, 2.0]]), ["N", "C:maj"])
    assert chord_scores(reference, reference)["majmin"] == 1
    only_c = Chords(np.array([[0.0, 2.0]]), ["C:maj"])
    assert chord_scores(reference, only_c)["majmin"] == pytest.approx(0.5)


def test_a_track_that_is_right_for_half_its_duration_scores_one_half(triads):
    reference = Chords(np.array([[0.0, 4.0], [4.0, 10.0]]), ["C:maj", "A:min"])
    half = Chords(np.array([[0.0, 4.0], [4.0, 5.0]]), ["C:maj", "A:min"])
    scores = chord_scores(reference, half)
    assert {scores[name] for name in ("root", "thirds", "triads", "majmin", "tetrads", "sevenths")} == {0.5}


def test_scores_are_those_of_mir_eval_on_the_written_file(task, triads, token_times, tmp_path):
    reference, times = triads(30.0, 1), token_times(30.0)
    reference.labels[2:6] = ["C:min7/b3", "D:7", "X", "E:sus4"]
    reference.labels[7] = "G:aug"
    write_chords(tmp_path / "reference.lab", reference)
    logits = one_hot(task.encode(reference, times) % 25, 3.0) + np.random.default_rng(0).normal(size=(len(times), 25))
    for decoder in task.decoders:
        estimate = task.decode(logits, times, 30.0, {"name": decoder})
        task.write(estimate, tmp_path / "estimate.lab")
        by_hand = mir_eval.chord.evaluate(
            *mir_eval.io.load_labeled_intervals(str(tmp_path / "reference.lab")),
            *mir_eval.io.load_labeled_intervals(str(tmp_path / "estimate.lab")),
        )
        scores = chord_scores(reference, estimate)
        assert set(scores) == {*COMPARISONS, "seg", "coverage"}
        for name in set(scores) - {"coverage"}:
            assert scores[name] == pytest.approx(by_hand[name], abs=1e-5), name
        assert 0.2 < scores["majmin"] < 1


def test_coverage_is_the_share_of_time_that_is_compared():
    reference = Chords(np.array([[0.0, 1.0], [1.0, 3.0], [3.0, 4.0], [4.0, 8.0]]), ["C:maj", "X", "D:sus4", "A:min7"])
    scores = chord_scores(reference, Chords(np.array([[0.0, 8.0]]), ["A:min"]))
    assert scores["coverage"] == pytest.approx(5 / 8)
    assert scores["majmin"] == pytest.approx(4 / 5)
