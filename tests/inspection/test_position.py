"""Shares of variance of known mixtures, and of a backbone whose tokens depend on positions only."""

import numpy as np
import pytest
import torch

from musictf.inspection.position import inspect_position, variance_shares
from musictf.models.backbone import random_backbone
from musictf.models.vit1d import ViT1DConfig


def mixture(position, excerpt, content, seed=0, shape=(40, 60, 24)):
    rng = np.random.default_rng(seed)
    excerpts, places, dim = shape
    return (
        np.sqrt(position) * rng.standard_normal((1, places, dim))
        + np.sqrt(excerpt) * rng.standard_normal((excerpts, 1, dim))
        + np.sqrt(content) * rng.standard_normal(shape)
    )


@pytest.mark.parametrize(
    "parts", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.5, 0.3, 0.2), (0.1, 0.1, 0.8), (0.0, 0.6, 0.4), (0.7, 0.0, 0.3)]
)
def test_shares_are_those_of_the_mixture(parts):
    found = variance_shares(mixture(*parts))
    assert found == pytest.approx(parts, abs=0.03)
    assert sum(found) == pytest.approx(1.0)


def test_few_excerpts_of_noise_have_no_share_by_chance():
    found = np.mean([variance_shares(mixture(0, 0, 1, seed, (4, 10, 8))) for seed in range(50)], axis=0)
    assert found[2] > 0.95


def test_a_constant_changes_nothing_and_scale_neither():
    tokens = mixture(0.5, 0.3, 0.2)
    np.testing.assert_allclose(variance_shares(tokens + 50.0), variance_shares(tokens), atol=1e-9)
    np.testing.assert_allclose(variance_shares(tokens * 1e-3), variance_shares(tokens), atol=1e-9)


@pytest.mark.parametrize("tokens", [np.full((5, 6, 3), 0.3), np.zeros((1, 9, 2)), np.zeros((9, 1, 2))])
def test_without_variance_there_is_no_share(tokens):
    assert np.isnan(variance_shares(tokens)).all()


@pytest.fixture(scope="module")
def rows(small, click_tracks, corpus_of_tracks, model_of, make_context, tmp_path_factory):
    corpus = corpus_of_tracks(click_tracks)
    context = make_context(corpus, tmp_path_factory.mktemp("position"))
    only_positions = random_backbone(ViT1DConfig(depth=2, embed_dim=16, num_heads=2), seed=4)
    with torch.no_grad():
        only_positions.encoder.frame_proj.weight.zero_()
        only_positions.encoder.pos_embed.normal_(generator=torch.Generator().manual_seed(0))
    inspect_position(context, [model_of(small), model_of(only_positions, "random")])
    return context.rows.rows


def share(rows, kind, sound, layer, name):
    (row,) = [
        r for r in rows
        if (r["task"], r["backbone"]["kind"], r["readout"], r["layer"]) == ("position", kind, sound, layer)
    ]  # fmt: skip
    return row["scores"][name]


def test_tokens_that_ignore_the_input_vary_with_position_only(rows):
    for sound in ("music", "noise", "clicks", "held_chord", "scale"):
        for layer in (1, 2):
            assert share(rows, "random", sound, layer, "position_share")["mean"] == pytest.approx(1.0, abs=1e-6)


def test_before_positions_are_added_none_has_a_share(rows):
    for sound in ("noise", "scale"):
        assert share(rows, "pretrained", sound, 0, "position_share")["mean"] < 0.1


def test_silence_has_no_variance_before_positions_are_added(rows):
    cell = share(rows, "pretrained", "silence", 0, "position_share")
    assert cell["mean"] is None
    assert share(rows, "pretrained", "silence", 1, "position_share")["mean"] == pytest.approx(1.0)


def test_an_undefined_share_has_no_interval(rows):
    assert share(rows, "pretrained", "silence", 0, "position_share")["ci95"] == [None, None]


def test_shares_lie_in_their_intervals_and_add_up(rows):
    names = ("position_share", "excerpt_share", "content_share")
    for row in rows:
        if row["task"] == "position" and row["scores"]["position_share"]["mean"] is not None:
            cells = [row["scores"][name] for name in names]
            assert sum(cell["mean"] for cell in cells) == pytest.approx(1.0)
            assert all(0 <= cell["ci95"][0] <= cell["mean"] <= cell["ci95"][1] <= 1 for cell in cells)


def test_random_heads_do_not_follow_clicks(rows):
    onset = [row for row in rows if row["task"] == "stimulus_onset" and row["dataset"] == "stimulus:clicks"]
    for row in onset:
        if row["backbone"]["kind"] == "pretrained" and row["readout"] in {"received", "class_row"}:
            assert 0.3 < row["scores"]["median_auc_of_heads"]["mean"] < 0.6


def test_tracks_shorter_than_an_excerpt_are_no_crash(
    small, write_wav, corpus_of_tracks, model_of, context_for, white_noise
):
    tracks = [write_wav("less_than_one", white_noise(30_000))]
    corpus = corpus_of_tracks({"valid": tracks, "test": tracks})
    context = context_for(corpus)
    inspect_position(context, [model_of(small)])
    assert {row["readout"] for row in context.rows.rows if row["task"] == "position"} == {
        "silence", "noise", "clicks", "held_chord", "scale",
    }  # fmt: skip
