"""Two processes over gloo, one of them killed: the other does not wait for it, and the same command ends the run."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ddp, pytest.mark.slow]

WITHIN_S = 60


def arguments(kit, tracks, folder, *more):
    return kit.keys(tracks, folder, "trainer.devices=2", "trainer.strategy=ddp", "checkpoint.keep_every=0", *more)


def children(process):
    """Ids of the processes that a process started."""
    folder = Path("/proc", str(process.pid), "task", str(process.pid), "children")
    return [int(child) for child in folder.read_text().split()]


def is_alive(pid):
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, what, seconds=WITHIN_S):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


@pytest.fixture(scope="module")
def straight(tmp_path_factory, forked, kit, tracks):
    """A run of two processes that nothing happened to."""
    folder = tmp_path_factory.mktemp("ddp") / "run"
    process = forked(arguments(kit, tracks, folder), together=True)
    assert process.wait(240) == 0, process.stdout
    return folder


@pytest.mark.parametrize("victim", [0, 1])
def test_a_dead_rank_ends_the_run_and_the_same_command_goes_on(forked, kit, tracks, folder, straight, victim):
    process = forked(arguments(kit, tracks, folder), together=True)
    checkpoint = folder / "checkpoints" / "last.ckpt"
    wait_for(checkpoint.exists, "no checkpoint", 120)
    ranks = [process.pid, *children(process)]
    assert len(ranks) == 2
    os.kill(ranks[victim], signal.SIGKILL)
    assert process.wait(WITHIN_S) != 0
    wait_for(lambda: not any(map(is_alive, ranks)), f"processes are left: {process.stdout}")
    assert not (folder / "backbone.safetensors").exists()
    assert "Traceback" not in process.stdout
    again = forked(arguments(kit, tracks, folder), together=True)
    assert again.wait(240) == 0, again.stdout
    kit.same(folder, straight)
