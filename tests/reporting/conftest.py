"""Fabricated rows and run folders in the schema of ``results.jsonl``."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from musictf.reporting.render import block_table
from musictf.results.resamples import resample_key

HEADLINE = {"tagging": "map", "chord": "majmin", "beat": "f_measure"}
SHOWN_SCORES = {
    "tagging": ("map", "roc_auc"),
    "chord": ("majmin", "wcsr_majmin", "root", "mirex", "seg", "coverage"),
    "beat": ("f_measure", "cemgil", "cmlt", "amlt", "downbeat_f_measure"),
}


def fabricate(kind="pretrained", value=0.7, **changes):
    """One row; ``value`` is its headline score and, unless ``valid`` says otherwise, its validation value."""
    task = changes.pop("task", "beat")
    metric = HEADLINE.get(task, "score")
    digest, preset = changes.pop("digest", f"{kind}-weights"), changes.pop("preset", "vit1d_mini")
    valid = changes.pop("valid", value)
    scores = changes.pop("scores", {metric: value})
    split = {"name": "test", "digest": changes.pop("split", "3f2a91c07755"), "expected": 30, "scored": 30}
    return {
        "schema": 1,
        "run": "r",
        "time": "2026-01-01T00:00:00",
        "git": {"commit": None, "dirty": None},
        "versions": {},
        "backbone": {"path": "b", "digest": digest, "kind": kind, "preset": preset, "parameters": 1, "pretrain": None},
        "task": task,
        "dataset": "pop909",
        "split": split | changes.pop("split_changes", {}),
        "readout": "sequence",
        "layer": 3,
        "seed": 0,
        "selected": True,
        "selection": {"split": "valid", "metric": metric, "value": valid, "lr": 1e-3, "weight_decay": 0.0},
        "scores": {name: {"mean": mean, "ci95": [mean - 0.02, mean + 0.02], "n": 30} for name, mean in scores.items()},
        "table_scores": list(SHOWN_SCORES.get(task, ())),
        "descriptive_scores": ["coverage"],
        "decoder": {"name": "peaks"},
        "seconds": {},
        "per_track": "per_track.csv",
        **changes,
    }


def write_run(folder: Path, rows, per_track=(), groups=None, resamples=()):
    """A run folder.

    ``per_track`` holds (row, values), one value of the headline for each of tracks 0, 1, …; ``groups`` their groups;
    ``resamples`` holds (row, values) of the headline in each resample.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (folder / "per_track.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["track_id", "task", "readout", "layer", "seed", "decoder", "backbone", "metric", "value"])
        for row, values in per_track:
            where = [row[name] for name in ("task", "readout", "layer", "seed")]
            what = [row["decoder"]["name"], row["backbone"]["digest"], HEADLINE[row["task"]]]
            writer.writerows([f"track{i}", *where, *what, value] for i, value in enumerate(values))
    if groups is not None:
        lines = [f"track{i},{group},10.0\n" for i, group in enumerate(groups)]
        (folder / "tracks.csv").write_text("track_id,group,seconds\n" + "".join(lines))
    if resamples:
        keys = [resample_key(row, HEADLINE[row["task"]]) for row, _ in resamples]
        # By numpy, not by the library's writer: values keep all their digits.
        np.savez(folder / "resamples.npz", **dict(zip(keys, (values for _, values in resamples), strict=True)))
    return folder


@pytest.fixture
def row():
    return fabricate


@pytest.fixture
def run_folder():
    return write_run


@pytest.fixture
def texts():
    """The cells of a column of a block."""

    def read(block, name):
        table = block_table(block)
        return [cells[table.columns.index(name)].text for cells in table.cells()]

    return read


@pytest.fixture
def baselines(tmp_path, row, run_folder):
    """A pretrained backbone .1 above random weights on every track and .1 below the mel on average."""
    generator = np.random.default_rng(0)
    base = generator.uniform(0.4, 0.8, 30)
    rows = [row("pretrained", 0.7, valid=0.66), row("random", 0.6), row("mel", 0.8, layer=0, readout="average")]
    values = [base + 0.1, base, base + 0.2 + generator.normal(0, 0.01, 30)]
    constant = row("majority", 0.1, selection=None, readout="constant", layer=0)
    return run_folder(tmp_path / "run", [*rows, constant], list(zip(rows, values, strict=True)))
