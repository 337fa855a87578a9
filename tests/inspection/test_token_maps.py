"""Maps of tokens: planted circles are found, names are those of music, and test tokens teach nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from musictf.annotations import PITCH_CLASSES, Beats, Chords
from musictf.datasets.base import Track
from musictf.errors import InputError
from musictf.inspection import token_maps
from musictf.inspection.token_maps import (
    TokenMapConfig,
    Tokens,
    circle_correlation,
    classes_at,
    inspect_token_maps,
    signature_of,
)

EVERYTHING = ("chord_root", "key", "beat_phase")


def circle(step, dim=6, noise=0.0, seed=0):
    """Places of the twelve pitch classes on a circle on which neighbours are so many semitones apart."""
    angle = 2 * np.pi * (np.arange(12) * step % 12) / 12
    places = np.column_stack([np.cos(angle), np.sin(angle), np.zeros((12, dim - 2))])
    return places + noise * np.random.default_rng(seed).standard_normal(places.shape)


def tokens_of(places, num_tracks=4, each=60, seed=0, view="chord_root", noise=0.1, roots=12):
    rng = np.random.default_rng(seed)
    root = rng.permutation(np.arange(num_tracks * each) % roots)
    features = places[root] + noise * rng.standard_normal((len(root), places.shape[1]))
    names = {name: np.full(len(root), "", dtype="<U8") for name in EVERYTHING}
    names[view] = np.array(PITCH_CLASSES, dtype="<U8")[root]
    return Tokens([features], names, np.repeat(np.arange(num_tracks), each))


@pytest.fixture
def mapped(small, context_for, corpus_of_tracks, model_of, monkeypatch, tmp_path):
    """Rows and maps of given tokens: (valid, test, groups) -> rows of the backbone, arrays."""
    monkeypatch.setattr(token_maps, "_RESAMPLES", 60)
    monkeypatch.setattr(token_maps, "_NULL_DRAWS", 200)

    def run(valid, test, groups="abcd"):
        tracks = [Track(track_id=f"t{k}", audio=Path("a.wav"), group=group) for k, group in enumerate(groups)]
        corpus = corpus_of_tracks({"valid": tracks[:2], "test": tracks})
        made = {2: valid, len(tracks): test}
        monkeypatch.setattr(token_maps, "gather", lambda context, model, tracks, *_: made[len(tracks)])
        context = context_for(corpus)
        inspect_token_maps(context, [model_of(small)], TokenMapConfig())
        rows = [row for row in context.rows.rows if row["backbone"]["kind"] == "pretrained"]
        with np.load(tmp_path / token_maps.MAPS) as arrays:
            return rows, dict(arrays)

    return run


@pytest.mark.parametrize(("step", "order"), [(7, "fifths"), (1, "chromatic")])
@pytest.mark.parametrize("view", ["chord_root", "key"])
def test_a_planted_circle_is_found_and_the_other_is_not(mapped, step, order, view):
    places = circle(step)
    rows, _ = mapped(tokens_of(places, view=view), tokens_of(places, seed=1, view=view))
    (row,) = rows
    other = {"fifths": "chromatic", "chromatic": "fifths"}[order]
    assert row["readout"] == view
    assert row["details"]["classes"] == 12
    assert row["scores"][order]["mean"] > 0.9 > 0.3 > row["scores"][other]["mean"]
    assert row["scores"]["lda_accuracy"]["mean"] > 0.8
    assert (row["scores"]["fifths"]["mean"] > row["scores"]["fifths_chance_high"]["mean"]) == (order == "fifths")


def test_names_that_are_shuffled_are_at_chance(mapped):
    found = []
    for seed in range(8):
        places = circle(7)[np.random.default_rng(seed).permutation(12)]
        rows, _ = mapped(tokens_of(places), tokens_of(places, seed=1))
        found.append(rows[0]["scores"]["fifths"]["mean"])
        assert 0.1 < rows[0]["scores"]["fifths_chance_high"]["mean"] < 0.5
    assert abs(np.mean(found)) < 0.2


def test_a_circle_correlation_is_spearmans():
    from scipy.stats import spearmanr

    places = circle(7, noise=0.4)
    present = [0, 2, 3, 5, 7, 8, 10, 11]
    distances, steps = [], []
    fifths = [0, 7, 2, 9, 4, 11, 6, 1, 8, 3, 10, 5]
    for i, one in enumerate(present):
        for other in present[i + 1 :]:
            apart = abs(fifths.index(one) - fifths.index(other))
            steps.append(min(apart, 12 - apart))
            distances.append(np.linalg.norm(places[one] - places[other]))
    expected = spearmanr(distances, steps)[0]
    assert circle_correlation(places[present], present, 7) == pytest.approx(expected)
    assert circle_correlation(circle(1), range(12), 1) > 0.98
    assert np.isnan(circle_correlation(places[:3], [0, 1, 2], 7))


def test_test_tokens_do_not_move_the_maps(mapped):
    places = circle(7)
    valid, test = tokens_of(places), tokens_of(places, seed=1)
    _, before = mapped(valid, test)
    changed = [test.layers[0].copy()]
    changed[0][120:] = 30.0 + 5.0 * np.random.default_rng(9).standard_normal((120, 6))
    _, after = mapped(valid, replace(test, layers=changed))
    for kind in ("pca", "lda"):
        first, second = before[f"chord_root/{kind}/0"], after[f"chord_root/{kind}/0"]
        assert first.shape == (240, 2)
        np.testing.assert_array_equal(first[:120], second[:120])
        assert (first[120:] != second[120:]).any()
    _, other = mapped(tokens_of(circle(1), seed=5), test)
    assert (other["chord_root/pca/0"] != before["chord_root/pca/0"]).any()


def test_maps_name_their_tokens(mapped):
    test = tokens_of(circle(7), seed=1)
    test.names["chord_root"][:7] = ""
    _, arrays = mapped(tokens_of(circle(7)), test)
    assert arrays["chord_root/names"].tolist() == test.names["chord_root"][7:].tolist()
    assert len(arrays["chord_root/pca/0"]) == 233


def test_accuracy_is_the_mean_over_classes(mapped):
    """Three classes are taken for the fourth, which is the most frequent: the mean does not follow it."""
    places = circle(7)
    valid, test = tokens_of(places, roots=4, noise=0.01), tokens_of(places, seed=1, roots=4, noise=0.01)
    rare = test.names["chord_root"] != "C"
    test.layers[0][rare] = places[0]
    test.names["chord_root"][np.flatnonzero(rare)[20:]] = ""
    rows, _ = mapped(valid, test)
    assert rows[0]["scores"]["lda_accuracy"]["mean"] == pytest.approx(1 / 4)
    assert rows[0]["details"]["chance"] == pytest.approx(1 / 4)


def test_classes_that_one_split_lacks_are_left_out(mapped):
    valid, test = tokens_of(circle(7), roots=5), tokens_of(circle(7), seed=1, roots=8)
    rows, arrays = mapped(valid, test)
    assert rows[0]["details"]["classes"] == 5
    assert set(arrays["chord_root/names"]) == set(PITCH_CLASSES[:5])
    assert mapped(tokens_of(circle(7), roots=1), test)[0] == []


def test_three_classes_are_no_circle_and_warn_of_nothing(mapped):
    rows, _ = mapped(tokens_of(circle(7), roots=3), tokens_of(circle(7), seed=1, roots=3))
    assert rows[0]["scores"]["fifths"]["mean"] is None
    assert rows[0]["scores"]["lda_accuracy"]["mean"] > 0.8


@pytest.mark.parametrize("groups", ["a", "aaaa"], ids=["one track", "one group"])
def test_one_group_has_no_interval(mapped, groups):
    places = circle(7)
    test = tokens_of(places, num_tracks=len(groups), each=240 // len(groups), seed=1, noise=0.5)
    rows, _ = mapped(tokens_of(places), test, groups)
    assert rows[0]["scores"]["lda_accuracy"]["ci95"] == [None, None]


@pytest.mark.parametrize("case", ["few", "constant"])
def test_validation_tokens_that_teach_nothing_are_no_crash(mapped, case):
    valid = (
        tokens_of(circle(7), num_tracks=1, each=3, roots=3) if case == "few" else tokens_of(np.ones((12, 6)), noise=0)
    )
    rows, _ = mapped(valid, tokens_of(circle(7), seed=1))
    assert all(
        row["scores"]["lda_accuracy"]["mean"] is None or row["scores"]["lda_accuracy"]["mean"] < 0.5 for row in rows
    )


@pytest.mark.parametrize(
    ("key", "tonic"),
    [("C major", "C"), ("A minor", "C"), ("F# minor", "A"), ("Bb major", "A#"), ("Eb minor", "F#"), ("H major", "")],
)
def test_minor_keys_are_called_after_their_relative_major(key, tonic):
    assert signature_of(key) == tonic


def test_names_are_those_of_the_annotation_at_each_time():
    chords = Chords(np.array([[1.0, 2.0], [2.0, 3.0], [3.0, 4.0], [4.0, 5.0]]), ["Bb:min", "N", "X", "C:maj/3"])
    track = Track(
        track_id="a",
        audio=Path("a.wav"),
        labels={"chords": chords, "key": "D minor", "beats": Beats(np.array([1.0, 2.0, 4.0]))},
    )
    times = np.array([0.5, 1.0, 1.99, 2.5, 3.5, 4.0, 5.0, 6.0])
    assert classes_at(track, times, "chord_root").tolist() == ["", "A#", "A#", "", "", "C", "", ""]
    assert set(classes_at(track, times, "key")) == {"F"}
    at = [0.99, 1.0, 1.1, 1.2, 1.5, 1.8, 1.9, 2.0, 2.5, 3.0, 3.5, 4.0, 4.01]
    phases = [
        "",
        "beat",
        "beat",
        "after",
        "between",
        "before",
        "beat",
        "beat",
        "after",
        "between",
        "before",
        "beat",
        "",
    ]
    assert classes_at(track, np.array(at), "beat_phase").tolist() == phases
    assert not any("".join(classes_at(Track(track_id="b", audio=Path("b.wav")), times, view)) for view in EVERYTHING)


def test_tokens_are_evenly_spaced_over_each_track(small, write_wav, context_for, model_of, white_noise):
    beats = Beats(np.arange(0.0, 10.0, 0.5))
    tracks = [
        write_wav(f"even{k}", white_noise(16_000 * s, k), beats=beats, key="G major") for k, s in enumerate((4, 9))
    ]
    tokens = token_maps.gather(context_for(None), model_of(small), tracks, TokenMapConfig(tokens_a_track=20))
    assert len(tokens.layers) == 3
    assert tokens.layers[0].shape == (40, 16)
    assert tokens.track.tolist() == [0] * 20 + [1] * 20
    last = (9 * 16_000 // 512) * 0.032
    assert tokens.names["beat_phase"][20] == "beat"
    assert set(tokens.names["key"]) == {"G"}
    expected = classes_at(tracks[1], np.linspace(0, last, 20).round(6), "beat_phase")
    assert (tokens.names["beat_phase"][20:] == expected).mean() > 0.8


def test_a_map_of_one_token_is_refused():
    with pytest.raises(InputError, match="tokens_a_track"):
        TokenMapConfig(tokens_a_track=1)
