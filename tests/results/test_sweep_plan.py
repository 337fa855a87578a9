"""Cells of a sweep: what is missing is seen wherever it is, and can be filled by the commands that are printed."""

from __future__ import annotations

import json
import shlex
import shutil

import pytest
from sweep_jobs import write_sweep

from musictf.errors import InputError
from musictf.results.sweep_plan import counted, missing_commands, quoted, read_cells, state_of


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Four jobs: finished, failed, running, missing."""
    monkeypatch.chdir(tmp_path)
    return write_sweep(tmp_path / "runs" / "table")


def test_every_state_is_distinguished(sweep):
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
    ("content", "message"),
    [("{", "not the plan"), ("[]", "not the plan"), ('{"jobs": [{}]}', "not the plan"), (None, "schema 9")],
)
def test_a_broken_plan_is_named(sweep, content, message):
    path = sweep / "sweep.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 9}) if content is None else content)
    with pytest.raises(InputError, match=message) as caught:
        read_cells([sweep])
    assert "sweep.json" in str(caught.value)
