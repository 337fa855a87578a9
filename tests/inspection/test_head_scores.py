"""Scores of heads over splits, their nulls, and p-values that know how many heads there are."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from musictf.inspection.event_scores import EVENT, NEITHER, QUANTILES, token_labels
from musictf.inspection.head_scores import family_wise, peak_scores, score_split, score_track
from musictf.tasks.onset import onset_scores

TIMES = np.arange(400) * 0.032


def bumps(events, times=TIMES, width=0.02):
    return np.exp(-0.5 * ((times[:, None] - events) / width) ** 2).sum(axis=1)


def some_events(seed, number=20):
    return np.sort(np.random.default_rng(seed).uniform(0.5, TIMES[-1] - 0.5, number))


def test_areas_are_those_of_each_unit_and_nulls_have_one_a_draw():
    rng = np.random.default_rng(0)
    events = some_events(0)
    values = np.column_stack([bumps(events), rng.random(400), -bumps(events)])
    scores = score_track(values, TIMES, events, "a", 7)
    labels = token_labels(events, TIMES)
    counted = labels != NEITHER
    expected = [roc_auc_score(labels[counted] == EVENT, values[counted, unit]) for unit in range(3)]
    np.testing.assert_allclose(scores.area, expected, atol=1e-12)
    assert {name: areas.shape for name, areas in scores.null_areas.items()} == {
        "shifted": (7, 3), "shuffled": (7, 3),
    }  # fmt: skip
    assert scores.area[0] > 0.99 > 0.6 > scores.null_areas["shifted"][:, 0].mean()


def test_draws_depend_on_the_name_alone_and_units_share_them():
    events, values = some_events(1), np.random.default_rng(1).random((400, 1))
    first, again, other = (score_track(values, TIMES, events, name, 5) for name in ("a", "a", "b"))
    twice = score_track(np.hstack([values, values]), TIMES, events, "a", 5)
    for null in ("shifted", "shuffled"):
        np.testing.assert_array_equal(first.null_areas[null], again.null_areas[null])
        np.testing.assert_array_equal(twice.null_areas[null][:, 0], twice.null_areas[null][:, 1])
        assert (first.null_areas[null] != other.null_areas[null]).any()
    assert (first.null_areas["shifted"] != first.null_areas["shuffled"]).any()


def test_events_that_share_a_token_are_counted():
    events = np.array([0.99, 1.0, 1.005, 2.0, 3.0])
    assert score_track(np.zeros((400, 1)), TIMES, events, "a", 0).merged == 2
    assert score_track(np.zeros((400, 1)), TIMES, events, "a", 0).number == 5


def test_events_beyond_the_audio_change_nothing():
    events, values = some_events(7), np.random.default_rng(7).random((400, 3))
    beyond = np.concatenate([[-0.5], events, [TIMES[-1] + 1.0, TIMES[-1] + 9.0]])
    within, with_more = (score_track(values, TIMES, each, "a", 5) for each in (events, beyond))
    np.testing.assert_array_equal(with_more.area, within.area)
    for null in ("shifted", "shuffled"):
        np.testing.assert_allclose(with_more.null_areas[null], within.null_areas[null])


def test_a_split_counts_the_tracks_that_have_events():
    events = [some_events(2), None, np.empty(0), some_events(3)]
    curves = [(np.random.default_rng(k).random((400, 2)), TIMES) for k in range(4)]
    scores = score_split(iter(curves), events, list("abcd"), 3, choosing=True)
    assert scores.track_indices == [0, 3]
    assert scores.areas.shape == (2, 2)
    assert scores.null("shifted").shape == (2, 3, 2)
    assert set(scores.best_quantiles) <= set(QUANTILES)


def test_the_threshold_that_validation_prefers_cuts_off_what_is_not_an_event():
    events, rng = some_events(4, 10), np.random.default_rng(4)
    values = (bumps(events) + 0.2 * rng.random(400))[:, None]
    scores = score_split([(values, TIMES)], [events], ["a"], 0, choosing=True)
    quantile = float(scores.best_quantiles[0])
    assert quantile >= 0.9
    best = peak_scores(values[:, 0], TIMES, events, quantile, "a", 10)
    assert best["f_measure"] == 1.0 > 0.4 > best["f_measure_shifted"]


def test_peak_scores_are_those_of_mir_eval():
    from musictf.inspection.event_scores import peaks

    events, curve = some_events(5), np.random.default_rng(5).random(400)
    found = peak_scores(curve, TIMES, events, 0.8, "a", 4)
    expected = onset_scores(events, peaks(curve, TIMES, 0.8))
    assert {name: found[name] for name in expected} == expected
    assert np.isnan(peak_scores(curve, TIMES, events, 0.8, "a", 0)["f_measure_shifted"])


def test_family_wise_values_equal_a_loop():
    rng = np.random.default_rng(6)
    observed, null = rng.random((3, 8)), rng.random((3, 50, 8))
    found = family_wise(observed, null)
    for unit in range(8):
        reached = sum(max(null[:, draw, u].mean() for u in range(8)) >= observed[:, unit].mean() for draw in range(50))
        assert found[unit] == (1 + reached) / 51


def test_the_smallest_value_is_one_draw_in_all():
    null = np.full((2, 99, 4), 0.5)
    assert family_wise(np.array([[0.9, 0.5, 0.4, 0.6]] * 2), null).tolist() == [0.01, 1.0, 1.0, 0.01]


@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")
def test_an_undefined_area_is_no_finding():
    found = family_wise(np.full((2, 3), np.nan), np.full((2, 20, 3), np.nan))
    assert not (found < 0.5).any()


@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")
def test_undefined_draws_do_not_count_for_a_head():
    null = np.full((1, 40, 2), 0.9)
    null[:, :38] = np.nan  # a single event that was shifted off the last token
    assert (family_wise(np.full((1, 2), 0.6), null) > 0.5).all()


def test_where_nothing_is_to_be_found_something_is_found_one_time_in_twenty():
    found = []
    times = np.arange(250) * 0.032
    for experiment in range(120):
        rng = np.random.default_rng(experiment)
        curves, events = [], []
        for _ in range(2):
            noise = rng.standard_normal((254, 12))
            curves.append((np.array([noise[k : k + 5].mean(axis=0) for k in range(250)]), times))
            events.append(np.sort(rng.uniform(0, 8.0, 12)))
        scores = score_split(curves, events, [f"{experiment}a", f"{experiment}b"], 39)
        found.append((family_wise(scores.areas, scores.null("shifted")) < 0.05).any())
    assert np.mean(found) < 0.11


def test_one_head_that_follows_events_is_found_among_many():
    rng = np.random.default_rng(8)
    events = [some_events(8), some_events(9)]
    curves = []
    for each in events:
        values = rng.random((400, 30))
        values[:, 17] = bumps(each) + 0.5 * rng.random(400)
        curves.append((values, TIMES))
    scores = score_split(curves, events, ["a", "b"], 60)
    corrected = family_wise(scores.areas, scores.null("shifted"))
    assert np.flatnonzero(corrected < 0.05).tolist() == [17]


def test_among_beats_metre_is_scored_and_beats_against_silence_are_not():
    beats = np.arange(0.5, 12.5, 0.5)
    values = np.column_stack([bumps(beats), bumps(beats[::4]), bumps(beats) + bumps(beats[::4])])
    scores = score_track(values, TIMES, beats[::4], "a", 200, among=beats)
    assert scores.area[1] == scores.area[2] == 1.0
    assert 0.2 < scores.area[0] < 0.8  # beats fall beside token centres by chance
    for null in ("shifted", "shuffled"):
        assert scores.null_areas[null][:, 1].mean() == pytest.approx(0.5, abs=0.07)
