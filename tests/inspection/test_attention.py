"""A head planted to attend to clicks is found, and no other is."""

import contextlib

import numpy as np
import pytest

from musictf.annotations import Beats
from musictf.errors import InputError
from musictf.inspection.attention import AttentionConfig, inspect_attention
from musictf.inspection.inspected_models import control_track
from musictf.inspection.spectral_flux import flux_of
from musictf.models.backbone import random_backbone
from musictf.models.vit1d import ViT1DConfig


@pytest.fixture(scope="module")
def rows(planted, click_tracks, corpus_of_tracks, model_of, make_context, tmp_path_factory):
    """Rows of the planted backbone, random weights, the planted backbone in silence, and the flux."""
    corpus = corpus_of_tracks(click_tracks)
    context = make_context(corpus, tmp_path_factory.mktemp("rows"))
    silence = control_track("silence", corpus, planted.sample_rate)
    models = [
        model_of(planted),
        model_of(random_backbone(ViT1DConfig(depth=2, embed_dim=16, num_heads=4)), "random"),
        model_of(planted, "silence", silence),
    ]
    before = planted.digest()
    inspect_attention(context, models, AttentionConfig(draws=60))
    assert planted.digest() == before
    assert not planted.training
    return context.rows.rows


def chosen(rows, kind):
    return {row["readout"]: row for row in rows if row["selected"] and row["backbone"]["kind"] == kind}


def auc(row):
    return row["scores"]["auc"]["mean"]


def test_only_annotated_targets_have_rows(rows):
    assert {row["task"] for row in rows} == {"attention_onset"}
    assert {row["backbone"]["kind"] for row in rows} == {"pretrained", "random", "silence", "classical"}


@pytest.mark.parametrize("curve", ["received", "class_row"])
def test_the_planted_head_is_found_and_only_it(rows, curve):
    row = chosen(rows, "pretrained")[curve]
    assert (row["layer"], row["head"]) == (1, 2)
    assert auc(row) > 0.95
    assert row["selection"]["value"] > 0.95
    assert row["details"]["heads_that_follow"] == 1
    assert row["details"]["p_corrected"] < 0.05
    assert row["details"]["median_auc_of_heads"] == pytest.approx(0.5, abs=0.1)
    assert row["details"]["heads"] == 8
    grid = [r for r in rows if r["backbone"]["kind"] == "pretrained" and r["readout"].startswith(f"{curve}.h")]
    assert {(r["layer"], r["head"]) for r in grid} == {(layer, head) for layer in (1, 2) for head in range(4)}
    for other in grid:
        if (other["layer"], other["head"]) == (1, 2):
            assert auc(other) == auc(row)
        else:
            assert 0.4 < auc(other) < 0.6
            assert other["details"]["p_corrected"] > 0.05


def test_a_head_with_equal_queries_changes_nowhere(rows):
    row = chosen(rows, "pretrained")["change"]
    grid = [r for r in rows if r["backbone"]["kind"] == "pretrained" and r["readout"] == "change.h2"]
    assert row["details"]["heads_that_follow"] == 0
    assert auc(next(r for r in grid if r["layer"] == 1)) == pytest.approx(0.5, abs=0.1)


def test_areas_stand_beside_both_nulls(rows):
    scores = chosen(rows, "pretrained")["received"]["scores"]
    for null in ("shifted", "shuffled"):
        assert scores["auc"]["mean"] - scores[f"auc_above_{null}"]["mean"] == pytest.approx(0.5, abs=0.1)
    assert scores["f_measure"]["mean"] > 0.9
    assert scores["f_measure_above_shifted"]["mean"] > 0.5


def test_the_flux_follows_clicks_as_well(rows):
    (row,) = chosen(rows, "classical").values()
    assert (row["readout"], row["layer"]) == ("flux", 0)
    assert auc(row) > 0.95


def test_random_weights_attend_to_clicks_no_more_than_elsewhere(rows):
    for curve in ("received", "class_row"):
        assert chosen(rows, "random")[curve]["details"]["median_auc_of_heads"] < 0.6


def test_a_model_that_reads_silence_follows_no_click(rows):
    for row in chosen(rows, "silence").values():
        assert 0.4 < auc(row) < 0.6


def test_every_event_of_the_test_split_is_counted(rows, click_tracks):
    number = sum(len(track.labels["onsets"]) for track in click_tracks["test"])
    for row in rows:
        if row["selected"]:
            assert row["details"]["events"] == number
            assert row["split"]["scored"] == 3


def test_the_head_is_chosen_by_validation(planted, click_tracks, corpus_of_tracks, model_of, context_for):
    """Validation tracks with the onsets of others: the planted head is not preferred, whatever test says."""
    from dataclasses import replace

    valid = [replace(click_tracks["valid"][0], labels={"onsets": np.array([0.05, 9.9])})]
    corpus = corpus_of_tracks({"valid": valid, "test": click_tracks["test"]})
    context = context_for(corpus)
    inspect_attention(context, [model_of(planted)], AttentionConfig(draws=20))
    row = chosen(context.rows.rows, "pretrained")["received"]
    grid = [r for r in context.rows.rows if r["readout"].startswith("received.h")]
    best = max(grid, key=lambda r: r["selection"]["value"])
    assert (row["layer"], row["head"]) == (best["layer"], best["head"]) != (1, 2)
    assert auc(row) < 0.6


def corpus_with(onsets, write_wav, make_clicks, corpus_of_tracks, name):
    waveform = make_clicks([1.0, 2.0, 3.0], 5.0)
    tracks = {
        split: [write_wav(f"{name}_{split}", waveform, split, onsets=onsets.get(split, np.array([1.0, 2.0, 3.0])))]
        for split in ("valid", "test")
    }
    return corpus_of_tracks(tracks)


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("onsets", [np.arange(0, 5, 0.06), np.array([7.0, 8.0])], ids=["dense", "beyond the audio"])
@pytest.mark.filterwarnings("default::RuntimeWarning")
def test_a_split_whose_events_define_no_area_is_no_crash_and_no_finding(
    planted, onsets, split, write_wav, make_clicks, corpus_of_tracks, model_of, context_for
):
    corpus = corpus_with({split: onsets}, write_wav, make_clicks, corpus_of_tracks, f"odd{len(onsets)}{split}")
    context = context_for(corpus)
    with contextlib.suppress(InputError):  # to refuse it in one line would be as good
        inspect_attention(context, [model_of(planted)], AttentionConfig(draws=20))
    assert all(not row["details"].get("heads_that_follow") for row in context.rows.rows)


@pytest.mark.filterwarnings("default::RuntimeWarning")
def test_beats_that_are_all_downbeats_are_no_crash(
    planted, write_wav, make_clicks, corpus_of_tracks, model_of, context_for
):
    beats = Beats(np.arange(1.0, 5.0), np.ones(4, dtype=np.int64))
    waveform = make_clicks(beats.times, 6.0)
    tracks = {split: [write_wav(f"bars_{split}", waveform, split, beats=beats)] for split in ("valid", "test")}
    corpus = corpus_of_tracks(tracks)
    context = context_for(corpus)
    inspect_attention(context, [model_of(planted)], AttentionConfig(draws=20))
    assert "attention_beat" in {row["task"] for row in context.rows.rows}


def test_a_target_that_one_split_lacks_is_not_dropped_in_silence(
    planted, write_wav, make_clicks, corpus_of_tracks, model_of, context_for
):
    waveform = make_clicks([1.0, 2.0, 3.0], 5.0)
    tracks = {
        "valid": [write_wav("half_valid", waveform, "valid", onsets=np.array([1.0, 2.0, 3.0]))],
        "test": [write_wav("half_test", waveform)],
    }
    corpus = corpus_of_tracks(tracks)
    context = context_for(corpus)
    inspect_attention(context, [model_of(planted)], AttentionConfig(draws=20))
    assert {row["task"] for row in context.rows.rows} == {"attention_librosa_onset"}


def test_flux_is_the_mean_growth_over_bands():
    mel = np.array([[0.0, 5.0], [2.0, 1.0], [2.0, 4.0]])
    assert flux_of(mel).tolist() == [0.0, 1.0, 1.5]


@pytest.mark.parametrize("fields", [{"targets": ["cadence"]}, {"targets": "onset"}, {"draws": 19}, {"alpha": 0.0}])
def test_settings_that_mean_nothing_are_refused(fields):
    with pytest.raises(InputError, match="attention"):
        AttentionConfig(**fields)
