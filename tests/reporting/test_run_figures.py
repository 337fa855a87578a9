"""Pictures of a run folder: which are made, and whose estimates a track is shown with."""

import json

import numpy as np
import pytest

from musictf.annotations import Beats, Chords, write_beats, write_chords
from musictf.reporting.run_figures import beats_to_draw, estimate_files, probe_pictures


def write_estimate(folder, row, name, write):
    cell = f"{row['task']}_{row['readout']}_layer{row['layer']}_seed{row['seed']}"
    path = folder / "estimates" / row["backbone"]["kind"] / row["decoder"]["name"] / cell / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path)
    return path


@pytest.fixture
def run(tmp_path, row):
    """A run of every kind of system, each with a chord estimate of track ``t``."""
    kinds = {"majority": "constant", "oracle": "argmax", "classical": "templates", "chroma": "argmax", "mel": "argmax"}
    kinds |= {"pretrained": "argmax", "mfcc": "viterbi"}
    readouts = {"majority": "constant", "oracle": "targets", "classical": "audio"}
    rows = []
    for kind, decoder in kinds.items():
        rows.append(row(kind, task="chord", decoder={"name": decoder}, readout=readouts.get(kind, "sequence")))
        chords = Chords(np.array([[0.0, 1.0]]), ["C:maj"])
        write_estimate(tmp_path, rows[-1], "t.lab", lambda path, chords=chords: write_chords(path, chords))
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return tmp_path


def test_estimates_of_the_pretrained_system_come_first(run):
    found = estimate_files([run], "chord", "t.lab")
    kinds = {decoder: path.parents[2].name for decoder, path in found.items()}
    assert kinds == {"argmax": "pretrained", "viterbi": "mfcc", "templates": "classical"}
    assert estimate_files([run], "beat", "t.lab") == {}


def test_downbeats_are_held_against_downbeats_where_beats_were_not_estimated(tmp_path, row):
    beats = Beats(np.arange(8.0), np.arange(8) % 4 + 1)
    rows = [row(task="downbeat")]
    write_estimate(tmp_path, rows[0], "t.beats", lambda path: write_beats(path, beats))
    (tmp_path / "results.jsonl").write_text(json.dumps(rows[0]) + "\n")
    task, shown = beats_to_draw([tmp_path], "t", beats)
    assert (task, shown.times.tolist()) == ("downbeat", [0.0, 4.0])
    assert beats_to_draw([tmp_path], "t", Beats(beats.times))[0] == "beat"
    rows.append(row())
    write_estimate(tmp_path, rows[1], "t.beats", lambda path: write_beats(path, beats))
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    assert beats_to_draw([tmp_path], "t", beats) == ("beat", beats)


def test_pictures_of_a_run_are_its_layer_map_and_its_details(tmp_path, row, run_folder):
    details = {
        "by_class": {"a": {"tracks": 3, "f1": 0.5}},
        "confusion": {"labels": ["a", "b"], "counts": [[1, 2], [0, 1]]},
    }
    rows = [row(kind, task="genre", details=details) for kind in ("pretrained", "mfcc")]
    rows += [row("oracle", 1.0, task="genre", selection=None)]
    paths = probe_pictures(run_folder(tmp_path / "run", rows))
    assert sorted(path.name for path in paths if path.suffix == ".png") == [
        *("classes_genre.png", "confusion_genre.png", "layers_genre.png"),
    ]
    assert all(path.parent == tmp_path / "run" / "figures" and path.is_file() for path in paths)
