"""Beats: from activation to time at any token rate, and scores that are mir_eval's."""

import mir_eval
import numpy as np
import pytest
import torch

from musictf.annotations import Beats, read_beats
from musictf.tasks.beat import (
    BeatTask,
    bar_positions,
    beat_scores,
    dynamic_programming_times,
    peak_times,
    widened,
)

RATES = [10, 15.625, 31.25, 50, 100]
MIR_EVAL = {
    "f_measure": "F-measure",
    "cemgil": "Cemgil",
    "goto": "Goto",
    "p_score": "P-score",
    "cmlc": "Correct Metric Level Continuous",
    "cmlt": "Correct Metric Level Total",
    "amlc": "Any Metric Level Continuous",
    "amlt": "Any Metric Level Total",
    "information_gain": "Information gain",
}


@pytest.fixture
def task():
    return BeatTask()


def nearest_tokens(events, times):
    """Targets that are not widened: 1 at the token nearest to an event."""
    target = np.zeros(len(times))
    target[[int(abs(times - event).argmin()) for event in events]] = 1
    return target


def oracle_logits(task, beats, times, is_widened=True):
    if is_widened:
        target = task.encode(beats, times).numpy()
    else:
        target = np.column_stack([nearest_tokens(events, times) for events in (beats.times, beats.downbeats)])
    return (target - 0.5) * 20


def decoded(task, beats, times, seconds, decoder="peaks", is_widened=True, shift=0.0):
    logits = oracle_logits(task, beats, times, is_widened)
    settings = task.calibrate(decoder, [logits], [times], [beats])
    return task.decode(logits, times + shift, seconds, settings)


@pytest.mark.parametrize("is_widened", [True, False], ids=["widened", "one token"])
@pytest.mark.parametrize("tempo", [60, 87, 120, 151, 180])
@pytest.mark.parametrize("rate", RATES)
def test_perfect_targets_give_every_beat_and_downbeat(task, clicks, token_times, rate, tempo, is_widened):
    beats, times = clicks(30.0, tempo), token_times(30.0, rate)
    scores = task.score([beats], [decoded(task, beats, times, 30.0, is_widened=is_widened)]).corpus
    assert scores["f_measure"] == 1.0
    assert scores["downbeat_f_measure"] == 1.0


@pytest.mark.parametrize("rate", [31.25, 50])
def test_dynamic_programming_finds_every_beat_of_a_steady_track(task, clicks, token_times, rate):
    beats, times = clicks(30.0, 120, shake=0.0), token_times(30.0, rate)
    estimate = decoded(task, beats, times, 30.0, "dynamic_programming")
    assert task.score([beats], [estimate]).corpus["f_measure"] == 1.0
    assert task.score([beats], [estimate]).corpus["downbeat_f_measure"] == 1.0


@pytest.mark.parametrize("rate", [31.25, 50])
@pytest.mark.parametrize("first", [0.05, 0.15, 0.23, 0.3, 0.45])
def test_dynamic_programming_keeps_the_last_beat_wherever_the_track_ends(token_times, rate, first):
    events, times = np.arange(first, 29.9, 0.5), token_times(30.0, rate)
    estimate = dynamic_programming_times(widened(events, times, 0.05), times)
    assert estimate.max() < 30.0
    estimate = estimate[estimate < events[-1] + 0.07]  # it may place beats after the last one
    assert mir_eval.beat.f_measure(mir_eval.beat.trim_beats(events), mir_eval.beat.trim_beats(estimate)) == 1.0


def test_an_error_of_half_a_token_is_detected_at_10_hz(task, clicks, token_times):
    beats, times = clicks(40.0, 113), token_times(40.0, 10)
    right, late = (decoded(task, beats, times, 40.0, is_widened=False, shift=shift) for shift in (0.0, 0.05))
    assert beat_scores(beats, right)["f_measure"] == 1.0
    assert beat_scores(beats, late)["f_measure"] < 0.85


def test_decoded_times_are_right_to_a_few_milliseconds(task, clicks, token_times):
    beats, times = clicks(30.0, 120), token_times(30.0)
    estimate = decoded(task, beats, times, 30.0)
    assert len(estimate.times) == len(beats.times)
    assert abs(estimate.times - beats.times).max() < 0.5 * 0.032
    assert abs((estimate.times - beats.times).mean()) < 0.1 * 0.032


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("offset", [-0.49, -0.3, 0.0, 0.1, 0.25, 0.45])
def test_a_peak_lies_where_the_bump_has_its_maximum_to_a_tenth_of_a_token(rate, offset):
    times = np.arange(40) / rate
    true = (20 + offset) / rate
    bump = np.exp(-0.5 * ((times - true) * rate / 1.5) ** 2)
    (peak,) = peak_times(bump, times, 0.3)
    assert abs(peak - true) * rate < 0.1


def test_the_neighbourhood_is_70_ms_at_every_token_rate():
    # 60 ms apart: one beat. At 100 Hz these are six tokens, at 50 Hz three: a fixed number of tokens fails.
    for rate in (50, 100):
        apart = round(0.06 * rate)
        activation = np.zeros(100)
        activation[[40, 40 + apart]] = [0.9, 0.8]
        assert len(peak_times(activation, np.arange(100) / rate, 0.5)) == 1
    # Two tokens apart at 10 Hz: 200 ms, two beats.
    activation = np.zeros(20)
    activation[[8, 10]] = [0.9, 0.8]
    np.testing.assert_allclose(peak_times(activation, np.arange(20) / 10, 0.5), [0.8, 1.0])


def test_a_plateau_is_one_peak():
    activation = np.array([0, 0, 0.9, 0.9, 0.9, 0.9, 0, 0, 0, 0, 0.9, 0.9, 0])
    assert len(peak_times(activation, np.arange(13) * 0.032, 0.5)) == 2
    assert len(peak_times(np.ones(200), np.arange(200) * 0.02, 0.5)) == 1


def test_peaks_at_the_ends_of_a_track_are_found_and_stay_inside():
    activation = np.array([1.0, 0.2, 0.0, 0.0, 0.3, 1.0])
    np.testing.assert_allclose(peak_times(activation, np.arange(6) / 10, 0.5), [0.0, 0.5])


@pytest.mark.parametrize("num_tokens", [0, 1, 2])
def test_tracks_of_a_few_tokens_have_no_beats(num_tokens):
    values, times = np.ones(num_tokens), np.arange(num_tokens) / 10
    assert len(peak_times(values, times, 0.5)) == 0
    assert len(dynamic_programming_times(values, times)) == 0


def test_a_constant_activation_has_no_beats():
    assert len(dynamic_programming_times(np.full(300, 0.3), np.arange(300) * 0.032)) == 0


@pytest.mark.parametrize("decoder", ["peaks", "dynamic_programming"])
def test_scores_are_those_of_mir_eval_on_the_written_file(task, clicks, token_times, tmp_path, decoder):
    beats, times = clicks(30.0, 120), token_times(30.0)
    logits = oracle_logits(task, beats, times) + np.random.default_rng(1).normal(0, 6, size=(len(times), 2))
    estimate = task.decode(logits, times, 30.0, task.calibrate(decoder, [logits], [times], [beats]))
    task.write(estimate, tmp_path / "t.beats")
    written = mir_eval.io.load_delimited(str(tmp_path / "t.beats"), [float, int], delimiter="\t")
    scores = task.score([beats], [estimate]).corpus
    by_hand = mir_eval.beat.evaluate(beats.times, np.array(written[0]))
    assert set(scores) == {*MIR_EVAL, "downbeat_f_measure"}
    for name, theirs in MIR_EVAL.items():
        assert scores[name] == pytest.approx(by_hand[theirs], abs=1e-3), name
    downbeats = np.array([time for time, position in zip(*written, strict=True) if position == 1])
    expected = mir_eval.beat.f_measure(*map(mir_eval.beat.trim_beats, (beats.downbeats, downbeats)))
    assert scores["downbeat_f_measure"] == pytest.approx(expected)
    assert 0.3 < scores["f_measure"] <= 1


def test_the_first_5_seconds_count_in_neither_list(clicks):
    beats = clicks(30.0, 120)
    late = beats.times >= 5
    # Wrong beats before 5 s, the true ones afterwards.
    early = np.array([0.1, 0.15, 1.9, 4.9])
    estimate = Beats(
        np.concatenate([early, beats.times[late]]), np.concatenate([np.ones(4, int), beats.positions[late]])
    )
    assert set(beat_scores(beats, estimate).values()) == {1.0}
    assert beat_scores(estimate, beats)["f_measure"] == 1.0
    assert beat_scores(estimate, beats)["downbeat_f_measure"] == 1.0


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_estimated_beats_score_0(clicks, count):
    beats = clicks(30.0, 120)
    estimate = Beats(beats.times[20 : 20 + count], beats.positions[20 : 20 + count])
    scores = beat_scores(beats, estimate)
    del scores["downbeat_f_measure"]
    assert set(scores.values()) == {0.0}


def test_two_estimated_beats_are_scored(clicks):
    beats = clicks(30.0, 120)
    scores = beat_scores(beats, Beats(beats.times[20:22], beats.positions[20:22]))
    num_reference = (beats.times >= 5).sum()
    assert scores["f_measure"] == pytest.approx(2 * 2 / (num_reference + 2))
    assert all(np.isfinite(value) for value in scores.values())


@pytest.mark.parametrize("times", [[], [0.5, 1.0, 4.9], [4.0, 6.0]], ids=["none", "all before 5 s", "one after 5 s"])
def test_a_reference_with_nothing_to_score_is_undefined_and_leaves_the_mean(task, clicks, times):
    empty, beats = Beats(np.array(times)), clicks(30.0, 120)
    scores = task.score([empty, beats], [beats, beats])
    assert np.isnan(scores.per_track["f_measure"][0])
    assert set(scores.corpus.values()) == {1.0}


def test_bars_that_are_not_annotated_are_masked_in_training_and_not_scored(task, clicks, token_times):
    beats, times = clicks(10.0, 120), token_times(10.0)
    plain = Beats(beats.times)
    targets = task.encode(plain, times)
    assert targets[:, 1].isnan().all()
    logits = torch.randn(len(times), 2, generator=torch.Generator().manual_seed(0))
    other = logits.clone()
    other[:, 1] += 3
    assert task.loss(logits, targets) == task.loss(other, targets)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], targets[:, 0])
    torch.testing.assert_close(task.loss(logits, targets), expected)
    assert "downbeat_f_measure" not in task.score([plain], [beats]).corpus
    settings = task.calibrate("peaks", [logits.numpy()], [times], [plain])
    assert settings["downbeat_threshold"] == 0.5


def test_targets_are_widened_in_training_only_and_never_narrower_than_a_token(task):
    events = np.array([1.0, 2.0])
    fine = np.arange(301) * 0.01
    target = widened(events, fine, 0.05)
    np.testing.assert_allclose(target[[100, 102, 104, 105, 106, 200]], [1.0, 0.6, 0.2, 0, 0, 1.0], atol=1e-9)
    coarse = np.arange(31) * 0.1 + 0.05  # every event between two tokens
    target = widened(events, coarse, 0.05)
    np.testing.assert_allclose(target[[9, 10, 19, 20]], 0.5)
    assert target.sum() == pytest.approx(2.0)
    assert widened(np.empty(0), fine, 0.05).sum() == 0


def test_thresholds_are_the_best_of_validation(task, clicks, token_times):
    beats, times = clicks(30.0, 120), token_times(30.0)
    generator = np.random.default_rng(3)
    weak = oracle_logits(task, beats, times) * 0.1 - 3 + generator.normal(0, 0.1, size=(len(times), 2))
    settings = task.calibrate("peaks", [weak], [times], [beats])
    assert task.score([beats], [task.decode(weak, times, 30.0, settings)]).corpus["f_measure"] > 0.95
    half = settings | {"threshold": 0.5}
    assert len(task.decode(weak, times, 30.0, half).times) == 0


def test_validation_tracks_without_a_beat_to_score_still_give_settings(task, token_times):
    times = token_times(4.0)
    logits = np.random.default_rng(0).normal(size=(len(times), 2))
    settings = task.calibrate("peaks", [logits], [times], [Beats(np.array([1.0, 2.0]), np.array([1, 2]))])
    assert np.isfinite(settings["threshold"])
    assert np.isfinite(settings["downbeat_threshold"])


def test_positions_count_from_the_last_downbeat():
    starts = np.array([False, False, True, False, False, False, True, True, False])
    assert bar_positions(starts).tolist() == [2, 3, 1, 2, 3, 4, 1, 1, 2]


def test_no_beats_are_an_empty_file(task, tmp_path):
    estimate = task.decode(
        np.full((50, 2), -9.0), np.arange(50) / 10, 5.0, {"name": "peaks", "threshold": 0.5, "downbeat_threshold": 0.5}
    )
    task.write(estimate, tmp_path / "t.beats")
    assert len(read_beats(tmp_path / "t.beats").times) == 0


def test_the_majority_estimate_has_the_median_beat_period_of_training(task):
    task.prepare(
        [Beats(np.arange(0, 10, 0.6)), Beats(np.arange(0, 10, 0.6)), Beats(np.arange(0, 4, 1.0)), Beats(np.empty(0))]
    )
    assert task.beat_seconds == pytest.approx(0.6)
    estimate = task.majority_estimate([], 6.0)
    np.testing.assert_allclose(np.diff(estimate.times), 0.6)
    assert estimate.times.max() < 6.0


def test_an_estimate_without_bars_has_no_downbeat_score(task, clicks):
    beats = clicks(30.0, 120)
    scores = beat_scores(beats, Beats(beats.times))
    assert np.isnan(scores["downbeat_f_measure"])
    assert scores["f_measure"] == 1
    none = Beats(beats.times, np.full(len(beats.times), 2))
    assert beat_scores(beats, none)["downbeat_f_measure"] == 0


def test_details_count_the_tracks_with_nothing_to_score(task, clicks):
    beats = clicks(30.0, 120)
    one, none = Beats(np.array([4.0, 6.0])), Beats(np.empty(0), np.empty(0, dtype=int))
    assert task.details([beats, one, none, beats], [beats, beats, beats, one]) == {
        "tracks": 4,
        "fewer_than_2_reference_beats": 2,
        "fewer_than_2_estimated_beats": 1,
        "without_bars": 1,
    }


@pytest.mark.parametrize("rate", [16000, 44100])
def test_librosa_follows_a_metronome(task, rate):
    beats = Beats(np.arange(0.5, 19.5, 0.5))
    waveform = np.zeros(20 * rate)
    for beat in beats.times:
        start = int(beat * rate)
        waveform[start : start + rate // 100] = np.random.default_rng(0).normal(0, 0.5, rate // 100)
    assert beat_scores(beats, task.classical_estimate(waveform.astype(np.float32), rate))["f_measure"] > 0.9
