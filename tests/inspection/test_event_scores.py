"""Areas, labels, matchings and peaks against what scikit-learn, mir_eval and plain loops say."""

import mir_eval
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from musictf.inspection.event_scores import (
    EVENT,
    NEITHER,
    NONE,
    QUANTILES,
    areas_under_curve,
    labels_among,
    matches,
    peaks,
    peaks_above,
    quick_f_measure,
    token_labels,
)
from musictf.inspection.self_similarity import binned
from musictf.tasks.beat import peak_times


def plain_labels(events, times, tolerance):
    labels = [NEITHER if any(abs(e - t) <= tolerance for e in events) else NONE for t in times]
    period = times[1] - times[0]
    for event in events:
        if times[0] - period / 2 <= event <= times[-1] + period / 2:
            labels[min(range(len(times)), key=lambda k: abs(times[k] - event))] = EVENT
    return labels


@pytest.mark.parametrize("tolerance", [0.01, 0.05, 0.13])
def test_labels_equal_those_of_a_loop(tolerance):
    rng = np.random.default_rng(0)
    for _ in range(100):
        times = rng.choice([0.0, 0.4]) + np.arange(rng.integers(2, 80)) * 0.032
        events = np.sort(rng.uniform(-0.5, times[-1] + 0.5, rng.integers(0, 12)))
        assert token_labels(events, times, tolerance).tolist() == plain_labels(events, times, tolerance)


def test_every_event_in_the_track_has_a_token_however_narrow_the_tolerance():
    labels = token_labels(np.array([0.0, 0.31, 0.9]), np.arange(10) / 10, tolerance=0.001)
    assert np.flatnonzero(labels == EVENT).tolist() == [0, 3, 9]
    assert (labels != NEITHER).all()


@pytest.mark.parametrize("levels", [3, 20, 10_000])
def test_areas_equal_those_of_scikit_learn_for_many_draws_with_ties(levels):
    rng = np.random.default_rng(levels)
    curve = rng.integers(0, levels, 300).astype(np.float32)
    labels = rng.choice([EVENT, NONE, NEITHER], size=(50, 300), p=[0.2, 0.6, 0.2]).astype(np.int8)
    found = areas_under_curve(curve, labels)
    for area, row in zip(found, labels, strict=True):
        counted = row != NEITHER
        assert area == pytest.approx(roc_auc_score(row[counted] == EVENT, curve[counted]), abs=1e-12)


def test_an_area_needs_both_classes():
    curve = np.arange(4.0)
    labels = np.array([[EVENT] * 4, [NONE] * 4, [NEITHER] * 4, [EVENT, NEITHER, NEITHER, NONE]], dtype=np.int8)
    np.testing.assert_array_equal(areas_under_curve(curve, labels), [np.nan, np.nan, np.nan, 0.0])


def test_a_constant_curve_is_at_chance():
    labels = token_labels(np.array([1.0, 2.0]), np.arange(100) * 0.032)[None]
    assert areas_under_curve(np.full(100, 0.3), labels) == [0.5]


def test_more_draws_than_fit_in_one_block_change_nothing(monkeypatch):
    rng = np.random.default_rng(5)
    curve, labels = rng.standard_normal(64), rng.choice([1, 0, -1], size=(33, 64)).astype(np.int8)
    whole = areas_under_curve(curve, labels)
    one_by_one = np.concatenate([areas_under_curve(curve, row[None]) for row in labels])
    monkeypatch.setattr("musictf.inspection.event_scores._CELLS", 5 * 64, raising=False)
    np.testing.assert_array_equal(areas_under_curve(curve, labels), whole)
    np.testing.assert_array_equal(one_by_one, whole)


def test_matchings_are_as_large_as_those_of_mir_eval():
    rng = np.random.default_rng(1)
    for _ in range(400):
        reference, estimate = (np.sort(rng.uniform(0, 3, rng.integers(1, 30))) for _ in range(2))
        window = rng.uniform(0.01, 0.3)
        expected = len(mir_eval.util.match_events(reference, estimate, window))
        assert matches(reference.tolist(), estimate.tolist(), window) == expected


def test_the_quick_f_measure_is_that_of_mir_eval():
    rng = np.random.default_rng(2)
    for _ in range(300):
        reference, estimate = (np.sort(rng.uniform(0, 3, rng.integers(1, 30))) for _ in range(2))
        expected = mir_eval.onset.f_measure(reference, estimate, window=0.05)[0]
        assert quick_f_measure(reference, estimate) == pytest.approx(expected, abs=1e-12)
    assert quick_f_measure(np.empty(0), np.array([1.0])) == 0.0
    assert quick_f_measure(np.empty(0), np.empty(0)) == 0.0


@pytest.mark.parametrize("window", [0.03, 0.1])
def test_peaks_are_those_of_the_beat_task_at_the_same_threshold(window):
    rng = np.random.default_rng(3)
    times = 0.5 + np.arange(300) * 0.032
    for ties in (False, True):
        curve = rng.integers(0, 6, 300).astype(float) if ties else rng.random(300)
        for quantile, found in zip(QUANTILES, peaks_above(curve, times, QUANTILES, window), strict=True):
            expected = peak_times(curve, times, float(np.quantile(curve, quantile)), window)
            np.testing.assert_allclose(found, expected)
            np.testing.assert_array_equal(found, peaks(curve, times, quantile, window))


def test_too_few_tokens_have_no_peak():
    assert [len(each) for each in peaks_above(np.array([0.0, 1.0]), np.array([0.0, 0.032]), [0.3, 0.5])] == [0, 0]


def test_peaks_over_bins_of_which_the_last_is_shorter():
    rng = np.random.default_rng(0)
    for _ in range(300):
        times = binned(np.arange(8 * rng.integers(5, 40) + 1) * 0.032, 8)
        curve = rng.random(len(times))
        expected = peak_times(curve, times, float(np.quantile(curve, 0.5)), 0.5)
        assert len(peaks(curve, times, 0.5, 0.5)) == len(expected)


def test_labels_among_events_leave_out_all_other_tokens():
    rng = np.random.default_rng(7)
    times = np.arange(200) * 0.032
    for _ in range(50):
        among = np.sort(rng.choice(np.arange(-5, 210), 20, replace=False)) * 0.032 + rng.uniform(-0.01, 0.01, 20)
        wanted = rng.random(20) < 0.3
        expected = np.full(200, NEITHER)
        for is_event, event in zip(wanted, among, strict=True):
            token = round(event / 0.032)
            if 0 <= token < 200:
                expected[token] = EVENT if is_event else NONE
        np.testing.assert_array_equal(labels_among(wanted, among, times), expected)
