"""Cells of a sweep: what is missing is seen wherever it is, and can be filled by the commands that are printed."""

from __future__ import annotations

import csv
import io
import json
import shlex
import shutil

import pytest

from musictf.cli import main
from musictf.errors import InputError
from musictf.results.sweep_plan import (
    COLUMNS,
    Job,
    counted,
    missing_commands,
    quoted,
    read_cells,
    state_of,
    write_plan,
)
from musictf.run_folder import open_run


def job(folder, number, **cell):
    shown = {"backbone": "runs/a", "task": "chord", "dataset": "mine", "seed": "0", "other": ""} | cell
    overrides = (f"backbone={shown['backbone']}", f"task={shown['task']}", f"seeds=[{shown['seed']}]")
    return Job(number, overrides, str(folder / str(number)), shown)


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Four jobs: finished, failed, running, missing."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "table"
    tasks = ("tagging", "chord", "beat", "key")
    write_plan(folder, "probe", [job(folder, number, task=task) for number, task in enumerate(tasks)])
    with open_run(folder / "0", {}, verb="probe"):
        pass
    with pytest.raises(ValueError, match="too short"), open_run(folder / "1", {}, verb="probe"):
        raise ValueError("a|b.wav:\ntoo short")
    with open_run(folder / "2", {}, verb="probe"):
        shutil.copy(folder / "2" / "status.json", tmp_path / "running.json")
    shutil.copy(tmp_path / "running.json", folder / "2" / "status.json")
    return folder


def test_every_state_is_told_from_the_others(sweep):
    states = [(cell.job.cell["task"], cell.state) for cell in read_cells([sweep])]
    assert states == [("tagging", "finished"), ("chord", "failed"), ("beat", "running"), ("key", "missing")]
    assert counted(read_cells([sweep])) == "1 of 4 jobs finished, 1 failed, 1 running, 1 missing"


def test_a_failed_cell_shows_its_error_on_one_line(sweep):
    assert read_cells([sweep])[1].remark == "ValueError: a|b.wav: too short"


def test_a_half_written_status_is_a_failure(sweep):
    (sweep / "0" / "status.json").write_text("{")
    assert state_of(sweep / "0")[0] == "failed"


def test_a_sweep_is_found_below_and_once(sweep, tmp_path):
    assert len(read_cells([tmp_path, sweep, sweep.parent, "runs"])) == 4
    assert read_cells([sweep / "0"]) == []


def test_a_moved_sweep_is_still_whole(sweep, tmp_path):
    shutil.move(sweep, tmp_path / "elsewhere")
    assert [cell.state for cell in read_cells([tmp_path / "elsewhere"])][0] == "finished"


def test_commands_fill_exactly_what_is_missing(sweep):
    lines = missing_commands(read_cells([sweep])).splitlines()
    assert [shlex.split(line)[:2] for line in lines] == [["musictf", "probe"], ["#", "running"], ["musictf", "probe"]]
    assert f"task=chord 'seeds=[0]' output_dir={sweep / '1'}" in lines[0]
    assert f"output_dir={sweep / '3'}" in lines[2]


def test_commands_go_to_the_folder_the_sweep_was_started_in(sweep, tmp_path, monkeypatch):
    """Its paths are relative to there."""
    (tmp_path / "other place").mkdir()
    monkeypatch.chdir(tmp_path / "other place")
    lines = missing_commands(read_cells([sweep])).splitlines()
    assert lines[0] == f"cd {tmp_path}"
    assert sum(line.startswith("cd ") for line in lines) == 1


@pytest.mark.parametrize(
    "value", ["runs/a", "my runs/a", "runs/a=1,2", "runs/[x]", "it's/a", "007", "true", "ä/b", "a"]
)
def test_a_quoted_path_is_read_back_by_hydra(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (override,) = OverridesParser.create().parse_overrides([f"output_dir={quoted(value)}"])
    assert override.value() == value
    assert not override.is_sweep_override()


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "not the plan"), ("[]", "not the plan"), ('{"jobs": [{}]}', "not the plan"), (None, "schema 9")],
)
def test_a_broken_plan_is_named(sweep, content, said):
    path = sweep / "sweep.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 9}) if content is None else content)
    with pytest.raises(InputError, match=said) as caught:
        read_cells([sweep])
    assert "sweep.json" in str(caught.value)


def reported(capsys, *arguments):
    main(["report", *map(str, arguments)])
    return capsys.readouterr()


def with_rows(sweep, row, run_folder):
    rows = [row("pretrained", 0.7, task="chord"), row("mel", 0.5, task="chord")]
    run_folder(sweep / "0", rows, [(each, [0.6, 0.7, 0.8]) for each in rows])
    return sweep


@pytest.mark.parametrize("has_rows", [False, True])
@pytest.mark.parametrize("format", [None, "md", "latex", "html"])
def test_the_report_shows_the_cells_that_are_not_finished(sweep, row, run_folder, capsys, has_rows, format):
    if has_rows:
        with_rows(sweep, row, run_folder)
    said = reported(capsys, sweep, *(["--format", format] if format else [])).out
    assert "1 of 4 jobs finished" in said
    assert ("majmin" in said) == has_rows
    for task, state in (("chord", "failed"), ("beat", "running"), ("key", "missing")):
        assert any(task in line and state in line for line in said.splitlines())
    assert "tagging" not in said
    if format == "md":
        assert "a\\|b.wav: too short" in said
    if format == "html":
        assert said.count("</body>") == 1
        assert said.rstrip().endswith("</html>")


def test_latex_holds_cells_as_comments_only(sweep, capsys):
    assert all(line.startswith("%") for line in reported(capsys, sweep, "--format", "latex").out.splitlines())


def test_csv_of_scores_stays_tidy(sweep, row, run_folder, capsys, tmp_path):
    with_rows(sweep, row, run_folder)
    printed = reported(capsys, sweep, "--format", "csv")
    assert {len(line) for line in csv.reader(io.StringIO(printed.out))} == {17}
    assert "1 of 4 jobs finished" in printed.err
    reported(capsys, sweep, "--output", tmp_path / "scores.csv")
    lines = list(csv.DictReader(io.StringIO((tmp_path / "scores.cells.csv").read_text())))
    assert list(lines[0]) == list(COLUMNS)
    assert [line["state"] for line in lines] == ["finished", "failed", "running", "missing"]


def test_a_finished_sweep_has_no_table(sweep, capsys):
    for number in range(1, 4):
        with open_run(sweep / str(number), {}, verb="probe"):
            pass
    assert reported(capsys, sweep).out == "cells: 4 of 4 jobs finished\n"


def test_a_column_that_says_nothing_is_left_out(sweep, capsys):
    assert "| other |" not in reported(capsys, sweep, "--format", "md").out
    plan = json.loads((sweep / "sweep.json").read_text())
    plan["jobs"][3]["cell"]["other"] = "probe.steps=3"
    (sweep / "sweep.json").write_text(json.dumps(plan))
    assert "| other |" in reported(capsys, sweep, "--format", "md").out


def test_a_report_without_sweeps_says_nothing_of_cells(tmp_path, row, run_folder, capsys):
    run_folder(tmp_path, [row("mel", 0.5)])
    printed = reported(capsys, tmp_path, "--format", "md")
    assert "cells" not in printed.out + printed.err


def test_missing_prints_commands_and_nothing_else(sweep, capsys):
    printed = reported(capsys, sweep, "--missing")
    assert all(line.startswith(("musictf probe", "# running")) for line in printed.out.splitlines())
    assert printed.err == "1 of 4 jobs finished, 1 failed, 1 running, 1 missing\n"


def test_missing_needs_a_sweep(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path), "--missing"])
    assert stop.value.code == 2
    assert "no sweep.json below" in capsys.readouterr().err
