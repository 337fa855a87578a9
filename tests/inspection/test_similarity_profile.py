"""Layers against dimensions: what is planted is found, what is not is at chance."""

from pathlib import Path

import numpy as np
import pytest

from musictf.datasets.base import Track
from musictf.errors import InputError
from musictf.features.extract import FeatureConfig, extract
from musictf.inspection.binned_tracks import BinnedTrack, SimilarityConfig, binned_tracks, layers_of
from musictf.inspection.dimensions import Dimension
from musictf.inspection.similarity_profile import PreparedDimensions

NUMBER = 120
SCORES = {f"{name}{null}" for name in ("rank_correlation", "cka") for null in ("", "_above_shifted", "_above_shuffled")}


def smooth(seed, number=NUMBER, dim=6):
    noise = np.random.default_rng(seed).standard_normal((number + 8, dim))
    return np.array([noise[k : k + 9].mean(axis=0) for k in range(number)])


def track_with(features, known=None, gap=10, name="a"):
    known = np.ones(len(features), dtype=bool) if known is None else known
    times = np.arange(len(features)) * 0.256 + 0.112
    track = Track(track_id=name, audio=Path("a.wav"))
    dimension = Dimension(features, known)
    return BinnedTrack(track, 8, gap, times, 8 * len(features), np.zeros((len(features), 4)), {"harmony": dimension})


def test_a_layer_that_holds_the_dimension_is_above_both_nulls():
    features = smooth(0)
    scores = PreparedDimensions(track_with(features), 10).compare(np.stack([2 * features + 1, smooth(1)]))["harmony"]
    assert set(scores) == SCORES
    assert all(values.shape == (2,) for values in scores.values())
    assert scores["rank_correlation"][0] == pytest.approx(1.0)
    assert scores["cka"][0] == pytest.approx(1.0)
    assert scores["rank_correlation_above_shifted"][0] > 0.8
    assert scores["cka_above_shifted"][0] > 0.5
    assert abs(scores["rank_correlation"][1]) < 0.2


def test_layers_that_hold_something_else_as_smooth_are_at_chance():
    above = {name: [] for name in SCORES}
    for seed in range(30):
        layers = np.stack([smooth(1000 + seed)])
        for name, values in (
            PreparedDimensions(track_with(smooth(seed), name=str(seed)), 10).compare(layers)["harmony"].items()
        ):
            above[name].append(values[0])
    for name in SCORES - {"cka"}:
        assert abs(np.mean(above[name])) < 0.06 or name == "cka_above_shuffled", name
    assert abs(np.mean(above["cka_above_shifted"])) < 0.06


def test_only_known_bins_count():
    features, known = smooth(2), np.zeros(NUMBER, dtype=bool)
    known[30:90] = True
    layer = smooth(3)
    layer[30:90] = features[30:90]
    scores = PreparedDimensions(track_with(features, known), 5).compare(layer[None])["harmony"]
    assert scores["rank_correlation"][0] == pytest.approx(1.0)
    assert scores["cka"][0] == pytest.approx(1.0)


def test_draws_depend_on_the_track_alone_and_validation_needs_none():
    features, layers = smooth(4), smooth(5)[None]
    first, again, other = (
        PreparedDimensions(track_with(features, name=n), 6).compare(layers)["harmony"] for n in "aab"
    )
    assert all((first[name] == again[name]).all() for name in first)
    assert first["rank_correlation"] == other["rank_correlation"]
    assert first["rank_correlation_above_shifted"] != other["rank_correlation_above_shifted"]
    assert set(PreparedDimensions(track_with(features), 0).compare(layers)["harmony"]) == {"rank_correlation"}


@pytest.mark.parametrize("left", [3, 1])
def test_a_dimension_known_hardly_anywhere_has_no_value(left):
    known = np.arange(NUMBER) < left
    for values in PreparedDimensions(track_with(smooth(6), known), 3).compare(smooth(7)[None])["harmony"].values():
        assert np.isnan(values).all()


def test_bins_lie_at_the_means_of_their_tokens(small, write_wav, context_for, model_of):
    track = write_wav("view", 0.1 * np.random.default_rng(0).standard_normal(16_000 * 6))
    config, features = SimilarityConfig(gap_seconds=1.0), FeatureConfig(precision="float32")
    context = context_for(None, features=features)
    (bins,) = binned_tracks(context, [track], model_of(small), config)
    assert bins.num_tokens == 6 * 16_000 // 512 + 1
    assert bins.width == 8
    assert bins.gap == round(1.0 * 31.25 / 8)
    assert bins.bin_seconds == pytest.approx(0.256)
    np.testing.assert_allclose(bins.times[:-1], (np.arange(len(bins.times) - 1) * 8 + 3.5) * 0.032)
    last = np.arange(bins.num_tokens)[(len(bins.times) - 1) * 8 :]
    np.testing.assert_allclose(bins.times[-1], last.mean() * 0.032)
    layers = layers_of(context, model_of(small), [track])(0, bins)
    tokens = extract(small, [track], [0, 1, 2], features)[0].sequence.numpy()
    assert layers.shape == (3, len(bins.times), 16)
    np.testing.assert_allclose(layers[1, 4], tokens[32:40, 1].mean(axis=0), atol=1e-6)


def test_long_tracks_get_longer_bins(small, write_wav, context_for, model_of):
    track = write_wav("long_view", 0.1 * np.random.default_rng(0).standard_normal(16_000 * 12))
    (bins,) = binned_tracks(context_for(None), [track], model_of(small), SimilarityConfig(max_bins=16))
    assert len(bins.times) <= 16
    assert bins.width == 24


def test_replacement_audio_is_as_long_as_the_track_it_replaces(small, write_wav, context_for, model_of):
    sound = write_wav("replacement", 0.1 * np.random.default_rng(1).standard_normal(16_000 * 5))
    track = write_wav("replaced", 0.1 * np.random.default_rng(2).standard_normal(16_000 * 11))
    features = FeatureConfig(precision="float32")
    context = context_for(None, features=features)
    (bins,) = binned_tracks(context, [track], model_of(small), SimilarityConfig())
    layers = layers_of(context, model_of(small, "noise", sound), [track])(0, bins)
    tokens = extract(small, [sound], [0, 1, 2], features)[0].sequence.numpy()
    again = tokens[np.arange(bins.num_tokens) % len(tokens)]
    np.testing.assert_allclose(layers[2, 30], again[240:248, 2].mean(axis=0), atol=1e-6)


def test_a_track_that_is_too_short_is_named(small, write_wav, context_for, model_of):
    track = write_wav("moment", 0.1 * np.random.default_rng(0).standard_normal(8000))
    with pytest.raises(InputError, match="moment.wav.*too short"):
        list(binned_tracks(context_for(None), [track], model_of(small), SimilarityConfig()))


@pytest.mark.parametrize("fields", [{"bin_seconds": 0.0}, {"gap_seconds": -1.0}, {"max_bins": 15}, {"draws": 0}])
def test_settings_that_mean_nothing_are_refused(fields):
    with pytest.raises(InputError, match="similarity"):
        SimilarityConfig(**fields)
