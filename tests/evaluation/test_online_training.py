"""The online probe in a training run: when it evaluates, that training is not affected, and corpora that it refuses."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import lightning.pytorch as L
import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from musictf.errors import InputError
from musictf.evaluation.online_evaluator import OnlineEvaluator, OnlineProbe, OnlineProbing
from musictf.models.backbone import Backbone
from musictf.models.vit1d import ViT1DConfig
from musictf.pretraining.callbacks import MetricsFile
from musictf.pretraining.module import ContrastivePretraining, NTXent
from musictf.pretraining.optim import OptimConfig

SHAPE = ViT1DConfig(depth=2, embed_dim=16, num_heads=2, max_frames=32)  # excerpts of 31 hops, .992 s
NAMES = {f"online/{name}" for name in ("beat_ap_layer1", "chord_accuracy_layer2", "tag_map", "knn_accuracy")}


@pytest.fixture
def config(corpus):
    """Evaluate every second step on three seconds of seven tracks."""
    return OnlineProbe(root=str(corpus), every=2, num_tracks=12, seconds=3.0, neighbours=3)


class Random(torch.utils.data.Dataset):
    """Pairs of noise by number."""

    def __len__(self):
        return 24

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        first, second = torch.randn(2, 31 * 512, generator=generator)
        return {"first": first, "second": second, "track": torch.tensor(index)}


@pytest.fixture
def fit(tmp_path):
    """Pretrain with dropout on the projection, so that an extra random number changes the loss."""

    def run(name, callbacks, max_steps=5, checkpoint=None, **settings):
        L.seed_everything(1, verbose=False)
        module = ContrastivePretraining(Backbone(SHAPE), NTXent(), OptimConfig(), max_steps, log_every=1)
        module.projection = torch.nn.Dropout(0.2)
        metrics = MetricsFile(tmp_path / name / "metrics.csv")
        trainer = L.Trainer(
            accelerator="cpu",
            max_steps=max_steps,
            log_every_n_steps=1,
            enable_model_summary=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            logger=metrics,
            default_root_dir=tmp_path / name,
            callbacks=callbacks,
            **settings,
        )
        trainer.fit(module, DataLoader(Random(), batch_size=4, shuffle=True), ckpt_path=checkpoint, weights_only=True)
        return module, metrics.rows, trainer

    return run


pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*",
    "ignore:.*validation_step. but have no.*",
    "ignore:.*your dataloader is not resumable.*",
)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_training_is_not_affected(fit, config, precision):
    alone, rows, _ = fit("alone", [], precision=precision)
    observed, more, _ = fit("observed", [OnlineProbing(config)], precision=precision)
    for name, value in alone.state_dict().items():
        assert torch.equal(value, observed.state_dict()[name]), name
    assert sorted(rows) == [1, 2, 3, 4, 5]
    for step, values in rows.items():
        assert values["train/loss"] == more[step]["train/loss"]


def test_it_evaluates_before_the_first_step_every_few_and_after_the_last(fit, config):
    _, rows, _ = fit("run", [OnlineProbing(config)])
    evaluations = {step: values for step, values in rows.items() if "online/tag_map" in values}
    assert sorted(evaluations) == [0, 2, 4, 5]
    assert all(values.keys() >= NAMES for values in evaluations.values())
    assert len({evaluations[step]["online/beat_ap_layer2"] for step in evaluations}) > 1
    L.seed_everything(1, verbose=False)
    baseline = Backbone(SHAPE)
    assert evaluations[0] == pytest.approx(OnlineEvaluator(config, baseline).values(baseline, torch.device("cpu")))


def test_it_never_evaluates_twice_at_one_step(fit, config, monkeypatch):
    evaluations = []
    monkeypatch.setattr(OnlineEvaluator, "values", lambda self, *_: evaluations.append(1) or {"online/tag_map": 0.5})
    fit("run", [OnlineProbing(config)], max_steps=4)
    assert len(evaluations) == 3  # 0, 2 and 4
    evaluations.clear()
    fit("accumulating", [OnlineProbing(config)], max_steps=4, accumulate_grad_batches=2)
    assert len(evaluations) == 3


def test_a_resumed_run_does_not_evaluate_the_initial_weights_again(fit, config, tmp_path):
    _, _, trainer = fit("run", [], max_steps=3)
    trainer.save_checkpoint(tmp_path / "three.ckpt")
    _, rows, _ = fit("more", [OnlineProbing(config)], checkpoint=tmp_path / "three.ckpt")
    assert sorted(step for step, values in rows.items() if "online/tag_map" in values) == [4, 5]


def test_only_the_first_rank_evaluates(config):
    probing, logged = OnlineProbing(config), []
    logger = SimpleNamespace(log_metrics=lambda values, step: logged.append(step))
    trainer = SimpleNamespace(is_global_zero=False, global_step=0, loggers=[logger, logger])
    module = SimpleNamespace(backbone=Backbone(SHAPE), device=torch.device("cpu"))
    for is_first, steps in ((False, []), (True, [-1, -1])):
        trainer.is_global_zero = is_first
        probing.on_fit_start(trainer, module)
        probing.on_train_start(trainer, module)
        assert logged == steps  # each logger gets the values


@pytest.fixture
def refused(fit, config):
    """What the message says when a run with this corpus is refused; no step has been made."""

    def message(**changes):
        steps = []

        class Counter(L.Callback):
            def on_train_batch_start(self, *_):
                steps.append(1)

        with pytest.raises(InputError) as error:
            fit("refused", [OnlineProbing(dataclasses.replace(config, **changes)), Counter()])
        assert not steps
        assert "\n" not in str(error.value)
        return str(error.value)

    return message


def test_a_corpus_that_is_not_there_is_refused(refused, tmp_path):
    assert refused(root=str(tmp_path / "nowhere")) == f"online_probe.root: {tmp_path / 'nowhere'} is not a folder"
    (tmp_path / "empty").mkdir()
    assert "online_probe.root: " in refused(root=str(tmp_path / "empty"))


def test_a_corpus_without_labels_of_the_task_is_refused(refused, altered):
    dropped = altered(lambda fields: fields | {"tags": None, "chords": None})
    assert "online_probe.root: no track of the train split has any of tags" in refused(
        root=dropped.root, tasks=["tagging"]
    )


def test_labels_that_all_tracks_share_are_refused(refused, altered):
    same = altered(lambda fields: fields | {"tags": ["all"]})
    assert refused(root=same.root, tasks=["tagging"]).startswith("online_probe.tasks=['tagging']: tiny has too few")


def test_a_corpus_without_valid_tracks_is_refused(refused, altered):
    lone = altered(lambda fields: fields if fields["split"] != "valid" else None)
    assert "online_probe.root: no track of the valid split" in refused(root=lone.root)


def test_audio_that_is_missing_or_short_is_refused(refused, altered, tmp_path):
    def shorten(fields):
        if fields["track_id"] == "t1":
            soundfile.write(tmp_path / "short.wav", np.zeros(8000), 16000)
            fields["audio"] = str(tmp_path / "short.wav")
        return fields

    short = altered(shorten)
    message = refused(root=short.root)
    assert message.startswith("online_probe.root: ")
    assert "short.wav: shorter than an excerpt of 1.0 s" in message
    (tmp_path / "short.wav").unlink()
    assert "do not exist" in refused(root=short.root)


def test_a_broken_annotation_is_refused_with_its_line(refused, altered, tmp_path):
    (tmp_path / "bad.lab").write_text("0 1 C:maj\n1 2\n")
    bad = altered(lambda fields: fields | ({"chords": str(tmp_path / "bad.lab")} if fields["split"] == "valid" else {}))
    assert f"online_probe.root: {tmp_path / 'bad.lab'}:2: " in refused(root=bad.root)


def test_a_layer_that_does_not_exist_is_refused(refused):
    assert refused(layers=[3]) == "online_probe.layers=[3]: this backbone has layers 0 to 2"
