"""Pre-emption, ``docker stop``, SLURM's warning: the step is finished, a checkpoint written, the job queued again."""

from __future__ import annotations

import os
import signal

import pytest

SLURM = {
    "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NNODES": "1", "SLURM_NODELIST": "node7",
}  # fmt: skip
AT = ["step", "", 2]  # the second step is over: the third is the last


@pytest.fixture
def slurm(tmp_path):
    """Variables of a job with one task, and a `scontrol` that writes down what it was asked."""
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nexit $SCONTROL_STATUS\n')
    program.chmod(0o755)
    return SLURM | {"PATH": f"{programs}:{os.environ['PATH']}", "SCONTROL_STATUS": "0"}


def asked(tmp_path):
    path = tmp_path / "asked"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_its_step_and_the_command_goes_on(kit, forks, tracks, folder, undisturbed, number):
    argv = kit.keys(tracks, folder)
    assert forks(argv, at=AT, signal=int(number)) == 1
    assert forks.output == (
        "musictf pretrain: stopped after step 3; the same command with the same output_dir goes on\n"
    )
    assert kit.load(folder)["global_step"] == 3
    assert kit.metrics(folder)[-1]["valid/loss"]
    assert forks(argv) == 0, forks.output
    kit.same(folder, undisturbed)


def test_a_job_of_slurm_is_queued_again_and_goes_on(kit, forks, tracks, folder, tmp_path, slurm, undisturbed):
    argv = kit.keys(tracks, folder)
    assert forks(argv, env=slurm, at=AT, signal=int(signal.SIGUSR1)) == 1
    assert asked(tmp_path) == ["requeue 4711"]
    assert forks.output.count("\n") == 1
    assert "step 3, job 4711 is queued again" in forks.output
    assert not list(folder.rglob("hpc_ckpt*"))  # Lightning's own answer to the signal
    assert forks(argv, env=slurm | {"SLURM_RESTART_COUNT": "1"}) == 0, forks.output
    assert len(asked(tmp_path)) == 1
    kit.same(folder, undisturbed)


@pytest.mark.parametrize(
    ("number", "more", "env", "expected"),
    [
        (signal.SIGTERM, [], {}, []),  # whoever sent it decides what becomes of the job
        (signal.SIGTERM, ["checkpoint.requeue=true"], {}, ["requeue 4711"]),
        (signal.SIGUSR1, [], {"SLURM_JOB_NAME": "interactive"}, []),
        (signal.SIGUSR1, [], {"SLURM_ARRAY_JOB_ID": "4700", "SLURM_ARRAY_TASK_ID": "3"}, ["requeue 4700_3"]),
    ],
)
def test_only_a_job_that_should_is_queued_again(
    kit, forks, tracks, folder, tmp_path, slurm, number, more, env, expected
):
    assert forks(kit.keys(tracks, folder, *more), env=slurm | env, at=AT, signal=int(number)) == 1
    assert asked(tmp_path) == expected
    assert kit.load(folder)["global_step"] == 3


def test_what_slurm_refuses_is_said_and_the_checkpoint_is_there(kit, forks, tracks, folder, slurm):
    argv = kit.keys(tracks, folder)
    assert forks(argv, env=slurm | {"SCONTROL_STATUS": "1"}, at=AT, signal=int(signal.SIGUSR1)) == 1
    assert "job 4711 is not queued again" in forks.output
    assert forks.output.count("\n") == 1
    assert kit.load(folder)["global_step"] == 3


def test_loader_workers_outlive_the_signal_that_the_run_answers(kit, forks, tracks, folder, undisturbed):
    """SLURM signals every process of a step; a worker that died of it would take the run with it."""
    argv = kit.keys(tracks, folder, "num_workers=2")
    assert forks(argv, at=AT, signal=int(signal.SIGUSR1), group=True) == 1
    assert "stopped after step 3" in forks.output
    assert forks(argv) == 0, forks.output
    kit.same(folder, undisturbed)
