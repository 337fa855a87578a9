"""Bad steps: skipped, written to a file, and only as many as the budget allows."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import lightning.pytorch as L
import pytest
import torch

from musictf.errors import InputError
from musictf.models.backbone import Backbone, load_backbone
from musictf.pretraining.guard import BadStep, Diverged, Guard, GuardConfig, GuardWatch
from musictf.pretraining.module import ContrastivePretraining, NTXent
from musictf.pretraining.pretrain_run import CheckpointConfig, pretrain
from musictf.run_folder import read_status


@pytest.fixture
def run(run):
    """The guard checks every second step."""
    return dataclasses.replace(run, log_every=2)


@pytest.fixture
def poison(monkeypatch):
    """Multiplies the loss of some steps, numbered from 1, by a factor."""

    def scale_losses(factors):
        contrast = ContrastivePretraining.contrast

        def poisoned(self, batch, tokens=None):
            result = contrast(self, batch, tokens)
            return result._replace(loss=result.loss * factors.get(self.global_step + 1, 1.0))

        monkeypatch.setattr(ContrastivePretraining, "contrast", poisoned)

    return scale_losses


def bad_batches(folder):
    return [json.loads(line) for line in (folder / "bad_batches.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_bad_step_stops_the_run_and_names_the_tracks(run, poison, tmp_path, factor):
    poison({3: factor})
    with pytest.raises(Diverged, match=r"step 3: loss .*guard\.budget=0 allows fewer.*bad_batches\.jsonl"):
        pretrain(run)
    (bad,) = bad_batches(tmp_path / "run")
    assert bad["step"] == 3
    assert bad["loss"] == str(factor)
    assert sorted(bad["tracks"]) == [f"corpus/track{n}.wav" for n in range(4)]
    assert read_status(tmp_path / "run")["status"] == "failed"


def test_a_bad_step_within_the_budget_is_as_if_it_had_not_been(run, poison):
    """Weights and moments stay; the rate and the data of the steps after it are those of their numbers."""
    poison({3: float("nan")})
    folder = pretrain(dataclasses.replace(run, guard=GuardConfig(budget=1)))
    assert [bad["step"] for bad in bad_batches(folder)] == [3]
    weights = load_backbone(folder).state_dict()
    assert all(value.isfinite().all() for value in weights.values())
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["state_dict"]["guard.num_skipped"] == 1
    moments = state["optimizer_states"][0]["state"]
    assert {float(entry["step"]) for entry in moments.values()} == {5.0}
    assert all(entry["exp_avg"].isfinite().all() for entry in moments.values())


def test_the_weights_do_not_move_in_bad_steps(run, poison):
    L.seed_everything(run.seed, verbose=False)
    first = Backbone(run.model).state_dict()
    moved = load_backbone(pretrain(dataclasses.replace(run, max_steps=3))).state_dict()
    assert not torch.equal(moved["encoder.pos_embed"], first["encoder.pos_embed"])
    poison(dict.fromkeys((1, 2, 3), float("nan")))
    keys = {"max_steps": 3, "guard": GuardConfig(budget=3), "output_dir": f"{run.output_dir}2"}
    still = load_backbone(pretrain(dataclasses.replace(run, **keys))).state_dict()
    assert all(torch.equal(still[name], value) for name, value in first.items())


def test_the_budget_counts_over_the_whole_run(run, poison):
    poison({2: float("nan"), 5: float("nan")})
    guarded = dataclasses.replace(run, guard=GuardConfig(budget=1))
    with pytest.raises(Diverged, match="2 steps were bad"):
        pretrain(guarded)
    assert [bad["step"] for bad in bad_batches(pretrain(dataclasses.replace(run, guard=GuardConfig(budget=2))))] == [
        2,
        5,  # once, though it was made again from the checkpoint before it
    ]


def judged(config, losses, norm=1.0):
    guard = Guard(config)
    for step, loss in enumerate(losses):
        guard.record_loss(torch.tensor(loss))
        yield guard.skip_flag(torch.tensor(norm), step).item(), guard


def test_a_spike_is_a_loss_far_above_its_running_mean():
    losses = [4.0 + 0.1 * (step % 3) for step in range(80)]
    losses[70] = 9.0
    answers = [answer for answer, _ in judged(GuardConfig(spike=2.0), losses)]
    assert [step for step, answer in enumerate(answers) if answer] == [70]


def test_a_spike_does_not_move_the_mean_it_is_measured_by():
    *_, (_, guard) = judged(GuardConfig(spike=2.0), [4.0] * 60 + [1000.0])
    assert guard.mean_loss.item() == pytest.approx(4.0)
    assert guard.bad_steps() == [BadStep(61, 1000.0, 1.0)]
    assert guard.bad_steps() == []


def test_nothing_is_a_spike_before_there_is_a_mean():
    assert not any(answer for answer, _ in judged(GuardConfig(spike=2.0), [9.0, 1.0, 9.0, 1.0]))


def test_without_a_threshold_only_what_is_not_finite_is_bad():
    assert not any(answer for answer, _ in judged(GuardConfig(), [4.0] * 60 + [1e6]))
    assert all(answer for answer, _ in judged(GuardConfig(), [4.0], norm=float("nan")))


@pytest.mark.parametrize(("keys", "words"), [({"budget": -1}, "guard.budget=-1"), ({"spike": 0.5}, "guard.spike=0.5")])
def test_settings_that_mean_nothing_are_refused(keys, words):
    with pytest.raises(InputError, match=words):
        GuardConfig(**keys)


def test_a_checkpoint_does_not_forget_a_bad_step(run, poison, tmp_path):
    """It is written between two checks: without a check of its own it would lie beyond the failure."""
    poison({3: float("nan")})
    between = dataclasses.replace(run, log_every=6, checkpoint=CheckpointConfig(every=6, keep_every=3))
    with pytest.raises(Diverged, match="step 3"):
        pretrain(between)
    assert not list((tmp_path / "run").glob("checkpoints/step-*"))
    assert [bad["step"] for bad in bad_batches(tmp_path / "run")] == [3]


def test_a_budget_that_was_spent_before_a_restart_is_spent(tmp_path):
    module = SimpleNamespace(guard=Guard(GuardConfig(budget=1)))
    module.guard.num_skipped += 2
    with pytest.raises(Diverged, match="2 steps were bad"):
        GuardWatch(tmp_path / "bad.jsonl", lambda step: [], 10).check(module)


def test_the_statistics_of_batch_norm_do_not_move_in_a_bad_step(run, monkeypatch):
    embed = ContrastivePretraining.class_tokens

    def broken(self, batch):
        return embed(self, batch) * (float("nan") if self.global_step == 1 else 1.0)

    monkeypatch.setattr(ContrastivePretraining, "class_tokens", broken)
    objective = NTXent(projection="mlp", widths=[8, 4])
    folder = pretrain(dataclasses.replace(run, objective=objective, guard=GuardConfig(budget=1), log_every=1))
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert state["projection.1.num_batches_tracked"] == 5
    assert state["projection.1.running_mean"].isfinite().all()


def test_watching_for_spikes_may_begin_later():
    *_, (_, guard) = judged(GuardConfig(), [4.0] * 60)
    guard.config = GuardConfig(spike=2.0)
    guard.record_loss(torch.tensor(4.0))
    assert guard.skip_flag(torch.tensor(1.0), 60) == 0
