"""Two processes over gloo against one: the loss, every gradient, and a whole run. Wrong gathers must not pass.

This file is also the program of the two processes: ``python test_ddp.py FOLDER``, with the rank in the environment.
"""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from musictf.datasets.folder import Folder
from musictf.distributed import TrainerConfig
from musictf.models.backbone import Backbone, load_backbone
from musictf.models.vit1d import ViT1DConfig
from musictf.objectives.ntxent import nt_xent
from musictf.pretraining import module as subject
from musictf.pretraining.gather import gather
from musictf.pretraining.module import ContrastivePretraining, NTXent, StepConfig
from musictf.pretraining.optim import OptimConfig
from musictf.pretraining.pairs import PairConfig
from musictf.pretraining.pretrain_run import PretrainRun, pretrain
from musictf.run_folder import read_status

pytestmark = pytest.mark.ddp

WORLD_SIZE, NUM_PAIRS = 2, 8
MODEL = ViT1DConfig(depth=2, embed_dim=16, num_heads=2, max_frames=16)
TRACKS = [0, 1, 2, 3, 0, 4, 3, 5]  # tracks 0 and 3 have a pair on both ranks
TOLERANCE = 1e-6  # float32: the loss computes in it whatever it is given
VISIBLE = 1e-4


def make_module(micro_batch=None):
    torch.manual_seed(0)
    step = StepConfig(micro_batch=micro_batch)
    return ContrastivePretraining(Backbone(MODEL), NTXent(), OptimConfig(), 1, log_every=1, step=step)


def union_batch(masked):
    generator = torch.Generator().manual_seed(1)
    first, second = 0.1 * torch.randn(2, NUM_PAIRS, 15 * 512, generator=generator)
    return {"first": first, "second": second, "track": torch.tensor(TRACKS if masked else list(range(NUM_PAIRS)))}


def no_gather(tensor):
    return tensor


def local_nt_xent(*views, **settings):
    return nt_xent(*views, **(settings | {"rank": 0}))


def detached_gather(tensor):
    parts = [torch.empty_like(tensor) for _ in range(WORLD_SIZE)]
    dist.all_gather(parts, tensor)
    return torch.cat(parts)


def averaging_gather(tensor):
    rows = gather(tensor)
    return rows / WORLD_SIZE + (1 - 1 / WORLD_SIZE) * rows.detach() if rows.is_floating_point() else rows


SCHEMES = {
    "ours": (gather, nt_xent),
    "ours, masked": (gather, nt_xent),
    "ours, masked, in parts": (gather, nt_xent),
    "local negatives": (no_gather, local_nt_xent),
    "detached gather": (detached_gather, nt_xent),
    "averaging gather": (averaging_gather, nt_xent),
}


def run_of(folder, devices):
    """Twenty steps on the corpus of the folder."""
    return PretrainRun(
        dataset=Folder(root=str(folder / "corpus")),
        model=MODEL,
        objective=NTXent(),
        trainer=TrainerConfig(
            accelerator="cpu",
            devices=devices,
            strategy="ddp" if devices > 1 else "auto",
            enable_progress_bar=False,
        ),
        pairs=PairConfig(min_distance=0.5, max_distance=2.0),
        max_steps=20,
        batch_size=4,
        splits=["train", "valid"],
        num_workers=0,
        log_every=1,
        output_dir=str(folder / f"run{devices}"),
    )


class Recorder(L.Callback):
    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradients = {name: parameter.grad.clone() for name, parameter in pl_module.named_parameters()}


def one_step(scheme, rank):
    """Loss and gradients that the optimiser of this rank would see."""
    subject.gather, subject.nt_xent = SCHEMES[scheme]
    own = slice(rank * NUM_PAIRS // WORLD_SIZE, (rank + 1) * NUM_PAIRS // WORLD_SIZE)
    batch = {name: value[own] for name, value in union_batch("masked" in scheme).items()}
    recorder = Recorder()
    trainer = L.Trainer(
        accelerator="cpu", devices=WORLD_SIZE, strategy="ddp", max_steps=1, callbacks=[recorder], logger=False,
        use_distributed_sampler=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
    )  # fmt: skip
    module = make_module(micro_batch=3 if "in parts" in scheme else None)
    trainer.fit(module, DataLoader([batch], batch_size=None))
    return {"loss": trainer.callback_metrics["train/loss"], "gradients": recorder.gradients}


def main(folder):
    rank = int(os.environ["LOCAL_RANK"])
    torch.save({scheme: one_step(scheme, rank) for scheme in SCHEMES}, folder / f"rank{rank}.pt")
    subject.gather, subject.nt_xent = SCHEMES["ours"]
    pretrain(run_of(folder, devices=WORLD_SIZE))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, corpus_maker):
    """What two processes made."""
    folder = tmp_path_factory.mktemp("ddp")
    corpus_maker(folder / "corpus")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0"}
    environment |= {"WORLD_SIZE": str(WORLD_SIZE), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(folder)]
    processes = [
        subprocess.Popen(
            command, env=environment | {"LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        for rank in range(WORLD_SIZE)
    ]
    try:
        errors = [process.communicate(timeout=240)[1].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), "\n".join(errors)
    return folder


@pytest.fixture(scope="module")
def ranks(folder):
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(WORLD_SIZE)]


def truth(masked=False):
    """Loss and gradients of the whole batch in one process."""
    module = make_module()
    loss = module.contrast(union_batch(masked))[0]
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in module.named_parameters()}


def distance(gradients, expected):
    """Largest difference, as a share of the largest entry of its parameter's gradient (these reach 11)."""
    assert gradients.keys() == expected.keys()
    shares = [(gradients[name] - value).abs().max() / value.abs().max() for name, value in expected.items()]
    return max(shares).item()


@pytest.mark.parametrize("scheme", ["ours", "ours, masked", "ours, masked, in parts"])
def test_loss_and_every_gradient_are_those_of_the_whole_batch(ranks, scheme):
    loss, expected = truth(masked="masked" in scheme)
    for rank in ranks:
        assert rank[scheme]["loss"].item() == pytest.approx(loss.item(), abs=TOLERANCE)
        assert distance(rank[scheme]["gradients"], expected) < TOLERANCE
    assert min(gradient.abs().max().item() for gradient in expected.values()) > 0  # no parameter is out of reach


def test_the_mask_reaches_across_ranks():
    (plain, plain_gradients), (masked, masked_gradients) = truth(), truth(masked=True)
    assert abs(plain - masked) > VISIBLE
    assert distance(plain_gradients, masked_gradients) > VISIBLE


@pytest.mark.parametrize("scheme", ["local negatives", "detached gather", "averaging gather"])
def test_a_wrong_gather_is_found_out(ranks, scheme):
    _, expected = truth()
    assert all(distance(rank[scheme]["gradients"], expected) > VISIBLE for rank in ranks)


def test_a_detached_gather_would_not_show_in_the_loss(ranks):
    loss, _ = truth()
    assert ranks[0]["detached gather"]["loss"].item() == pytest.approx(loss.item(), abs=TOLERANCE)


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_of_two_processes_is_the_run_of_one(folder):
    alone = load_backbone(pretrain(run_of(folder, devices=1)))
    together = load_backbone(folder / "run2")
    assert read_status(folder / "run2")["status"] == "finished"
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(together.state_dict()[name], value, rtol=0, atol=1e-5)
    losses = [[float(row["train/loss"]) for row in rows(folder / run)] for run in ("run1", "run2")]
    assert len(losses[0]) == 20
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert max(losses[0]) - min(losses[0]) > 0.1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
