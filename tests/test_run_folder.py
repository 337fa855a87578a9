"""The run folder: its state is always true, and what is in it is never lost by accident."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
import yaml

from musictf.distributed import rank
from musictf.errors import InputError
from musictf.files import cache_folder, file_digest, write_atomically
from musictf.run_folder import FinishedRun, WandbConfig, default_folder, open_run, provenance, read_status

CONFIG = {"batch_size": 4, "max_steps": 10, "model": {"depth": 2}}


def stop_inside(folder, config, error):
    with pytest.raises(type(error)), open_run(folder, config):
        raise error


def test_status_follows_what_happens(tmp_path):
    folder = tmp_path / "a" / "run"
    with open_run(folder, CONFIG) as opened:
        assert opened == folder
        assert read_status(folder)["status"] == "running"
        assert yaml.safe_load((folder / "config.yaml").read_text()) == CONFIG
    assert read_status(folder)["status"] == "finished"
    assert read_status(folder)["error"] is None


@pytest.mark.parametrize("error", [ValueError("no such thing"), KeyboardInterrupt(), SystemExit(1)])
def test_a_failure_is_recorded_and_raised_again(tmp_path, error):
    stop_inside(tmp_path / "run", CONFIG, error)
    status = read_status(tmp_path / "run")
    assert status["status"] == "failed"
    assert status["error"].startswith(type(error).__name__)
    assert str(error) in status["error"]


def test_a_finished_run_is_not_entered_unless_overwritten(tmp_path):
    with open_run(tmp_path / "run", CONFIG) as folder:
        (folder / "result").write_text("1")
    with pytest.raises(FinishedRun, match="overwrite=true"), open_run(folder, CONFIG):
        pytest.fail("entered")
    assert read_status(folder)["status"] == "finished"
    with open_run(folder, CONFIG, overwrite=True):
        assert not (folder / "result").exists()


def test_an_unfinished_run_goes_on_with_what_it_has(tmp_path):
    stop_inside(tmp_path / "run", CONFIG, RuntimeError())
    (tmp_path / "run" / "partial").write_text("1")
    longer = CONFIG | {"max_steps": 20, "trainer": {"devices": 2}}
    with open_run(tmp_path / "run", longer, may_change={"max_steps", "trainer"}) as folder:
        assert (folder / "partial").exists()
        assert yaml.safe_load((folder / "config.yaml").read_text()) == longer


@pytest.mark.parametrize("change", [{"batch_size": 8}, {"model": {"depth": 3}}])
def test_an_unfinished_run_of_other_values_is_refused(tmp_path, change):
    stop_inside(tmp_path / "run", CONFIG, RuntimeError())
    (tmp_path / "run" / "checkpoints").mkdir()  # there is something to lose
    with pytest.raises(InputError, match=next(iter(change))), open_run(tmp_path / "run", CONFIG | change):
        pytest.fail("entered")
    assert read_status(tmp_path / "run")["status"] == "failed"
    with open_run(tmp_path / "run", CONFIG | change, overwrite=True):
        pass


def test_a_folder_of_something_else_is_never_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("dear")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="holds no run"), open_run(tmp_path, CONFIG, overwrite):
            pytest.fail("entered")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match="is a file"), open_run(tmp_path / "thesis.tex", CONFIG):
        pytest.fail("entered")


def test_an_empty_folder_is_used(tmp_path):
    with open_run(tmp_path, CONFIG):
        pass
    assert read_status(tmp_path)["status"] == "finished"


def test_only_the_first_rank_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert rank() == 1
    with open_run(tmp_path / "run", CONFIG):
        pass
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("RANK", "0")  # the rank of all nodes goes before that of this one
    assert rank() == 0


def test_ranks_share_the_folder_of_the_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = default_folder("pretrain")
    assert re.fullmatch(r"runs/pretrain/\d{8}-\d{6}", first.as_posix())
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert default_folder("pretrain") == first
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    job = default_folder("probe")
    assert job.name.startswith("4711-")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert default_folder("probe") == job


def test_a_run_that_made_nothing_does_not_bind_the_next_one(tmp_path):
    stop_inside(tmp_path / "run", CONFIG, InputError("batch_size"))
    with open_run(tmp_path / "run", CONFIG | {"batch_size": 8}):
        pass


def test_another_verb_never_overwrites_a_run(tmp_path):
    with open_run(tmp_path, CONFIG, verb="pretrain") as folder:
        (folder / "backbone.safetensors").write_text("weeks of work")
    with pytest.raises((InputError, FinishedRun)), open_run(tmp_path, CONFIG, overwrite=True, verb="probe"):
        pytest.fail("entered")
    assert (tmp_path / "backbone.safetensors").exists()


def test_every_rank_hears_that_a_run_is_finished(tmp_path, monkeypatch):
    with open_run(tmp_path, CONFIG):
        pass
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(FinishedRun), open_run(tmp_path, CONFIG):
        pytest.fail("entered")


def test_the_cache_is_where_it_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("MUSICTF_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"
    assert cache_folder().is_dir()


def test_nobody_sees_half_a_file(tmp_path, monkeypatch):
    path = tmp_path / "new" / "a.json"
    write_atomically(path, "äöü")
    assert path.read_text(encoding="utf-8") == "äöü"

    def crash(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", crash)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new")
    assert path.read_text(encoding="utf-8") == "äöü"


def test_digest_is_sha256_of_the_bytes(tmp_path):
    content = bytes(range(256)) * 5000  # more than one block
    (tmp_path / "a").write_bytes(content)
    assert file_digest(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_provenance_names_commit_and_versions():
    found = json.loads(json.dumps(provenance()))
    assert found["git"].keys() == {"commit", "dirty"}
    assert {"python", "musictf", "torch", "mir_eval"} <= found["versions"].keys()


def test_an_unknown_wandb_mode_is_refused():
    with pytest.raises(InputError, match="auto, online, offline, disabled"):
        WandbConfig(mode="on")


def test_a_finished_run_of_other_values_is_no_answer(tmp_path):
    with open_run(tmp_path / "run", {"task": "chord", "max_steps": 5}, verb="probe"):
        (tmp_path / "run" / "results.jsonl").write_text("")
    with (
        pytest.raises(InputError, match="holds a finished run with other values of task"),
        open_run(tmp_path / "run", {"task": "beat", "max_steps": 5}, verb="probe"),
    ):
        pass
    with (
        pytest.raises(InputError, match="holds a finished run with other values of max_steps"),
        open_run(tmp_path / "run", {"task": "chord", "max_steps": 9}, verb="probe"),
    ):
        pass
    with pytest.raises(FinishedRun), open_run(tmp_path / "run", {"task": "chord", "max_steps": 5}, verb="probe"):
        pass


def test_a_run_killed_before_it_could_say_its_name_goes_on(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("seed: 0\n")
    (folder / ".status.json.77.tmp").write_text("{")
    with open_run(folder, {"seed": 0}):
        pass
    assert read_status(folder)["status"] == "finished"


def test_a_requeued_job_does_not_start_afresh(tmp_path, monkeypatch):
    with open_run(tmp_path / "run", {"seed": 0}) as folder:
        (folder / "kept").touch()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with pytest.raises(FinishedRun), open_run(tmp_path / "run", {"seed": 0}, overwrite=True):
        pass
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    with open_run(tmp_path / "run", {"seed": 0}, overwrite=True):
        assert not (tmp_path / "run" / "kept").exists()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 0),
        ({"RANK": "3", "LOCAL_RANK": "0"}, 3),
        ({"LOCAL_RANK": "1", "SLURM_PROCID": "0"}, 1),  # Lightning's launcher inside a batch script
        ({"SLURM_PROCID": "5"}, 5),
        ({"NODE_RANK": "1"}, 1),
        ({"NODE_RANK": "0", "LOCAL_RANK": "0"}, 0),
    ],
)
def test_the_first_process_of_a_run_is_rank_0_and_no_other(monkeypatch, environment, expected):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert rank() == expected


def test_the_same_command_of_a_requeued_job_comes_back_to_its_folder(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setattr("sys.argv", ["musictf", "pretrain", "seed=1"])
    first = default_folder("pretrain")
    assert default_folder("pretrain") == first
    assert first.name.startswith("77-")
    monkeypatch.setattr("sys.argv", ["musictf", "pretrain", "seed=2"])
    assert default_folder("pretrain") != first
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    assert not default_folder("pretrain").name.startswith("77-")
