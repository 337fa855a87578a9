"""The frame of the benchmarks: ratios, rows, and a quick run of every one."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from musictf.datasets.folder import Folder

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "benchmarks"
NAMES = {"study", "extraction", "heads", "step", "contrast", "micro_batch", "excerpts", "waiting", "ranks"}
COLUMNS = ["name", "value", "unit", "against", "ratio", "target", "met", "machine", "commit"]


def rows_in(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_benchmark_is_found_by_its_file(load):
    assert set(load("run").benchmarks()) >= NAMES


def test_rounds_alternate_and_the_median_counts(frame, monkeypatch):
    calls = []
    clock = iter([0, 1, 10, 15, 20, 29, 30, 32, 40, 103, 110, 116])
    monkeypatch.setattr(frame.time, "perf_counter", lambda: next(clock))
    found = frame.alternated({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert "".join(calls) == "abbaab"
    assert found == {"a": 2, "b": 6}  # of 1, 2, 63 and of 5, 9, 6


def test_the_clock_waits_for_the_device_on_both_sides(frame, monkeypatch):
    events = []
    monkeypatch.setattr(frame.time, "perf_counter", lambda: events.append("clock") or 0.0)
    frame.timed(lambda: events.append("run"), lambda: events.append("wait"))
    assert events == ["wait", "clock", "run", "wait", "clock"]


@pytest.mark.parametrize(("theirs", "met"), [(99.0, False), (100.0, True)])
def test_a_ratio_says_how_many_times_faster_ours_is(frame, theirs, met):
    found = frame.faster("x", 2.0, theirs, "a loop", 50.0)
    assert (found.value, found.unit, found.ratio, found.met) == (2.0, "s", theirs / 2, met)
    assert found.against == f"a loop: {theirs:.4g} s"
    assert frame.faster("x", 2.0, theirs, "a loop").met is None


@pytest.mark.parametrize("before", [None, "/somewhere"])
def test_a_fresh_cache_is_empty_and_leaves_no_trace(frame, monkeypatch, before):
    monkeypatch.delenv("MUSICTF_CACHE", raising=False)
    if before is not None:
        monkeypatch.setenv("MUSICTF_CACHE", before)

    def fail_inside():
        with frame.fresh_cache() as folder:
            assert os.environ["MUSICTF_CACHE"] == str(folder)
            assert list(folder.iterdir()) == []
            raise ZeroDivisionError(folder)

    with pytest.raises(ZeroDivisionError) as raised:
        fail_inside()
    assert os.environ.get("MUSICTF_CACHE") == before
    assert not raised.value.args[0].exists()


def measured(frame, name="x", **changes):
    values = {"name": name, "value": 1.5, "unit": "s", "against": "y, z", "ratio": 3.0, "target": 2.0, "met": True}
    return frame.Measurement(**values | changes)


def test_rows_have_the_columns_of_the_contract(frame, tmp_path):
    settings = frame.Settings(corpus=Folder())
    rows = frame.rows_of("study", [measured(frame), measured(frame, ratio=None, target=None, met=None)], settings)
    frame.replace_rows(tmp_path / "results.csv", "study", rows)
    with open(tmp_path / "results.csv", newline="", encoding="utf-8") as file:
        assert next(csv.reader(file)) == COLUMNS
    first, second = rows_in(tmp_path / "results.csv")
    assert list(first.values())[:7] == ["study/x", "1.5", "s", "y, z", "3", "2", "yes"]
    assert [second[name] for name in ("ratio", "target", "met")] == ["", "", ""]
    assert torch.__version__ in first["machine"]
    assert f"{torch.get_num_threads()} threads" in first["machine"]


def test_a_quick_run_judges_nothing(frame):
    quick = frame.Settings(corpus=Folder(), quick=True)
    assert [row["met"] for row in frame.rows_of("study", [measured(frame)], quick)] == [""]
    full = frame.Settings(corpus=Folder())
    assert [row["met"] for row in frame.rows_of("study", [measured(frame, met=False)], full)] == ["no"]


def test_a_benchmark_replaces_its_own_rows_alone(frame, tmp_path):
    path, settings = tmp_path / "results.csv", frame.Settings(corpus=Folder())
    for benchmark, names in (("study", ("a", "b")), ("heads", ("c",)), ("studying", ("d",)), ("study", ("e",))):
        rows = frame.rows_of(benchmark, [measured(frame, name) for name in names], settings)
        frame.replace_rows(path, benchmark, rows)
    assert [row["name"] for row in rows_in(path)] == ["heads/c", "study/e", "studying/d"]
    assert [file.name for file in tmp_path.iterdir()] == ["results.csv"]


@pytest.mark.parametrize("arguments", [["juggling"], ["heads", "--corpus", "nowhere"], ["--device", "abacus"]])
def test_wrong_input_is_one_line_and_status_2(load, arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        load("run").main(arguments)
    assert stopped.value.code == 2
    assert arguments[-1] in capsys.readouterr().err.splitlines()[-1]


def test_numbers_of_a_quick_run_are_written_only_where_one_says(load, frame, tmp_path, monkeypatch, capsys):
    run = load("run")
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setattr(run, "benchmarks", lambda: {"toy": lambda settings: [measured(frame)]})
    monkeypatch.setattr(run, "corpus", lambda root, quick: Folder())
    assert run.main(["--quick"]) == 0
    assert "mean nothing" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    run.main(["--quick", "--output", str(tmp_path / "quick.csv")])
    assert [path.name for path in tmp_path.iterdir()] == ["quick.csv"]
    run.main([])
    assert [row["met"] for row in rows_in(tmp_path / "results.csv")] == ["yes"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries beside which ours is measured
def test_a_quick_run_of_everything(load, forked, tmp_path, monkeypatch):
    """Both ways of training heads reach the same validation loss, which no shrinking excuses."""

    def musictf(command, env, **streams):
        assert command[:3] == [sys.executable, "-m", "musictf"]
        run = forked(command[3:], env=env)
        return subprocess.CompletedProcess(command, run.wait(), run.stdout, run.stderr)

    monkeypatch.setattr(load("real_runs"), "subprocess", SimpleNamespace(run=musictf))
    assert load("run").main([*sorted(NAMES), "--quick", "--output", str(tmp_path / "q.csv")]) == 0
    rows = {row["name"]: row for row in rows_in(tmp_path / "q.csv")}
    assert {name.partition("/")[0] for name in rows} == NAMES
    assert {row["met"] for row in rows.values()} == {""}
    assert float(rows["study/loss apart"]["value"]) < 1e-3
    assert all(float(row["ratio"]) > 0 for row in rows.values() if row["ratio"])
    assert abs(float(rows["heads/layer 1"]["value"])) < 0.2
