"""Training heads: each as if alone, the best on validation kept, and scikit-learn's solution reached."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from probe_problems import CLASSES, CPU, Classes, config, final, problem, trained
from sklearn.linear_model import LogisticRegression

from musictf.probing.heads import HeadGrid
from musictf.probing.linear_probe import LinearProbe, fit
from musictf.results.names import READOUTS
from musictf.tasks.base import Task


class Labels(Task):
    """Each of two labels or not."""

    name = "labels"
    num_outputs = 2

    def loss(self, logits, targets):
        return F.binary_cross_entropy_with_logits(logits, targets)


def test_statistics_come_from_the_training_split_alone(splits, make_split):
    train, valid = splits
    heads = trained(train, valid, config())
    others = trained(train, make_split(valid.rows["sequence"] + 1000, valid.targets), config())
    exact = train.rows["sequence"].double().numpy()
    for head, other in zip(heads, others, strict=True):
        np.testing.assert_allclose(head.mean, exact[:, head.column].mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(head.scale, exact[:, head.column].std(axis=0), rtol=1e-5)
        assert torch.equal(head.mean, other.mean)
        assert torch.equal(head.scale, other.scale)


def test_each_readout_has_statistics_of_its_own(make_split):
    """Readouts of different rows: half of them, and shifted."""
    (rows, targets), (valid_rows, valid_targets) = problem(0, 400), problem(1, 200)
    train, valid = (
        make_split({"class": 3 * x[::2] + 7, "sequence": x}, y)
        for x, y in ((rows, targets), (valid_rows, valid_targets))
    )
    for split in (train, valid):
        split.index["class"] = torch.arange(len(split.targets)) // 2
    heads = fit(Classes(), train, valid, [0, 1], config(), CPU, [0])
    assert set(heads) == {("class", 0), ("sequence", 0)}
    for (readout, _), layers in heads.items():
        exact = train.rows[readout].double().numpy()
        for head in layers:
            np.testing.assert_allclose(head.mean, exact[:, head.column].mean(axis=0), rtol=1e-5)
            np.testing.assert_allclose(head.scale, exact[:, head.column].std(axis=0), rtol=1e-5)


def test_a_constant_feature_leaves_the_heads_finite(make_split):
    features, targets = problem(0, 300)
    features[:, :, 3] = 5.0
    valid = features.copy()
    valid[:, :, 3] = 5.5
    for head in trained(make_split(features, targets), make_split(valid, targets), config()):
        assert np.isfinite(head.logits(torch.from_numpy(valid))).all()
        assert abs(head.logits(torch.from_numpy(valid))).max() < 100


RATES, DECAYS, SEEDS, COLUMNS = (1e-4, 3e-2, 3e-1), (0.0, 0.3), (3, 11), (0, 1)
SETTINGS = list(itertools.product(RATES, DECAYS))
EARLY = {"learning_rates": list(RATES), "weight_decays": list(DECAYS), "steps": 60, "valid_every": 4, "patience": 2}


def alone(rows, targets, valid_rows, valid_targets, seed, rate, decay, probe):
    """One head of one layer by a plain loop; its best weights, its best loss, and how many validations it took."""
    mean, scale = rows.double().mean(dim=0).float(), rows.double().std(dim=0, correction=0).float()
    rows, valid_rows = (rows - mean) / scale, (valid_rows - mean) / scale
    weight = torch.randn(rows.shape[1], CLASSES, generator=torch.Generator().manual_seed(seed)) * 0.01
    weight, bias = weight.requires_grad_(), torch.zeros(CLASSES, requires_grad=True)
    first, second = ([torch.zeros_like(part) for part in (weight, bias)] for _ in range(2))
    generator, order = torch.Generator().manual_seed(seed), []
    best, best_loss, waited = None, math.inf, 0
    for step in range(probe.steps):
        if len(order) < probe.batch_size:
            order = torch.randperm(len(rows), generator=generator).tolist()
        batch, order = order[: probe.batch_size], order[probe.batch_size :]
        loss = F.cross_entropy(rows[batch] @ weight + bias, targets[batch]) + decay / 2 * weight.square().sum()
        gradients = torch.autograd.grad(loss, [weight, bias])
        now = rate * (1 + math.cos(math.pi * step / probe.steps)) / 2
        with torch.no_grad():
            for part, gradient, mean_, square in zip((weight, bias), gradients, first, second, strict=True):
                mean_.mul_(0.9).add_(0.1 * gradient)
                square.mul_(0.999).add_(0.001 * gradient.square())
                corrected = (square / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
                part -= now * (mean_ / (1 - 0.9 ** (step + 1))) / corrected
        if (step + 1) % probe.valid_every == 0:
            with torch.no_grad():
                loss = float(F.cross_entropy(valid_rows @ weight + bias, valid_targets))
            waited += 1
            if loss < best_loss:
                best, best_loss, waited = [part.detach().clone() for part in (weight, bias)], loss, 0
            if waited == probe.patience:
                break
    return best, best_loss, (step + 1) // probe.valid_every


def test_all_heads_together_are_each_head_alone(overfitted, probes, monkeypatch):
    """Every seed, readout, layer and setting against a plain loop, some of which stop early while others go on."""
    train, valid = overfitted
    settings, steps, running = config(batch_size=64, **EARLY), [], []
    original = LinearProbe.on_validation_epoch_end

    def spy(self):
        running.append(self.is_active)
        original(self)

    monkeypatch.setattr(LinearProbe, "on_validation_epoch_end", spy)
    heads = fit(Classes(), train, valid, [4, 9], settings, CPU, SEEDS, lambda: steps.append(1))
    (probe,) = probes
    taken = torch.zeros(probe.grid.shape, dtype=torch.int64)
    for (s, seed), (r, readout) in itertools.product(enumerate(SEEDS), enumerate(train.rows)):
        for layer in COLUMNS:
            rows = (split.rows[readout][:, layer] for split in (train, valid))
            data = [value for split in zip(rows, (train.targets, valid.targets), strict=True) for value in split]
            losses = []
            for k, (rate, decay) in enumerate(SETTINGS):
                best, loss, taken[s, r, layer, k] = alone(*data, seed, rate, decay, settings)
                for kept, expected in zip(probe.best_weights[s, r, k], best, strict=True):
                    torch.testing.assert_close(kept[layer], expected, rtol=0, atol=1e-5)
                assert float(probe.best_loss[s, r, layer, k]) == pytest.approx(loss, abs=1e-5)
                losses.append(loss)
            head = heads[readout, seed][layer]
            chosen = int(np.argmin(losses))
            assert (head.layer, head.column) == ((4, 9)[layer], layer)
            assert (head.selection["lr"], head.selection["weight_decay"]) == SETTINGS[chosen]
            assert head.selection["loss"] == pytest.approx(losses[chosen], abs=1e-5)
            for kept, part in zip((head.weight, head.bias), probe.best_weights[s, r, chosen], strict=True):
                assert torch.equal(kept, part[layer])
    assert len(set(taken.flatten().tolist())) > 4  # heads that stop at many different times, some never
    assert taken.min() < 5
    assert taken.max() == 15
    assert torch.equal(torch.stack(running).sum(dim=0), taken)
    assert len(steps) == 60


@pytest.mark.parametrize("cell", [(0, 0, 0, 0), (1, 1, 1, 5), (0, 1, 0, 2), (1, 0, 1, 3)])
def test_all_heads_together_are_a_fit_of_one_alone(overfitted, probes, make_split, cell):
    train, valid = overfitted
    s, r, layer, k = cell
    fit(Classes(), train, valid, COLUMNS, config(batch_size=64, **EARLY), CPU, SEEDS)
    (rate, decay), readout = SETTINGS[k], READOUTS[r]
    few = [make_split({readout: split.rows[readout][:, layer : layer + 1]}, split.targets) for split in (train, valid)]
    single = EARLY | {"learning_rates": [rate], "weight_decays": [decay]}
    (head,) = trained(*few, config(batch_size=64, **single), SEEDS[s], [layer])
    together, one = probes
    torch.testing.assert_close(together.best_weights[s, r, k][0][layer], head.weight, rtol=0, atol=1e-5)
    torch.testing.assert_close(together.best_weights[s, r, k][1][layer], head.bias, rtol=0, atol=1e-5)
    torch.testing.assert_close(together.best_loss[cell], one.best_loss[0, 0, 0, 0], rtol=0, atol=1e-5)


def test_heads_that_stopped_are_computed_no_more(overfitted, probes, monkeypatch):
    train, valid = overfitted
    computed = []
    original = HeadGrid.forward

    def spy(self, features, seed, readout, settings):
        computed.append((self.training, seed, readout, tuple(settings), self.weights[-1].detach().clone()))
        return original(self, features, seed, readout, settings)

    monkeypatch.setattr(HeadGrid, "forward", spy)
    fit(Classes(), train, valid, COLUMNS, config(batch_size=64, **EARLY), CPU, SEEDS)
    (probe,) = probes
    assert not probe.is_active[..., 4:].any()  # the fastest ones stopped in every layer
    assert probe.is_active[..., 0].any()
    for seed, readout in itertools.product(range(2), range(2)):
        settings_of_steps = [
            settings for training, s, r, settings, _ in computed if training and (s, r) == (seed, readout)
        ]
        assert settings_of_steps[0] == tuple(range(6))
        assert all(set(after) <= set(before) for before, after in itertools.pairwise(settings_of_steps))
        assert not {4, 5} & set(settings_of_steps[-1])
    last = max(k for k, (*_, settings, _) in enumerate(computed) if 5 in settings)
    after = [weights for *_, weights in computed[last + 1 :]]
    assert len(after) > 50
    assert torch.equal(after[0], after[-1])  # no momentum carries a head on


def test_training_ends_when_all_heads_have_stopped(overfitted, probes):
    steps = []
    settings = config(batch_size=64, **EARLY | {"learning_rates": [0.3], "steps": 400})
    fit(Classes(), *overfitted, COLUMNS, settings, CPU, SEEDS, lambda: steps.append(1))
    (probe,) = probes
    assert not probe.is_active.any()
    assert len(steps) < 60
    assert len(steps) % 4 == 0


def oracle(features, targets, decay, num_outputs=1):
    """scikit-learn's minimum of the same: mean loss + decay / 2 * |W|^2 on standardised features, biases free."""
    fitted = LogisticRegression(C=1 / (len(features) * decay * num_outputs), tol=1e-8, max_iter=10_000)
    return fitted.fit((features - features.mean(axis=0)) / features.std(axis=0), targets)


def test_the_minimum_is_scikit_learns_at_the_same_regularisation(make_split, probes):
    decays = [0.01, 0.03, 0.1, 1.0]
    features, targets = problem(0, 300, dim=6, noise=2)
    split = make_split(features, targets)
    settings = {"learning_rates": [0.1], "weight_decays": decays, "steps": 300, "valid_every": 300, "batch_size": 300}
    trained(split, split, config(**settings))
    coefficients = []
    for layer, (k, decay) in itertools.product(COLUMNS, enumerate(decays)):
        expected = oracle(features[:, layer], targets, decay)
        weight, bias = (part[layer].numpy() for part in probes[0].best_weights[0, 0, k])
        # A constant added to all biases changes nothing: both are centred.
        np.testing.assert_allclose(weight, expected.coef_.T, rtol=0, atol=2e-3 * abs(expected.coef_).max())
        np.testing.assert_allclose(
            bias - bias.mean(), expected.intercept_ - expected.intercept_.mean(), rtol=0, atol=2e-3
        )
        standard = (features[:, layer] - features[:, layer].mean(axis=0)) / features[:, layer].std(axis=0)
        log_loss = -expected.predict_log_proba(standard)[np.arange(300), targets].mean()
        assert float(probes[0].best_loss[0, 0, layer, k]) == pytest.approx(log_loss, abs=1e-4)
        coefficients.append(abs(expected.coef_).max())
    # The oracle tells these weight decays apart, by far more than the tolerance.
    assert all(before > 1.1 * after for before, after in itertools.pairwise(coefficients[:4]))


def test_a_mean_over_labels_divides_what_each_label_minimises(make_split, probes):
    """Binary cross-entropy is a mean over labels too: each is regularised as if its loss counted half."""
    features, classes = problem(0, 300, dim=6, noise=2)
    targets = np.stack([classes % 2, classes // 2], axis=1).astype(np.float32)
    split = make_split(features, targets)
    settings = {"learning_rates": [0.1], "weight_decays": [0.03], "steps": 240, "valid_every": 240, "batch_size": 300}
    trained(split, split, config(**settings), task=Labels())
    weight, bias = probes[0].best_weights[0, 0, 0]
    for layer, label in itertools.product(COLUMNS, range(2)):
        expected = oracle(features[:, layer], targets[:, label], 0.03, num_outputs=2)
        np.testing.assert_allclose(weight[layer, :, label], expected.coef_[0], rtol=0, atol=2e-3)
        np.testing.assert_allclose(bias[layer, label], expected.intercept_[0], rtol=0, atol=2e-3)


def test_biases_are_not_regularised(make_split, probes):
    """Under a heavy penalty all that is left is how often each class comes."""
    features, _ = problem(0, 400)
    targets = np.repeat(np.arange(CLASSES), [40, 80, 120, 160])
    split = make_split(features, targets)
    settings = {"learning_rates": [0.1], "weight_decays": [100.0], "steps": 120, "valid_every": 120, "batch_size": 400}
    for head in trained(split, split, config(**settings)):
        assert abs(head.weight).max() < 0.01
        shares = torch.softmax(head.bias, dim=0)
        np.testing.assert_allclose(shares, [0.1, 0.2, 0.3, 0.4], atol=5e-3)


def test_a_linear_fit_is_as_good_as_scikit_learns(make_split):
    (train_x, train_y), (valid_x, valid_y), (test_x, test_y) = problem(0, 2000), problem(1, 500), problem(2, 2000)
    train, valid = make_split(train_x, train_y), make_split(valid_x, valid_y)
    heads = trained(train, valid, config(learning_rates=[3e-3, 3e-2], steps=200))
    accuracies = []
    for head in heads:
        mean, std = train_x[:, head.column].mean(axis=0), train_x[:, head.column].std(axis=0)
        expected = oracle(train_x[:, head.column], train_y, 1e-4).score((test_x[:, head.column] - mean) / std, test_y)
        accuracies.append((head.logits(torch.from_numpy(test_x)).argmax(axis=1) == test_y).mean())
        assert abs(accuracies[-1] - expected) < 0.015
    assert 0.4 < accuracies[0] < accuracies[1] < 1  # neither trivial nor hopeless


def test_the_best_weights_on_validation_are_kept_and_not_the_last(make_split, probes, monkeypatch):
    train, valid = (make_split(*problem(seed, number, dim=60, noise=6)) for seed, number in ((0, 100), (1, 400)))
    seen = []
    original = LinearProbe.on_validation_epoch_end

    def spy(self):
        weights = torch.stack([final(self, 0, 0, setting)[0] for setting in (0, 1)], dim=1).clone()
        seen.append((self._loss_sums[0, 0] / self._num_targets, weights))
        original(self)

    monkeypatch.setattr(LinearProbe, "on_validation_epoch_end", spy)
    heads = trained(train, valid, config(learning_rates=[1e-4, 0.1], steps=80, valid_every=4, patience=100))
    losses = torch.stack([loss for loss, _ in seen])  # validations, layers, settings
    best = losses.argmin(dim=0)
    assert len(losses) == 20
    for layer in (0, 1):
        assert best[layer, 0] > best[layer, 1]  # the slow one goes on getting better
        assert losses[-1, layer, 1] > losses[:, layer, 1].min() + 0.1  # the fast one got worse
        for setting in (0, 1):
            kept = probes[0].best_weights[0, 0, setting][0][layer]
            assert torch.equal(kept, seen[best[layer, setting]][1][layer, setting])
    for head in heads:
        by_hand = F.cross_entropy(torch.from_numpy(head.logits(valid.rows["sequence"])), valid.targets)
        assert head.selection["loss"] == pytest.approx(float(by_hand), abs=1e-5)
        assert head.selection["loss"] == float(losses[:, head.column].min())


def test_the_setting_of_a_head_is_the_best_on_validation_layer_by_layer(splits, probes):
    settings = config(learning_rates=[1e-5, 1e-2], weight_decays=[3.0, 1e-3])
    heads = trained(*splits, settings, layers=[3, 7])
    assert [head.layer for head in heads] == [3, 7]
    losses = probes[0].best_loss[0, 0]
    for k, head in enumerate(heads):
        assert int(losses[k].argmin()) == 3
        assert (head.selection["lr"], head.selection["weight_decay"]) == (1e-2, 1e-3)
        assert head.selection["split"] == "valid"
        assert head.selection["loss"] == float(losses[k].min())
