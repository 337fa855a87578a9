"""The plan of a run: sizes that are counted elsewhere, times that are measured, and nothing left behind."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from musictf.datasets.folder import Folder
from musictf.distributed import TrainerConfig
from musictf.errors import InputError
from musictf.models.vit1d import ViT1DConfig
from musictf.packing.make_pack import pack
from musictf.packing.packed import Packed
from musictf.pretraining.cost_estimate import num_ranks, plan
from musictf.pretraining.module import ContrastivePretraining, NTXent
from musictf.pretraining.pairs import PairConfig
from musictf.pretraining.pretrain_run import PretrainRun


@pytest.fixture
def run(corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return PretrainRun(
        dataset=Folder(root=str(corpus)),
        model=ViT1DConfig(preset="tiny one", depth=1, embed_dim=16, num_heads=2, max_frames=16),
        objective=NTXent(),
        trainer=TrainerConfig(accelerator="cpu", enable_progress_bar=False),
        pairs=PairConfig(min_distance=0.5, max_distance=2.0),
        max_steps=1000,
        batch_size=4,
        splits=["train", "valid"],
        num_workers=0,
    )


pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*isinstance.treespec.*")


def test_the_plan_counts_what_there_is(run, corpus, tmp_path):
    result = plan(run, steps=2)
    assert result.tracks == 4
    assert result.audio_seconds == pytest.approx(12.0)
    assert result.disk == sum(path.stat().st_size for path in corpus.iterdir())
    assert result.state == 16 * result.parameters
    assert result.step_seconds > 0
    assert result.memory > 0
    words = dict(result.lines())
    assert words["batch"] == "4 pairs a step: 1 x 4"
    assert words["negatives"].startswith("6 a view")
    assert words["steps"] == "1000: 1000.0 times through the corpus"
    assert words["model"].startswith("tiny one: ")
    assert {path.name for path in tmp_path.iterdir()} == {"corpus"}  # no run folder, no log


def test_hours_are_steps_times_seconds(run):
    result = plan(run, steps=2)
    slow = dataclasses.replace(result, step_seconds=36.0)
    assert dict(slow.lines())["expected"] == "10.0 h"
    assert dict(dataclasses.replace(result, step_seconds=0.6).lines())["expected"] == "10 min"


def test_a_plan_of_two_ranks_measures_the_share_of_one(run):
    result = plan(
        dataclasses.replace(run, trainer=dataclasses.replace(run.trainer, devices=2, strategy="ddp")), steps=1
    )
    assert result.ranks == 2
    assert dict(result.lines())["batch"] == "4 pairs a step: 2 x 2"
    assert dict(result.lines())["negatives"].startswith("6 a view")  # of all ranks


def test_regions_and_micro_batches_are_in_the_plan(run):
    pairs = dataclasses.replace(run.pairs, excerpts_per_track=2, min_gap_seconds=0.5)
    words = dict(plan(dataclasses.replace(run, pairs=pairs, micro_batch=3), steps=1).lines())
    assert words["batch"] == "4 pairs a step: 1 x 4, embedded 3 at a time"
    assert words["steps"] == "1000: 500.0 times through the corpus"


def test_the_plan_of_a_pack_needs_no_originals(run, corpus, tmp_path):
    folder = pack(run.dataset, str(tmp_path / "pack"))
    for path in Path(corpus).iterdir():
        path.unlink()
    result = plan(dataclasses.replace(run, dataset=Packed(root=str(folder))), steps=1)
    assert result.audio_seconds == pytest.approx(12.0)
    assert result.disk == 12 * 16_000 * 2


@pytest.mark.parametrize("devices", [0, "many", -2])
def test_devices_that_are_none_are_refused(devices):
    with pytest.raises(InputError, match=f"trainer.devices={devices}"):
        num_ranks(TrainerConfig(devices=devices))


def test_the_share_of_a_rank_is_what_is_measured(run, monkeypatch):
    sizes = set()
    step = ContrastivePretraining.training_step

    def spy(self, batch, batch_idx):
        sizes.add(len(batch["first"]))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ContrastivePretraining, "training_step", spy)
    two = dataclasses.replace(run.trainer, devices=2, strategy="ddp")
    # Four excerpts per track: the share of one rank is not a multiple of them, and need not be.
    pairs = dataclasses.replace(run.pairs, excerpts_per_track=4, min_gap_seconds=0.0)
    short = dataclasses.replace(run.model, max_frames=4)
    plan(dataclasses.replace(run, trainer=two, pairs=pairs, model=short), steps=1)
    assert sizes == {2}


def test_what_a_run_would_refuse_its_plan_refuses(run):
    two = dataclasses.replace(run.trainer, devices=2, strategy="ddp")
    with pytest.raises(InputError, match="several CPU processes"):
        plan(dataclasses.replace(run, trainer=two, objective=NTXent(projection="mlp")))


@pytest.mark.parametrize(
    ("devices", "nodes", "ranks"), [(1, 1, 1), (2, 1, 2), ("2", 4, 8), ([0, 1, 3], 2, 6), ("0,1", 1, 2), ("auto", 1, 3)]
)
def test_ranks_are_counted_as_lightning_counts_them(monkeypatch, devices, nodes, ranks):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert num_ranks(TrainerConfig(devices=devices, num_nodes=nodes)) == ranks


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_measured(run):
    with pytest.raises(InputError, match="batch_size=4 is not a multiple of the 3 processes"):
        plan(dataclasses.replace(run, trainer=TrainerConfig(devices=3, strategy="ddp")))
