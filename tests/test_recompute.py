"""Scores of a run can be recomputed from what it wrote, and what was changed afterwards is found."""

import ast
import csv
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictf.annotations import Beats, Chords, write_beats, write_chords, write_onsets
from musictf.datasets.manifest import Manifest
from musictf.distributed import TrainerConfig
from musictf.evaluation.probe_run import ProbeRun, probe
from musictf.models.vit1d import ViT1DConfig
from musictf.probing.linear_probe import ProbeConfig
from musictf.tasks.beat import BeatTask
from musictf.tasks.chord import ChordTask
from musictf.tasks.classification import ClassificationTask
from musictf.tasks.downbeat import DownbeatTask
from musictf.tasks.key import KeyTask
from musictf.tasks.onset import OnsetTask
from musictf.tasks.tagging import TaggingTask
from musictf.tasks.tempo import TempoTask

SCRIPT = Path(__file__).resolve().parents[1] / "experiments" / "recompute.py"
SAMPLE_RATE = 16000
LABELS = ("C:maj", "A:min", "G:7", "D:min7", "F:maj", "N", "E:sus4", "B:dim")
SPLITS = ["train"] * 6 + ["valid"] * 2 + ["test"] * 4
TASKS = {
    "tagging": TaggingTask,
    "chord": ChordTask,
    "beat": BeatTask,
    "downbeat": DownbeatTask,
    "tempo": TempoTask,
    "onset": OnsetTask,
    "key": KeyTask,
    "genre": ClassificationTask,
}


@pytest.fixture(scope="module")
def recompute():
    spec = importlib.util.spec_from_file_location("recompute", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_track(folder, index):
    """Sines that change with the chord, clicks on the beat; a gap between two chords, a pair of beats before 5 s."""
    generator = np.random.default_rng(index)
    seconds = 9 + 0.37 * index
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    waveform = 0.02 * generator.normal(size=len(time))
    changes = np.append(np.arange(0.0, seconds - 1, 1.1), seconds - 0.2)
    labels = [LABELS[k] for k in generator.integers(len(LABELS), size=len(changes) - 1)]
    for start, end, label in zip(changes[:-1], changes[1:], labels, strict=True):
        inside = (time >= start) & (time < end)
        waveform[inside] += 0.1 * np.sin(2 * np.pi * (200 + 30 * LABELS.index(label)) * time[inside])
    beats = np.arange(0.31 + 0.013 * index, seconds - 0.1, 0.47 + 0.011 * (index % 4))
    beats += generator.normal(0, 0.01, size=len(beats))
    for first in (beats * SAMPLE_RATE).astype(int):
        waveform[first : first + 300] += 0.5 * generator.normal(size=300)[: len(waveform) - first]
    name = f"t{index}"
    soundfile.write(folder / f"{name}.wav", waveform.clip(-1, 1), SAMPLE_RATE, subtype="FLOAT")
    kept = [k for k in range(len(labels)) if k != 3]
    intervals = np.column_stack([changes[:-1], changes[1:]])
    write_chords(folder / f"{name}.lab", Chords(intervals[kept], [labels[k] for k in kept]))
    write_beats(folder / f"{name}.beats", Beats(beats, np.arange(len(beats)) % 4 + 1))
    write_onsets(folder / f"{name}.txt", beats)
    return {
        "track_id": name,
        "audio": f"{name}.wav",
        "split": SPLITS[index],
        "chords": f"{name}.lab",
        "beats": f"{name}.beats",
        "onsets": f"{name}.txt",
        "tags": [tag for tag, present in (("even", index % 2 == 0), ("third", index % 3 == 0)) if present],
        "key": ("C major", "Db:min", "a minor")[index % 3],
        "genre": ("rock", "pop", "jazz")[index % 3],
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recompute") / "tiny"
    folder.mkdir()
    lines = [json.dumps(write_track(folder, index)) for index in range(len(SPLITS))]
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def probed(corpus, tmp_path_factory):
    """The finished run of a task, made when first asked for."""
    folder = tmp_path_factory.mktemp("runs")

    def make(task):
        if not (folder / task).is_dir():
            probe(
                ProbeRun(
                    backbone="random",
                    task=TASKS[task](),
                    dataset=Manifest(root=str(corpus)),
                    model=ViT1DConfig(depth=2, embed_dim=16, num_heads=2),
                    trainer=TrainerConfig(accelerator="cpu"),
                    readouts=["sequence", "class"],
                    seeds=[0],
                    baselines=["majority", "oracle"],
                    probe=ProbeConfig(learning_rates=[1e-2], steps=20, batch_size=256, valid_every=10),
                    output_dir=str(folder / task),
                )
            )
        return folder / task

    return make


@pytest.fixture
def copied(probed, tmp_path):
    """A copy of the run of a task, to be tampered with."""

    def make(task):
        return Path(shutil.copytree(probed(task), tmp_path / task))

    return make


def writes_microseconds(folder):
    """Whether beats of estimates are rounded to microseconds: Cemgil's score of a track then moves by some 1e-6."""
    texts = [path.read_text() for path in folder.glob("estimates/random/**/*.beats")]
    return all(len(line.split()[0].partition(".")[2]) <= 6 for text in texts for line in text.splitlines())


def change_row(folder, change):
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    change(next(row for row in rows if row["selected"]))
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_script_shares_no_code_with_what_it_checks():
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        assert not any(name.split(".")[0] == "musictf" for name in names)


@pytest.mark.parametrize("task", TASKS)
def test_every_score_of_a_run_can_be_recomputed(task, probed, corpus, recompute, monkeypatch, capsys):
    folder = probed(task)
    if task == "beat" and writes_microseconds(folder):
        monkeypatch.setattr(recompute, "TOLERANCE", 1e-5)
    assert recompute.main([str(folder), str(corpus)]) == 0, capsys.readouterr().out
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    number = sum(row["selected"] for row in rows)
    assert f"all recomputed: {number} selected rows of {len(rows)}" in capsys.readouterr().out


def test_scores_of_tracks_are_compared_as_well(probed, corpus, recompute, capsys):
    recompute.main([str(probed("chord")), str(corpus)])
    with open(probed("chord") / "per_track.csv", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["backbone"] == "majority"]
    printed = next(line for line in capsys.readouterr().out.splitlines() if "majority" in line)
    numbers = int(printed.partition(": of ")[2].split()[0])
    per_score = 2  # its mean and its number of tracks
    wcsr = 8
    scores = len({line["metric"] for line in lines})
    assert numbers == 1 + per_score * scores + wcsr + len(lines)


def tamper_with_estimate(folder):
    path = next(folder.glob("estimates/random/argmax/chord_sequence_*/t8.lab"))
    path.write_text("0.0\t20.0\tEb:maj\n")


def tamper_with_mean(folder):
    change_row(folder, lambda row: row["scores"]["majmin"].update(mean=row["scores"]["majmin"]["mean"] + 2e-6))


def tamper_with_number(folder):
    change_row(folder, lambda row: row["scores"]["majmin"].update(n=row["scores"]["majmin"]["n"] - 1))


def tamper_with_corpus_score(folder):
    change_row(folder, lambda row: row["scores"]["wcsr_root"].update(mean=row["scores"]["wcsr_root"]["mean"] - 1e-5))


def tamper_with_track(folder):
    lines = [line.split(",") for line in (folder / "per_track.csv").read_text().splitlines()]
    column = lines[0].index("value")
    for line in lines:
        if line[:3] == ["t9", "chord", "sequence"] and "majmin" in line:
            line[column] = f"{float(line[column]) + 1e-5:.6f}"
    (folder / "per_track.csv").write_text("".join(",".join(line) + "\n" for line in lines))


def lose_a_score(folder):
    change_row(folder, lambda row: row["scores"].pop("seg"))


def invent_a_score(folder):
    change_row(folder, lambda row: row["scores"].update(beauty={"mean": 1.0, "ci95": [1.0, 1.0], "n": 4}))


def lose_an_estimate(folder):
    next(folder.glob("estimates/random/argmax/chord_class_*/t10.lab")).unlink()


def leave_out_a_track(folder):
    change_row(folder, lambda row: row["split"].update(scored=3))


def lose_every_row(folder):
    (folder / "results.jsonl").write_text("")


TAMPERINGS = (
    tamper_with_estimate,
    tamper_with_mean,
    tamper_with_number,
    tamper_with_corpus_score,
    tamper_with_track,
    lose_a_score,
    invent_a_score,
    lose_an_estimate,
    leave_out_a_track,
    lose_every_row,
)


@pytest.mark.parametrize("tamper", TAMPERINGS)
def test_what_was_changed_afterwards_is_found(tamper, copied, corpus, recompute, capsys):
    folder = copied("chord")
    tamper(folder)
    assert recompute.main([str(folder), str(corpus)]) == 1
    assert "NOT recomputed" in capsys.readouterr().out


def test_a_changed_annotation_is_found(probed, corpus, recompute, tmp_path):
    other = Path(shutil.copytree(corpus, tmp_path / "other"))
    (other / "t8.lab").write_text((other / "t8.lab").read_text().replace(":maj", ":min"))
    assert recompute.main([str(probed("chord")), str(other)]) == 1


def test_a_changed_probability_is_found(copied, corpus, recompute):
    folder = copied("tagging")
    for path in folder.glob("estimates/random/*/tagging_sequence_*/t8.csv"):
        path.write_text("tag,probability\neven,0.000001\nthird,0.999999\n")
    for path in folder.glob("estimates/random/*/tagging_sequence_*/t9.csv"):
        path.write_text("tag,probability\neven,0.999999\nthird,0.000001\n")
    assert recompute.main([str(folder), str(corpus)]) == 1


def test_splits_are_derived_as_the_manifest_says(recompute, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"")
    names = [f"name {k}" for k in range(60)]
    lines = [{"track_id": f"t{k}", "audio": "a.wav", "artist": name} for k, name in enumerate(names)]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    expected = {track.track_id: track.split for track in Manifest(root=str(tmp_path)).all_tracks()}
    assert {track["track_id"]: track["split"] for track in recompute.read_manifest(tmp_path)} == expected
    assert set(expected.values()) == {"train", "valid", "test"}


def test_gaps_are_unknown_and_rounding_is_none(recompute, tmp_path):
    path = tmp_path / "a.lab"
    path.write_text("0.0 1.0 C:maj\n1.001 2.0 A:min\n2.5 3.0 N\n")
    intervals, labels = recompute.read_chords(path)
    assert labels == ["C:maj", "A:min", "X", "N"]
    np.testing.assert_allclose(intervals, [[0, 1], [1, 2], [2, 2.5], [2.5, 3]])


def test_an_estimate_may_change_where_the_reference_ends(recompute):
    reference = np.array([[0.0, 1.0], [1.0, 2.0]]), ["C:maj", "A:min"]
    estimate = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 2.5]]), ["C:maj", "A:min", "N"]
    table, whole = recompute.chord([reference], [estimate], [])
    assert table["majmin"] == [1.0]
    assert table["seg"] == [1.0]
    assert whole["wcsr_majmin"] == 1.0


def test_an_estimate_without_beats_scores_0_unless_no_estimate_has_bars(recompute):
    times = np.arange(5.1, 12.0, 0.5)
    with_bars, without_bars, empty = (times, times[::4]), (times, None), (np.empty(0), None)
    table, _ = recompute.beat([with_bars, with_bars], [with_bars, empty], [])
    assert table["downbeat_f_measure"] == [1.0, 0.0]
    table, _ = recompute.beat([with_bars, with_bars], [without_bars, empty], [])
    assert np.isnan(table["downbeat_f_measure"]).all()
