"""Sweeps: what is planned is what runs, one bad job stops none of the others, and the same sweep again goes on."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import pytest
import soundfile

from musictf.cli import main
from musictf.config import compose
from musictf.errors import FailedRun, InputError, Interruption
from musictf.results.sweep_plan import read_cells
from musictf.run_folder import open_run
from musictf.sweep import launcher_config, planned, slurm_parameters, sweep


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def keys(tmp_path, white_noise):
    """A manifest corpus of noise and the keys of the cheapest probe on it."""
    root, lines = tmp_path / "noises", []
    root.mkdir()
    for number, split in enumerate(("train", "train", "valid", "valid", "test", "test")):
        soundfile.write(root / f"{number}.wav", white_noise(6 * 16_000, number), 16_000)
        tags = ["even" if number % 2 else "odd"]
        lines.append({"track_id": f"t{number}", "audio": f"{number}.wav", "split": split, "tags": tags})
    (root / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = ["dataset=manifest", "dataset.root=noises", "task=tagging", "trainer=cpu", "wandb.mode=disabled"]
    return ["backbone=random", *data, "baselines=[]", "layers=[0]", "readouts=[class]", "probe.steps=2"]


class Jobs:
    """Stands for the work: notes each run, and breaks the ones it is told to."""

    def __init__(self, **broken):
        self.seen, self.broken = [], {int(name[1:]): error for name, error in broken.items()}

    def __call__(self, run):
        number = int(Path(run.output_dir).name)
        self.seen.append(number)
        with open_run(Path(run.output_dir), {}, run.overwrite, "probe"):
            if number in self.broken:
                raise self.broken[number]


def test_every_combination_is_a_job_of_its_own(keys):
    jobs = planned("probe", [*keys, "seeds=[0],[1]", "probe.steps=2,3", "output_dir=table"]).jobs
    assert [(job.number, *job.overrides[-1:], job.output_dir) for job in jobs] == [
        (0, "seeds=[0]", "table/0"),
        (1, "seeds=[1]", "table/1"),
        (2, "seeds=[0]", "table/2"),
        (3, "seeds=[1]", "table/3"),
    ]
    assert jobs[3].cell == {
        "backbone": "random", "task": "tagging", "dataset": "noises", "seed": "1", "other": "probe.steps=3",
    }  # fmt: skip


def test_a_job_alone_is_the_job_of_the_sweep(keys):
    """The commands of --missing rest on it."""
    plan = planned("probe", [*keys, "seeds=[0],[1,2]", "output_dir='my table'"])
    alone = compose("probe", plan.jobs[1].arguments())
    assert alone.output_dir == "my table/1"
    assert (alone.seeds, alone.layers, alone.dataset) == ([1, 2], [0], plan.runs[1].dataset)


def test_the_plan_is_there_before_the_first_job(keys):
    def look(run):
        assert [cell.state for cell in read_cells(["table"])] == ["missing", "missing"]

    sweep("probe", [*keys, "seeds=[0],[1]", "output_dir=table"], look)


def test_a_dry_run_starts_and_writes_nothing(keys, capsys, tmp_path):
    jobs = Jobs()
    sweep("probe", [*keys, "seeds=[0],[1]", "output_dir=table", "dry_run=true"], jobs)
    said = capsys.readouterr().out
    assert "2 jobs of musictf probe in table" in said
    assert "'seeds=[1]'" in said
    assert "table/1" in said
    assert not jobs.seen
    assert not (tmp_path / "table").exists()
    sweep("probe", [*keys, "output_dir=table", "dry_run=false"], jobs)
    assert jobs.seen == [0]


def test_one_broken_job_stops_none_of_the_others(keys, capsys):
    jobs = Jobs(j0=RuntimeError("a defect"), j1=InputError("a bad file"))
    with pytest.raises(FailedRun, match="2 of 3 jobs failed: job 0: a defect; job 1: a bad file"):
        sweep("probe", [*keys, "seeds=[0],[1],[2]", "output_dir=table"], jobs)
    assert jobs.seen == [0, 1, 2]
    said = capsys.readouterr().err
    assert "RuntimeError: a defect" in said  # a defect keeps its traceback
    assert "InputError" not in said
    assert [cell.state for cell in read_cells(["table"])] == ["failed", "failed", "finished"]


def test_a_job_that_fails_for_a_known_reason_stops_none_and_has_no_traceback(keys, capsys):
    jobs = Jobs(j0=FailedRun("the loss is not finite"))
    with pytest.raises(FailedRun, match="1 of 2 jobs failed: job 0: the loss is not finite"):
        sweep("probe", [*keys, "seeds=[0],[1]", "output_dir=table"], jobs)
    assert jobs.seen == [0, 1]
    assert "Traceback" not in capsys.readouterr().err


def test_names_of_folders_are_taken_as_they_stand_in_a_sweep_too(keys, monkeypatch):
    monkeypatch.setenv("HOME", "/my home")
    names = ["Guns N' Roses", "#1 (live)", "mel", "/my home/a=b"]
    typed = ",".join([*names[:3], "~/a=b"])
    plan = planned("probe", [*keys[1:], f"backbone={typed}", "output_dir=my (table)"])
    assert [run.backbone for run in plan.runs] == names
    assert [compose("probe", job.arguments()).backbone for job in plan.jobs] == names
    assert plan.jobs[3].output_dir == "my (table)/3"


def test_jobs_that_are_only_refused_are_the_users_to_correct(keys):
    with pytest.raises(InputError, match="1 of 2 jobs failed: job 1: a bad file"):
        sweep("probe", [*keys, "seeds=[0],[1]", "output_dir=table"], Jobs(j1=InputError("a bad file")))


def test_a_job_that_is_refused_before_it_has_a_folder_leaves_its_reason(keys):
    def refuse(run):
        raise InputError("no train track has 'chords'")

    for _ in range(2):
        with pytest.raises(InputError, match="job 0: no train track"):
            sweep("probe", [*keys, "output_dir=table"], refuse)
        (cell,) = read_cells(["table"])
        assert (cell.state, cell.remark) == ("failed", "InputError: no train track has 'chords'")
    sweep("probe", [*keys, "output_dir=table"], Jobs())
    assert read_cells(["table"])[0].state == "finished"


def test_ctrl_c_stops_the_whole_sweep(keys):
    jobs = Jobs(j0=Interruption("stopped"))
    with pytest.raises(Interruption):
        sweep("probe", [*keys, "seeds=[0],[1]", "output_dir=table"], jobs)
    assert jobs.seen == [0]


def test_the_same_sweep_again_goes_on(keys, capsys):
    arguments = [*keys, "seeds=[0],[1],[2]", "output_dir=table"]
    with pytest.raises(FailedRun):
        sweep("probe", arguments, Jobs(j1=RuntimeError()))
    again = Jobs()
    sweep("probe", arguments, again)
    assert again.seen == [1]
    assert "2 of them finished already" in capsys.readouterr().out
    assert {path.name for path in Path("table").iterdir()} == {"0", "1", "2", "sweep.json"}
    sweep("probe", [*arguments, "overwrite=true"], again)
    assert again.seen == [1, 0, 1, 2]


def test_a_longer_sweep_keeps_the_numbers_of_the_jobs_it_knows(keys):
    first = Jobs()
    sweep("probe", [*keys, "seeds=[1]", "output_dir=table"], first)
    longer = Jobs()
    sweep("probe", [*keys, "seeds=[0],[1],[2]", "output_dir=table"], longer)
    assert longer.seen == [1, 2]
    seeds = {cell.job.number: cell.job.cell["seed"] for cell in read_cells(["table"])}
    assert seeds == {0: "1", 1: "0", 2: "2"}
    part = Jobs()
    sweep("probe", [*keys, "seeds=[2]", "output_dir=table", "overwrite=true"], part)
    assert part.seen == [2]
    assert len(read_cells(["table"])) == 3


def test_how_jobs_run_may_change_but_not_what_they_compute(keys):
    sweep("probe", [*keys, "output_dir=table"], Jobs())
    planned("probe", [*keys, "trainer.precision=bf16-mixed", "wandb.group=x", "output_dir=table"])
    with pytest.raises(InputError, match=r"table holds a sweep of other jobs \(probe.steps=9\)"):
        planned("probe", [*keys[:-1], "probe.steps=9", "output_dir=table"])


def test_what_is_swept_tells_jobs_apart_whatever_it_is(keys):
    """A precision may change when a run goes on; here it is the question."""
    plan = planned("probe", [*keys, "trainer.precision=32-true,bf16-mixed", "output_dir=table"])
    assert [job.number for job in plan.jobs] == [0, 1]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["seeds=[0],[-1]"], "job 1 of the sweep: seeds=.-1.: give each once, none negative"),
        (["task=tagging,taging"], "job 1 of the sweep: task=taging is not a choice"),
        (["seedz=[0],[1]"], "did you mean 'seeds'"),
        (["seeds=[0],[0]"], "the same job twice"),
        (["output_dir=a,b"], "one folder for the whole sweep"),
        (["trainer.devices=2"], "job 0: trainer.devices=2 in a local sweep"),
        (["dry_run=yes"], "dry_run=yes: true or false"),
        (["seeds=[0"], "cannot read 'seeds=.0' as key=value"),
        (["hydra/launcher=slrm"], "hydra/launcher=slrm: .*Could not find 'hydra/launcher/slrm'"),
        (["hydra.sweeep.dir=x"], "Could not override 'hydra.sweeep"),
        (["dataset.root=nowhere"], "nowhere is not a folder"),
    ],
)
def test_wrong_input_is_told_before_anything_starts(keys, more, said, tmp_path):
    jobs = Jobs()
    before = set(tmp_path.iterdir())
    with pytest.raises(InputError, match=said) as caught:
        sweep("probe", [*keys, *more], jobs)
    assert "\n" not in str(caught.value)
    assert not jobs.seen
    assert set(tmp_path.iterdir()) == before


def test_a_folder_of_something_else_is_left_alone(keys, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "main.tex").touch()
    with open_run(tmp_path / "run", {}):
        pass
    for folder, said in (("thesis", "holds no sweep"), ("run", "holds a run, not a sweep")):
        with pytest.raises(InputError, match=said):
            planned("probe", [*keys, f"output_dir={folder}"])


def test_without_a_folder_sweeps_go_to_runs(keys):
    assert planned("probe", keys).folder.match("runs/probe/sweep-*")


slurm = pytest.mark.skipif("not __import__('importlib').util.find_spec('submitit')", reason="needs musictf[slurm]")


def cluster(folder, monkeypatch, sbatch):
    """A stand-in for a cluster's commands, first on the path."""
    folder.mkdir()
    for name, text in {"sbatch": sbatch, "srun": "exit 1"}.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


@slurm
def test_the_parameters_of_a_dry_run_follow_the_trainer(keys, capsys):
    arguments = [*keys[:-6], *keys[-4:], "hydra/launcher=slurm", "output_dir=table", "seeds=[0],[1],[2]"]
    assert "trainer=cpu" not in arguments
    more = ["trainer.devices=2", "trainer.num_nodes=3", "hydra.launcher.timeout_min=720", "dry_run=true"]
    sweep("probe", [*arguments, *more], Jobs())
    out = capsys.readouterr().out
    assert "submitit gets 3 jobs" in out
    assert {
        "  nodes=3",
        "  tasks_per_node=2",
        "  gpus_per_node=2",
        "  timeout_min=720",
    } <= set(out.splitlines())
    assert "  submitit_folder=table/" in out
    sweep("probe", [*arguments, "trainer=cpu", "dry_run=true"], Jobs())
    assert "gpus-per-node" not in capsys.readouterr().out


@slurm
def test_the_parameters_of_a_dry_run_are_those_that_sbatch_gets(keys, tmp_path, monkeypatch):
    cluster(tmp_path / "bin", monkeypatch, f'cp "$1" {tmp_path}/script; exit 1')
    arguments = [*keys, "hydra/launcher=slurm", "seeds=[0],[1]", "output_dir=table"]
    arguments += ["hydra.launcher.mem_gb=8", "hydra.launcher.cpus_per_task=3"]
    parameters = slurm_parameters(launcher_config(planned("probe", arguments)))
    with pytest.raises(FailedRun, match="musictf report table"):
        sweep("probe", arguments, Jobs())
    script = (tmp_path / "script").read_text()
    assert "#SBATCH --array=0-1%2" in script
    assert f"#SBATCH --nodes={parameters['nodes']}" in script
    assert f"#SBATCH --ntasks-per-node={parameters['tasks_per_node']}" in script
    assert f"#SBATCH --cpus-per-task={parameters['cpus_per_task']}" in script
    assert f"#SBATCH --mem={parameters['mem_gb']}GB" in script
    assert f"#SBATCH --time={parameters['timeout_min']}" in script
    assert f"{tmp_path / parameters['submitit_folder']}" in script
    assert ("gpus-per-node" in script) == ("gpus_per_node" in parameters)
    assert parameters["mem_gb"] == 8


@slurm
@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "srun was not found.*dry_run=true"),
        (["trainer.devices=-1"], "trainer.devices=-1: SLURM needs a number"),
        (["trainer.devices=1,2"], "different devices"),
        (["hydra.launcher.partitoin=gpu"], "Could not override 'hydra.launcher.partitoin'"),
    ],
)
def test_what_slurm_cannot_do_is_told_at_once(keys, monkeypatch, more, said):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match=said):
        sweep("probe", [*keys, "hydra/launcher=slurm", *more], Jobs())


def test_the_plugin_that_is_missing_is_named(keys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install musictf\[slurm\]"):
        planned("probe", [*keys, "hydra/launcher=slurm"])


def test_commands_end_with_the_status_of_what_happened(keys, monkeypatch, capsys):
    def broken(run):
        raise RuntimeError("a defect")

    monkeypatch.setattr("musictf.commands.probe.run_probe", broken)
    for arguments, status in (([], 1), (["seedz=1"], 2), (["seeds=[0],[1]", "dry_run=true"], None)):
        try:
            main(["probe", "-m", *keys, f"output_dir=table{status}", *arguments])
            ended = None
        except SystemExit as stop:
            ended = stop.code
        assert ended == status
    assert "musictf probe: 1 of 1 jobs failed: job 0: a defect" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_of_real_probes_is_finished_by_the_missing_commands(keys, tmp_path, capsys):
    main(["probe", "-m", *keys, "seeds=[0],[1]", "output_dir=table"])
    assert all((tmp_path / "table" / str(number) / "results.jsonl").is_file() for number in (0, 1))
    (tmp_path / "table" / "1").rename(tmp_path / "lost")
    capsys.readouterr()
    main(["report", "table", "--missing"])
    (command,) = capsys.readouterr().out.splitlines()
    main(shlex.split(command)[1:])
    main(["report", "table"])
    said = capsys.readouterr().out
    assert "cells: 2 of 2 jobs finished" in said
    assert "tagging on noises" in said


STAND_IN = {
    "sbatch": """
import os, re, subprocess, sys
last = int(re.search("--array=0-([0-9]+)", open(sys.argv[1]).read())[1])
alone = {name: "0" for name in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")}
alone |= {name: "1" for name in ("SLURM_NTASKS", "SLURM_NNODES", "SLURM_JOB_NUM_NODES", "SLURM_JOB_NODELIST")}
for task in map(str, range(last + 1)):
    job = {"SLURM_JOB_ID": "47" + task, "SLURM_ARRAY_JOB_ID": "47", "SLURM_ARRAY_TASK_ID": task}
    nowhere = {name: subprocess.DEVNULL for name in ("stdin", "stdout", "stderr")}
    subprocess.Popen(["sh", sys.argv[1]], env=os.environ | alone | job, **nowhere)
print("Submitted batch job 47")
""",
    "srun": """
import os, subprocess, sys
arguments, streams = sys.argv[1:], {}
while arguments[0].startswith("--"):
    option = arguments.pop(0)
    if option in ("--output", "--error"):
        name = arguments.pop(0).replace("%A_%a", "47_" + os.environ["SLURM_ARRAY_TASK_ID"]).replace("%t", "0")
        os.makedirs(os.path.dirname(name), exist_ok=True)
        streams[{"--output": "stdout", "--error": "stderr"}[option]] = open(name, "a")
sys.exit(subprocess.call(arguments, **streams))
""",
    "sacct": "print('JobID|State|NodeList')",
}


@slurm
@pytest.mark.slow
def test_jobs_go_through_sbatch_and_come_back(keys, forked, tmp_path):
    """The cluster's commands are stand-ins; everything between them is submitit's own."""
    (tmp_path / "bin").mkdir()
    for name, text in STAND_IN.items():
        (tmp_path / "bin" / name).write_text(f"#!{sys.executable}\n{text}")
        (tmp_path / "bin" / name).chmod(0o755)
    path = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    asked = ["task=tagging,chord", "output_dir=table", "hydra/launcher=slurm"]
    done = forked(["probe", "-m", *keys, *asked], env=path)
    assert done.wait() == 2, done.stderr
    assert "1 of 2 jobs failed: job 1: noises: no train track has 'chords'" in done.stderr
    assert [cell.state for cell in read_cells([tmp_path / "table"])] == ["finished", "failed"]
    assert (tmp_path / "table" / "0" / "results.jsonl").is_file()
