"""``kill -9`` at any instant and the same command again: the losses, the weights and the files of a run nothing hit."""

from __future__ import annotations

import shutil

import pytest

POINTS = {
    "before the first checkpoint": ["step", "", 1],
    "between the step and its checkpoint": ["step", "", 2],
    "with half of a checkpoint written": ["half", "last.ckpt", 2],
    "with a checkpoint written and without its name": ["before", "last.ckpt", 2],
    "between the values of a step and its validation": ["step", "", 3],
    "between the validation and the best checkpoint": ["half", "best.ckpt", 1],
    "between the numbered checkpoint and the last": ["after", "step-00000004.ckpt", 1],
    "after the last step": ["before", "backbone.safetensors", 1],
}


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_ends_as_a_straight_one(kit, forks, tracks, folder, undisturbed, point):
    argv = kit.keys(tracks, folder)
    assert forks(argv, at=POINTS[point]) == -9
    assert not (folder / "backbone.safetensors").exists()
    assert forks(argv) == 0, forks.output
    kit.same(folder, undisturbed)
    assert not [*folder.glob(".*"), *folder.glob("*/.*")]


def test_a_run_that_is_killed_again_and_again_ends_all_the_same(kit, forks, tracks, folder, undisturbed):
    argv = kit.keys(tracks, folder)
    for point in (["half", "last.ckpt", 1], ["before", "step-00000004.ckpt", 1], ["step", "", 5]):
        assert forks(argv, at=point) == -9
    assert forks(argv) == 0, forks.output
    kit.same(folder, undisturbed)


def test_a_kill_and_a_damaged_checkpoint_cost_steps_and_nothing_else(kit, forks, tracks, folder, undisturbed):
    argv = kit.keys(tracks, folder)
    assert forks(argv, at=["step", "", 6]) == -9
    last = folder / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    assert forks(argv) == 0
    assert "last.ckpt" in forks.output.splitlines()[0]
    (folder / "checkpoints" / "last.ckpt.damaged").unlink()
    kit.same(folder, undisturbed)


def test_the_mirror_in_wandb_is_one_run(kit, forks, tracks, folder):
    argv = kit.keys(tracks, folder, "wandb.mode=offline")
    assert forks(argv, at=["step", "", 3]) == -9
    first = {path.name for path in (folder / "wandb").glob("offline-run-*")}
    assert forks(argv) == 0, forks.output
    names = {path.name for path in (folder / "wandb").glob("offline-run-*")}
    assert len(first) == 1
    assert len(names) == 2
    assert len({name.rpartition("-")[2] for name in names}) == 1  # offline-run-TIME-ID
    shutil.rmtree(folder / "wandb")
