"""Jobs of a sweep in a report: those that are not finished, in every format."""

from __future__ import annotations

import csv
import io
import json

import pytest
from sweep_jobs import write_sweep

from musictf.cli import main
from musictf.results.sweep_plan import COLUMNS
from musictf.run_folder import open_run


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Four jobs: finished, failed, running, missing."""
    monkeypatch.chdir(tmp_path)
    return write_sweep(tmp_path / "runs" / "table")


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
    text = reported(capsys, sweep, *(["--format", format] if format else [])).out
    assert "1 of 4 jobs finished" in text
    assert ("majmin" in text) == has_rows
    for task, state in (("chord", "failed"), ("beat", "running"), ("key", "missing")):
        assert any(task in line and state in line for line in text.splitlines())
    assert "tagging" not in text
    if format == "md":
        assert "a\\|b.wav: too short" in text
    if format == "html":
        assert text.count("</body>") == 1
        assert text.rstrip().endswith("</html>")


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
