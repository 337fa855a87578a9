"""The module: it can learn a batch by heart, and no loss touches a sequence token."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from musictf.errors import InputError
from musictf.models.backbone import Backbone
from musictf.models.vit1d import ViT1DConfig
from musictf.objectives.ntxent import nt_xent
from musictf.pretraining.module import ContrastivePretraining, NTXent
from musictf.pretraining.optim import OptimConfig, adamw

MODEL = ViT1DConfig(depth=2, embed_dim=16, num_heads=2, max_frames=16)


def make_module(objective=None):
    torch.manual_seed(0)
    return ContrastivePretraining(Backbone(MODEL), objective or NTXent(), OptimConfig(learning_rate=1e-2), 80)


@pytest.fixture
def batch(white_noise):
    """Four pairs of noise: positives have nothing in common, so that they can only be memorised."""
    first, second = torch.from_numpy(white_noise(8 * 15 * 512)).reshape(2, 4, -1)
    return {"first": first, "second": second, "track": torch.arange(4)}


@pytest.mark.parametrize("projection", ["none", "mlp"])
def test_one_batch_is_learned_by_heart(batch, projection):
    module = make_module(NTXent(projection=projection, widths=[32, 16]))
    optimizer = adamw(module, module.optim)
    losses = []
    for _ in range(80):
        loss, is_top1, _, _ = module.contrast(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.5 * math.log(7)  # chance among seven candidates is log 7
    assert losses[-1] < 0.05 * math.log(7)
    assert is_top1.all()


def test_nothing_touches_the_sequence_tokens(batch):
    module = make_module()
    outputs, normed = [], []

    def keep(block, arguments, output):
        output[0].retain_grad()
        outputs.append(output[0])

    for block in module.backbone.encoder.blocks:
        block.register_forward_hook(keep)
    module.backbone.encoder.norm.register_forward_hook(lambda norm, arguments, output: normed.append(output))
    module.contrast(batch)[0].backward()
    (first,) = outputs  # the last block makes the class token alone
    assert [tuple(tokens.shape) for tokens in normed] == [(2 * len(batch["first"]), 1, first.shape[-1])]
    assert first.grad[:, 1:].abs().max() > 0  # below the last block they serve the class token as keys and values


def test_the_loss_is_that_of_the_class_tokens(batch):
    module = make_module(NTXent(temperature=0.3))
    with torch.no_grad():
        first, second = (module.backbone(batch[view]).class_token[2] for view in ("first", "second"))
        loss = module.contrast(batch)[0]
    torch.testing.assert_close(loss, nt_xent(first, second, temperature=0.3)[0], rtol=0, atol=1e-5)


def test_two_pairs_of_one_track_do_not_repel_each_other(batch):
    module = make_module()
    with torch.no_grad():
        apart = module.contrast(batch)[0]
        together = module.contrast(batch | {"track": torch.tensor([0, 0, 1, 1])})[0]
    assert together < apart - 0.1


@pytest.mark.parametrize("objective", [{"temperature": 0.0}, {"projection": "MLP"}])
def test_an_unknown_objective_is_refused(objective):
    with pytest.raises(InputError, match=next(iter(objective))):
        make_module(NTXent(**objective))


def test_an_unknown_projection_is_refused_before_anything_runs():
    with pytest.raises(InputError, match="one of none, mlp"):
        NTXent(projection="mpl")


def test_batch_norm_over_several_cpu_processes_is_refused():
    module = make_module(NTXent(projection="mlp", widths=[8]))
    module.trainer = SimpleNamespace(world_size=2)
    with pytest.raises(InputError, match="several CPU processes"):
        module.on_fit_start()
    module.trainer.world_size = 1
    module.on_fit_start()
