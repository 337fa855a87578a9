"""A batch in parts has the gradient of the whole batch, whatever is random about it; on two ranks too (test_ddp.py)."""

from __future__ import annotations

import dataclasses
from functools import partial

import lightning.pytorch as L
import pytest
import torch
from torch.utils.data import DataLoader

from musictf.audio.augment import AugmentConfig
from musictf.distributed import TrainerConfig
from musictf.errors import InputError
from musictf.models.backbone import Backbone
from musictf.models.vit1d import ViT1DConfig
from musictf.pretraining.grad_cache import GradCache
from musictf.pretraining.module import ContrastivePretraining, NTXent, StepConfig
from musictf.pretraining.optim import OptimConfig
from musictf.pretraining.pretrain_run import PretrainRun

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")

NUM_PAIRS = 8
MODEL = ViT1DConfig(depth=2, embed_dim=16, num_heads=2, max_frames=16)
NOISY = AugmentConfig(gain_db=6, polarity=0.5, noise=0.5)


class Recorder(L.Callback):
    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradients = {name: parameter.grad.clone() for name, parameter in pl_module.named_parameters()}


@pytest.fixture
def batch():
    first, second = 0.1 * torch.randn(2, NUM_PAIRS, 15 * 512, generator=torch.Generator().manual_seed(1))
    return {
        "first": first,
        "second": second,
        "gain": torch.ones(NUM_PAIRS, 2),
        "track": torch.arange(NUM_PAIRS) % 6,
        "example": torch.arange(40, 40 + NUM_PAIRS),
    }


def trained(batch, micro_batch=None, precision="32-true", optim=None, objective=None, **step):
    """The module after one step, and the gradients the optimiser saw."""
    torch.manual_seed(0)
    config = StepConfig(micro_batch=micro_batch, **step)
    module = ContrastivePretraining(
        Backbone(MODEL), objective or NTXent(), optim or OptimConfig(), 1, 1, step=config, augment=NOISY, seed=3
    )
    recorder = Recorder()
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_steps=1, precision=precision, callbacks=[recorder], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    loader = DataLoader([batch], batch_size=None)
    trainer.fit(module, loader, loader)
    return module, recorder.gradients


def distance(one, other):
    """Largest difference, as a share of the largest entry of its parameter's gradient."""
    return max(((one[name] - value).abs().max() / value.abs().max()).item() for name, value in other.items())


@pytest.mark.parametrize("micro_batch", [1, 3, 4, 7])
@pytest.mark.parametrize("step", [{}, {"token_dropping": 0.5}, {"activation_checkpointing": True}])
def test_the_gradient_is_that_of_the_whole_batch(batch, micro_batch, step):
    _, expected = trained(batch, **step)
    _, result = trained(batch, micro_batch, **step)
    assert distance(result, expected) < 1e-6
    assert min(value.abs().max() for value in expected.values()) > 0


def test_batch_norm_sees_the_whole_batch(batch):
    objective = NTXent(projection="mlp", widths=[12, 8])
    whole, expected = trained(batch, objective=objective)
    parts, result = trained(batch, 2, objective=objective)
    for name in ("projection.0.bias", "backbone.encoder.norm.bias"):  # batch norm takes them out: only rounding is left
        assert expected.pop(name).abs().max() < 1e-5
    assert distance(result, expected) < 1e-5
    torch.testing.assert_close(parts.projection[1].running_var, whole.projection[1].running_var)


def test_bf16_embeds_the_same_twice(batch, monkeypatch):
    """A second pass outside autocast would have the gradient of another network."""
    seen = []
    embed = ContrastivePretraining.class_tokens

    def spy(self, part):
        tokens = embed(self, part)
        if self.training:
            seen.append(tokens.detach())
        return tokens

    monkeypatch.setattr(ContrastivePretraining, "class_tokens", spy)
    _, result = trained(batch, 4, precision="bf16-mixed")
    assert len(seen) == 4
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    _, expected = trained(batch, precision="bf16-mixed")
    assert distance(result, expected) < 2**-6  # parts are rounded to bfloat16 one by one before they are added


def test_clipping_is_that_of_the_whole_batch(batch):
    optim = OptimConfig(gradient_clip=1e-3)
    whole, _ = trained(batch, optim=optim)
    parts, _ = trained(batch, 3, optim=optim)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=0, atol=1e-6, msg=name)


def test_accumulated_gradients_of_parts_are_something_else(batch):
    """What micro_batch is not: each part with its own few negatives."""
    _, expected = trained(batch)
    halves = [{name: value[part] for name, value in batch.items()} for part in (slice(0, 4), slice(4, 8))]
    gradients = [trained(half)[1] for half in halves]
    mean = {name: (gradients[0][name] + gradients[1][name]) / 2 for name in expected}
    assert distance(mean, expected) > 1e-2


def test_no_more_than_a_part_is_embedded_at_a_time(batch):
    sizes = []

    def embed(part):
        sizes.append((len(part["first"]), torch.is_grad_enabled()))
        return torch.cat([part["first"], part["second"]])[:, :4] * weight

    weight = torch.nn.Parameter(torch.ones(4))
    cache = GradCache(embed, batch, 3)
    cache.embeddings.square().sum().backward()
    cache.backward([weight])
    assert sizes == [(3, False), (3, False), (2, False), (3, True), (3, True), (2, True)]
    views = torch.cat([batch["first"], batch["second"]])[:, :4]
    torch.testing.assert_close(weight.grad, (2 * views.square()).sum(dim=0))


def test_random_views_do_not_touch_the_global_state(batch):
    torch.manual_seed(0)
    module = ContrastivePretraining(
        Backbone(MODEL), NTXent(), OptimConfig(), 1, 1, step=StepConfig(token_dropping=0.5), augment=NOISY
    )
    before = torch.get_rng_state()
    one = module.class_tokens(batch)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(77)
    assert torch.equal(module.class_tokens(batch), one)


def test_an_example_has_the_same_views_in_any_batch(batch):
    module = ContrastivePretraining(
        Backbone(MODEL), NTXent(), OptimConfig(), 1, 1, step=StepConfig(token_dropping=0.5), augment=NOISY
    )
    tokens = module.class_tokens(batch).unflatten(0, (2, -1))
    part = module.class_tokens({name: value[5:] for name, value in batch.items()}).unflatten(0, (2, -1))
    torch.testing.assert_close(part, tokens[:, 5:], rtol=1e-4, atol=1e-5)
    seeds = module._seeds(batch)
    assert len(set(seeds.tolist())) == 2 * NUM_PAIRS  # the two views of a pair draw apart


def test_validation_looks_at_every_frame_and_draws_nothing_anew(batch):
    module = ContrastivePretraining(
        Backbone(MODEL), NTXent(), OptimConfig(), 1, 1, step=StepConfig(token_dropping=0.5)
    ).eval()
    plain = ContrastivePretraining(module.backbone, NTXent(), OptimConfig(), 1, 1).eval()
    assert torch.equal(module.class_tokens(batch), plain.class_tokens(batch))
    assert not torch.equal(module.train().class_tokens(batch), plain.class_tokens(batch))


RUN = partial(PretrainRun, dataset=None, model=MODEL, objective=NTXent(), trainer=TrainerConfig())


def test_gradient_accumulation_is_refused_with_a_way_out():
    with pytest.raises(InputError, match="accumulated gradients add no negatives.*micro_batch"):
        RUN(trainer=TrainerConfig(accumulate_grad_batches=4))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"micro_batch": 0}, "micro_batch=0"),
        ({"token_dropping": 1.0}, r"token_dropping=1\.0"),
        ({"trainer": TrainerConfig(precision="16-mixed")}, "bf16-mixed or 32-true"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(keys, words):
    with pytest.raises(InputError, match=words):
        RUN(**keys)
    assert dataclasses.asdict(StepConfig())["micro_batch"] is None


def test_validation_is_not_augmented(batch):
    plain = ContrastivePretraining(Backbone(MODEL), NTXent(), OptimConfig(), 1, 1).eval()
    noisy = ContrastivePretraining(plain.backbone, NTXent(), OptimConfig(), 1, 1, augment=NOISY).eval()
    assert torch.equal(noisy.class_tokens(batch), plain.class_tokens(batch))


@pytest.mark.parametrize("seed", [0, 1, 20_240_101, 2**63 - 1])
def test_any_seed_draws_its_own(batch, seed):
    def seeds(value):
        module = ContrastivePretraining(Backbone(MODEL), NTXent(), OptimConfig(), 1, 1, seed=value)
        return set(module._seeds(batch).tolist())

    assert len(seeds(seed)) == 2 * NUM_PAIRS
    assert not seeds(seed) & seeds(seed // 2 + 7)
