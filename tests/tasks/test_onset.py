"""Onsets: peaks at any token rate, scores equal to those of mir_eval, and onsets that share a token."""

import mir_eval
import numpy as np
import pytest

from musictf.tasks.onset import OnsetTask, merged_onsets, onset_scores

EMPTY = np.empty(0)


@pytest.fixture
def task():
    return OnsetTask()


def far_apart(seconds, seed=0):
    return np.cumsum(np.random.default_rng(seed).uniform(0.25, 0.6, int(seconds * 3)))


@pytest.mark.parametrize("rate", [15.625, 31.25, 50, 100])
def test_perfect_targets_give_every_onset_that_is_two_tokens_from_the_next(task, token_times, rate):
    times = token_times(20.0, rate)
    onsets = far_apart(19.0)
    onsets = onsets[onsets < 19.5]
    logits = (task.encode(onsets, times).numpy() - 0.5) * 20
    estimate = task.decode(logits, times, 20.0, task.calibrate("peaks", [logits], [times], [onsets]))
    assert task.score([onsets], [estimate]).corpus == {"f_measure": 1.0, "precision": 1.0, "recall": 1.0}


def test_scores_are_those_of_mir_eval_untrimmed(task):
    reference, generator = far_apart(20.0), np.random.default_rng(1)
    estimate = np.sort(np.concatenate([reference[::2] + generator.normal(0, 0.04, len(reference[::2])), [0.01, 0.02]]))
    scores = task.score([reference], [estimate]).corpus
    theirs = mir_eval.onset.f_measure(reference, estimate)
    assert tuple(scores.values()) == pytest.approx(theirs)
    assert 0.2 < scores["f_measure"] < 0.9
    assert scores["precision"] != pytest.approx(scores["recall"])
    assert onset_scores(np.array([1.0]), np.array([1.049]))["f_measure"] == 1
    assert onset_scores(np.array([1.0]), np.array([1.051]))["f_measure"] == 0
    assert onset_scores(np.array([0.5]), np.array([0.5]))["f_measure"] == 1  # nothing is trimmed


def test_each_onset_is_found_once(task):
    doubled = onset_scores(np.array([1.0, 2.0]), np.array([0.99, 1.01, 2.0]))
    assert doubled == {"f_measure": pytest.approx(0.8), "precision": pytest.approx(2 / 3), "recall": 1.0}


def test_an_empty_reference_is_undefined_and_an_empty_estimate_scores_0(task):
    scores = task.score([EMPTY, np.array([1.0]), np.array([1.0])], [np.array([1.0]), EMPTY, np.array([1.0])])
    np.testing.assert_equal(scores.per_track["f_measure"], [np.nan, 0.0, 1.0])
    assert scores.corpus["f_measure"] == 0.5
    assert np.isnan(onset_scores(EMPTY, EMPTY)["recall"])


@pytest.mark.parametrize(
    ("onsets", "period", "merged"),
    [
        ([0.0, 0.01, 0.1, 0.2], 0.05, 1),
        ([0.0, 0.01, 0.1, 0.2], 0.005, 0),
        ([0.0, 0.01, 0.02, 0.1], 0.1, 2),
        ([0.049, 0.051], 0.1, 0),  # near, but a token centre apart
        ([], 0.1, 0),
    ],
)
def test_onsets_denser_than_the_tokens_are_counted(onsets, period, merged):
    assert merged_onsets(np.array(onsets), period) == merged


def test_details_count_references_that_merge_at_the_token_rate_of_the_probe(task, token_times):
    references = [np.array([0.5, 0.51, 1.0]), EMPTY, np.array([0.3, 0.6])]
    assert task.details(references, references)["merged"] is None
    times = token_times(4.0, 31.25)
    task.calibrate("peaks", [np.random.default_rng(0).normal(size=(len(times), 1))], [times], references[:1])
    assert task.token_seconds == pytest.approx(0.032)
    assert task.details(references, references) == {
        "reference_onsets": 5,
        "estimated_onsets": 5,
        "merged": 1,
        "token_seconds": task.token_seconds,
        "tracks_without_reference_onsets": 1,
    }


def test_the_threshold_is_the_best_of_validation(task, token_times):
    times, onsets = token_times(20.0), far_apart(20.0)[:30]
    weak = (task.encode(onsets, times).numpy() - 3) * 2 + np.random.default_rng(0).normal(0, 0.1, (len(times), 1))
    settings = task.calibrate("peaks", [weak], [times], [onsets])
    assert task.score([onsets], [task.decode(weak, times, 20.0, settings)]).corpus["f_measure"] > 0.95
    assert len(task.decode(weak, times, 20.0, {"name": "peaks", "threshold": 0.5})) == 0


def test_the_majority_estimate_repeats_the_median_gap_of_training(task):
    task.prepare([np.array([0.0, 0.2, 0.4, 1.4]), EMPTY, np.array([3.0])])
    assert task.onset_seconds == pytest.approx(0.2)
    np.testing.assert_allclose(np.diff(task.majority_estimate([], 2.0)), 0.2)
    empty = OnsetTask()
    empty.prepare([EMPTY])
    assert empty.onset_seconds > 0


@pytest.mark.parametrize("rate", [16000, 44100])
def test_librosa_detects_clicks_at_their_times(task, rate):
    clicks = np.array([0.5, 1.1, 1.9, 2.4, 3.3])
    waveform = np.random.default_rng(0).normal(0, 1e-4, 4 * rate)
    for click in clicks:
        start = int(click * rate)
        waveform[start : start + rate // 50] += np.random.default_rng(1).normal(0, 0.5, rate // 50)
    assert onset_scores(clicks, task.classical_estimate(waveform.astype(np.float32), rate))["f_measure"] > 0.9
