"""Results on disk: whole or not at all, no NaN, and nothing twice."""

import csv
import json

import pytest

from musictf.errors import InputError
from musictf.results import rows as module
from musictf.results.rows import TRACK_COLUMNS, Results, finite, read_rows


def a_row(layer=0, kind="pretrained", readout="sequence", seed=0):
    return {
        "schema": 1,
        "task": "beat",
        "dataset": "tiny",
        "split": {"name": "test", "digest": "d", "expected": 2, "scored": 2},
        "backbone": {"kind": kind},
        "readout": readout,
        "layer": layer,
        "seed": seed,
        "selected": True,
        "scores": {},
        "decoder": {"name": "peaks"},
    }


def lines_of(row, values=(0.5, 0.75)):
    cell = (row["task"], row["readout"], row["layer"], row["seed"], row["decoder"]["name"])
    return [(f"t{k}", *cell, "f_measure", f"{value:.6f}", row["backbone"]["kind"]) for k, value in enumerate(values)]


def csv_lines(folder):
    with open(folder / "per_track.csv", newline="") as file:
        return [tuple(line) for line in csv.reader(file)]


def test_the_first_eight_columns_are_the_contract():
    contract = ("track_id", "task", "readout", "layer", "seed", "decoder", "metric", "value")
    assert TRACK_COLUMNS[:8] == contract


def test_what_was_added_is_read_again(tmp_path):
    for layer in (0, 1):
        Results(tmp_path).add([a_row(layer)], lines_of(a_row(layer)))
    assert read_rows(tmp_path / "results.jsonl") == [a_row(0), a_row(1)]
    header, *lines = csv_lines(tmp_path)
    assert tuple(header) == TRACK_COLUMNS
    assert len(lines) == len(set(lines)) == 4
    assert lines[0] == ("t0", "beat", "sequence", "0", "0", "peaks", "f_measure", "0.500000", "pretrained")


def test_a_part_is_known_by_backbone_readout_and_seed(tmp_path):
    results = Results(tmp_path)
    assert not results.has("pretrained", "sequence", 0)
    results.add([a_row()], [])
    again = Results(tmp_path)
    assert again.has("pretrained", "sequence", 0)
    assert not again.has("random", "sequence", 0)
    assert not again.has("pretrained", "class", 0)
    assert not again.has("pretrained", "sequence", 1)


def test_track_scores_without_their_row_are_forgotten(tmp_path, monkeypatch):
    """A run that dies between the two files must not leave scores that a second run adds again."""
    results = Results(tmp_path)
    results.add([a_row(0)], lines_of(a_row(0)))
    original = module.write_atomically

    def die(path, content):
        if path.name == "results.jsonl":
            raise KeyboardInterrupt
        original(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomically", die)
        with pytest.raises(KeyboardInterrupt):
            results.add([a_row(0, seed=1)], lines_of(a_row(0, seed=1)))
    assert len(csv_lines(tmp_path)) == 1 + 4  # they were written
    Results(tmp_path).add([a_row(0, seed=1)], lines_of(a_row(0, seed=1)))
    lines = csv_lines(tmp_path)[1:]
    assert len(lines) == len(set(lines)) == 4


def test_a_value_that_is_not_a_number_never_reaches_the_file(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        Results(tmp_path).add([a_row() | {"value": float("nan")}], [])
    assert not (tmp_path / "results.jsonl").exists()
    assert finite(float("nan")) is finite(float("inf")) is finite(None) is None
    assert finite(0.25) == 0.25


def test_no_temporary_file_stays_behind(tmp_path):
    Results(tmp_path).add([a_row()], lines_of(a_row()))
    assert {path.name for path in tmp_path.iterdir()} == {"results.jsonl", "per_track.csv"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"schema": 1, "ta', "not a whole JSON line"),
        ('{"schema": 2}', "schema 2"),
        ('{"task": "beat"}', "schema None"),
    ],
)
def test_lines_that_are_no_rows_are_named(tmp_path, line, reason):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(a_row()) + "\n" + line + "\n")
    with pytest.raises(InputError, match=f"results.jsonl:2: {reason}"):
        read_rows(path)
