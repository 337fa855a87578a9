"""Scores of chords, against mir_eval."""

import mir_eval
import numpy as np
import pytest
import torch

from musictf.annotations import Chords, read_chords
from musictf.errors import InputError
from musictf.tasks.base import masked_cross_entropy
from musictf.tasks.chord import MASKED, ChordTask, chord_quality

COMPARISONS = ("root", "thirds", "triads", "majmin", "sevenths", "tetrads", "mirex")


@pytest.fixture
def task():
    return ChordTask()


def chord_scores(reference, estimate):
    """Scores of one track, without those that are undefined."""
    return {name: float(values[0]) for name, values in ChordTask().score([reference], [estimate]).per_track.items()}


def rich_split(triads, num_tracks=6, seed=0):
    """References with labels of all kinds, and estimates that change elsewhere and end early or late."""
    generator = np.random.default_rng(seed)
    kinds = ["C:min7/b3", "D:7", "X", "E:sus4", "G:aug", "F:9", "A:hdim7", "B:minmaj7", "Eb:maj6", "C:5", "N"]
    references, estimates = [], []
    for number in range(num_tracks):
        reference = triads(20.0 + 3 * number, seed + number)
        for k in generator.choice(len(reference.labels), 5, replace=False):
            reference.labels[k] = str(generator.choice(kinds))
        estimate = triads(17.0 + 4 * number, seed + 100 + number)
        same = generator.random(len(estimate.labels)) < 0.6
        for k in np.flatnonzero(same):
            at = np.searchsorted(reference.intervals[:, 0], estimate.intervals[k, 0], side="right") - 1
            estimate.labels[k] = reference.labels[at] if reference.labels[at] != "X" else "N"
        references.append(reference)
        estimates.append(estimate)
    return references, estimates


def test_an_undefined_score_is_nan_for_the_track_and_leaves_the_mean(task):
    unknown = Chords(np.array([[0.0, 5.0]]), ["X"])
    major = Chords(np.array([[0.0, 5.0]]), ["C:maj"])
    scores = task.score([unknown, major], [major, major])
    assert scores.corpus["wcsr_majmin"] == 1
    assert scores.corpus["wcsr_coverage"] == 0.5
    assert np.isnan(scores.per_track["majmin"][0])
    assert scores.corpus["majmin"] == 1
    assert chord_scores(unknown, major)["coverage"] == 0
    nothing = task.score([unknown], [major]).corpus
    assert not {"majmin", "mirex", "wcsr_majmin", "wcsr_mirex"} & set(nothing)
    assert nothing["wcsr_coverage"] == 0


@pytest.mark.parametrize(
    "text",
    [
        "0 2 C:maj\n2 4 A:min7\n",
        "0.5 2 C:maj7\n2.7 4 A:min7/b3\n6 8 G:7\n",  # gaps, and a late start
        "0 2 C:maj\n2.0005 4 C:maj\n4 5 N\n",  # rounding, and a chord repeated
        "0 1 C:maj\n1 2 X\n2 3 D:sus4(b7)\n3 4 E:hdim7\n",
    ],
)
def test_a_reference_against_itself_scores_1(tmp_path, text):
    (tmp_path / "r.lab").write_text(text)
    reference = read_chords(tmp_path / "r.lab")
    scores = chord_scores(reference, reference)
    del scores["coverage"]
    assert {round(value, 9) for value in scores.values() if not np.isnan(value)} == {1.0}


@pytest.mark.parametrize("beyond", [0.0, 3.0])
def test_an_estimate_may_change_exactly_where_the_reference_ends(beyond):
    reference = Chords(np.array([[0.0, 2.0], [2.0, 4.0]]), ["C:maj", "G:maj"])
    changes = [0.0, 2.0, 4.0] + ([4.0 + beyond] if beyond else [])
    labels = ["C:maj", "G:maj", "A:min"][: len(changes) - 1]
    estimate = Chords(np.column_stack([changes[:-1], changes[1:]]), labels)
    scores = chord_scores(reference, estimate)
    assert scores["majmin"] == 1
    assert scores["seg"] == pytest.approx(1)


def test_the_chance_to_stay_comes_from_the_training_split(task):
    task.prepare([Chords(np.array([[0.0, 1.0], [1.0, 4.0]]), ["C", "D"]), Chords(np.array([[0.0, 5.0]]), ["N"])])
    assert task.mean_seconds == pytest.approx(3.0)
    assert task.calibrate("viterbi", [], [], []) == {"name": "viterbi", "mean_seconds": 3.0}
    assert task.calibrate("argmax", [], [], []) == {"name": "argmax"}


def test_the_majority_estimate_is_the_chord_with_most_time_in_training(task):
    training = [Chords(np.array([[0.0, 9.0], [9.0, 11.0], [11.0, 12.0]]), ["X", "G:7", "A:min"])]
    estimate = task.majority_estimate(training, 7.5)
    assert estimate.labels == ["G:maj"]
    np.testing.assert_array_equal(estimate.intervals, [[0, 7.5]])


def test_every_track_scores_what_mir_eval_gives_it(task, triads):
    references, estimates = rich_split(triads, 12)
    values = task.score(references, estimates).per_track
    for k, (reference, estimate) in enumerate(zip(references, estimates, strict=True)):
        theirs = mir_eval.chord.evaluate(
            reference.intervals, reference.labels, estimate.intervals, list(estimate.labels)
        )
        for name in (*COMPARISONS, "seg"):
            assert values[name][k] == pytest.approx(theirs[name], abs=1e-12), name
    assert values["seg"].std() > 0.01
    assert values["majmin"].std() > 0.01


def joined(tracks, spans):
    """All tracks laid end to end, each padded with no-chord to the span of its reference."""
    intervals, labels, start = [], [], 0.0
    for chords, span in zip(tracks, spans, strict=True):
        rows, names = mir_eval.util.adjust_intervals(chords.intervals, list(chords.labels), 0.0, span, "N", "N")
        kept = np.flatnonzero(np.diff(rows).ravel() > 0)
        intervals.append(rows[kept] + start)
        labels += [names[k] for k in kept]
        start += span
    return np.concatenate(intervals), labels


def test_weighted_recall_is_the_score_of_all_tracks_laid_end_to_end(task, triads):
    references, estimates = rich_split(triads)
    spans = [reference.intervals[-1, 1] for reference in references]
    theirs = mir_eval.chord.evaluate(*joined(references, spans), *joined(estimates, spans))
    scores = task.score(references, estimates)
    for name in COMPARISONS:
        assert scores.corpus[f"wcsr_{name}"] == pytest.approx(theirs[name], abs=1e-9), name
        assert f"wcsr_{name}" not in scores.per_track
    assert abs(scores.corpus["wcsr_majmin"] - scores.corpus["majmin"]) > 1e-4
    covered = scores.per_track["coverage"]
    assert scores.corpus["wcsr_coverage"] == pytest.approx(np.average(covered, weights=spans))


def test_weighted_recall_weighs_the_time_that_is_compared_not_the_length_of_the_track(task):
    mostly_unknown = Chords(np.array([[0.0, 1.0], [1.0, 100.0]]), ["C:maj", "X"])
    short = Chords(np.array([[0.0, 3.0]]), ["C:maj"])
    wrong = Chords(np.array([[0.0, 100.0]]), ["D:maj"])
    assert task.score([mostly_unknown, short], [wrong, short]).corpus["wcsr_majmin"] == pytest.approx(0.75)


def test_resampled_recalls_are_those_of_the_repeated_tracks(task, triads):
    references, estimates = rich_split(triads)
    counts = np.random.default_rng(1).multinomial(6, np.full(6, 1 / 6), size=8).astype(float)
    resampled = task.resample(references, estimates, counts)
    for row, count in enumerate(counts):
        drawn = np.repeat(np.arange(6), count.astype(int))
        again = task.score([references[k] for k in drawn], [estimates[k] for k in drawn]).corpus
        assert set(resampled) == {name for name in again if name.startswith("wcsr_")}
        for name, values in resampled.items():
            assert values[row] == pytest.approx(again[name]), name


def test_a_resample_in_which_nothing_is_compared_is_nan(task):
    unknown, major = (Chords(np.array([[0.0, 5.0]]), [label]) for label in ("X", "C:maj"))
    resampled = task.resample([unknown, major], [major, major], np.array([[2.0, 0.0], [1.0, 1.0]]))
    assert np.isnan(resampled["wcsr_majmin"][0])
    assert resampled["wcsr_majmin"][1] == 1
    assert resampled["wcsr_coverage"].tolist() == [0, 0.5]


@pytest.mark.parametrize(
    ("label", "quality"),
    [
        ("C", "maj"),
        ("C:maj/3", "maj"),
        ("C:maj(9)", "maj"),
        ("A:min", "min"),
        ("G:7", "7"),
        ("G:9", "7"),
        ("G:13", "7"),
        ("F:maj9", "maj7"),
        ("A:min11/b3", "min7"),
        ("B:hdim7", "dim"),
        ("B:dim7", "dim"),
        ("C:aug", "aug"),
        ("D:sus2", "sus"),
        ("D:sus4(b7)", "sus"),
        ("N", "N"),
        ("X", "other"),
        ("C:minmaj7", "other"),
        ("C:minmaj7/5", "other"),
        ("C:maj6", "other"),
        ("C:5", "other"),
        ("C:(1,3,5)", "other"),
    ],
)
def test_qualities_of_the_table(label, quality):
    assert chord_quality(label) == quality


def test_details_count_qualities_and_confusions(task):
    reference = Chords(
        np.array([[0.0, 2.0], [2.0, 5.0], [5.0, 6.0], [6.0, 10.0], [10.0, 11.0]]),
        ["C:maj", "G:7", "N", "D:sus4", "A:min"],
    )
    estimate = Chords(
        np.array([[0.0, 1.0], [1.0, 4.0], [4.0, 5.5], [5.5, 9.0], [9.0, 11.0]]),
        ["C:maj", "G:maj", "E:min", "D:min", "N"],
    )
    details = task.details([reference], [estimate])
    assert details["by_quality"] == {
        "maj": {"seconds": 2.0, "root": 0.5, "majmin": 0.5},
        "min": {"seconds": 1.0, "root": 0.0, "majmin": 0.0},
        "7": {"seconds": 3.0, "root": pytest.approx(2 / 3), "majmin": pytest.approx(2 / 3)},
        "sus": {"seconds": 4.0, "root": pytest.approx(3 / 4), "majmin": None},
        "N": {"seconds": 1.0, "root": 0.0, "majmin": 0.0},
    }
    confusion = details["confusion"]
    by_root = np.zeros(12)
    by_root[[0, 7]] = [1.0 + 2.0, 1.0]  # C and G right, G for C
    np.testing.assert_allclose(confusion["maj"]["maj"], by_root)
    assert confusion["maj"]["min"][9] == 1.0  # E minor for G
    assert sum(confusion["maj"]["min"]) == 1.0
    assert confusion["min"]["N"] == 1.0
    assert confusion["N"] == {"maj": 0.0, "min": 1.0, "N": 0.0}
    everything = sum(np.sum(cell) for row in confusion.values() for cell in row.values())
    assert everything == pytest.approx(11.0 - 4.0)  # all that majmin compares


def test_a_track_without_chords_is_scored_on_no_chord(task):
    silence = Chords(np.array([[0.0, 8.0]]), ["N"])
    half = Chords(np.array([[0.0, 4.0], [4.0, 8.0]]), ["N", "C:maj"])
    assert chord_scores(silence, silence)["majmin"] == 1
    assert chord_scores(silence, half)["majmin"] == 0.5


def test_an_estimate_without_an_interval_is_no_chord(task):
    reference = Chords(np.array([[0.0, 3.0], [3.0, 4.0]]), ["C:maj", "N"])
    assert chord_scores(reference, Chords(np.empty((0, 2)), []))["majmin"] == 0.25


def test_overlapping_intervals_are_refused_and_gaps_are_not_compared(tmp_path):
    (tmp_path / "overlap.lab").write_text("0 2 C:maj\n1.5 4 G:maj\n")
    with pytest.raises(InputError, match=r"overlap.lab:2: .*before the previous chord ends"):
        read_chords(tmp_path / "overlap.lab")
    (tmp_path / "gap.lab").write_text("0 2 C:maj\n3 4 G:maj\n")
    gap = read_chords(tmp_path / "gap.lab")
    scores = chord_scores(gap, Chords(np.array([[0.0, 4.0]]), ["C:maj"]))
    assert scores["coverage"] == pytest.approx(3 / 4)
    assert scores["majmin"] == pytest.approx(2 / 3)


def test_the_loss_is_torchs_cross_entropy_under_vmap_too(task):
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(7, 200, 25, generator=generator)
    targets = torch.randint(-1, 25, (200,), generator=generator)
    expected = [torch.nn.functional.cross_entropy(head, targets, ignore_index=MASKED) for head in logits]
    for loss in (task.loss, masked_cross_entropy):
        torch.testing.assert_close(
            torch.vmap(loss, in_dims=(0, None))(logits, targets), torch.stack(expected), rtol=0, atol=1e-6
        )


def test_the_classical_system_recognises_a_cadence(task):
    rate, seconds = 16000, 2.0
    times = np.arange(int(rate * seconds)) / rate
    cadence = {"C:maj": (60, 64, 67), "A:min": (57, 60, 64), "F:maj": (53, 57, 60), "G:maj": (55, 59, 62)}
    tones = [
        sum(np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * k * times) / k for pitch in chord for k in (1, 2, 3))
        for chord in cadence.values()
    ]
    waveform = np.concatenate([*tones, np.zeros_like(times)]).astype(np.float32) / 10
    changes = np.arange(6) * seconds
    reference = Chords(np.column_stack([changes[:-1], changes[1:]]), [*cadence, "N"])
    scores = chord_scores(reference, task.classical_estimate(waveform, rate))
    assert scores["majmin"] > 0.93
    assert scores["seg"] > 0.9
    off = Chords(reference.intervals, ["D:maj", "B:min", "G:maj", "A:maj", "N"])
    assert chord_scores(off, task.classical_estimate(waveform, rate))["majmin"] < 0.3


def test_the_oracle_has_the_root_of_a_chord_outside_the_vocabulary():
    labels = ["D:sus4", "E:dim", "F#:aug", "G:5", "A:min7/b3", "X", "N", "Bb:hdim7"]
    intervals = np.column_stack([np.arange(8.0), np.arange(1.0, 9.0)])
    reference, times = Chords(intervals, labels), np.arange(0, 8, 0.032)
    task = ChordTask()
    estimate = task.decode(task.oracle_logits(reference, times), times, 8.0, {"name": "argmax"})
    scores = task.score([reference], [estimate]).corpus
    assert scores["root"] > 0.97
    assert scores["majmin"] > 0.97
    assert estimate.labels[:5] == ["D:maj", "E:min", "F#:maj", "G:maj", "A:min"]
