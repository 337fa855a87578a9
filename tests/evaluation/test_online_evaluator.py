"""The online probe: it scores what features contain, reads no test track, and leaves the backbone unchanged."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from omegaconf import OmegaConf
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from musictf.audio.io import read_excerpt
from musictf.config import compose
from musictf.datasets.manifest import Manifest
from musictf.errors import InputError
from musictf.evaluation import online_evaluator as online
from musictf.evaluation.closed_form import mean_average_precision
from musictf.evaluation.online_evaluator import (
    OnlineEvaluator,
    OnlineProbe,
    OnlineProbeTask,
    drawn_tracks,
    embeddings,
    probed,
)
from musictf.models.backbone import Backbone
from musictf.models.vit1d import ViT1DConfig
from musictf.tasks.base import Task
from musictf.tasks.beat import BeatTask
from musictf.tasks.chord import VOCABULARY

SHAPE = ViT1DConfig(depth=2, embed_dim=16, num_heads=2, max_frames=32)  # excerpts of 31 hops, .992 s
CPU = torch.device("cpu")
NAMES = {
    "online/chord_accuracy_layer1",
    "online/chord_accuracy_layer2",
    "online/beat_ap_layer1",
    "online/beat_ap_layer2",
    "online/tag_map",
    "online/knn_accuracy",
    "online/retrieval_accuracy",
}


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return Backbone(SHAPE)


@pytest.fixture
def config(corpus):
    """Evaluate every second step on three seconds of seven tracks."""
    return OnlineProbe(root=str(corpus), every=2, num_tracks=12, seconds=3.0, neighbours=3)


def probe_task_of(evaluator, name):
    return next(probe_task for probe_task in evaluator.probe_tasks if probe_task.task.name == name)


def test_an_evaluation_has_a_score_for_every_task_and_layer(config, backbone):
    evaluator = OnlineEvaluator(config, backbone)
    values = evaluator.values(backbone, CPU)
    assert values.keys() == NAMES
    assert all(0 <= value <= 1 for value in values.values())
    assert values == evaluator.values(backbone, CPU)
    assert "tagging, chord, beat on tiny, 5 tracks to fit and 2 to score" in evaluator.summary


def test_features_that_hold_the_answer_are_read(config, backbone, monkeypatch):
    evaluator = OnlineEvaluator(config, backbone)
    chord, beat = (np.nan_to_num(probe_task_of(evaluator, name).targets) for name in ("chord", "beat"))
    tags = probe_task_of(evaluator, "tagging").targets[evaluator.excerpts.track_index]
    tokens = {1: np.zeros_like(chord), 2: np.column_stack([chord, beat])}
    monkeypatch.setattr(online, "embeddings", lambda *_: (np.column_stack([tags, 1 - tags]), tokens))
    values = evaluator.values(backbone, CPU)
    assert values["online/chord_accuracy_layer2"] == 1
    assert values["online/beat_ap_layer2"] == pytest.approx(1)
    assert values["online/tag_map"] == pytest.approx(1)
    beats = beat[probe_task_of(evaluator, "beat").valid] > 0.5
    assert values["online/beat_ap_layer1"] == pytest.approx(beats.mean())  # chance
    assert 0.02 < beats.mean() < 0.2
    often = chord[probe_task_of(evaluator, "chord").train].mean(axis=0).argmax()  # all that is left to guess
    guessed = chord[probe_task_of(evaluator, "chord").valid, often].mean()
    assert values["online/chord_accuracy_layer1"] == pytest.approx(guessed)
    assert guessed < 0.5


def test_neighbours_are_train_excerpts_and_retrieval_is_among_valid_ones(config, backbone, monkeypatch):
    evaluator = OnlineEvaluator(config, backbone)
    track_index, tags = evaluator.excerpts.track_index, probe_task_of(evaluator, "tagging").targets
    classes = np.random.default_rng(2).normal(size=(len(track_index), 4))
    is_valid = track_index >= 5
    monkeypatch.setattr(online, "embeddings", lambda *_: (classes, {1: np.zeros((672, 1)), 2: np.zeros((672, 1))}))
    oracle = KNeighborsClassifier(3, metric="cosine").fit(classes[~is_valid], tags[track_index[~is_valid]])
    assigned, truth = oracle.predict(classes[is_valid]), tags[track_index[is_valid]]
    expected = np.mean([balanced_accuracy_score(truth[:, k], assigned[:, k]) for k in range(tags.shape[1])])
    values = evaluator.values(backbone, CPU)
    assert values["online/knn_accuracy"] == pytest.approx(expected)
    nearest = NearestNeighbors(n_neighbors=2, metric="cosine").fit(classes[is_valid])
    second = nearest.kneighbors(classes[is_valid], return_distance=False)[:, 1]  # the first is itself
    same = track_index[is_valid][second] == track_index[is_valid]
    assert values["online/retrieval_accuracy"] == pytest.approx(same.mean())


def test_every_fifth_train_track_chooses_the_penalty(config, backbone, altered):
    more = altered(lambda fields: fields | {"split": fields["split"].replace("test", "train")})
    evaluator = OnlineEvaluator(dataclasses.replace(config, root=more.root), backbone)
    tagging, chord = probe_task_of(evaluator, "tagging"), probe_task_of(evaluator, "chord")
    assert [list(rows) for rows in (tagging.fit, tagging.held_out, tagging.valid)] == [
        [1, 2, 3, 4, 6, 7],
        [0, 5],
        [8, 9],
    ]
    track_index = np.repeat(evaluator.excerpts.track_index, 32)
    assert [set(track_index[rows]) for rows in (chord.fit, chord.held_out, chord.valid)] == [
        {1, 2, 3, 4, 6, 7},
        {0, 5},
        {8, 9},
    ]


def test_a_token_is_paired_with_the_annotation_at_its_time(config, backbone, corpus):
    evaluator = OnlineEvaluator(config, backbone)
    excerpts, chord, beat = evaluator.excerpts, probe_task_of(evaluator, "chord"), probe_task_of(evaluator, "beat")
    tracks = {track.track_id: track for track in Manifest(root=str(corpus)).all_tracks()}
    assert list(np.bincount(excerpts.track_index)) == [3] * 7
    for e, index_of_track in enumerate(excerpts.track_index):
        track, times = tracks[excerpts.tracks[index_of_track].track_id], excerpts.times[e]
        start = round(times[0] * 16000)
        np.testing.assert_array_equal(excerpts.waveforms[e], read_excerpt(track.audio, start, 31 * 512, 16000))
        np.testing.assert_allclose(np.diff(times), 0.032)
        rows = slice(e * 32, (e + 1) * 32)
        chords, beats = track.annotation("chords"), track.annotation("beats").times
        index = np.searchsorted(chords.intervals[:, 0], times, side="right") - 1
        names = [VOCABULARY[k].removesuffix(":maj") for k in chord.targets[rows].argmax(axis=1)]
        assert names == [chords.labels[k].removesuffix(":maj") for k in index]
        near = np.abs(times[:, None] - beats).min(axis=1) < 0.025
        np.testing.assert_array_equal(beat.targets[rows, 0] > 0.5, near)


def test_excerpts_lie_in_the_middle_and_leave_out_what_is_over(config, backbone):
    excerpts = OnlineEvaluator(dataclasses.replace(config, seconds=2.9), backbone).excerpts
    for k, track in enumerate(excerpts.tracks):
        times = excerpts.times[excerpts.track_index == k]
        assert len(times) == 2
        centre = soundfile.info(track.audio).duration / 2
        assert (times[0, 0] + times[-1, -1]) / 2 == pytest.approx(centre, abs=0.032)
    least, most = (
        OnlineEvaluator(dataclasses.replace(config, seconds=seconds), backbone).excerpts for seconds in (0.1, 1e6)
    )
    assert len(least.track_index) == 7  # at least one excerpt of each track
    assert len(most.track_index) > 7 * 7  # all excerpts


def test_the_test_split_is_never_read(config, backbone, altered, tmp_path):
    (tmp_path / "garbage").write_text("this is no annotation\n")

    def spoil(fields):
        if fields["split"] != "test":
            return fields
        spoiled = {"audio": "gone.wav", "chords": str(tmp_path / "garbage"), "beats": str(tmp_path / "garbage")}
        return fields | spoiled | {"tags": ["unseen of"]}

    expected = OnlineEvaluator(config, backbone).values(backbone, CPU)
    spoiled = OnlineEvaluator(dataclasses.replace(config, root=altered(spoil).root), backbone)
    assert spoiled.values(backbone, CPU) == expected


def test_a_probe_learns_what_is_there_and_nothing_else():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(400, 60))
    rows = np.split(np.arange(400), [150, 200])
    guessed, linear = generator.normal(size=(400, 1)), features @ generator.normal(size=(60, 1))
    assert (
        0.35
        < probed(features, OnlineProbeTask(BeatTask(), (guessed > 0).astype(float), *rows, mean_average_precision))
        < 0.65
    )
    assert (
        probed(features, OnlineProbeTask(BeatTask(), (linear > 0).astype(float), *rows, mean_average_precision)) > 0.9
    )


def test_the_penalty_is_the_best_on_held_out_rows(monkeypatch):
    calls = []
    targets = np.zeros((9, 1))

    def estimates(features, _, queries, penalties):
        calls.append((len(features), len(queries), list(penalties)))
        return np.arange(len(penalties) * len(queries)).reshape(len(penalties), len(queries), 1)

    monkeypatch.setattr(online, "ridge", estimates)
    scores = iter([0.2, np.nan, 0.7, 0.7, 0.1, 0.0, 0.3, 0.55])
    rows = np.split(np.arange(9), [4, 6])
    assert probed(np.eye(9), OnlineProbeTask(BeatTask(), targets, *rows, lambda *_: next(scores))) == 0.55
    assert calls == [(4, 2, list(online.PENALTIES)), (6, 3, [online.PENALTIES[2]])]  # of equals the stronger


def test_the_draw_is_by_a_hash_a_third_of_it_valid(config, corpus, altered):
    tracks = Manifest(root=str(corpus)).all_tracks()
    few = dataclasses.replace(config, num_tracks=4)
    drawn = drawn_tracks(tracks, few)
    assert [track.split for track in drawn] == ["train"] * 3 + ["valid"]
    assert drawn == drawn_tracks(tracks[::-1], few)
    assert {track.track_id for track in drawn} <= {track.track_id for track in drawn_tracks(tracks, config)}
    scarce = altered(lambda fields: fields if fields["track_id"] == "t2" else fields | {"chords": None})
    assert drawn_tracks(scarce.all_tracks(), few)[0].track_id == "t2"  # the best labelled come first


def test_a_corpus_serves_the_tasks_it_has_labels_for(config, backbone, altered):
    unlabelled = altered(lambda fields: fields | {"tags": None, "chords": None})
    evaluator = OnlineEvaluator(dataclasses.replace(config, root=unlabelled.root, layers=[0]), backbone)
    assert evaluator.values(backbone, CPU).keys() == {"online/beat_ap_layer0", "online/retrieval_accuracy"}
    assert evaluator.summary.startswith("beat on")


class OddBeats(Task):
    """A new task of two classes: whether a track has an odd number of beats."""

    name = "odd"
    annotation = "beats"
    level = "track"
    online_metric = "odd_accuracy"
    num_outputs = 2

    def encode(self, annotation, times):
        return torch.tensor(int(len(annotation.times) % 2))


def test_a_new_task_takes_part_by_the_name_of_its_metric(config, backbone):
    evaluator = OnlineEvaluator(dataclasses.replace(config, tasks=["odd", "beat"], layers=[1]), backbone)
    values = evaluator.values(backbone, CPU)
    assert values.keys() == {"online/odd_accuracy", "online/beat_ap_layer1", "online/retrieval_accuracy"}
    assert values["online/odd_accuracy"] in {0, 0.5, 1}  # of two valid tracks
    assert probe_task_of(evaluator, "odd").targets.shape == (7, 2)


def test_a_track_without_an_annotation_is_neither_fitted_nor_scored(config, backbone, altered):
    some = altered(lambda fields: fields | ({"chords": None, "tags": None} if fields["track_id"] in "t1 t5" else {}))
    evaluator = OnlineEvaluator(dataclasses.replace(config, root=some.root), backbone)
    ids = np.array([track.track_id for track in evaluator.excerpts.tracks])
    tokens = ids[np.repeat(evaluator.excerpts.track_index, evaluator.excerpts.times.shape[1])]
    chord, beat = probe_task_of(evaluator, "chord"), probe_task_of(evaluator, "beat")
    assert set(tokens[chord.train]) == {"t0", "t2", "t3", "t4"}
    assert set(tokens[chord.valid]) == {"t6"}
    assert set(tokens[beat.train]) | set(tokens[beat.valid]) == set(ids)
    assert not set(tokens[beat.fit]) & set(tokens[beat.held_out])  # whole tracks are held out
    names = [probe_task.task.name for probe_task in evaluator.probe_tasks]
    assert names == ["chord", "beat"]  # with one valid track no tag is both present and absent
    assert not np.isnan(list(evaluator.values(backbone, CPU).values())).any()


def test_chords_outside_the_vocabulary_are_masked(config, backbone, altered, tmp_path):
    def rename(fields):
        text = Path(fields["chords"]).read_text().replace(":min", ":sus4")
        (tmp_path / f"{fields['track_id']}.lab").write_text(text)
        return fields | {"chords": str(tmp_path / f"{fields['track_id']}.lab")}

    chord = probe_task_of(OnlineEvaluator(dataclasses.replace(config, root=altered(rename).root), backbone), "chord")
    everything = probe_task_of(OnlineEvaluator(config, backbone), "chord")
    for rows, before in ((chord.train, everything.train), (chord.valid, everything.valid)):
        assert 0 < len(rows) < len(before)
        is_major = everything.targets[before].argmax(axis=1) < 12
        assert len(rows) == is_major.sum()


@pytest.mark.parametrize(
    "values",
    [
        {"every": 0},
        {"num_tracks": 3},
        {"neighbours": 0},
        {"seconds": 0.0},
        {"seconds": float("nan")},
        {"layers": []},
        {"layers": [-1]},
        {"root": ""},
        {"tasks": []},
        {"tasks": ["chords"]},
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_key(values):
    with pytest.raises(InputError, match=rf"^online_probe\.{next(iter(values))}="):
        OnlineProbe(**values)


@pytest.mark.parametrize("choice", ["synthetic", "manifest"])
def test_the_choices_are_the_defaults_and_a_manifest_needs_a_root(choice):
    given = ["online_probe.root=[a,b]"] if choice == "manifest" else []
    run = compose("pretrain", [f"online_probe={choice}", "online_probe.every=7", *given])
    assert run.online_probe == OnlineProbe(every=7, root=["a", "b"] if given else None)
    if given:
        with pytest.raises(InputError, match=r"online_probe\.root="):
            compose("pretrain", [f"online_probe={choice}"])


def test_the_schema_is_one_that_hydra_can_hold():
    schema = OmegaConf.structured(OnlineProbe)
    assert OmegaConf.to_object(OmegaConf.merge(schema, {"layers": [1, 2], "root": ["a", "b"]})).layers == [1, 2]
    assert OmegaConf.to_object(schema) == OnlineProbe()


def test_modes_gradients_and_random_numbers_are_left_alone(backbone, config):
    evaluator = OnlineEvaluator(config, backbone)
    backbone.train()
    backbone.encoder.blocks[0].eval()
    before = {name: module.training for name, module in backbone.named_modules()}
    state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    seen = []
    backbone.encoder.register_forward_hook(lambda module, *_: seen.append((module.training, torch.is_grad_enabled())))
    evaluator.values(backbone, CPU)
    assert set(seen) == {(False, False)}
    assert {name: module.training for name, module in backbone.named_modules()} == before
    assert all(parameter.grad is None and parameter.requires_grad for parameter in backbone.parameters())
    assert torch.equal(torch.get_rng_state(), state[0])
    np.testing.assert_array_equal(np.random.get_state()[1], state[1])  # noqa: NPY002


def test_modes_are_put_back_after_an_error(backbone, config):
    evaluator = OnlineEvaluator(config, backbone)
    backbone.encoder.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluator.values(backbone, CPU)
    assert backbone.training
    assert backbone.encoder.blocks[0].training


def test_features_are_float32_under_autocast(backbone):
    waveforms = torch.randn(3, 31 * 512, generator=torch.Generator().manual_seed(0))
    expected = embeddings(backbone, waveforms, [0, 2], CPU)
    with torch.autocast("cpu", torch.bfloat16):
        features = embeddings(backbone, waveforms, [0, 2], CPU)
    np.testing.assert_array_equal(features[0], expected[0])
    np.testing.assert_array_equal(features[1][2], expected[1][2])
    with torch.no_grad():
        output = backbone(waveforms, [0, 2])
    np.testing.assert_allclose(expected[0], output.class_token[2], rtol=0, atol=1e-6)
    np.testing.assert_allclose(expected[1][0].reshape(3, 32, 16), output.sequence[0], rtol=0, atol=1e-6)


def test_a_compiled_backbone_is_not_compiled_anew(backbone):
    compiled = []

    def compiler(graph, inputs):
        compiled.append(graph)
        return graph.forward

    waveforms = torch.randn(3, 31 * 512)
    expected = embeddings(backbone, waveforms, [2], CPU)[0]
    backbone.encoder.compile(backend=compiler)
    features = embeddings(backbone, waveforms, [2], CPU)[0]
    wrapped = embeddings(torch.compile(backbone, backend=compiler), waveforms, [2], CPU)[0]
    assert not compiled
    np.testing.assert_array_equal(features, expected)
    np.testing.assert_array_equal(wrapped, expected)
    with torch.no_grad():
        backbone.encoder(torch.randn(2, 128, 32))
    assert compiled  # afterwards it compiles as before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_nothing_is_left_on_the_device(backbone, config):
    evaluator = OnlineEvaluator(config, backbone)
    backbone.cuda()
    evaluator.values(backbone, torch.device("cuda"))  # workspaces of libraries stay
    before = torch.cuda.memory_allocated()
    evaluator.values(backbone, torch.device("cuda"))
    assert torch.cuda.memory_allocated() == before


def test_without_a_root_it_is_synthetic_songs(backbone):
    evaluator = OnlineEvaluator(OnlineProbe(num_tracks=4, seconds=2.0), backbone)
    assert evaluator.summary == "chord, beat on synthetic, 3 tracks to fit and 1 to score"
    assert json.dumps(evaluator.values(backbone, CPU))
