"""The command as its users run it, small: a corpus with validation tracks, six steps, and every end it can come to."""

from __future__ import annotations

import csv
import json
import re

import pytest
import torch

from musictf.datasets.folder import Folder
from musictf.distributed import TrainerConfig
from musictf.models.vit1d import ViT1DConfig
from musictf.pretraining.module import NTXent
from musictf.pretraining.pairs import PairConfig
from musictf.pretraining.pretrain_run import CheckpointConfig, PretrainRun

NUM_STEPS = 6
TIMING = re.compile("second|hour|wait|time|memory|mfu|flops", re.IGNORECASE)  # columns that no two runs share
KEYS = [
    "model.depth=1", "model.embed_dim=16", "model.num_heads=2", "model.max_frames=16", "trainer=cpu",
    "pairs.min_distance=0.5", "pairs.max_distance=2", f"max_steps={NUM_STEPS}", "batch_size=4", "log_every=1",
    "valid_every=3", "checkpoint.every=2", "checkpoint.keep_every=4", "num_workers=0", "wandb.mode=disabled",
    "trainer.enable_progress_bar=false", "identities=none",
]  # fmt: skip


def keys(corpus, folder, *more):
    """Arguments of ``musictf`` for a run on a corpus."""
    return ["pretrain", "dataset=manifest", f"dataset.root={corpus}", f"output_dir={folder}", *KEYS, *more]


def metrics(folder):
    """Rows of ``metrics.csv`` without what depends on the clock."""
    with open(folder / "metrics.csv", newline="") as file:
        return [{name: value for name, value in row.items() if not TIMING.search(name)} for row in csv.DictReader(file)]


def load(folder, name="last.ckpt"):
    return torch.load(folder / "checkpoints" / name, weights_only=True)


def differences(one, other, place=""):
    """Places at which two nests of tensors and values differ in any bit."""
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [f"{place}: {sorted(map(str, one.keys() ^ other.keys()))}"]
        return [found for key in one for found in differences(one[key], other[key], f"{place}/{key}")]
    if isinstance(one, (list, tuple)):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for n, (first, second) in pairs for found in differences(first, second, f"{place}/{n}")]
    same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    return [] if same else [place]


def assert_same_run(one, other):
    """Losses, weights, optimiser, best score and kept files of two runs are the same, bit by bit."""
    assert metrics(one) == metrics(other)
    assert [int(row["step"]) for row in metrics(one)] == list(range(1, NUM_STEPS + 1))
    names = sorted(path.name for path in (one / "checkpoints").iterdir())
    assert names == sorted(path.name for path in (other / "checkpoints").iterdir())
    for name in names:
        first, second = load(one, name), load(other, name)
        for key in ("global_step", "state_dict", "optimizer_states", "callbacks"):
            assert not differences(first[key], second[key]), f"{name}: {key}"
    weights = [(folder / "backbone.safetensors").stat().st_size for folder in (one, other)]
    assert weights[0] > 0


class Forks:
    """Runs of the command in forks, to their end; see `tests/forked.py`."""

    def __init__(self, start):
        self.start = start

    def __call__(self, argv, env=None, **request):
        """Exit status of a run; `output` is its output on the terminal."""
        pictures = "wandb.mode=offline" in argv  # otherwise nobody looks at it, and it takes as long as the run
        run = self.start(argv, env=env, together=True, pictures=pictures, **request)
        status = run.wait()
        self.output = run.stdout
        return status


@pytest.fixture(scope="session")
def forks(forked):
    return Forks(forked)


@pytest.fixture(scope="session")
def tracks(tmp_path_factory, corpus_maker):
    """Manifest of four training and two validation tracks."""
    folder = corpus_maker(tmp_path_factory.mktemp("tracks"), num_tracks=6)
    lines = [{"track_id": f"t{n}", "audio": f"track{n}.wav", "split": "valid" if n > 3 else "train"} for n in range(6)]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, forks, tracks):
    """The folder of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert forks(keys(tracks, folder)) == 0, forks.output
    return folder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture(scope="session")
def kit():
    """What the tests of stops and kills share: there is no importing between test files."""
    import types

    return types.SimpleNamespace(
        keys=keys, metrics=metrics, load=load, differences=differences, same=assert_same_run, NUM_STEPS=NUM_STEPS
    )


@pytest.fixture
def run(corpus, tmp_path):
    """Six steps of four pairs with a model of one block."""
    return PretrainRun(
        dataset=Folder(root=str(corpus)),
        model=ViT1DConfig(depth=1, embed_dim=16, num_heads=2, max_frames=16),
        objective=NTXent(),
        trainer=TrainerConfig(accelerator="cpu", enable_progress_bar=False),
        pairs=PairConfig(min_distance=0.5, max_distance=2.0),
        checkpoint=CheckpointConfig(every=2),
        max_steps=NUM_STEPS,
        batch_size=4,
        splits=["train", "valid"],
        num_workers=0,
        log_every=1,
        output_dir=str(tmp_path / "run"),
    )
