"""``musictf probe`` on a tiny corpus, all of it: rows, baselines, estimates, resumption, frozen weights."""

import csv
import json
from collections import Counter, defaultdict

import mir_eval
import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from musictf.datasets.base import split_digest
from musictf.datasets.manifest import Manifest
from musictf.errors import InputError
from musictf.evaluation.probe_run import probe
from musictf.evaluation.study import Study
from musictf.models import backbone_source as resolve
from musictf.models.backbone import load_backbone
from musictf.results.names import PROBE_BASELINES
from musictf.results.rows import TRACK_COLUMNS
from musictf.run_folder import FinishedRun

FIELDS = {
    "schema",
    "run",
    "time",
    "git",
    "versions",
    "backbone",
    "task",
    "dataset",
    "split",
    "readout",
    "layer",
    "seed",
    "selected",
    "selection",
    "scores",
    "table_scores",
    "descriptive_scores",
    "details",
    "decoder",
    "seconds",
    "per_track",
    "features",
    "probe",
    "leakage",
    "task_settings",
    "training",
}
HEADLINE = {"tagging": "map", "chord": "majmin", "beat": "f_measure"}


def per_track(folder):
    with open(folder / "per_track.csv", newline="") as file:
        return list(csv.DictReader(file))


def identity(row):
    kind, decoder = row["backbone"]["kind"], row["decoder"]["name"]
    return kind, row["readout"], row["layer"], row["seed"], decoder


def has_resamples(folder, row, name):
    cell = f"{row['task']}_{row['readout']}_layer{row['layer']}_seed{row['seed']}"
    with np.load(folder / "resamples.npz") as arrays:
        return f"{row['backbone']['kind']}/{row['decoder']['name']}/{cell}/{name}" in arrays


def refuse_constant(name):
    raise AssertionError(f"{name} in a row")


def test_rows_follow_the_schema_and_are_strict_json(finished, corpus):
    tracks = Manifest(root=str(corpus)).tracks("test")
    for line in (finished / "results.jsonl").read_text().splitlines():
        row = json.loads(line, parse_constant=refuse_constant)
        assert set(row) == FIELDS
        assert row["schema"] == 1
        assert row["task"] == finished.name
        assert row["training"] == {"train": {"expected": 5, "used": 5}, "valid": {"expected": 2, "used": 2}}
        assert row["dataset"] == "tiny"
        assert row["run"] == finished.name
        assert row["split"] == {"name": "test", "digest": split_digest(tracks), "expected": 3, "scored": 3, "groups": 3}
        assert {"path", "digest", "kind"} <= set(row["backbone"])
        assert {"commit", "dirty"} == set(row["git"])
        assert {"torch", "mir_eval", "musictf"} <= set(row["versions"])
        assert row["per_track"] == "per_track.csv"
        assert HEADLINE[row["task"]] in row["scores"]
        for score in row["scores"].values():
            assert set(score) == {"mean", "ci95", "n"}
            low, high = score["ci95"]
            if not row["selected"] and low is None:
                continue  # drawing whole splits again for layers that nobody chose would cost more than training them
            assert low <= high
            assert row["task"] == "tagging" or low - 1e-9 <= score["mean"] <= high + 1e-9
            assert 0 < score["n"] <= 3
        if row["selection"]:
            assert set(row["selection"]) == {"split", "metric", "value", "loss", "lr", "weight_decay"}
            assert row["selection"]["split"] == "valid"
            assert row["selection"]["metric"] == HEADLINE[row["task"]]
            assert row["selection"]["lr"] in {3e-3, 3e-2}
            assert {"features", "fit", "decode"} == set(row["seconds"])


def test_the_backbone_of_a_row_says_where_it_comes_from(finished, backbone_path, read_rows):
    row = next(row for row in read_rows(finished) if row["backbone"]["kind"] == "pretrained")
    backbone = load_backbone(backbone_path)
    assert row["backbone"] == {
        "path": str(backbone_path),
        "digest": backbone.digest(),
        "kind": "pretrained",
        "preset": "custom",
        "parameters": backbone.num_parameters,
        "shape": backbone.shape_digest(),
        "pretrain": {"corpus": "noise", "digest": "d", "steps": 3, "splits": None},
    }


def test_every_layer_has_a_row_and_one_of_each_study_is_selected(finished, read_rows):
    studies = defaultdict(list)
    for row in read_rows(finished):
        studies[row["backbone"]["kind"], row["readout"], row["seed"], row["decoder"]["name"]].append(row)
    decoders = {
        "tagging": ["mean_probability"],
        "chord": ["argmax", "viterbi"],
        "beat": ["peaks", "dynamic_programming"],
    }
    primary, *others = decoders[finished.name]
    for kind in ("pretrained", "random", "input", "mel", "mfcc", "chroma"):
        layers = [0, 1, 2] if kind in {"pretrained", "random"} else [0]
        for readout in ("class", "sequence", "average"):
            for seed in (0, 1):
                rows = studies[kind, readout, seed, primary]
                if layers == [0] and readout == "class":
                    assert rows == []
                    continue
                assert [row["layer"] for row in rows] == layers
                (chosen,) = [row for row in rows if row["selected"]]
                for other in others:
                    (row,) = studies[kind, readout, seed, other]
                    assert row["selected"]
                    assert row["layer"] == chosen["layer"]
    assert all(count == 1 for count in Counter(map(identity, read_rows(finished))).values())


def test_the_baseline_under_all_baselines_ignores_the_audio(finished, read_rows):
    (row,) = [row for row in read_rows(finished) if row["backbone"]["kind"] == "majority"]
    assert (row["readout"], row["layer"], row["seed"], row["selected"]) == ("constant", 0, 0, True)
    assert row["selection"] is None
    assert row["decoder"] == {"name": "constant"}
    assert row["backbone"] == {"path": "majority", "digest": None, "kind": "majority"}
    if finished.name == "tagging":
        assert row["scores"]["roc_auc"]["mean"] == pytest.approx(0.5)


def test_track_scores_have_the_contracted_columns_and_average_to_the_rows(finished, read_rows):
    header = (finished / "per_track.csv").read_text().splitlines()[0]
    assert header.startswith("track_id,task,readout,layer,seed,decoder,metric,value")
    assert tuple(header.split(",")) == TRACK_COLUMNS
    values = defaultdict(list)
    for line in per_track(finished):
        where = line["backbone"], line["readout"], int(line["layer"]), int(line["seed"]), line["decoder"]
        values[(*where, line["metric"])].append((line["track_id"], line["value"]))
    for row in read_rows(finished):
        for name, score in row["scores"].items():
            if (*identity(row), name) not in values:  # not a mean over tracks: its resampled values are kept instead
                assert name in {"map", "roc_auc"} or name.startswith("wcsr_")
                assert not row["selected"] or has_resamples(finished, row, name)
                continue
            column = values.pop((*identity(row), name))
            assert [track_id for track_id, _ in column] == ["t7", "t8", "t9"]
            defined = [float(value) for _, value in column if value]
            assert len(defined) == score["n"]
            assert np.mean(defined) == pytest.approx(score["mean"], abs=1e-6)
    assert not values


def test_written_estimates_scored_by_hand_give_the_rows(finished, corpus, read_rows):
    selected = [row for row in read_rows(finished) if row["selected"]]
    assert len(selected) >= 2 * 8
    for row in selected:
        cell = f"{row['task']}_{row['readout']}_layer{row['layer']}_seed{row['seed']}"
        folder = finished / "estimates" / row["backbone"]["kind"] / row["decoder"]["name"] / cell
        assert len(list(folder.iterdir())) == 3
        by_hand = globals()[f"{row['task']}_by_hand"](corpus, folder)
        assert row["scores"][HEADLINE[row["task"]]]["mean"] == pytest.approx(by_hand, abs=2e-4)


def chord_by_hand(corpus, folder):
    scores = []
    for name in ("t7", "t8", "t9"):
        reference = mir_eval.io.load_labeled_intervals(str(corpus / f"{name}.lab"))
        estimate = mir_eval.io.load_labeled_intervals(str(folder / f"{name}.lab"))
        scores.append(mir_eval.chord.evaluate(*reference, *estimate)["majmin"])
    return np.mean(scores)


def beat_by_hand(corpus, folder):
    scores = []
    for name in ("t7", "t8", "t9"):
        paths = corpus / f"{name}.beats", folder / f"{name}.beats"
        times = [[float(line.split()[0]) for line in path.read_text().splitlines()] for path in paths]
        reference, estimate = (mir_eval.beat.trim_beats(np.array(column)) for column in times)
        scores.append(mir_eval.beat.f_measure(reference, estimate) if len(estimate) > 1 else 0.0)
    return np.mean(scores)


def tagging_by_hand(corpus, folder):
    lines = map(json.loads, (corpus / "manifest.jsonl").read_text().splitlines())
    tags = {line["track_id"]: line["tags"] for line in lines}
    columns = defaultdict(list)
    for name in ("t7", "t8", "t9"):
        for line in csv.DictReader((folder / f"{name}.csv").read_text().splitlines()):
            columns[line["tag"]].append((line["tag"] in tags[name], float(line["probability"])))
    return np.mean([average_precision_score(*zip(*column, strict=True)) for column in columns.values()])


def test_the_vocabulary_stands_beside_the_rows(finished):
    path = finished / "vocabulary.txt"
    assert path.exists() == (finished.name == "tagging")
    assert not path.exists() or path.read_text().split() == ["even", "third"]


def test_a_finished_run_is_not_run_again(finished, configured):
    everything = {"readouts": ["class", "sequence", "average"], "baselines": list(PROBE_BASELINES), "seeds": [0, 1]}
    with pytest.raises(FinishedRun):
        probe(configured(finished.name, finished, **everything))
    with pytest.raises(InputError, match="other values of seeds"):
        probe(configured(finished.name, finished, **everything | {"seeds": [0]}))


def test_the_backbone_is_frozen(configured, tmp_path, monkeypatch, backbone_path):
    loaded = []

    def spy(path):
        loaded.append(load_backbone(path))
        return loaded[-1]

    monkeypatch.setattr(resolve, "load_backbone", spy)
    monkeypatch.setenv("MUSICTF_CACHE", str(tmp_path / "empty"))  # so that features are computed here
    content = backbone_path.read_bytes()
    fresh = load_backbone(backbone_path)
    probe(configured("beat", tmp_path / "run"))
    (backbone,) = loaded
    assert backbone.digest() == fresh.digest()
    for (name, now), (_, before) in zip(backbone.state_dict().items(), fresh.state_dict().items(), strict=True):
        assert torch.equal(now, before), name
    assert not any(part.training for part in backbone.modules())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in backbone.parameters())
    assert backbone_path.read_bytes() == content


def test_the_same_run_twice_gives_the_same_scores(configured, tmp_path, read_rows):
    for name in ("a", "b"):
        probe(configured("chord", tmp_path / name))
    first, second = (
        [(identity(row), row["scores"], row["selection"]) for row in read_rows(tmp_path / n)] for n in "ab"
    )
    assert first == second


def test_an_interrupted_run_goes_on_and_repeats_nothing(configured, tmp_path, monkeypatch, read_rows):
    changes = {"seeds": [0, 1], "readouts": ["sequence", "average"], "baselines": ["mel", "majority"]}
    done, original = [], Study.score

    def tire(self, *arguments):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(arguments[1])
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Study, "score", tire)
        with pytest.raises(KeyboardInterrupt):
            probe(configured("beat", tmp_path / "run", **changes))
    assert json.loads((tmp_path / "run" / "status.json").read_text())["status"] == "failed"
    half = read_rows(tmp_path / "run")
    assert len(half) == 3 * 4
    probe(configured("beat", tmp_path / "run", **changes))
    probe(configured("beat", tmp_path / "straight", **changes))
    rows, straight = read_rows(tmp_path / "run"), read_rows(tmp_path / "straight")
    assert rows[: len(half)] == half
    assert [(identity(row), row["scores"]) for row in rows] == [(identity(row), row["scores"]) for row in straight]
    lines = [tuple(line.values()) for line in per_track(tmp_path / "run")]
    assert len(lines) == len(set(lines))
    assert lines == [tuple(line.values()) for line in per_track(tmp_path / "straight")]
