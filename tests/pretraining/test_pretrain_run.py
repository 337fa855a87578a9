"""A whole pretraining run in seconds: its folder, its end, and that stopping in between changes nothing."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
from contextlib import nullcontext
from pathlib import Path

import lightning.pytorch as L
import pytest
import soundfile
import torch
import yaml

from musictf.datasets.identity import read_identities
from musictf.datasets.manifest import Manifest
from musictf.errors import InputError
from musictf.files import file_digest
from musictf.models.backbone import Backbone, load_backbone
from musictf.pretraining.callbacks import Interrupted, MetricsFile
from musictf.pretraining.optim import cosine, learning_rate
from musictf.pretraining.pretrain_run import pair_module, pretrain, write_seen_identities
from musictf.run_folder import FinishedRun, read_status

NUM_STEPS = 6


@pytest.fixture
def straight(run, tmp_path):
    """The folder of the same run without a stop."""
    return pretrain(dataclasses.replace(run, output_dir=str(tmp_path / "straight")))


def metrics(folder):
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for name in ("examples_per_second", "data_wait", "memory_gb", "hours_left"):  # of the machine, not the run
            assert row.pop(f"train/{name}")
    return rows


def at_step(step, act):
    """An observer that acts when the values of a step arrive."""

    def sink(values, done):
        if done == step:
            act()

    return lambda folder: (sink,)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def fail():
    raise RuntimeError("the disk is full")


def assert_same_end(one, other):
    first, second = load_backbone(one), load_backbone(other)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert metrics(one) == metrics(other)
    assert [int(row["step"]) for row in metrics(one)] == list(range(1, NUM_STEPS + 1))


def test_a_run_leaves_its_folder_complete(run):
    folder = pretrain(run)
    assert read_status(folder)["status"] == "finished"
    files = ["backbone.safetensors", "checkpoints", "config.yaml", "identities.jsonl.gz", "metrics.csv", "status.json"]
    assert sorted(os.listdir(folder)) == files
    assert sorted(os.listdir(folder / "checkpoints")) == ["best.ckpt", "last.ckpt"]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["batch_size"] == 4
    assert config["model"]["embed_dim"] == 16
    backbone = load_backbone(folder)
    assert backbone.encoder.config == run.model
    assert backbone.provenance["steps"] == NUM_STEPS
    assert backbone.provenance["num_tracks"] == 4
    assert json.dumps(backbone.provenance)


def test_the_metrics_are_under_their_names_for_good(run):
    rows = metrics(pretrain(run))
    assert [int(row["step"]) for row in rows] == list(range(1, NUM_STEPS + 1))
    names = ("loss", "accuracy", "alignment", "uniformity", "effective_rank", "learning_rate")
    for step, row in enumerate(rows):
        assert all(row[f"train/{name}"] for name in names)
        assert float(row["train/learning_rate"]) == pytest.approx(learning_rate(step, NUM_STEPS, run.optim), rel=1e-6)


def test_a_run_leaves_the_list_of_what_it_trained_on_before_it_trains(run, corpus):
    seen = []
    splits = ("train", "valid", "train", "valid")
    lines = [{"track_id": f"t{n}", "audio": f"track{n}.wav", "split": split} for n, split in enumerate(splits)]
    (corpus / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run = dataclasses.replace(run, dataset=Manifest(root=str(corpus)), splits=["train"])

    def look(folder):
        seen.append(read_identities(folder / "identities.jsonl.gz"))
        return ()

    folder = pretrain(run, look)
    trained = [track for track in run.dataset.all_tracks() if track.split == "train"]
    assert len(trained) == 2
    recordings = seen[0].recordings
    assert [identity.track_id for identity in recordings] == [track.track_id for track in trained]
    assert [identity.file for identity in recordings] == [file_digest(track.audio) for track in trained]
    assert all(len(identity.fingerprint) for identity in recordings)
    note = load_backbone(folder).provenance["identities"]
    assert note == {
        "file": "identities.jsonl.gz",
        "digest": file_digest(folder / "identities.jsonl.gz"),
        "level": "full",
    }


def test_the_list_may_be_of_files_only_or_none(run):
    folder = pretrain(dataclasses.replace(run, identities="files"))
    listed = read_identities(folder / "identities.jsonl.gz")
    assert listed.level == "files"
    assert {identity.audio for identity in listed.recordings} == {""}
    folder = pretrain(dataclasses.replace(run, identities="none", overwrite=True))
    assert not (folder / "identities.jsonl.gz").exists()
    assert load_backbone(folder).provenance["identities"] is None


def test_only_the_first_rank_lists_the_corpus(run, monkeypatch, tmp_path):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert write_seen_identities(run, run.dataset.all_tracks(), tmp_path) is None
    assert not (tmp_path / "identities.jsonl.gz").exists()


def test_an_unknown_way_to_list_the_corpus_is_refused(run):
    with pytest.raises(InputError, match="identities='all' is unknown: one of full, files, none"):
        dataclasses.replace(run, identities="all")


def test_checkpoints_hold_plain_values_only(run):
    folder = pretrain(run)
    for name, steps in (("last", {NUM_STEPS}), ("best", {2, 4, 6})):
        checkpoint = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert checkpoint["global_step"] in steps
    names = {name for name in checkpoint["state_dict"] if not name.startswith("guard.")}
    assert {name.removeprefix("backbone.") for name in names} == load_backbone(folder).state_dict().keys()


def test_the_optimiser_follows_both_schedules(run):
    checkpoint = torch.load(pretrain(run) / "checkpoints" / "last.ckpt", weights_only=True)
    decaying, others = checkpoint["optimizer_states"][0]["param_groups"]
    last = NUM_STEPS - 1
    assert decaying["lr"] == others["lr"] == learning_rate(last, NUM_STEPS, run.optim)
    expected = cosine(last, NUM_STEPS, run.optim.weight_decay, run.optim.final_weight_decay)
    assert (decaying["weight_decay"], others["weight_decay"]) == (expected, 0.0)


def test_the_weights_move_and_depend_on_the_seed(run, straight, tmp_path):
    other = pretrain(dataclasses.replace(run, seed=1, output_dir=str(tmp_path / "seed1")))
    assert load_backbone(straight).digest() != load_backbone(other).digest()
    first, last = (float(metrics(straight)[place]["train/loss"]) for place in (0, -1))
    assert first != last


def test_ctrl_c_leaves_a_checkpoint_and_the_resumed_run_ends_bit_identical(run, straight):
    with pytest.raises(Interrupted, match="step 3"):
        pretrain(run, at_step(2, interrupt))  # a step's values arrive after its end: the next one is the last
    folder = straight.with_name("run")
    status = read_status(folder)
    assert status["status"] == "failed"
    assert "Interrupted" in status["error"]
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
    assert not (folder / "backbone.safetensors").exists()
    assert_same_end(pretrain(run), straight)
    assert read_status(folder)["status"] == "finished"


@pytest.mark.parametrize("step", [3, None])
def test_ctrl_c_is_given_back_after_the_run(run, step):
    before = signal.getsignal(signal.SIGINT)
    with nullcontext() if step is None else pytest.raises(Interrupted):
        pretrain(run, at_step(step, interrupt))
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_does_not_wait(run):
    with pytest.raises(SystemExit):  # Lightning's answer to KeyboardInterrupt
        pretrain(run, at_step(3, lambda: (interrupt(), interrupt())))
    assert read_status(Path(run.output_dir))["status"] == "failed"


def test_a_run_that_died_goes_on_from_its_last_checkpoint(run, straight):
    with pytest.raises(RuntimeError, match="disk is full"):
        pretrain(run, at_step(5, fail))
    folder = straight.with_name("run")
    assert "disk is full" in read_status(folder)["error"]
    assert len(metrics(folder)) == 5  # one step more than the checkpoint knows: it is forgotten, then done again
    assert_same_end(pretrain(run), straight)


def test_a_run_may_be_made_longer_but_not_changed(run):
    with pytest.raises(Interrupted):
        pretrain(run, at_step(2, interrupt))
    with pytest.raises(InputError, match="batch_size") as caught:
        pretrain(dataclasses.replace(run, batch_size=2))
    assert "\n" not in str(caught.value)
    folder = pretrain(dataclasses.replace(run, max_steps=8))
    assert load_backbone(folder).provenance["steps"] == 8


def test_a_finished_run_is_left_alone_unless_overwritten(run, straight):
    again = dataclasses.replace(run, output_dir=str(straight))
    before = {path: path.stat().st_mtime_ns for path in straight.rglob("*") if path.is_file()}
    with pytest.raises(FinishedRun, match="overwrite=true"):
        pretrain(again)
    assert {path: path.stat().st_mtime_ns for path in straight.rglob("*") if path.is_file()} == before
    assert_same_end(pretrain(dataclasses.replace(again, overwrite=True)), straight)
    assert (straight / "backbone.safetensors").stat().st_mtime_ns not in before.values()


def test_validation_tracks_choose_the_best_checkpoint(run, corpus):
    splits = ["train", "train", "valid", "valid"]
    lines = [{"track_id": f"t{i}", "audio": f"track{i}.wav", "split": split} for i, split in enumerate(splits)]
    (corpus / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    dataset = Manifest(root=str(corpus))
    folder = pretrain(dataclasses.replace(run, dataset=dataset, splits=["train"], valid_every=2))
    valid = {int(row["step"]): float(row["valid/loss"]) for row in metrics(folder) if row["valid/loss"]}
    assert sorted(valid) == [2, 4, 6]
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["global_step"]
    assert valid[best] == min(valid.values())
    assert load_backbone(folder).provenance["num_tracks"] == 2


def test_a_stop_on_a_validation_step_loses_no_value(run, corpus, tmp_path):
    lines = [{"track_id": f"t{i}", "audio": f"track{i}.wav", "split": "valid" if i >= 2 else "train"} for i in range(4)]
    (corpus / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = dataclasses.replace(run, dataset=Manifest(root=str(corpus)), splits=["train"], valid_every=2)
    straight = pretrain(dataclasses.replace(run, output_dir=str(tmp_path / "straight")))
    with pytest.raises(Interrupted, match="step 4"):
        pretrain(run, at_step(3, interrupt))
    assert metrics(Path(run.output_dir))[-1]["valid/loss"]
    assert_same_end(pretrain(run), straight)


def test_metrics_of_one_step_share_a_row(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv")
    file.log_metrics({"train/loss": 2.0, "epoch": 0}, step=0)
    file.log_metrics({"train/loss": 1.0}, step=4)
    file.log_metrics({"valid/loss": 3.0}, step=4)
    assert (tmp_path / "metrics.csv").read_text() == "step,train/loss,valid/loss\n1,2.0,\n5,1.0,3.0\n"
    again = MetricsFile(tmp_path / "metrics.csv")
    again.forget_after(1)
    again.save()
    assert (tmp_path / "metrics.csv").read_text() == "step,train/loss\n1,2.0\n"


@pytest.mark.parametrize(
    "change", [{"batch_size": 1}, {"max_steps": 0}, {"log_every": 0}, {"valid_every": 0}, {"splits": ["dev"]}]
)
def test_an_impossible_run_is_refused(run, change):
    with pytest.raises(InputError, match=next(iter(change))):
        dataclasses.replace(run, **change)


def test_a_missing_checkpoint_or_split_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="resume"):
        pretrain(dataclasses.replace(run, resume=str(tmp_path / "nowhere")))
    with pytest.raises(InputError, match="no track in test"):
        pretrain(dataclasses.replace(run, splits=["test"]))


def test_a_checkpoint_of_another_network_is_refused_in_one_line(run, straight, tmp_path):
    other = dataclasses.replace(run, model=dataclasses.replace(run.model, embed_dim=32), resume=str(straight))
    with pytest.raises(InputError, match=r"is of another network \(\d+ weights differ") as caught:
        pretrain(other)
    assert "\n" not in str(caught.value)


def test_a_broken_file_that_a_loader_process_meets_is_one_line(run, corpus):
    waveform = soundfile.read(corpus / "track1.wav")[0]
    waveform[:] = float("nan")
    soundfile.write(corpus / "track1.wav", waveform, 16_000, subtype="FLOAT")
    with pytest.raises(InputError, match=r"track1\.wav: holds NaN") as caught:
        pretrain(dataclasses.replace(run, num_workers=1, identities="files"))
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("keys", [{"micro_batch": 2}, {"online_probe": object()}])
def test_what_fsdp_cannot_do_is_refused(run, keys):
    sharded = dataclasses.replace(run.trainer, strategy="fsdp")
    with pytest.raises(InputError, match=f"fsdp does not support {next(iter(keys))}; use ddp"):
        dataclasses.replace(run, trainer=sharded, **keys)


def test_validation_hears_other_excerpts_than_training(run, tmp_path):
    tracks = run.dataset.all_tracks()
    data = pair_module(run, Backbone(run.model), tracks, tracks)
    assert not torch.equal(data.train[0]["first"], data.valid[0]["first"])


def test_a_run_that_ends_before_its_first_step_says_why_under_a_bar_too(run):
    class Refuses(L.Callback):
        def on_fit_start(self, trainer, pl_module):
            raise InputError("online_probe.root: no labels")

    barred = dataclasses.replace(run, trainer=dataclasses.replace(run.trainer, enable_progress_bar=True))
    with pytest.raises(InputError, match="no labels"):
        pretrain(barred, callbacks=[Refuses()])
