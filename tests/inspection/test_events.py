"""Events of tracks, and nulls that keep what they say they keep."""

from pathlib import Path

import numpy as np
import pytest

from musictf.annotations import Beats, Chords
from musictf.datasets.base import Track
from musictf.errors import InputError
from musictf.inspection.event_scores import areas_under_curve, token_labels
from musictf.inspection.events import all_events, chord_changes, events_of, shifted, shuffled


def track(**labels):
    return Track(track_id="a", audio=Path("a.wav"), labels=labels)


def some_events(rng, seconds):
    return np.sort(rng.uniform(0, seconds, rng.integers(1, 40)))


def test_shifted_events_keep_their_cyclic_distances_and_move():
    rng = np.random.default_rng(0)
    for _ in range(200):
        seconds = rng.uniform(5, 60)
        events = some_events(rng, seconds)
        moved = shifted(events, seconds, rng)
        assert (moved >= 0).all()
        assert (moved < seconds).all()
        assert (np.diff(moved) >= 0).all()
        around = [np.sort(np.diff(each, append=each[0] + seconds)) for each in (events, moved)]
        np.testing.assert_allclose(*around, atol=1e-9)


def test_a_shift_is_a_second_at_least_in_either_direction():
    rng = np.random.default_rng(1)
    distances = [(shifted(np.array([0.0]), 10.0, rng)[0]) for _ in range(2000)]
    assert 1.0 <= min(distances) < 1.1
    assert 8.9 < max(distances) <= 9.0
    short = [(shifted(np.array([0.0]), 0.8, rng)[0]) for _ in range(500)]
    assert min(short) >= 0.2
    assert max(short) <= 0.6


def test_shuffled_events_keep_the_distances_in_another_order():
    rng = np.random.default_rng(2)
    changed = 0
    for _ in range(200):
        seconds = rng.uniform(5, 60)
        events = some_events(rng, seconds)
        moved = shuffled(events, seconds, rng)
        assert len(moved) == len(events)
        assert (moved >= 0).all()
        assert (moved <= seconds).all()
        assert (np.diff(moved) >= 0).all()
        gaps = [np.sort(np.diff(each, prepend=0.0, append=seconds)) for each in (events, moved)]
        np.testing.assert_allclose(*gaps, atol=1e-9)
        changed += not np.allclose(moved, events)
    assert changed > 180


@pytest.mark.parametrize("null", [shifted, shuffled])
def test_a_null_of_curves_that_know_nothing_lies_at_chance(null):
    rng = np.random.default_rng(4)
    times = np.arange(600) * 0.032
    areas = []
    for _ in range(60):
        curve = np.convolve(rng.standard_normal(604), np.ones(5), "valid")
        events = some_events(rng, times[-1])
        labels = np.array([token_labels(null(events, 600 * 0.032, rng), times) for _ in range(20)])
        areas.append(np.nanmean(areas_under_curve(curve, labels)))
    assert np.mean(areas) == pytest.approx(0.5, abs=0.02)


def test_chord_changes_are_where_one_known_chord_follows_another():
    labels = ["N", "C:maj", "C:maj", "G:maj", "X", "G:maj", "A:min", "N"]
    starts = np.arange(8.0)
    chords = Chords(np.column_stack([starts, starts + 1]), labels)
    assert chord_changes(chords).tolist() == [1.0, 3.0, 6.0, 7.0]
    assert len(chord_changes(Chords(np.array([[0.0, 1.0]]), ["C:maj"]))) == 0


def test_events_are_those_of_the_annotation():
    beats = Beats(np.array([0.5, 1.0, 1.5, 2.0]), np.array([4, 1, 2, 3]))
    one = track(beats=beats, onsets=np.array([0.1, 0.2]))
    assert events_of(one, "beat").tolist() == [0.5, 1.0, 1.5, 2.0]
    assert events_of(one, "downbeat").tolist() == [1.0]
    assert events_of(one, "onset").tolist() == [0.1, 0.2]
    assert events_of(one, "chord_change") is None
    assert events_of(track(beats=Beats(beats.times)), "downbeat") is None
    with pytest.raises(InputError, match="unknown"):
        events_of(one, "cadence")


def test_every_annotated_target_is_read_and_no_other():
    tracks = [track(onsets=np.array([0.1])), track(beats=Beats(np.array([0.5, 1.0])))]
    found = all_events(tracks)
    assert list(found) == ["onset", "beat"]
    assert found["beat"].times[0] is None
    assert found["beat"].times[1].tolist() == [0.5, 1.0]


def test_the_proxy_is_named_so_and_stands_in_where_no_onset_is_annotated(write_wav, make_clicks):
    onsets = np.array([0.5, 1.2, 1.9, 2.4])
    found = all_events([write_wav("proxy", make_clicks(onsets, 3.0))])
    assert list(found) == ["librosa_onset"]
    estimated = found["librosa_onset"].times[0]
    assert all(np.abs(estimated - onset).min() < 0.05 for onset in onsets)


def test_a_target_that_is_annotated_nowhere_is_refused():
    with pytest.raises(InputError, match="no track has downbeat"):
        all_events([track(onsets=np.array([0.1]))], ["onset", "downbeat"])
    with pytest.raises(InputError, match="no track has onset"):
        all_events([track(onsets=np.empty(0))], ["onset"])


def test_beats_that_are_wanted_are_those_near_a_wanted_time():
    beats = Beats(np.arange(0.5, 5.0, 0.5), np.array([1, 2, 3] * 3))
    edges = np.array([0.0, 1.06, 2.2, 3.96, 6.0])
    chords = Chords(np.column_stack([edges[:-1], edges[1:]]), ["C:maj", "G:maj", "F:maj", "C:maj"])
    tracks = [track(beats=beats, chords=chords), track(chords=chords), track(beats=Beats(beats.times))]
    found = all_events(tracks, ["beat", "downbeat_among_beats", "change_among_beats"])
    assert found["downbeat_among_beats"].times[0].tolist() == [0.5, 2.0, 3.5]
    assert found["change_among_beats"].times[0].tolist() == [1.0, 4.0]
    assert found["change_among_beats"].times[1:] == [None, None]
    for name in ("downbeat_among_beats", "change_among_beats"):
        assert found[name].among[0].tolist() == beats.times.tolist()
    assert found["beat"].among is None
