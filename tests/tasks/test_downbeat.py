"""Downbeats from an activation of their own: any token rate, 5 s of trim, tracks without bars."""

import mir_eval
import numpy as np
import pytest
import torch

from musictf.annotations import Beats, read_beats
from musictf.errors import InputError
from musictf.tasks.downbeat import DownbeatTask, downbeat_scores


@pytest.fixture
def task():
    return DownbeatTask()


def oracle(task, beats, times, decoder=None):
    logits = (task.encode(beats, times).numpy() - 0.5) * 20
    settings = decoder or task.calibrate("peaks", [logits], [times], [beats])
    return task.decode(logits, times, times[-1], settings)


@pytest.mark.parametrize("rate", [10, 15.625, 31.25, 50, 100])
@pytest.mark.parametrize("tempo", [60, 120, 180])
def test_perfect_targets_give_every_downbeat(task, clicks, token_times, rate, tempo):
    beats, times = clicks(40.0, tempo), token_times(40.0, rate)
    estimate = oracle(task, beats, times)
    scores = task.score([beats], [estimate]).corpus
    assert scores == {"f_measure": 1.0, "cmlt": 1.0, "amlt": 1.0}
    assert set(estimate.positions) == {1}


def test_beats_that_start_no_bar_are_not_trained(task, clicks, token_times):
    beats, times = clicks(20.0, 120), token_times(20.0, 100)
    target = task.encode(beats, times)[:, 0].numpy()
    for time, position in zip(beats.times, beats.positions, strict=True):
        nearest = int(abs(times - time).argmin())
        assert (target[nearest] > 0.8) == (position == 1)


def test_scores_are_those_of_mir_eval_after_the_first_5_seconds(task, clicks, token_times):
    beats = clicks(60.0, 100, shake=0.02)
    generator = np.random.default_rng(0)
    estimated_times = np.sort(
        np.concatenate([beats.downbeats[::2], beats.downbeats[3:9] + 0.3, generator.uniform(0, 60, 5)])
    )
    estimate = Beats(estimated_times, np.ones(len(estimated_times), dtype=int))
    scores = downbeat_scores(beats, estimate)
    trimmed = [mir_eval.beat.trim_beats(times) for times in (beats.downbeats, estimated_times)]
    assert scores["f_measure"] == pytest.approx(mir_eval.beat.f_measure(*trimmed))
    assert scores["f_measure"] != pytest.approx(mir_eval.beat.f_measure(beats.downbeats, estimated_times))
    _, cmlt, _, amlt = mir_eval.beat.continuity(*trimmed)
    assert (scores["cmlt"], scores["amlt"]) == (cmlt, amlt)
    assert 0.2 < scores["f_measure"] < 1


def test_beats_of_an_estimate_that_start_no_bar_do_not_count(clicks):
    beats = clicks(30.0, 120)
    assert downbeat_scores(beats, beats)["f_measure"] == 1
    assert downbeat_scores(beats, Beats(beats.times))["f_measure"] == 0


def test_tracks_without_bars_do_not_train_and_leave_the_mean(task, clicks, token_times):
    beats, times = clicks(20.0, 120), token_times(20.0)
    plain = Beats(beats.times)
    assert task.encode(plain, times).isnan().all()
    scores = task.score([plain, beats], [beats, beats])
    assert np.isnan(scores.per_track["f_measure"][0])
    assert scores.corpus["f_measure"] == 1
    logits = torch.randn(len(times), 1, requires_grad=True)
    loss = task.loss(logits, task.encode(plain, times))
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()
    details = task.details([plain, beats, Beats(np.array([1.0, 9.0]), np.array([1, 1]))], [beats] * 3)
    assert details == {"tracks": 3, "without_bars": 1, "fewer_than_2_reference_downbeats": 1}


@pytest.mark.parametrize(
    ("times", "f_measure"), [([], np.nan), ([1.0, 4.9], np.nan), ([4.0, 6.0], 1.0)], ids=["none", "early", "one late"]
)
def test_references_of_few_downbeats(times, f_measure):
    reference = Beats(np.array(times), np.ones(len(times), dtype=int))
    scores = downbeat_scores(reference, Beats(np.array([6.0]), np.array([1])))
    np.testing.assert_equal(scores, {"f_measure": f_measure, "cmlt": np.nan, "amlt": np.nan})


def test_no_estimated_downbeats_score_0(clicks):
    nothing = Beats(np.empty(0), np.empty(0, dtype=int))
    assert downbeat_scores(clicks(30.0, 120), nothing) == {"f_measure": 0.0, "cmlt": 0.0, "amlt": 0.0}


def test_validation_widens_the_window_where_every_beat_has_a_peak(task, clicks, token_times):
    beats, times = clicks(60.0, 120), token_times(60.0)
    generator = np.random.default_rng(0)
    every = Beats(beats.times, np.ones(len(beats.times), dtype=int))
    weak, strong = (task.encode(b, times).numpy() for b in (every, beats))
    # Heights change over the track: no threshold separates the beats, but the highest one of each bar does.
    level = 3 * np.sin(times / 7)[:, None]
    logits = 6 * weak + 2 * strong - 6 + level * weak + generator.normal(0, 0.1, size=(len(times), 1))
    settings = task.calibrate("peaks", [logits], [times], [beats])
    assert settings["window"] > 0.5
    narrow = {**settings, "window": 0.07}
    chosen, other = (task.decode(logits, times, 60.0, decoder) for decoder in (settings, narrow))
    assert downbeat_scores(beats, chosen)["f_measure"] > downbeat_scores(beats, other)["f_measure"] + 0.2


def test_the_distance_of_peaks_is_in_seconds_whatever_the_token_rate(task):
    for rate in (31.25, 100):
        times = np.arange(round(4 * rate)) / rate
        logits = np.full((len(times), 1), -9.0)
        logits[np.round(np.array([1.0, 1.5]) * rate).astype(int), 0] = [5.0, 4.0]
        settings = {"name": "peaks", "threshold": 0.5, "window": 0.7}
        assert len(task.decode(logits, times, 4.0, settings).times) == 1
        assert len(task.decode(logits, times, 4.0, settings | {"window": 0.3}).times) == 2


def test_the_majority_estimate_has_the_median_bar_of_training(task):
    task.prepare(
        [Beats(np.arange(0, 10, 0.6), np.arange(len(np.arange(0, 10, 0.6))) % 3 + 1), Beats(np.arange(0, 5, 0.3))]
    )
    assert task.bar_seconds == pytest.approx(1.8)
    np.testing.assert_allclose(np.diff(task.majority_estimate([], 9.0).times), 1.8)


def test_training_without_a_downbeat_is_an_error(task):
    with pytest.raises(InputError, match="no training track has a downbeat"):
        task.prepare([Beats(np.arange(5.0)), Beats(np.arange(5.0), np.full(5, 2))])


def test_written_downbeats_are_all_positions_1(task, tmp_path):
    task.write(Beats(np.array([1.0, 3.0]), np.ones(2, dtype=int)), tmp_path / "t.beats")
    assert read_beats(tmp_path / "t.beats").positions.tolist() == [1, 1]
