"""Boundaries stand at the second at which something changes, and score as mir_eval says."""

from pathlib import Path

import mir_eval
import numpy as np
import pytest

from musictf.annotations import Chords, Sections
from musictf.datasets.base import Track
from musictf.inspection.binned_tracks import BinnedTrack
from musictf.inspection.boundaries import KINDS, Boundaries, boundary_scores, novelties
from musictf.inspection.event_scores import peaks
from musictf.inspection.self_similarity import binned

PERIOD, WIDTH = 0.032, 8
CHORD, SECTION = KINDS


def binned_track(num_tokens, labels, name="a"):
    times = binned(np.arange(num_tokens) * PERIOD, WIDTH)
    track = Track(track_id=name, audio=Path("a.wav"), split="test", labels=labels)
    return BinnedTrack(track, WIDTH, 16, times, num_tokens, np.zeros((len(times), 4)), {})


def blocks(num_tokens, changes, seed=0):
    """Tokens that point somewhere else after each change (seconds), binned, (1, S, D)."""
    rng = np.random.default_rng(seed)
    part = np.searchsorted(changes, np.arange(num_tokens) * PERIOD, side="right")
    directions = rng.standard_normal((len(changes) + 1, 16))
    return binned(directions[part] + 0.05 * rng.standard_normal((num_tokens, 16)), WIDTH)[None]


def sections(edges):
    intervals = np.column_stack([edges[:-1], edges[1:]])
    return Sections(intervals, [chr(65 + k) for k in range(len(intervals))])


@pytest.fixture
def written(context_for, corpus_of_tracks, model_of, small):
    """Rows of planted blocks: (changes a split, annotated) -> rows."""

    def write(changes, labels, num_tokens=1250):
        tracks = {split: binned_track(num_tokens, labels, split) for split in ("valid", "test")}
        corpus = corpus_of_tracks({split: [track.track] for split, track in tracks.items()})
        context, boundaries = context_for(corpus), Boundaries()
        for split, track in tracks.items():
            boundaries.add(split, 0, track, blocks(num_tokens, changes))
        boundaries.write(model_of(small), context.rows)
        return context.rows.rows

    return write


@pytest.mark.parametrize("change", [10.0, 13.07, 20.9])
def test_a_change_at_a_known_second_is_found_within_a_bin(change):
    track = binned_track(1000, {})
    layers = blocks(1000, np.array([change]))
    for kind in KINDS:
        curve = novelties(layers, track, kind)[0]
        found = peaks(curve, track.times - track.bin_seconds / 2, 0.95, kind.half_width / 2)
        assert np.abs(found - change).min() < track.bin_seconds
        tallest = (track.times - track.bin_seconds / 2)[curve.argmax()]
        assert abs(tallest - change) <= track.bin_seconds / 2 + PERIOD


def test_known_changes_are_scored_and_nothing_else_is(written):
    edges = np.array([0.0, 10.0, 22.0, 31.0, 40.0])
    (row,) = written(edges[1:-1], {"sections": sections(edges)})
    assert (row["task"], row["readout"], row["selected"]) == ("boundary", "section", True)
    assert row["scores"]["recall"]["mean"] == 1.0
    assert row["scores"]["f_measure"]["mean"] > 0.8
    assert row["scores"]["f_measure_above_shifted"]["mean"] > 0.2


def test_changes_elsewhere_do_not_score(written):
    (row,) = written(np.array([5.0, 26.5]), {"sections": sections(np.array([0.0, 15.0, 36.0, 40.0]))})
    assert row["scores"]["f_measure"]["mean"] == 0.0 > row["scores"]["f_measure_above_shifted"]["mean"]


def test_chord_changes_have_half_a_second(written):
    changes = np.arange(2.0, 39.0, 2.0)
    edges = np.concatenate([[0.0], changes, [40.0]])
    names = [("C:maj", "G:maj", "A:min", "F:maj")[k % 4] for k in range(len(edges) - 1)]
    (row,) = written(changes, {"chords": Chords(np.column_stack([edges[:-1], edges[1:]]), names)})
    assert row["readout"] == "chord_change"
    assert row["scores"]["f_measure"]["mean"] > 0.9
    assert row["decoder"]["tolerance"] == 0.5
    (row,) = written(changes + 1.0, {"chords": Chords(np.column_stack([edges[:-1], edges[1:]]), names)})
    assert row["scores"]["f_measure"]["mean"] < 0.2


@pytest.mark.parametrize(("away", "recall"), [(-0.4, 1.0), (0.4, 1.0), (-0.62, 0.0), (0.62, 0.0)])
def test_half_a_second_to_either_side_is_half_a_second_from_the_change_itself(written, away, recall):
    changes = np.arange(1, 18) * 8 * WIDTH * PERIOD  # where bins begin
    edges = np.concatenate([[0.0], changes + away, [40.0]])
    names = [("C:maj", "G:maj")[k % 2] for k in range(len(edges) - 1)]
    (row,) = written(changes, {"chords": Chords(np.column_stack([edges[:-1], edges[1:]]), names)})
    assert row["scores"]["recall"]["mean"] == pytest.approx(recall, abs=0.2)


def test_nothing_annotated_in_one_split_gives_no_row(context_for, corpus_of_tracks, model_of, small):
    track = binned_track(1000, {"sections": sections(np.array([0.0, 10.0, 32.0]))})
    corpus = corpus_of_tracks({"valid": [track.track], "test": [track.track]})
    context, boundaries = context_for(corpus), Boundaries()
    boundaries.add("test", 0, track, blocks(1000, np.array([10.0])))
    boundaries.write(model_of(small), context.rows)
    assert context.rows.rows == []


def test_scores_are_those_of_mir_eval_without_the_ends():
    rng = np.random.default_rng(0)
    for _ in range(100):
        reference, estimate = (np.sort(rng.uniform(1, 39, rng.integers(1, 8))) for _ in range(2))
        sides = [np.concatenate([[0.0], side, [40.0]]) for side in (reference, estimate)]
        intervals = [np.column_stack([side[:-1], side[1:]]) for side in sides]
        precision, recall, f_measure = mir_eval.segment.detection(*intervals, window=3.0, trim=True)
        assert boundary_scores(reference, estimate, 40.0, 3.0) == pytest.approx((f_measure, precision, recall))


def test_nothing_found_scores_nothing_and_what_lies_outside_is_left_out():
    assert boundary_scores(np.array([10.0]), np.empty(0), 40.0, 3.0) == (0.0, 0.0, 0.0)
    inside = boundary_scores(np.array([10.0]), np.array([11.0]), 40.0, 3.0)
    assert inside == (1.0, 1.0, 1.0) == boundary_scores(np.array([10.0]), np.array([-0.1, 11.0, 41.0]), 40.0, 3.0)


def test_boundaries_beyond_the_audio_are_no_boundaries():
    assert np.isnan(boundary_scores(np.array([50.0]), np.array([3.0]), 40.0, 0.5)).all()  # nothing to find
    assert boundary_scores(np.array([5.0]), np.array([-0.01]), 40.0, 0.5) == (0.0, 0.0, 0.0)


def test_boundaries_of_noise_are_at_chance(context_for, corpus_of_tracks, model_of, small):
    tracks = []
    for index in range(100):
        rng = np.random.default_rng(index)
        edges = np.concatenate([[0.0], np.sort(rng.uniform(0.1, 39.9, 5)), [40.0]])
        tracks.append(binned_track(1250, {"sections": sections(edges)}, f"t{index}"))
    corpus = corpus_of_tracks({"valid": [tracks[0].track], "test": [track.track for track in tracks]})
    context, boundaries = context_for(corpus), Boundaries()
    for place, track in enumerate(tracks):
        noise = np.random.default_rng(1000 + place).standard_normal((len(track.times) + 7, 8))
        layer = np.array([noise[k : k + 8].mean(axis=0) for k in range(len(track.times))])
        for split in ("valid", "test") if place == 0 else ("test",):
            boundaries.add(split, place, track, layer[None])
    boundaries.write(model_of(small), context.rows)
    assert abs(context.rows.rows[0]["scores"]["f_measure_above_shifted"]["mean"]) < 0.06
