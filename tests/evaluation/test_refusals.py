"""What a probe refuses before anything is computed, and what it goes on with."""

import csv
import json
from dataclasses import replace

import pytest
import soundfile

from musictf.errors import InputError
from musictf.evaluation.probe_run import probe
from musictf.tasks.beat import BeatTask
from musictf.tasks.classification import ClassificationTask


def per_track(folder):
    with open(folder / "per_track.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_missing_test_annotation_is_an_error_unless_allowed(configured, altered, tmp_path, read_rows):
    dataset = altered(lambda f: {k: v for k, v in f.items() if (f["track_id"], k) != ("t8", "beats")})
    with pytest.raises(InputError, match=r"1 of 3 test tracks have no 'beats' \(t8\); allow_missing=true"):
        probe(configured("beat", tmp_path / "run", dataset=dataset))
    assert not (tmp_path / "run").exists()
    probe(configured("beat", tmp_path / "run", dataset=dataset, allow_missing=True))
    for row in read_rows(tmp_path / "run"):
        assert (row["split"]["expected"], row["split"]["scored"]) == (3, 2)
    assert {line["track_id"] for line in per_track(tmp_path / "run")} == {"t7", "t9"}


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_corpus_without_one_of_the_splits_is_an_error(configured, altered, tmp_path, split):
    dataset = altered(lambda f: None if f["split"] == split else f)
    with pytest.raises(InputError, match=f"no {split} track has 'chords'"):
        probe(configured("chord", tmp_path / "run", dataset=dataset))
    assert not (tmp_path / "run").exists()


def test_a_validation_split_on_which_nothing_is_defined_is_an_error(configured, altered, tmp_path):
    early = tmp_path / "early.beats"
    early.write_text("0.5\n1.0\n1.5\n")
    dataset = altered(lambda f: f | {"beats": str(early)} if f["split"] == "valid" else f)
    with pytest.raises(InputError, match="f_measure"):
        probe(configured("beat", tmp_path / "run", dataset=dataset))


def test_test_tracks_on_which_a_score_is_undefined_are_null_or_left_out(configured, altered, tmp_path, read_rows):
    early = tmp_path / "early.beats"
    early.write_text("0.5\n1.0\n1.5\n")
    dataset = altered(lambda f: f | {"beats": str(early)} if f["track_id"] == "t8" else f)
    probe(configured("beat", tmp_path / "run", dataset=dataset))
    for row in read_rows(tmp_path / "run"):
        assert row["split"]["scored"] == 3
        assert row["scores"]["f_measure"]["n"] == 2
    values = {line["value"] for line in per_track(tmp_path / "run") if line["track_id"] == "t8"}
    assert values == {""}


def test_layers_can_be_chosen_and_must_exist(configured, tmp_path, read_rows):
    probe(configured("chord", tmp_path / "run", layers=[2, 0]))
    assert {row["layer"] for row in read_rows(tmp_path / "run")} == {0, 2}
    for layers in ([3], "some", [0.5]):
        with pytest.raises(InputError, match="layers"):
            probe(configured("chord", tmp_path / "other", layers=layers))


@pytest.mark.parametrize("values", [{"readouts": ["token"]}, {"baselines": ["human"]}, {"readouts": []}, {"seeds": []}])
def test_values_that_make_no_sense_are_refused(configured, tmp_path, values):
    with pytest.raises(InputError, match="readouts|baselines"):
        configured("chord", tmp_path, **values)


def test_a_control_can_be_probed_alone(configured, tmp_path, read_rows):
    baselines = ["random", "mel"]
    probe(configured("chord", tmp_path / "random", backbone="random", baselines=baselines))
    probe(configured("chord", tmp_path / "mel", backbone="mel", baselines=baselines))
    assert {row["backbone"]["kind"] for row in read_rows(tmp_path / "random")} == {"random", "mel"}
    assert {row["backbone"]["kind"] for row in read_rows(tmp_path / "mel")} == {"mel"}


@pytest.mark.parametrize("task", ["tagging", "chord", "beat"])
def test_a_track_of_a_single_excerpt_is_probed_like_any_other(configured, altered, tmp_path, read_rows, task):
    def shorten(fields):
        waveform, rate = soundfile.read(fields["audio"])
        path = tmp_path / f"{fields['track_id']}.wav"
        soundfile.write(path, waveform[: 3 * rate], rate, subtype="FLOAT")
        return fields | {"audio": str(path)} if fields["track_id"] in {"t5", "t7"} else fields

    probe(configured(task, tmp_path / "run", dataset=altered(shorten), readouts=["sequence", "class"]))
    assert all(row["split"]["scored"] == 3 for row in read_rows(tmp_path / "run"))


def test_a_label_that_is_none_is_named_with_its_track_before_anything_runs(configured, altered, tmp_path):
    dataset = altered(lambda f: f | {"genre": 3 if f["track_id"] == "t8" else "rock" if f["tags"] else "folk"})
    with pytest.raises(InputError, match="test track t8: .*3"):
        probe(replace(configured("chord", tmp_path / "run", dataset=dataset), task=ClassificationTask(label="genre")))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_split_without_a_chord_that_is_known_is_refused_before_anything_runs(configured, altered, tmp_path, split):
    unknown = tmp_path / "x.lab"
    unknown.write_text("0\t8\tX\n")
    dataset = altered(lambda f: f | {"chords": str(unknown)} if f["split"] == split else f)
    with pytest.raises(InputError, match=f"majmin is undefined on every {split} track"):
        probe(configured("chord", tmp_path / "run", dataset=dataset))
    assert not (tmp_path / "run").exists()


def test_rows_say_what_the_task_was_told_and_not_what_it_learnt(configured, tmp_path, read_rows):
    probe(replace(configured("beat", tmp_path / "run"), task=BeatTask(tolerance=0.05)))
    (settings,) = {json.dumps(row["task_settings"]) for row in read_rows(tmp_path / "run")}
    assert json.loads(settings) == {"tolerance": 0.05, "target_width": 0.05, "beat_seconds": 0.5}


def test_two_probes_do_not_share_a_folder(configured, tmp_path):
    def meddle(folder):
        with pytest.raises(InputError, match="another process is running in"):
            probe(configured("chord", folder))

    probe(configured("chord", tmp_path / "run"), finish=meddle)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(("track", "split"), [("t0", "train"), ("t5", "valid"), ("t8", "test")])
def test_missing_audio_is_refused_in_every_split_unless_allowed(configured, altered, tmp_path, track, split):
    dataset = altered(lambda f: f | {"audio": str(tmp_path / "gone.wav")} if f["track_id"] == track else f)
    with pytest.raises(InputError, match=rf"1 of \d {split} tracks have no audio file \({track}\)"):
        probe(configured("chord", tmp_path / "run", dataset=dataset))
    assert not (tmp_path / "run").exists()


def test_layers_of_a_control_that_is_asked_for_must_exist(configured, tmp_path):
    with pytest.raises(InputError, match="this backbone has layers 0 to 0"):
        probe(configured("chord", tmp_path / "run", backbone="mel", layers=[99]))
