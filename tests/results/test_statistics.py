"""Intervals by simulation: they hold the true mean as often as they say."""

import numpy as np
import pytest

from musictf.results.statistics import interval, mean_interval, paired_difference, resample_counts


def test_a_resample_draws_as_many_tracks_as_there_are():
    counts = resample_counts([str(k) for k in range(17)], resamples=50)
    assert counts.shape == (50, 17)
    assert (counts.sum(axis=1) == 17).all()
    assert len({tuple(row) for row in counts}) == 50


def test_the_same_seed_is_the_same_interval_and_another_is_near():
    values = np.random.default_rng(0).normal(size=60)
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values) != mean_interval(values, seed=1)
    np.testing.assert_allclose(mean_interval(values), mean_interval(values, seed=1), atol=0.05)


@pytest.mark.parametrize("num_tracks", [20, 80])
def test_intervals_hold_the_true_mean_about_95_times_of_100(num_tracks):
    generator = np.random.default_rng(0)
    intervals = [mean_interval(generator.normal(0.6, 0.2, num_tracks))[1:] for _ in range(1000)]
    held = np.mean([low <= 0.6 <= high for low, high in intervals])
    assert 0.90 < held < 0.98


def test_the_width_is_that_of_the_standard_error():
    values = np.random.default_rng(1).normal(0.5, 0.1, 400)
    mean, low, high = mean_interval(values, resamples=4000)
    assert mean == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.06)


def test_a_paired_difference_is_narrower_where_scores_go_together():
    generator = np.random.default_rng(2)
    hardness = generator.normal(0.6, 0.2, 50)
    first, second = (hardness + shift + generator.normal(0, 0.02, 50) for shift in (0.05, 0.0))
    difference, low, high = paired_difference(first, second)
    assert difference == pytest.approx((first - second).mean())
    assert 0 < low < 0.05 < high
    widths = [np.ptp(mean_interval(values)[1:]) for values in (first, second)]
    assert high - low < 0.3 * np.hypot(*widths)


def test_paired_intervals_of_equal_systems_hold_0_about_95_times_of_100():
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        hardness = generator.normal(0.5, 0.2, 30)
        first, second = (hardness + generator.normal(0, 0.05, 30) for _ in range(2))
        _, low, high = paired_difference(first, second, resamples=500)
        held += low <= 0 <= high
    assert 0.88 < held / 200 < 0.99


def test_tracks_without_a_value_are_left_out():
    values = np.array([0.2, np.nan, 0.6, 0.7])
    assert mean_interval(values) == mean_interval(np.array([0.2, 0.6, 0.7]))
    difference, *_ = paired_difference(values, np.array([0.1, 0.5, np.nan, 0.4]))
    assert difference == pytest.approx(0.2)


def test_nothing_defined_is_nan_and_one_track_has_no_interval():
    assert np.isnan(mean_interval(np.array([np.nan, np.nan]))).all()
    assert mean_interval(np.array([0.4])) == pytest.approx((0.4, np.nan, np.nan), nan_ok=True)


def test_the_interval_is_the_middle_95_per_cent():
    assert interval(np.append(np.arange(1001.0), np.nan)) == (25.0, 975.0)


def test_tracks_of_a_group_are_drawn_together():
    groups = ["a", "b", "a", "c", "b", "a"]
    counts = resample_counts(groups, resamples=200)
    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts[:, 0] == counts[:, 5]).all()
    assert (counts[:, 1] == counts[:, 4]).all()
    assert (counts[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_intervals_over_groups_hold_the_mean_where_intervals_over_tracks_are_too_narrow():
    generator = np.random.default_rng(4)
    groups, held = np.repeat([f"album {k}" for k in range(25)], 8), {"groups": 0, "tracks": 0}
    for _ in range(300):
        values = np.repeat(generator.normal(0.6, 0.2, 25), 8) + generator.normal(0, 0.02, 200)
        for name, given in (("groups", groups), ("tracks", None)):
            _, low, high = mean_interval(values, given, resamples=400)
            held[name] += low <= 0.6 <= high
    assert 0.88 < held["groups"] / 300 < 0.98
    assert held["tracks"] / 300 < 0.65


def test_several_seeds_are_drawn_as_well():
    generator = np.random.default_rng(5)
    hardness, seeds = generator.normal(0.5, 0.01, 40), np.array([[0.0], [0.2], [0.4]])
    table = hardness + seeds
    mean, low, high = mean_interval(table)
    assert mean == pytest.approx(table.mean())
    assert low < mean - 0.1
    assert high > mean + 0.1
    assert mean_interval(table[:1]) == mean_interval(table[0])


def test_one_group_says_nothing_about_the_spread_of_groups():
    mean, low, high = mean_interval(np.array([0.2, 0.4, 0.6]), ["a", "a", "a"])
    assert mean == pytest.approx(0.4)
    assert np.isnan([low, high]).all()


def test_a_score_that_rewards_repeated_tracks_has_its_interval_moved_back():
    values = np.random.default_rng(6).normal(0.72, 0.03, 1000)
    low, high = interval(values, value=0.60)
    assert (low + high) / 2 == pytest.approx(0.60, abs=0.005)
    assert high - low == pytest.approx(np.ptp(interval(values)))
