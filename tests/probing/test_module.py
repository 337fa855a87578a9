"""Training heads: each as if alone, the best on validation kept, and scikit-learn's accuracy reached."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from musictf.errors import InputError
from musictf.probing import module
from musictf.probing.heads import HeadGrid, statistics
from musictf.probing.module import LinearProbe, ProbeConfig, fit
from musictf.runs import TrainerConfig
from musictf.tasks.base import Task

CPU = TrainerConfig(accelerator="cpu")
CLASSES = 4


class Classes(Task):
    """One of four classes."""

    name = "classes"
    num_outputs = CLASSES

    def loss(self, logits, targets):
        return F.cross_entropy(logits, targets)


def problem(seed, num_examples, num_layers=2, dim=12, noise=1.5):
    """Gaussian clouds, more apart in later layers, on features of very different scale."""
    clouds = np.random.default_rng(99)
    centres, scales = clouds.normal(size=(num_layers, CLASSES, dim)), 10.0 ** clouds.uniform(-2, 2, size=dim)
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, CLASSES, num_examples)
    layers = [
        (1 + layer) * centres[layer, targets] + noise * generator.normal(size=(num_examples, dim))
        for layer in range(num_layers)
    ]
    return (np.stack(layers, axis=1) * scales + 5 * scales).astype(np.float32), targets


@pytest.fixture
def splits(make_split):
    return make_split(*problem(0, 600)), make_split(*problem(1, 300))


@pytest.fixture
def probes(monkeypatch):
    """The probes that ``fit`` trains, to look inside."""
    seen = []
    original = LinearProbe.heads

    def spy(self, layers):
        seen.append(self)
        return original(self, layers)

    monkeypatch.setattr(LinearProbe, "heads", spy)
    return seen


def config(**changes):
    return ProbeConfig(**{"learning_rates": [1e-2], "steps": 60, "batch_size": 128, "valid_every": 20} | changes)


def test_statistics_come_from_the_training_split_alone(splits, make_split):
    train, valid = splits
    heads = fit(Classes(), train, valid, [0, 1], config(), CPU, 0)
    far = make_split(valid.rows + 1000, valid.targets)
    others = fit(Classes(), train, far, [0, 1], config(), CPU, 0)
    exact = train.rows.double().numpy()
    for head, other in zip(heads, others, strict=True):
        np.testing.assert_allclose(head.mean, exact[:, head.column].mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(head.scale, exact[:, head.column].std(axis=0), rtol=1e-5)
        assert torch.equal(head.mean, other.mean)
        assert torch.equal(head.scale, other.scale)


def test_several_learning_rates_together_are_each_alone(splits, probes):
    rates = [1e-3, 1e-2, 1e-1]
    fit(Classes(), *splits, [0, 1], config(learning_rates=rates), CPU, 3)
    for rate in rates:
        fit(Classes(), *splits, [0, 1], config(learning_rates=[rate]), CPU, 3)
    together, *alone = probes
    for k, single in enumerate(alone):
        torch.testing.assert_close(together.best[k], single.best[0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(together.best[3 + k], single.best[1], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(together.best_loss.reshape(3, 2)[k], single.best_loss, rtol=1e-5, atol=1e-6)


def test_training_is_adamw_with_a_cosine_over_all_steps(splits, probes):
    """The same heads by a plain loop over the same batches."""
    train, valid = splits
    settings = config(learning_rates=[3e-2], steps=12, valid_every=12, batch_size=100)
    (kept, _) = fit(Classes(), train, valid, [0, 1], settings, CPU, 5)
    grid = HeadGrid(1, *statistics(train.rows), CLASSES, seed=5)
    optimizer = torch.optim.AdamW(grid.parameters(), lr=3e-2, weight_decay=0.01)
    generator, order = torch.Generator().manual_seed(5), []
    for step in range(12):
        for group in optimizer.param_groups:
            group["lr"] = 3e-2 * 0.5 * (1 + np.cos(np.pi * step / 12))
        if not order:
            order = list(torch.randperm(600, generator=generator).split(100))
        batch = order.pop(0)
        optimizer.zero_grad()
        logits = grid(train.rows[batch])
        sum(F.cross_entropy(head, train.targets[batch]) for head in logits).backward()
        optimizer.step()
    torch.testing.assert_close(kept.weight, grid.weights[0][0].detach(), rtol=1e-4, atol=1e-6)


def test_a_linear_fit_is_as_good_as_scikit_learns(make_split):
    (train_x, train_y), (valid_x, valid_y), (test_x, test_y) = problem(0, 2000), problem(1, 500), problem(2, 2000)
    train, valid = make_split(train_x, train_y), make_split(valid_x, valid_y)
    heads = fit(Classes(), train, valid, [0, 1], config(learning_rates=[3e-3, 3e-2], steps=300), CPU, 0)
    accuracies = []
    for head in heads:
        mean, std = train_x[:, head.column].mean(axis=0), train_x[:, head.column].std(axis=0)
        oracle = LogisticRegression(max_iter=1000).fit((train_x[:, head.column] - mean) / std, train_y)
        wanted = oracle.score((test_x[:, head.column] - mean) / std, test_y)
        accuracies.append((head.logits(torch.from_numpy(test_x)).argmax(axis=1) == test_y).mean())
        assert abs(accuracies[-1] - wanted) < 0.015
    assert 0.4 < accuracies[0] < accuracies[1] < 1  # neither trivial nor hopeless


def test_the_best_weights_on_validation_are_kept_and_not_the_last(make_split, probes, monkeypatch):
    features, targets = problem(0, 100, dim=60, noise=6)
    train = make_split(features, targets)
    valid_features, valid_targets = problem(1, 400, dim=60, noise=6)
    valid = make_split(valid_features, valid_targets)
    seen = []
    original = LinearProbe.on_validation_epoch_end

    def spy(self):
        seen.append((self._sums / self._count, [weight.detach().clone() for weight in self.grid.weights]))
        original(self)

    monkeypatch.setattr(LinearProbe, "on_validation_epoch_end", spy)
    settings = config(learning_rates=[1e-4, 0.1], steps=80, valid_every=4)
    heads = fit(Classes(), train, valid, [0, 1], settings, CPU, 0)
    losses = torch.stack([loss for loss, _ in seen]).reshape(20, 2, 2)  # validations, rates, layers
    best = losses.argmin(dim=0)
    for layer in (0, 1):
        assert best[0, layer] > best[1, layer]  # the slow one goes on getting better
        assert losses[-1, 1, layer] > losses[:, 1, layer].min() + 0.1  # the fast one got worse
        for rate in (0, 1):
            assert torch.equal(probes[0].best[rate][layer], seen[best[rate, layer]][1][rate][layer])
    for head in heads:
        by_hand = F.cross_entropy(torch.from_numpy(head.logits(valid.rows)), valid.targets)
        assert head.selection["loss"] == pytest.approx(float(by_hand), abs=1e-5)
        assert head.selection["loss"] == float(losses[:, :, head.column].min())


def test_the_learning_rate_of_a_head_is_the_best_on_validation_layer_by_layer(splits, probes):
    rates = [1e-5, 1e-2]
    heads = fit(Classes(), *splits, [3, 7], config(learning_rates=rates), CPU, 0)
    assert [head.layer for head in heads] == [3, 7]
    losses = probes[0].best_loss.reshape(2, 2)
    for k, head in enumerate(heads):
        assert head.selection["lr"] == rates[int(losses[:, k].argmin())] == 1e-2
        assert head.selection["split"] == "valid"
        assert head.selection["loss"] == float(losses[:, k].min())


def test_validation_loss_does_not_depend_on_how_it_is_batched(splits, probes, monkeypatch):
    fit(Classes(), *splits, [0, 1], config(), CPU, 0)
    monkeypatch.setattr(module, "_VALID_BATCH", 77)
    fit(Classes(), *splits, [0, 1], config(), CPU, 0)
    torch.testing.assert_close(probes[0].best_loss, probes[1].best_loss, rtol=1e-5, atol=1e-6)


def test_the_same_seed_is_the_same_head_whatever_was_drawn_before(splits):
    torch.manual_seed(1)
    first = fit(Classes(), *splits, [0, 1], config(), CPU, 4)
    torch.manual_seed(2)
    second = fit(Classes(), *splits, [0, 1], config(), CPU, 4)
    other = fit(Classes(), *splits, [0, 1], config(), CPU, 5)
    assert torch.equal(first[0].weight, second[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)


def test_a_constant_feature_leaves_the_heads_finite(make_split):
    features, targets = problem(0, 300)
    features[:, :, 3] = 5.0
    valid = features.copy()
    valid[:, :, 3] = 5.5
    heads = fit(Classes(), make_split(features, targets), make_split(valid, targets), [0, 1], config(), CPU, 0)
    for head in heads:
        assert np.isfinite(head.logits(torch.from_numpy(valid))).all()
        assert abs(head.logits(torch.from_numpy(valid))).max() < 100


@pytest.mark.parametrize("where", ["every layer", "one layer", "one layer of validation"])
def test_features_that_are_not_numbers_are_an_error(splits, where):
    train, valid = splits
    if where == "every layer":
        train.rows[5] = torch.nan
    elif where == "one layer":
        train.rows[5, 1, 0] = torch.inf
    else:
        valid.rows[5, 1, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="task=classes"):
        fit(Classes(), train, valid, [0, 1], config(), CPU, 0)


def test_a_corpus_smaller_than_a_batch_trains(make_split):
    heads = fit(Classes(), make_split(*problem(0, 9)), make_split(*problem(1, 5)), [0, 1], config(), CPU, 0)
    assert all(torch.isfinite(head.weight).all() for head in heads)


def test_every_example_comes_once_before_any_comes_twice():
    batches = iter(module._Shuffled(10, 3, seed=0))
    first, second = ([next(batches) for _ in range(3)] for _ in range(2))
    for epoch in (first, second):
        assert len(set(torch.cat(epoch).tolist())) == 9
    assert not torch.equal(torch.cat(first), torch.cat(second))


def test_a_batch_is_gathered_through_the_index_of_examples(make_split):
    split = make_split(torch.randn(4, 2, 3).half(), torch.arange(4))
    split.index, split.targets = torch.tensor([3, 0, 0, 2, 1]), torch.arange(5)
    rows, targets = module._Examples(split).__getitems__(torch.tensor([4, 0, 2]))
    assert torch.equal(rows, split.rows[[1, 3, 0]])
    assert targets.tolist() == [4, 0, 2]
    row, target = module._Examples(split)[3]
    assert torch.equal(row, split.rows[2])
    assert target == 3


@pytest.mark.parametrize(
    "values", [{"learning_rates": []}, {"learning_rates": [0.0]}, {"steps": 0}, {"batch_size": 0}, {"valid_every": 0}]
)
def test_values_that_make_no_sense_are_refused(values):
    with pytest.raises(InputError, match="probe"):
        ProbeConfig(**values)
