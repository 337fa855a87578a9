"""Training heads: each as if alone, the best on validation kept, and scikit-learn's solution reached."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from musictf.errors import InputError
from musictf.probing import module
from musictf.probing.features import TrackFeatures
from musictf.probing.heads import HeadGrid, load_heads, save_heads
from musictf.probing.module import LinearProbe, ProbeConfig, fit
from musictf.probing.readouts import READOUTS, trained_split
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


class Labels(Task):
    """Each of two labels or not."""

    name = "labels"
    num_outputs = 2

    def loss(self, logits, targets):
        return F.binary_cross_entropy_with_logits(logits, targets)


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
    original = LinearProbe.__init__

    def spy(self, *arguments):
        original(self, *arguments)
        seen.append(self)

    monkeypatch.setattr(LinearProbe, "__init__", spy)
    return seen


def config(**changes):
    return ProbeConfig(**{"learning_rates": [1e-2], "steps": 60, "batch_size": 128, "valid_every": 20} | changes)


def trained(train, valid, settings, seed=0, layers=(0, 1), task=None, **others):
    """The heads of one readout and one seed."""
    ((_, heads),) = fit(task or Classes(), train, valid, layers, settings, CPU, [seed], **others).items()
    return heads


def final(probe, *cell):
    return [part.detach() for part in probe.grid.parts(*cell)]


# Statistics


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


# Each head as if alone

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


@pytest.fixture
def overfitted(make_split):
    """Two readouts of few noisy examples: fast heads overfit at once, slow ones never."""

    def make(seed, num_examples):
        rows, targets = problem(seed, num_examples, dim=20, noise=4)
        return make_split({"class": rows, "sequence": np.ascontiguousarray(rows[:, ::-1, ::-1])}, targets)

    return make(0, 150), make(1, 200)


def test_all_heads_together_are_each_head_alone(overfitted, probes, monkeypatch):
    """Every seed, readout, layer and setting against a plain loop, some of which stop early while others go on."""
    train, valid = overfitted
    settings, steps, running = config(batch_size=64, **EARLY), [], []
    original = LinearProbe.on_validation_epoch_end

    def spy(self):
        running.append(self.running)
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
                for kept, wanted in zip(probe.best[s, r, k], best, strict=True):
                    torch.testing.assert_close(kept[layer], wanted, rtol=0, atol=1e-5)
                assert float(probe.best_loss[s, r, layer, k]) == pytest.approx(loss, abs=1e-5)
                losses.append(loss)
            head = heads[readout, seed][layer]
            chosen = int(np.argmin(losses))
            assert (head.layer, head.column) == ((4, 9)[layer], layer)
            assert (head.selection["lr"], head.selection["weight_decay"]) == SETTINGS[chosen]
            assert head.selection["loss"] == pytest.approx(losses[chosen], abs=1e-5)
            for kept, part in zip((head.weight, head.bias), probe.best[s, r, chosen], strict=True):
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
    torch.testing.assert_close(together.best[s, r, k][0][layer], head.weight, rtol=0, atol=1e-5)
    torch.testing.assert_close(together.best[s, r, k][1][layer], head.bias, rtol=0, atol=1e-5)
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
    assert not probe.running[..., 4:].any()  # the fastest ones stopped in every layer
    assert probe.running[..., 0].any()
    for seed, readout in itertools.product(range(2), range(2)):
        asked = [settings for training, s, r, settings, _ in computed if training and (s, r) == (seed, readout)]
        assert asked[0] == tuple(range(6))
        assert all(set(after) <= set(before) for before, after in itertools.pairwise(asked))
        assert not {4, 5} & set(asked[-1])
    last = max(k for k, (*_, settings, _) in enumerate(computed) if 5 in settings)
    after = [weights for *_, weights in computed[last + 1 :]]
    assert len(after) > 50
    assert torch.equal(after[0], after[-1])  # no momentum carries a head on


def test_training_ends_when_all_heads_have_stopped(overfitted, probes):
    steps = []
    settings = config(batch_size=64, **EARLY | {"learning_rates": [0.3], "steps": 400})
    fit(Classes(), *overfitted, COLUMNS, settings, CPU, SEEDS, lambda: steps.append(1))
    (probe,) = probes
    assert not probe.running.any()
    assert len(steps) < 60
    assert len(steps) % 4 == 0


# What is minimised


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
        wanted = oracle(features[:, layer], targets, decay)
        weight, bias = (part[layer].numpy() for part in probes[0].best[0, 0, k])
        # A constant added to all biases changes nothing: both are centred.
        np.testing.assert_allclose(weight, wanted.coef_.T, rtol=0, atol=2e-3 * abs(wanted.coef_).max())
        np.testing.assert_allclose(bias - bias.mean(), wanted.intercept_ - wanted.intercept_.mean(), rtol=0, atol=2e-3)
        standard = (features[:, layer] - features[:, layer].mean(axis=0)) / features[:, layer].std(axis=0)
        log_loss = -wanted.predict_log_proba(standard)[np.arange(300), targets].mean()
        assert float(probes[0].best_loss[0, 0, layer, k]) == pytest.approx(log_loss, abs=1e-4)
        coefficients.append(abs(wanted.coef_).max())
    # The oracle tells these weight decays apart, by far more than the tolerance.
    assert all(before > 1.1 * after for before, after in itertools.pairwise(coefficients[:4]))


def test_a_mean_over_labels_divides_what_each_label_minimises(make_split, probes):
    """Binary cross-entropy is a mean over labels too: each is regularised as if its loss counted half."""
    features, classes = problem(0, 300, dim=6, noise=2)
    targets = np.stack([classes % 2, classes // 2], axis=1).astype(np.float32)
    split = make_split(features, targets)
    settings = {"learning_rates": [0.1], "weight_decays": [0.03], "steps": 240, "valid_every": 240, "batch_size": 300}
    trained(split, split, config(**settings), task=Labels())
    weight, bias = probes[0].best[0, 0, 0]
    for layer, label in itertools.product(COLUMNS, range(2)):
        wanted = oracle(features[:, layer], targets[:, label], 0.03, num_outputs=2)
        np.testing.assert_allclose(weight[layer, :, label], wanted.coef_[0], rtol=0, atol=2e-3)
        np.testing.assert_allclose(bias[layer, label], wanted.intercept_[0], rtol=0, atol=2e-3)


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
        wanted = oracle(train_x[:, head.column], train_y, 1e-4).score((test_x[:, head.column] - mean) / std, test_y)
        accuracies.append((head.logits(torch.from_numpy(test_x)).argmax(axis=1) == test_y).mean())
        assert abs(accuracies[-1] - wanted) < 0.015
    assert 0.4 < accuracies[0] < accuracies[1] < 1  # neither trivial nor hopeless


# Selection on validation


def test_the_best_weights_on_validation_are_kept_and_not_the_last(make_split, probes, monkeypatch):
    train, valid = (make_split(*problem(seed, number, dim=60, noise=6)) for seed, number in ((0, 100), (1, 400)))
    seen = []
    original = LinearProbe.on_validation_epoch_end

    def spy(self):
        weights = torch.stack([final(self, 0, 0, setting)[0] for setting in (0, 1)], dim=1).clone()
        seen.append((self._sums[0, 0] / self._count, weights))
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
            kept = probes[0].best[0, 0, setting][0][layer]
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


class Scripted(Task):
    """A probe of four heads whose validation losses are told and whose weights are the number of the validation."""

    name = "scripted"
    num_outputs = 1

    def loss(self, logits, targets):
        return logits.mean()


@pytest.mark.parametrize(
    ("losses", "patience", "best", "stops"),
    [
        ([5, 4, 3, 2, 1, 0], 2, 6, None),
        ([5, 6, 6, 1, 1, 1], 2, 1, 3),  # what comes after it stopped does not count
        ([5, 6, 4, 6, 6, 1], 2, 3, 5),  # patience begins anew with each improvement
        ([5, 5, 5, 1, 1, 1], 3, 4, None),  # an equal loss is no improvement, and a stop is not one too early
        ([5, 5, 5, 5, 1, 1], 3, 1, 4),
        ([5, 9, 1, 1, 1, 1], 1, 1, 2),
        ([5, math.nan, 3, math.inf, math.nan, 1], 2, 3, 5),
        ([math.nan, 4, 9, 2, 9, 9], 2, 4, 6),
    ],
)
def test_patience_is_counted_head_by_head(losses, patience, best, stops):
    """One head follows the script, its neighbours in layer and setting go on for ever or stop at once."""
    probe = LinearProbe(Scripted(), HeadGrid(2, torch.zeros(1, 2, 1), torch.ones(1, 2, 1), 1, [0]), config())
    probe.config.patience = patience
    probe._trainer = type("Trainer", (), {"should_stop": False})()
    for number, loss in enumerate(losses, start=1):
        with torch.no_grad():
            for part in probe.grid.parameters():
                part.fill_(number)
        told = torch.tensor([[float(loss), 10.0 - number], [1.0, 1.0]])
        probe._sums, probe._count = torch.where(probe.running[0, 0], told, 0.0)[None, None] * 7, 7
        probe.on_validation_epoch_end()
        assert bool(probe.running[0, 0, 0, 0]) is (stops is None or number < stops)
        assert bool(probe.running[0, 0, 0, 1])
        assert not probe.trainer.should_stop
    assert probe.best[0, 0, 0][0][0].item() == best
    assert probe.best[0, 0, 1][0][0].item() == len(losses)
    assert probe.best[0, 0, 0][0][1].item() == probe.best[0, 0, 1][0][1].item() == 1
    assert float(probe.best_loss[0, 0, 0, 0]) == losses[best - 1]


def test_validation_loss_does_not_depend_on_how_it_is_batched(splits, probes, monkeypatch):
    trained(*splits, config())
    monkeypatch.setattr(module, "_VALID_BATCH", 77)
    trained(*splits, config())
    torch.testing.assert_close(probes[0].best_loss, probes[1].best_loss, rtol=1e-5, atol=1e-6)


class Masked(Classes):
    """Examples of class 0 are not known: the loss is a mean over the others, and says over how many."""

    def loss(self, logits, targets):
        losses = F.cross_entropy(logits, targets, reduction="none")
        return (losses * (targets > 0)).sum() / self.weight(targets)

    def weight(self, targets):
        return float((targets > 0).sum())


def test_a_validation_batch_counts_as_much_as_its_loss_is_a_mean_over(splits, monkeypatch):
    train, valid = splits
    valid.targets[:100] = torch.where(torch.arange(100) % 10 == 0, 1, 0)
    monkeypatch.setattr(module, "_VALID_BATCH", 77)
    for head in trained(train, valid, config(), task=Masked()):
        logits = torch.from_numpy(head.logits(valid.rows["sequence"]))
        known = valid.targets > 0
        by_hand = F.cross_entropy(logits[known], valid.targets[known])
        assert head.selection["loss"] == pytest.approx(float(by_hand), abs=1e-5)


@pytest.mark.parametrize(("num_examples", "bound"), [(10, 10), (10, 16), (10, 3), (1000, 7), (100_000, 16_384)])
def test_validation_examples_are_evenly_spaced(num_examples, bound):
    sampler = module._Spread(num_examples, config(valid_examples=bound))
    batches = [batch for (batch,) in sampler]
    examples = torch.cat(batches)
    assert len(batches) == len(sampler)
    assert len(examples) == len(set(examples.tolist())) == min(num_examples, bound)
    assert examples[0] == 0
    assert examples.max() < num_examples
    gaps = examples.diff()
    assert gaps.max() - gaps.min() <= 1
    assert num_examples - examples[-1] <= gaps.max() + 1


def test_only_so_many_validation_examples_decide(splits, make_split):
    train, valid = splits
    (rows, targets) = (valid.rows["sequence"].clone(), valid.targets)
    unread = torch.arange(len(targets)) % 3 != 0
    rows[unread] = 1e9
    spoilt = make_split(rows, targets)
    bounded = trained(train, valid, config(valid_examples=100))
    again = trained(train, spoilt, config(valid_examples=100))
    assert all(torch.equal(one.weight, two.weight) for one, two in zip(bounded, again, strict=True))
    for head in bounded:
        by_hand = F.cross_entropy(torch.from_numpy(head.logits(valid.rows["sequence"][::3])), targets[::3])
        assert head.selection["loss"] == pytest.approx(float(by_hand), abs=1e-5)


# Seeds, memory, small corpora


def test_the_same_seed_is_the_same_head_whatever_was_drawn_before(splits):
    torch.manual_seed(1)
    first = trained(*splits, config(), 4)
    torch.manual_seed(2)
    second = trained(*splits, config(), 4)
    other = trained(*splits, config(), 5)
    assert torch.equal(first[0].weight, second[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)


class Tokens(Task):
    """The class of each token, a function of its time."""

    name = "tokens"
    level = "frame"
    num_outputs = CLASSES

    def encode(self, annotation, times):
        return torch.from_numpy(np.int64(times * annotation) % CLASSES)

    def loss(self, logits, targets):
        return F.cross_entropy(logits, targets)


def test_heads_trained_from_disk_are_those_trained_in_memory(cache):
    def track(seed, num_tokens):
        generator = torch.Generator().manual_seed(seed)
        excerpts = [torch.randn(5, 2, 8, generator=generator).half() for _ in range(3)]
        sequence = torch.randn(num_tokens, 2, 8, generator=generator).half()
        times, centres = (torch.arange(number, dtype=torch.float64) for number in (num_tokens, 5))
        return TrackFeatures(*excerpts, sequence, times / 10, 4 * centres, torch.tensor(num_tokens / 10.0))

    tracks = [[track(seed, 150 + seed) for seed in seeds] for seeds in (range(4), range(4, 6))]
    found = []
    for gib in (8.0, 0.0):
        splits = [trained_split(Tokens(), some, [1.0] * len(some), READOUTS, gib) for some in tracks]
        found.append(fit(Tokens(), *splits, [0, 1], config(steps=20, valid_every=10), CPU, [0, 1]))
    memory, disk = found
    assert list(memory) == list(disk) == [(readout, seed) for readout in READOUTS for seed in (0, 1)]
    for key, heads in memory.items():
        for one, two in zip(heads, disk[key], strict=True):
            assert torch.equal(one.weight, two.weight)
            assert one.selection == two.selection
    assert list(cache.iterdir()) == []


def test_trained_heads_come_back_from_a_file(splits, tmp_path):
    heads = trained(*splits, config(), layers=[2, 5])
    save_heads(heads, tmp_path / "h.safetensors", {"task": "classes"})
    for head, saved in zip(load_heads(tmp_path / "h.safetensors"), heads, strict=True):
        assert (head.layer, head.column, head.selection) == (saved.layer, saved.column, saved.selection)
        rows = splits[1].rows["sequence"]
        np.testing.assert_array_equal(head.logits(rows), saved.logits(rows))


def test_a_corpus_smaller_than_a_batch_trains(make_split):
    heads = trained(make_split(*problem(0, 9)), make_split(*problem(1, 5)), config())
    assert all(torch.isfinite(head.weight).all() for head in heads)


# Losses that are no numbers


@pytest.mark.parametrize("where", ["every layer", "one layer", "one layer of validation"])
def test_features_that_are_not_numbers_are_an_error(splits, where):
    train, valid = splits
    if where == "every layer":
        train.rows["sequence"][5] = torch.nan
    elif where == "one layer":
        train.rows["sequence"][5, 1, 0] = torch.inf
    else:
        valid.rows["sequence"][5, 1, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="task=classes"):
        trained(train, valid, config())


def test_one_readout_that_is_no_number_is_an_error(overfitted):
    train, valid = overfitted
    train.rows["class"][5, 1, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="every validation loss of 2 of 8 heads"):
        fit(Classes(), train, valid, [0, 1], config(), CPU, [0, 1])


class Fragile(Classes):
    """No number once logits are large."""

    def loss(self, logits, targets):
        loss = F.cross_entropy(logits, targets)
        return torch.where(logits.abs().max() > 10, torch.nan, 1) * loss


def test_a_rate_that_diverges_harms_no_other(splits, probes):
    calm = trained(*splits, config(), task=Fragile())
    mixed = trained(*splits, config(learning_rates=[1e-2, 100.0]), task=Fragile())
    for head, other in zip(calm, mixed, strict=True):
        torch.testing.assert_close(head.weight, other.weight, rtol=0, atol=1e-6)
        assert head.selection == pytest.approx(other.selection)
    assert not torch.isfinite(final(probes[1], 0, 0, 1)[0]).any()
    assert torch.isinf(probes[1].best_loss[..., 1]).all()


def test_a_head_that_diverges_late_keeps_what_was_best_before(splits, probes):
    heads = trained(*splits, config(learning_rates=[0.3], valid_every=2, steps=40), task=Fragile())
    assert not torch.isfinite(final(probes[0], 0, 0, 0)[0]).any()
    for head in heads:
        assert torch.isfinite(head.weight).all()
        by_hand = F.cross_entropy(torch.from_numpy(head.logits(splits[1].rows["sequence"])), splits[1].targets)
        assert head.selection["loss"] == pytest.approx(float(by_hand), abs=1e-5)
        assert head.selection["loss"] < 1.2  # better than not listening


# Batches


def test_every_example_comes_once_before_any_comes_twice():
    batches = iter(module._Shuffled(10, 3, seeds=[0]))
    first, second = ([next(batches)[0] for _ in range(3)] for _ in range(2))
    for epoch in (first, second):
        assert len(set(torch.cat(epoch).tolist())) == 9
    assert not torch.equal(torch.cat(first), torch.cat(second))


def test_each_seed_has_an_order_of_its_own_wherever_it_stands():
    both, one = iter(module._Shuffled(100, 30, seeds=[3, 8])), iter(module._Shuffled(100, 30, seeds=[8]))
    for _ in range(7):
        (first, second), (alone_,) = next(both), next(one)
        assert torch.equal(second, alone_)
        assert not torch.equal(first, second)


def test_a_batch_is_gathered_through_the_index_of_examples(make_split):
    split = make_split({"class": torch.randn(2, 2, 3), "sequence": torch.randn(4, 2, 3).half()}, torch.arange(4))
    split.index = {"class": torch.tensor([1, 1, 0, 0, 1]), "sequence": torch.tensor([3, 0, 0, 2, 1])}
    split.targets = torch.arange(5)
    ((rows, targets), (_, others)) = module._Examples(split).__getitems__([torch.tensor([4, 0, 2]), torch.tensor([1])])
    assert torch.equal(rows[0], split.rows["class"][[1, 1, 0]])
    assert torch.equal(rows[1], split.rows["sequence"][[1, 3, 0]])
    assert targets.tolist() == [4, 0, 2]
    assert others.tolist() == [1]


@pytest.mark.parametrize(
    "values",
    [
        {"learning_rates": []},
        {"learning_rates": [0.0]},
        {"weight_decays": []},
        {"weight_decays": [-1e-4]},
        {"steps": 0},
        {"batch_size": 0},
        {"valid_every": 0},
        {"valid_examples": 0},
        {"patience": 0},
        {"steps": 100, "valid_every": 60},
    ],
)
def test_values_that_make_no_sense_are_refused(values):
    with pytest.raises(InputError, match="probe"):
        ProbeConfig(**values)


def test_a_fit_shorter_than_a_validation_is_validated_at_its_end():
    assert config(steps=7, valid_every=60).valid_every == 7


@pytest.mark.parametrize("which", ["train", "valid"])
def test_a_split_of_which_no_target_is_known_is_refused(splits, which):
    train, valid = splits
    (train if which == "train" else valid).targets.fill_(-1)
    with pytest.raises(InputError, match=f"no {which} track has a target that is known"):
        fit(Classes(), train, valid, [0, 1], config(), CPU, [0])
