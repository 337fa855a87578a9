"""The optimiser's two groups and the schedules at the steps that matter."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from musictf.errors import InputError
from musictf.models.backbone import Backbone
from musictf.models.vit1d import ViT1DConfig
from musictf.pretraining.optim import OptimConfig, adamw, cosine, learning_rate

CONFIG = OptimConfig(learning_rate=1e-3, min_learning_rate=1e-5, warmup=0.1)


def test_biases_norms_and_the_class_token_do_not_decay():
    backbone = Backbone(ViT1DConfig(depth=1, embed_dim=16, num_heads=2, max_frames=8))
    names = {id(parameter): name for name, parameter in backbone.named_parameters()}
    decaying, others = adamw(backbone, OptimConfig(weight_decay=0.3)).param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    assert (decaying["decays"], others["decays"]) == (True, False)
    still = {names[id(parameter)] for parameter in others["params"]}
    assert {name for name in names.values() if name.endswith("bias") or "norm" in name} <= still
    assert "encoder.class_token" in still
    assert {names[id(parameter)] for parameter in decaying["params"]} | still == set(names.values())
    assert not {"encoder.frame_proj.weight", "encoder.blocks.0.attn.qkv.weight"} & still


def test_frozen_parameters_are_left_out():
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    assert [len(group["params"]) for group in adamw(layer, CONFIG).param_groups] == [1, 0]


def test_the_betas_are_those_of_the_configuration():
    optimizer = adamw(nn.Linear(2, 2), OptimConfig(beta1=0.8, beta2=0.97))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert all(group["betas"] == (0.8, 0.97) for group in optimizer.param_groups)
    assert (OptimConfig().beta1, OptimConfig().beta2) == (0.9, 0.98)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 1e-4), (4, 5e-4), (9, 1e-3), (10, 1e-3), (55, (1e-3 + 1e-5) / 2), (100, 1e-5), (200, 1e-5)],
)
def test_the_learning_rate_warms_up_then_follows_a_cosine(step, expected):
    assert learning_rate(step, 100, CONFIG) == pytest.approx(expected, rel=1e-9)


def test_the_last_step_comes_close_to_the_minimum():
    assert 1e-5 < learning_rate(999, 1000, CONFIG) < 1.01e-5


def test_a_run_of_one_step_learns():
    assert learning_rate(0, 1, CONFIG) == CONFIG.learning_rate


def test_the_cosine_falls_from_first_to_last():
    values = [cosine(step, 10, 0.04, 0.01) for step in range(12)]
    assert values[0] == 0.04
    assert values[5] == pytest.approx(0.025)
    assert values[10] == values[11] == pytest.approx(0.01)
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("change", [{"learning_rate": 0.0}, {"warmup": 1.0}, {"warmup": -0.1}])
def test_an_impossible_schedule_is_refused(change):
    with pytest.raises(InputError, match="optim"):
        OptimConfig(**change)
