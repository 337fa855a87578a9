"""A fit: patience, validation, seeds, examples, and what it refuses."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from probe_problems import CLASSES, CPU, Classes, config, final, problem, trained

from musictf.errors import InputError
from musictf.features.extract import TrackFeatures
from musictf.features.readouts import trained_split
from musictf.probing import linear_probe as module
from musictf.probing.heads import HeadGrid, load_heads, save_heads
from musictf.probing.linear_probe import LinearProbe, ProbeConfig, fit
from musictf.results.names import READOUTS
from musictf.tasks.base import Task


class Scripted(Task):
    """A probe of four heads with given validation losses whose weights are the number of the validation."""

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
        script = torch.tensor([[float(loss), 10.0 - number], [1.0, 1.0]])
        probe._loss_sums, probe._num_targets = torch.where(probe.is_active[0, 0], script, 0.0)[None, None] * 7, 7
        probe.on_validation_epoch_end()
        assert bool(probe.is_active[0, 0, 0, 0]) is (stops is None or number < stops)
        assert bool(probe.is_active[0, 0, 0, 1])
        assert not probe.trainer.should_stop
    assert probe.best_weights[0, 0, 0][0][0].item() == best
    assert probe.best_weights[0, 0, 1][0][0].item() == len(losses)
    assert probe.best_weights[0, 0, 0][0][1].item() == probe.best_weights[0, 0, 1][0][1].item() == 1
    assert float(probe.best_loss[0, 0, 0, 0]) == losses[best - 1]


def test_validation_loss_does_not_depend_on_how_it_is_batched(splits, probes, monkeypatch):
    trained(*splits, config())
    monkeypatch.setattr(module, "_VALID_BATCH", 77)
    trained(*splits, config())
    torch.testing.assert_close(probes[0].best_loss, probes[1].best_loss, rtol=1e-5, atol=1e-6)


class Masked(Classes):
    """Examples of class 0 are not known: the loss is a mean over the others, and `weight` is their number."""

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
    sampler = module._EvenlySpaced(num_examples, config(valid_examples=bound))
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
    fits = []
    for gib in (8.0, 0.0):
        splits = [trained_split(Tokens(), some, [1.0] * len(some), READOUTS, gib) for some in tracks]
        fits.append(fit(Tokens(), *splits, [0, 1], config(steps=20, valid_every=10), CPU, [0, 1]))
    memory, disk = fits
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
        assert head.selection["loss"] < 1.2  # better than chance, log(4) = 1.39


def test_every_example_comes_once_before_any_comes_twice():
    batches = iter(module._ShuffledBatches(10, 3, seeds=[0]))
    first, second = ([next(batches)[0] for _ in range(3)] for _ in range(2))
    for epoch in (first, second):
        assert len(set(torch.cat(epoch).tolist())) == 9
    assert not torch.equal(torch.cat(first), torch.cat(second))


def test_each_seed_has_an_order_of_its_own_wherever_it_stands():
    both, one = iter(module._ShuffledBatches(100, 30, seeds=[3, 8])), iter(module._ShuffledBatches(100, 30, seeds=[8]))
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
