"""Heads: training statistics inside, many at once, and files that can be used alone."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from musictf.probing.heads import Head, HeadGrid, finite_or_raise, save_heads, statistics


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_statistics_are_those_of_numpy(dtype):
    rows = (3 + 2 * torch.randn(1000, 3, 8, generator=torch.Generator().manual_seed(0))).to(dtype)
    mean, scale = statistics(rows, block=64)
    exact = rows.double().numpy()
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(scale, exact.std(axis=0), rtol=1e-6)
    assert mean.dtype == scale.dtype == torch.float32


def test_statistics_survive_a_mean_far_from_0():
    rows = 3000 + 0.1 * torch.randn(5000, 1, 4, generator=torch.Generator().manual_seed(0))
    _, scale = statistics(rows)
    np.testing.assert_allclose(scale, rows.double().numpy().std(axis=0), rtol=1e-3)


def test_a_feature_that_never_changes_is_not_blown_up():
    rows = torch.randn(100, 2, 4)
    rows[:, 1, 2] = 7.0
    mean, scale = statistics(rows)
    assert scale[1, 2] == 1
    standard = (rows - mean) / scale
    assert standard.abs().max() < 10
    assert (standard[:, 1, 2] == 0).all()


def test_a_grid_is_one_affine_map_a_rate_and_layer():
    generator = torch.Generator().manual_seed(0)
    mean, scale = torch.randn(2, 5, generator=generator), 1 + torch.rand(2, 5, generator=generator)
    grid = HeadGrid(3, mean, scale, num_outputs=4, seed=0)
    with torch.no_grad():
        for parameter in grid.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    features = torch.randn(7, 2, 5, generator=generator)
    logits = grid(features.half())
    assert logits.shape == (6, 7, 4)
    for rate in range(3):
        for layer in range(2):
            standard = (features.half().float()[:, layer] - mean[layer]) / scale[layer]
            wanted = standard @ grid.weights[rate][layer] + grid.biases[rate][layer]
            torch.testing.assert_close(logits[rate * 2 + layer], wanted, rtol=1e-5, atol=1e-5)


def test_all_rates_start_from_the_same_weights_and_the_seed_says_which():
    mean, scale = torch.zeros(2, 5), torch.ones(2, 5)
    grid, same, other = (HeadGrid(3, mean, scale, 4, seed) for seed in (0, 0, 1))
    assert all(torch.equal(grid.weights[0], weight) for weight in (*grid.weights, same.weights[2]))
    assert not torch.equal(grid.weights[0], other.weights[0])


def test_a_head_reads_its_layer_with_its_own_statistics():
    rows = torch.randn(6, 3, 4).half()
    head = Head(11, 2, torch.randn(4, 2), torch.randn(2), torch.randn(4), 1 + torch.rand(4), {})
    wanted = ((rows[:, 2].float() - head.mean) / head.scale) @ head.weight + head.bias
    found = head.logits(rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-5, atol=1e-6)


def test_a_file_of_heads_says_all_that_is_needed_to_use_them(tmp_path):
    heads = [
        Head(layer, k, torch.randn(4, 2), torch.randn(2), torch.randn(4), torch.ones(4), {"lr": 0.1 * layer})
        for k, layer in enumerate((0, 5))
    ]
    save_heads(heads, tmp_path / "sub" / "h.safetensors", {"task": "tagging", "labels": ["a", "b"]})
    with safe_open(str(tmp_path / "sub" / "h.safetensors"), framework="pt") as file:
        about = json.loads(file.metadata()["musictf"])
        names = set(file.keys())
        for name in ("weight", "bias", "mean", "scale"):
            assert torch.equal(file.get_tensor(f"layer5.{name}"), getattr(heads[1], name))
    assert names == {f"layer{layer}.{name}" for layer in (0, 5) for name in ("weight", "bias", "mean", "scale")}
    assert about == {"task": "tagging", "labels": ["a", "b"], "selections": {"0": {"lr": 0.0}, "5": {"lr": 0.5}}}


def test_a_layer_without_a_single_finite_loss_is_an_error_and_one_broken_rate_is_not():
    nan, inf = float("nan"), float("inf")
    finite_or_raise(torch.tensor([[1.0, nan], [inf, 2.0]]), "here")
    with pytest.raises(FloatingPointError, match="here"):
        finite_or_raise(torch.tensor([[1.0, nan], [2.0, inf]]), "here")
