"""Dimensions of music: what is alike, what differs, and where nothing is known."""

from pathlib import Path

import numpy as np
import pytest

from musictf.annotations import Beats, Chords, Sections
from musictf.datasets.base import Track
from musictf.inspection.dimensions import Dimension, dimensions_of
from musictf.inspection.self_similarity import binned
from musictf.models.frame_controls import ChromaControl

PERIOD, WIDTH, NUMBER = 0.032, 8, 500  # 16 s in 63 bins
TIMES = np.arange(NUMBER) * PERIOD
CENTRES = binned(TIMES, WIDTH)


def found(mel=None, mfcc=None, chroma=None, **labels):
    rng = np.random.default_rng(0)
    track = Track(track_id="a", audio=Path("a.wav"), labels=labels)
    return dimensions_of(
        track,
        rng.standard_normal((NUMBER, 16)) if mel is None else mel,
        rng.standard_normal((NUMBER, 20)) if mfcc is None else mfcc,
        rng.random((NUMBER, 12)) if chroma is None else chroma,
        TIMES,
        WIDTH,
    )


def spans(edges, names):
    return np.column_stack([edges[:-1], edges[1:]]), names


def label_at(edges, names, time):
    return names[int(np.searchsorted(edges, time, side="right")) - 1]


def whole_bins(edges):
    """Bins within one span."""
    first, last = TIMES[::WIDTH], np.append(TIMES[WIDTH - 1 :: WIDTH], TIMES[-1])[: len(CENTRES)]
    return np.searchsorted(edges, first, side="right") == np.searchsorted(edges, last, side="right")


def test_features_of_the_audio_are_always_known_annotations_only_where_given():
    assert list(found()) == ["harmony", "timbre", "rhythm", "loudness"]
    for dimension in found().values():
        assert len(dimension.features) == len(CENTRES)
        assert dimension.known.all()


def test_features_are_means_over_bins():
    mfcc = np.random.default_rng(1).standard_normal((NUMBER, 20))
    mel = np.random.default_rng(2).standard_normal((NUMBER, 16))
    dimensions = found(mel=mel, mfcc=mfcc)
    np.testing.assert_allclose(dimensions["timbre"].features[3], mfcc[24:32, 1:].mean(axis=0))
    np.testing.assert_allclose(dimensions["loudness"].features[:, 0], binned(mel.mean(axis=1), WIDTH))


def test_loudness_is_alike_where_the_difference_is_small():
    mel = np.zeros((NUMBER, 16))
    mel[160:] = 6.0
    matrix = found(mel=mel)["loudness"].matrix
    assert matrix[0, 19] == 0.0
    assert matrix[0, 20] == -6.0 == matrix[62, 5]


def test_transposed_chords_differ_in_harmony_and_a_repeated_one_does_not(write_wav):
    import torch

    def chord(root, seconds):
        time = np.arange(round(seconds * 16_000)) / 16_000
        tones = (0.1 * np.sin(2 * np.pi * 220 * 2 ** ((root + step) / 12) * time) for step in (0, 4, 7))
        return np.sum(list(tones), axis=0)

    waveform = np.concatenate([chord(0, 1.3), chord(2, 1.3), chord(0, 1.3)])
    with torch.inference_mode():
        chroma = ChromaControl().frames(torch.from_numpy(waveform).float()[None])[0].double().numpy()
    times = np.arange(len(chroma)) * PERIOD
    track = Track(track_id="a", audio=Path("a.wav"))
    rng = np.random.default_rng(0)
    mel, mfcc = rng.standard_normal((len(chroma), 16)), rng.standard_normal((len(chroma), 20))
    matrix = dimensions_of(track, mel, mfcc, chroma, times, WIDTH)["harmony"].matrix
    assert matrix[2, 13] > 0.95
    assert matrix[2, 8] < 0.0


def test_chords_without_common_tones_are_alike_where_their_names_are():
    edges = np.array([0.0, 4.0, 8.0, 12.0, 20.0])
    names = ["C:maj", "F#:maj", "C:maj", "F#:maj"]  # C E G, F# A# C#
    chords = found(chords=Chords(*spans(edges, names)))["chords"]
    known = chords.known & whole_bins(edges)
    letters = [label_at(edges, names, time) for time in CENTRES[known]]
    equal = np.equal.outer(letters, letters)
    matrix = Dimension(chords.features, known).matrix
    assert matrix[equal].min() > 0.99
    assert matrix[~equal].max() < -0.9


def test_a_chord_has_the_tones_that_it_names():
    edges = np.array([0.0, 4.0, 8.0, 20.0])
    features = found(chords=Chords(*spans(edges, ["D:min7", "N", "G/5"])))["chords"].features
    assert np.flatnonzero(features[4]).tolist() == [0, 2, 5, 9]
    assert not features[20].any()
    assert np.flatnonzero(features[50]).tolist() == [2, 7, 11]


def test_unknown_chords_and_what_lies_outside_are_not_known():
    chords = Chords(np.array([[2.0, 5.0], [5.0, 8.0], [8.0, 12.0]]), ["C:maj", "X", "G:maj"])
    known = found(chords=chords)["chords"].known
    first, last = TIMES[::WIDTH], np.append(TIMES[WIDTH - 1 :: WIDTH], TIMES[-1])
    for k in range(len(CENTRES)):
        inside = [lo <= first[k] and last[k] < hi for lo, hi in ((2.0, 5.0), (8.0, 12.0))]
        assert known[k] == any(inside)


def test_the_place_in_the_bar_repeats_with_every_bar_whatever_its_length():
    downbeats = np.array([1.0, 3.0, 5.0, 7.0, 9.0, 12.2, 15.4])  # ritardando: two longer bars
    times = np.sort(
        np.concatenate(
            [d + np.arange(4) / 4 * g for d, g in zip(downbeats, np.diff(downbeats, append=17.4), strict=True)]
        )
    )
    positions = np.tile([1, 2, 3, 4], len(downbeats))
    bar = found(beats=Beats(times, positions))["bar"]
    np.testing.assert_array_equal(bar.known, (TIMES[::WIDTH] >= 1.0) & (np.append(TIMES[7::WIDTH], TIMES[-1]) <= 15.4))
    angle = np.arctan2(bar.features[:, 1], bar.features[:, 0]) / (2 * np.pi) % 1
    expected = np.interp(CENTRES, downbeats, np.arange(7.0)) % 1
    away = np.abs((angle - expected + 0.5) % 1 - 0.5)
    assert away[bar.known].max() < 0.01


def test_bars_need_two_downbeats():
    times = np.arange(1.0, 5.0)
    assert "bar" not in found(beats=Beats(times))
    assert "bar" not in found(beats=Beats(times, np.array([1, 2, 3, 4])))
    assert "bar" in found(beats=Beats(times, np.array([1, 2, 1, 2])))


def test_sections_are_alike_where_their_letters_are():
    edges, names = np.array([1.0, 5.0, 9.0, 13.0]), ["A", "B", "A"]
    sections = found(sections=Sections(*spans(edges, names)))["sections"]
    assert not sections.known[0]
    assert not sections.known[-1]
    letters = [label_at(edges, names, time) for time in CENTRES[sections.known & whole_bins(edges)]]
    matrix = Dimension(sections.features, sections.known & whole_bins(edges)).matrix
    equal = np.equal.outer(letters, letters)
    assert set(letters) == {"A", "B"}
    assert matrix[equal].min() > 0.99
    assert matrix[~equal].max() < -0.9
    assert "sections" not in found(sections=Sections(*spans(edges, ["A", "A", "A"])))


def test_rhythm_has_the_periods_of_the_flux():
    mel = np.zeros((NUMBER, 16))
    mel[::25] = 20.0  # every .8 s
    features = found(mel=mel)["rhythm"].features[30]
    assert features[25] > 5 * features[12]


@pytest.mark.parametrize("number", [9, 33])
def test_short_tracks_have_dimensions_too(number):
    rng = np.random.default_rng(0)
    track = Track(track_id="a", audio=Path("a.wav"))
    args = (rng.random((number, k)) for k in (16, 20, 12))
    dimensions = dimensions_of(track, *args, np.arange(number) * PERIOD, 2)
    assert all(len(d.features) == -(-number // 2) and np.isfinite(d.features).all() for d in dimensions.values())


def test_what_is_known_nowhere_is_left_out():
    unknown = Chords(np.array([[0.0, 20.0]]), ["X"])
    elsewhere = Sections(np.array([[50.0, 60.0], [60.0, 70.0]]), ["A", "B"])
    assert not {"chords", "sections"} & found(chords=unknown, sections=elsewhere).keys()
