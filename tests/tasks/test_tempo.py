"""Tempo: periods of a beat activation, and scores by hand and by mir_eval."""

import mir_eval
import numpy as np
import pytest

from musictf.annotations import Beats
from musictf.tasks.beat import widened
from musictf.tasks.tempo import Tempi, TempoTask, activation_tempi, autocorrelation, reference_tempo, tempo_scores

WIDE = {"name": "autocorrelation", "typical": 100.0, "octaves": 2.0, "spectrum": True}


@pytest.fixture
def task():
    return TempoTask()


def steady(tempo, seconds=30.0, first=0.3):
    return Beats(np.arange(first, seconds, 60 / tempo))


def of(tempo):
    return Tempi(tempo / 2, tempo, 0.0)


@pytest.mark.parametrize("rate", [10, 15.625, 31.25, 50, 100])
@pytest.mark.parametrize("tempo", [37, 60, 87, 113, 151, 199])
def test_perfect_targets_give_the_tempo_at_any_token_rate(task, token_times, rate, tempo):
    beats, times = steady(tempo), token_times(30.0, rate)
    estimate = task.decode((task.encode(beats, times).numpy() - 0.5) * 20, times, 30.0, WIDE)
    assert estimate.main == pytest.approx(tempo, rel=0.01)
    assert set(task.score([beats], [estimate]).corpus.values()) == {1.0}
    assert estimate.slow < estimate.fast
    assert 0 <= estimate.weight <= 1


@pytest.mark.parametrize("spectrum", [True, False])
def test_a_track_with_a_varying_tempo_has_a_tempo(token_times, spectrum):
    generator = np.random.default_rng(0)
    periods = 0.6 * np.exp(np.cumsum(generator.normal(0, 0.01, 100)) * 0.3 + generator.normal(0, 0.015, 100))
    beats, times = Beats(np.cumsum(periods)), token_times(55.0)
    activation = widened(beats.times, times, 0.05)
    estimate = activation_tempi(activation, times, WIDE | {"spectrum": spectrum, "octaves": 0.5})
    assert tempo_scores(beats, estimate)["accuracy1"] == 1


def test_events_between_beats_are_separated_from_beats_by_the_typical_tempo(task, token_times):
    times = token_times(30.0)
    references = [steady(tempo) for tempo in (70, 80, 90)]
    activations = [
        np.maximum(
            widened(beats.times, times, 0.05), 0.9 * widened(beats.times + 30 / reference_tempo(beats), times, 0.05)
        )
        for beats in references
    ]
    logits = [np.log((a + 1e-3) / (1 - a + 1e-3))[:, None] for a in activations]
    task.prepare(references)
    assert task.typical == pytest.approx(80)
    settings = task.calibrate("autocorrelation", logits, [times] * 3, references)
    scores = [
        task.score(references, [task.decode(track, times, 30.0, decoder) for track in logits]).corpus["accuracy1"]
        for decoder in (settings, WIDE | {"typical": 80.0})
    ]
    assert scores == [1.0, 0.0]  # chosen on validation; without a choice all are twice too fast
    assert settings["typical"] == pytest.approx(80)
    assert settings["octaves"] < 2 or not settings["spectrum"]


def test_of_equal_validation_scores_the_widest_bell_is_chosen(task, token_times):
    times, references = token_times(30.0), [steady(100), steady(120)]
    logits = [(task.encode(beats, times).numpy() - 0.5) * 20 for beats in references]
    task.prepare(references)
    settings = task.calibrate("autocorrelation", logits, [times] * 2, references)
    assert settings == {"name": "autocorrelation", "typical": 110.0, "octaves": 2.0, "spectrum": True}


@pytest.mark.parametrize(
    ("factor", "first", "second"),
    [
        (1, 1, 1),
        (1.039, 1, 1),
        (0.961, 1, 1),
        (1.041, 0, 0),
        (2, 0, 1),
        (0.5, 0, 1),
        (3, 0, 1),
        (1 / 3, 0, 1),
        (2.07, 0, 1),
        (2.09, 0, 0),
        (1.5, 0, 0),
        (4, 0, 0),
    ],
)
def test_accuracies_allow_4_percent_and_the_second_octave_errors(factor, first, second):
    scores = tempo_scores(steady(100), of(100 * factor))
    assert (scores["accuracy1"], scores["accuracy2"]) == (first, second)


def test_the_main_tempo_is_the_one_with_more_weight():
    beats = steady(100)
    assert tempo_scores(beats, Tempi(50.0, 100.0, 0.4))["accuracy1"] == 1
    assert tempo_scores(beats, Tempi(50.0, 100.0, 0.6))["accuracy1"] == 0
    assert tempo_scores(beats, Tempi(100.0, 200.0, 0.6))["accuracy1"] == 1


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (Tempi(50.0, 100.0, 0.0), (1, 1, 1)),
        (Tempi(100.0, 200.0, 1.0), (1, 1, 0)),
        (Tempi(25.0, 50.0, 0.0), (0, 1, 0)),
        (Tempi(53.0, 107.0, 0.0), (1, 1, 1)),  # 8 %
        (Tempi(70.0, 140.0, 0.0), (0, 0, 0)),
        (Tempi(0.0, 0.0, 0.0), (0, 0, 0)),
    ],
)
def test_the_other_scores_are_those_of_mir_eval_with_all_weight_on_the_annotated_tempo(estimate, expected):
    scores = tempo_scores(steady(100), estimate)
    values = tuple(scores[name] for name in ("p_score", "one_correct", "both_correct"))
    assert values == expected
    theirs = mir_eval.tempo.detection(np.array([50.0, 100.0]), 0.0, np.array([estimate.slow, estimate.fast]))
    assert values == tuple(map(float, theirs))


def test_the_reference_is_the_median_of_the_whole_track():
    assert reference_tempo(Beats(np.array([0.0, 0.5, 1.0, 1.5, 4.0]))) == pytest.approx(120)
    assert reference_tempo(Beats(np.array([0.0, 0.5]))) == pytest.approx(120)  # the first 5 s count


@pytest.mark.parametrize("times", [[], [7.0]], ids=["no beat", "one beat"])
def test_a_track_of_fewer_than_two_beats_has_no_tempo_and_leaves_the_mean(task, times):
    beats = [Beats(np.array(times)), steady(100)]
    scores = task.score(beats, [of(100), of(100)])
    assert np.isnan(scores.per_track["accuracy1"][0])
    assert set(scores.corpus.values()) == {1.0}
    assert task.details(beats, [of(100), of(100)])["fewer_than_2_reference_beats"] == 1
    task.prepare(beats)
    assert task.typical == pytest.approx(100)
    assert task.majority_estimate([], 1.0).main == pytest.approx(100)


def test_details_count_octave_errors(task):
    estimates = [of(100 * factor) for factor in (1, 1, 2, 0.5, 3, 1 / 3, 1.4)]
    octaves = task.details([steady(100)] * 7, estimates)["octaves"]
    assert octaves == {"third": 1, "half": 1, "right": 2, "double": 1, "triple": 1, "other": 1}


@pytest.mark.parametrize("activation", [np.zeros(300), np.full(300, 0.7), np.ones(2), np.empty(0)])
def test_a_constant_activation_has_no_tempo(activation):
    assert activation_tempi(activation, np.arange(len(activation)) * 0.032, WIDE) == Tempi(0.0, 0.0, 0.0)


def test_a_ramp_has_an_estimate_that_can_be_scored():
    estimate = activation_tempi(np.linspace(0, 1, 300), np.arange(300) * 0.032, WIDE)
    assert all(np.isfinite([estimate.slow, estimate.fast, estimate.weight]))


def test_autocorrelation_is_that_of_the_definition():
    activation = np.random.default_rng(0).random(200)
    centred = activation - activation.mean()
    by_hand = np.array([np.mean(centred[: 200 - lag] * centred[lag:]) for lag in range(61)])
    np.testing.assert_allclose(autocorrelation(activation, 60), by_hand / by_hand[0], atol=1e-12)
    assert len(autocorrelation(activation, 10_000)) == 101  # half the track at most


@pytest.mark.parametrize("rate", [16000, 44100])
def test_librosa_estimates_a_metronome_or_its_octave(task, rate):
    waveform = np.zeros(20 * rate)
    for beat in steady(120, 19.5).times:
        waveform[int(beat * rate) : int(beat * rate) + rate // 100] = np.random.default_rng(0).normal(
            0, 0.5, rate // 100
        )
    assert tempo_scores(steady(120), task.classical_estimate(waveform.astype(np.float32), rate))["accuracy2"] == 1


def test_files_are_those_of_mir_eval(task, tmp_path):
    task.write(Tempi(60.0, 120.0, 0.25), tmp_path / "t.tempo")
    tempi, weight = mir_eval.io.load_tempo(str(tmp_path / "t.tempo"))
    assert (*tempi, weight) == (60, 120, 0.25)
