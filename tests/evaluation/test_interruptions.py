"""A probe that is killed, or helped by another rank, ends with the rows of a straight run."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

SECONDS = 120


def command(corpus, backbone_path, folder):
    keys = [
        f"backbone={backbone_path}",
        "task=chord",
        "dataset=manifest",
        f"dataset.root={corpus}",
        f"output_dir={folder}",
        "trainer=cpu",
        "wandb.mode=disabled",
        "seeds=[0,1]",
        "readouts=[sequence,average]",
        "baselines=[random,mel,classical,oracle]",
        "probe.learning_rates=[0.003,0.03]",
        "probe.steps=30",
        "probe.valid_every=15",
        "probe.batch_size=256",
    ]
    return ["probe", *keys]


def cache_at(folder):
    return {"MUSICTF_CACHE": str(folder)}


def outcome(folder):
    """What must not depend on how the run went: identities, choices and scores of all rows, and all track scores."""
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    kept = ("task", "readout", "layer", "seed", "selected", "selection", "scores", "decoder", "details")
    cells = [[row["backbone"]["digest"], *(row[key] for key in kept)] for row in rows]
    return cells, sorted((folder / "per_track.csv").read_text().splitlines())


@pytest.fixture(scope="module")
def straight(forked, corpus, backbone_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    run = forked(command(corpus, backbone_path, folder / "run"), env=cache_at(folder / "cache"))
    assert run.wait(SECONDS) == 0, run.stderr
    return outcome(folder / "run")


def killed_when(process, is_time):
    """Kill a process, without a chance to tidy up, as soon as something is true; whether that was in time."""
    deadline = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if is_time():
            os.kill(process.pid, signal.SIGKILL)
            return process.wait(SECONDS) == -signal.SIGKILL
        time.sleep(0.002)
    return False


MOMENTS = {
    "while features are computed": lambda run, cache: len(list(cache.glob("features/*/[!.]*.safetensors"))) >= 4,
    "when heads are trained": lambda run, cache: list(run.glob("heads/*/*.safetensors")) != [],
    "while rows are written": lambda run, cache: (run / "results.jsonl").exists(),
    "among the baselines": lambda run, cache: '"random"' in text_of(run / "results.jsonl"),
}


def text_of(path):
    return path.read_text() if path.exists() else ""


@pytest.mark.slow
def test_a_probe_killed_at_any_moment_ends_with_the_same_rows(straight, forked, corpus, backbone_path, tmp_path):
    run, cache = tmp_path / "run", tmp_path / "cache"
    kills, entries = [], {}
    for name, is_time in MOMENTS.items():
        process = forked(command(corpus, backbone_path, run), env=cache_at(cache))
        kills.append((name, killed_when(process, lambda is_time=is_time: is_time(run, cache))))
        now = {path: path.stat().st_mtime_ns for path in cache.glob("features/*/[!.]*.safetensors")}
        assert all(now[path] == made for path, made in entries.items()), "features were computed twice"
        entries = now
    assert all(in_time for _, in_time in kills), kills
    last = forked(command(corpus, backbone_path, run), env=cache_at(cache))
    assert last.wait(SECONDS) == 0, last.stderr
    assert outcome(run) == straight
    assert json.loads((run / "status.json").read_text())["status"] == "finished"


@pytest.mark.slow
def test_two_ranks_share_features_and_write_the_rows_of_one(straight, corpus, backbone_path, tmp_path):
    run, cache = tmp_path / "run", tmp_path / "cache"
    world = {"WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "musictf", *command(corpus, backbone_path, run)],  # ranks are read by imports
            env=os.environ | cache_at(cache) | world | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors
    assert outcome(run) == straight
