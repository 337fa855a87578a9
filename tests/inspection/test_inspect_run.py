"""Whole inspections: rows, resuming, and input that is odd."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from musictf.config import compose
from musictf.datasets.folder import Folder
from musictf.datasets.manifest import Manifest
from musictf.errors import InputError
from musictf.inspection import inspect_run as module
from musictf.inspection.inspect_run import PARTS, inspect
from musictf.results.rows import PER_TRACK, RESULTS, read_rows
from musictf.run_folder import FinishedRun, read_status

FIELDS = {
    "schema", "run", "time", "git", "versions", "backbone", "task", "dataset", "split", "readout", "layer", "seed",
    "selected", "selection", "scores", "decoder", "seconds", "per_track",
}  # fmt: skip
# How the tasks of each part begin, and some that must be there.
BY_PART = {
    "attention": ("attention_",),
    "similarity": ("ssm_profile", "boundary"),
    "position": ("position", "stimulus_"),
    "maps": ("token_map",),
}
TASKS = {
    "attention_onset", "attention_beat", "attention_downbeat", "attention_chord_change",
    "ssm_profile", "boundary", "position", "stimulus_onset", "stimulus_ssm", "token_map",
}  # fmt: skip


def parts_of(rows):
    """The part that each row belongs to."""
    return [next(part for part in PARTS if row["task"].startswith(BY_PART[part])) for row in rows]


def comparable(rows):
    """Rows without what differs from run to run."""
    return [
        {name: value for name, value in row.items() if name not in {"time", "run", "seconds", "git"}} for row in rows
    ]


@pytest.fixture(scope="module")
def rows(inspected):
    return read_rows(inspected[0] / RESULTS)


def test_every_part_has_rows(rows, inspected):
    tasks = {row["task"] for row in rows}
    assert tasks >= TASKS
    assert set(parts_of(rows)) == set(PARTS)
    assert read_status(inspected[0])["status"] == "finished"
    assert {row["backbone"]["kind"] for row in rows} >= {"pretrained", "random", "silence", "noise", "classical", "mel"}


def test_nothing_is_warned_of(inspected):
    assert [str(warning.message) for warning in inspected[1]] == []


def test_rows_have_the_fields_of_all_results(rows):
    for row in rows:
        assert row.keys() >= FIELDS, FIELDS - row.keys()
        assert row["backbone"].keys() >= {"path", "digest", "kind"}
        if row["backbone"]["kind"] in {"pretrained", "random", "silence", "noise"}:
            assert row["backbone"].keys() >= {"preset", "parameters", "pretrain"}
        assert row["split"].keys() >= {"name", "digest", "expected", "scored"}
        assert row["split"]["name"] == "test"
        for cell in row["scores"].values():
            assert cell.keys() == {"mean", "ci95", "n"}


def test_results_are_json_without_nan(inspected):
    def refuse(constant):
        raise AssertionError(constant)

    for line in (inspected[0] / RESULTS).read_text().splitlines():
        row = json.loads(line, parse_constant=refuse)
        for cell in row["scores"].values():
            low, high = cell["ci95"]
            if cell["mean"] is not None and low is not None:
                assert low - 1e-9 <= cell["mean"] <= high + 1e-9, row


def test_each_choice_is_made_once_a_model_by_its_value_on_validation(rows):
    for task in ("ssm_profile", "boundary"):
        cells = {}
        for row in rows:
            if row["task"] == task:
                key = (row["backbone"]["kind"], row["readout"], row["seed"])
                cells.setdefault(key, []).append((row["selected"], row["selection"]["value"]))
        assert cells
        for key, layers in cells.items():
            values = [value for _, value in layers if value is not None]
            itself = key[:2] in {("mfcc", "timbre"), ("chroma", "harmony")} and task == "ssm_profile"
            assert [value for chosen, value in layers if chosen] == ([max(values)] if values and not itself else [])
    assert any(row["layer"] > 0 for row in rows if row["task"] == "ssm_profile" and row["selected"])


def test_scores_of_tracks_make_up_the_rows(rows, inspected):
    import csv

    values = {}
    with open(inspected[0] / PER_TRACK, newline="") as file:
        for line in csv.DictReader(file):
            key = tuple(line[name] for name in ("backbone", "task", "readout", "layer", "seed", "metric"))
            values.setdefault(key, []).append(float(line["value"]) if line["value"] else np.nan)
    chosen = {
        (row["backbone"]["kind"], row["task"], row["readout"], str(row["layer"]), str(row["seed"]))
        for row in rows
        if row["selected"]
    }
    assert {key[:5] for key in values} <= chosen
    checked = 0
    for row in rows:
        if row["selected"] and row["task"].startswith(("attention_", "ssm_profile")):
            for name, cell in row["scores"].items():
                key = (row["backbone"]["kind"], row["task"], row["readout"], str(row["layer"]), str(row["seed"]), name)
                if cell["mean"] is not None:
                    assert np.nanmean(values[key]) == pytest.approx(cell["mean"], abs=1e-5)
                    checked += 1
    assert checked > 50


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # `test_nothing_is_warned_of` says so
def test_a_stopped_run_makes_the_rest_alone_and_ends_up_with_the_same_rows(
    rows, songs, inspection, quick, tmp_path, monkeypatch
):
    made = []
    for name in ("attention", "similarity", "position", "token_maps"):
        original = getattr(module, f"inspect_{name}")

        def spied(*arguments, name=name, original=original):
            made.append(name)
            if name == "position" and made.count("position") == 1:
                raise KeyboardInterrupt
            return original(*arguments)

        monkeypatch.setattr(module, f"inspect_{name}", spied)
    folder = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        inspect(inspection(songs, folder))
    assert made == ["attention", "similarity", "position"]
    assert set(parts_of(read_rows(folder / RESULTS))) == {"attention", "similarity"}
    inspect(inspection(songs, folder))
    assert made[3:] == ["position", "token_maps"]
    assert comparable(read_rows(folder / RESULTS)) == comparable(rows)
    with pytest.raises(FinishedRun):
        inspect(inspection(songs, folder))
    assert len(made) == 5


def test_a_finished_folder_is_left_alone_and_another_configuration_refused(inspected, songs, inspection):
    before = (inspected[0] / RESULTS).read_bytes()
    with pytest.raises(FinishedRun):
        inspect(inspection(songs, inspected[0]))
    with pytest.raises(InputError, match="seeds"):
        inspect(inspection(songs, inspected[0], seeds=[1]))
    assert (inspected[0] / RESULTS).read_bytes() == before


@pytest.mark.parametrize(
    "fields",
    [{"parts": ["atention"]}, {"parts": []}, {"controls": ["mel"]}]
    + [{"seeds": []}, {"seeds": [1, 1]}, {"seeds": [-1]}, {"listen": -1}],
)
def test_fields_that_mean_nothing_are_refused(inspection, songs, fields):
    with pytest.raises(InputError):
        inspection(songs, "x", **fields)


def test_what_has_no_layers_is_refused(inspection, songs, tmp_path):
    with pytest.raises(InputError, match="neither layers nor attention"):
        inspect(inspection(songs, tmp_path / "mel", backbone="mel"))


def noise(seconds, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * 16_000))


def test_splits_that_are_empty_are_named(inspection, corpus, tmp_path):
    with pytest.raises(InputError, match="no (valid|test) track"):
        inspect(inspection(Folder(root=str(corpus)), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_missing_audio_is_reported(inspection, write_manifest, tmp_path, make_clicks):
    sound = make_clicks([1.0, 2.0, 3.1], 5.0)
    onsets = {"onsets": "1.0\n2.0\n3.1\n"}
    root = write_manifest(
        [(sound, {"split": "valid"}, onsets), (sound, {"split": "test"}, onsets), (None, {"split": "test"}, onsets)]
    )
    run = inspection(Manifest(root=str(root)), tmp_path / "run", parts=["attention"], controls=[])
    with pytest.raises(InputError, match="1 of 2 test tracks have no audio"):
        inspect(run)
    inspect(replace(run, allow_missing=True))
    for row in read_rows(tmp_path / "run" / RESULTS):
        assert (row["split"]["expected"], row["split"]["scored"]) == (2, 1)


def test_tracks_without_an_annotation_are_left_out_of_its_rows_alone(inspection, write_manifest, tmp_path, make_clicks):
    sounds = [make_clicks([0.9, 2.0, 3.1, 4.2], 6.0, seed) for seed in range(4)]
    onsets, beats = {"onsets": "0.9\n2.0\n3.1\n4.2\n"}, {"beats": "0.9\t1\n2.0\t2\n3.1\t1\n4.2\t2\n"}
    splits = ["valid", "valid", "test", "test"]
    entries = [
        (s, {"split": n}, onsets | (beats if k % 2 else {}))
        for k, (s, n) in enumerate(zip(sounds, splits, strict=True))
    ]
    run = inspection(
        Manifest(root=str(write_manifest(entries))), tmp_path / "run", parts=["attention", "similarity"], controls=[]
    )
    inspect(run)
    scored = {row["task"]: row["split"]["scored"] for row in read_rows(tmp_path / "run" / RESULTS)}
    assert (scored["attention_onset"], scored["attention_beat"], scored["attention_downbeat"]) == (2, 1, 1)
    bars = {row["split"]["scored"] for row in read_rows(tmp_path / "run" / RESULTS) if row["readout"] == "bar"}
    assert bars == {1}


def test_a_corpus_without_annotations_uses_the_proxy(inspection, write_manifest, tmp_path, make_clicks, quick):
    sounds = [make_clicks([0.9, 2.0, 3.1, 4.2], 6.0, seed) for seed in range(3)]
    root = write_manifest([(s, {"split": n}, {}) for s, n in zip(sounds, ["valid", "test", "test"], strict=True)])
    run = inspection(Manifest(root=str(root)), tmp_path / "run", parts=["attention", "similarity", "maps"], controls=[])
    inspect(run)
    tasks = {row["task"] for row in read_rows(tmp_path / "run" / RESULTS)}
    assert tasks == {"attention_librosa_onset", "ssm_profile"}
    requested = replace(run, attention=replace(run.attention, targets=["beat"]), output_dir=str(tmp_path / "requested"))
    with pytest.raises(InputError, match="no track has beat"):
        inspect(requested)


def test_a_track_that_is_too_short_is_named(inspection, write_manifest, tmp_path, make_clicks):
    sound = make_clicks([1.0, 2.0, 3.1], 5.0)
    root = write_manifest(
        [(sound, {"split": "valid"}, {}), (sound, {"split": "test"}, {}), (noise(0.5), {"split": "test"}, {})]
    )
    run = inspection(Manifest(root=str(root)), tmp_path / "run", parts=["similarity"], controls=[])
    with pytest.raises(InputError, match=r"t2\.wav.*too short") as error:
        inspect(run)
    assert "\n" not in str(error.value)


def test_a_track_that_is_too_short_is_named_before_any_computation(inspection, write_manifest, tmp_path, make_clicks):
    sound, onsets = make_clicks([1.0, 2.0, 3.1], 5.0), {"onsets": "1.0\n2.0\n3.1\n"}
    entries = [
        (sound, {"split": "valid"}, onsets),
        (sound, {"split": "test"}, onsets),
        (noise(0.5), {"split": "test"}, {}),
    ]
    run = inspection(Manifest(root=str(write_manifest(entries))), tmp_path / "run", controls=[])
    with pytest.raises(InputError):
        inspect(run)
    assert not (tmp_path / "run" / RESULTS).exists()


def test_parts_stand_in_their_order(rows):
    order = parts_of(rows)
    assert all(PARTS.index(a) <= PARTS.index(b) for a, b in pairwise(order))


def test_a_backbone_without_attention_is_refused_before_a_corpus_is_made(monkeypatch):
    monkeypatch.setattr(module, "corpus_of", lambda *_: pytest.fail("a corpus was made"))
    with pytest.raises(InputError, match="neither layers nor attention"):
        module.inspect(compose("inspect", ["backbone=mel"]))
