"""Heads: training statistics inside, many at once, and files that can be used alone."""

import itertools
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from musictf.probing.heads import Head, HeadGrid, finite_or_raise, load_heads, save_heads, statistics


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


def test_a_constant_feature_is_not_amplified():
    rows = torch.randn(100, 2, 4)
    rows[:, 1, 2] = 7.0
    mean, scale = statistics(rows)
    assert scale[1, 2] == 1
    standard = (rows - mean) / scale
    assert standard.abs().max() < 10
    assert (standard[:, 1, 2] == 0).all()


def grid_of(num_settings=3, seeds=(0,), num_readouts=2, num_layers=2, dim=5, num_outputs=4):
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(num_readouts, num_layers, dim, generator=generator)
    scale = 1 + torch.rand(num_readouts, num_layers, dim, generator=generator)
    return HeadGrid(num_settings, mean, scale, num_outputs, seeds)


@pytest.mark.parametrize("settings", [[0, 1, 2], [2], [0, 2], [2, 1]])
def test_a_grid_is_one_affine_map_a_seed_readout_layer_and_setting(settings):
    grid = grid_of(seeds=(3, 4))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in grid.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    features = torch.randn(7, 2, 5, generator=generator).half()
    for seed, readout in itertools.product(range(2), range(2)):
        logits = grid(features, seed, readout, settings)
        assert logits.shape == (2 * len(settings), 7, 4)
        for layer, (place, setting) in itertools.product(range(2), enumerate(settings)):
            standard = (features.float()[:, layer] - grid.mean[readout, layer]) / grid.scale[readout, layer]
            weight, bias = grid.parts(seed, readout, setting)
            expected = standard @ weight[layer] + bias[layer]
            torch.testing.assert_close(logits[layer * len(settings) + place], expected, rtol=1e-5, atol=1e-5)


def test_every_head_has_parameters_of_its_own():
    grid = grid_of(seeds=(3, 4))
    cells = list(itertools.product(range(2), range(2), range(3)))
    parts = [part for cell in cells for part in grid.parts(*cell)]
    assert len({id(part) for part in parts}) == len(parts) == len(list(grid.parameters()))
    assert grid.shape == (2, 2, 2, 3)
    assert sum(part.numel() for part in parts) == 2 * 2 * 2 * 3 * (5 + 1) * 4


def test_all_heads_of_a_seed_start_from_the_same_weights_wherever_it_stands():
    torch.manual_seed(5)
    grid, same = grid_of(seeds=(7, 8)), grid_of(1, seeds=(8,), num_readouts=1, num_layers=3)
    starts = [grid.parts(seed, 0, 0)[0][0] for seed in (0, 1)]
    for seed, readout, setting in itertools.product(range(2), range(2), range(3)):
        weight, bias = grid.parts(seed, readout, setting)
        assert all(torch.equal(layer, starts[seed]) for layer in weight)
        assert (bias == 0).all()
    assert not torch.equal(*starts)
    assert torch.equal(same.parts(0, 0, 0)[0][2], starts[1])


def test_a_head_reads_its_layer_with_its_own_statistics():
    rows = torch.randn(6, 3, 4).half()
    head = Head(11, 2, torch.randn(4, 2), torch.randn(2), torch.randn(4), 1 + torch.rand(4), {})
    expected = ((rows[:, 2].float() - head.mean) / head.scale) @ head.weight + head.bias
    values = head.logits(rows)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_a_file_of_heads_holds_all_that_using_them_needs(tmp_path):
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


def some_heads(layers=(0, 5, 11)):
    generator = torch.Generator().manual_seed(0)
    return [
        Head(
            layer,
            column,
            torch.randn(4, 2, generator=generator),
            torch.randn(2, generator=generator),
            torch.randn(4, generator=generator),
            1 + torch.rand(4, generator=generator),
            {"split": "valid", "loss": 0.5, "lr": 0.1 * layer, "weight_decay": 1e-4},
        )
        for column, layer in enumerate(layers)
    ]


def test_heads_come_back_from_their_file_as_they_were(tmp_path):
    heads = some_heads()
    save_heads(heads[::-1], tmp_path / "h.safetensors", {"task": "tagging"})
    rows = torch.randn(6, 3, 4).half()
    loaded = load_heads(tmp_path / "h.safetensors")
    assert [head.layer for head in loaded] == [0, 5, 11]
    for head, saved in zip(loaded, heads, strict=True):
        assert (head.column, head.selection) == (saved.column, saved.selection)
        np.testing.assert_array_equal(head.logits(rows), saved.logits(rows))


def test_heads_stay_when_their_file_is_deleted_or_written_again(tmp_path):
    path = tmp_path / "h.safetensors"
    heads = some_heads()
    save_heads(heads, path, {})
    loaded = load_heads(path)
    save_heads([Head(0, 0, torch.zeros(4, 2), torch.zeros(2), torch.zeros(4), torch.ones(4), {})], path, {})
    path.unlink()
    assert all(torch.equal(head.weight, saved.weight) for head, saved in zip(loaded, heads, strict=True))


@pytest.mark.parametrize("keep", [None, 0, 5, 0.5, 0.99])
def test_where_there_is_no_whole_file_there_are_no_heads(tmp_path, keep):
    path = tmp_path / "h.safetensors"
    if keep is not None:
        save_heads(some_heads(), path, {})
        content = path.read_bytes()
        path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    assert load_heads(path) == []


def test_saving_leaves_no_other_file(tmp_path):
    save_heads(some_heads(), tmp_path / "h.safetensors", {})
    assert [path.name for path in tmp_path.iterdir()] == ["h.safetensors"]


def test_a_head_without_a_single_finite_loss_is_an_error_and_one_broken_setting_is_not():
    nan, inf = float("nan"), float("inf")
    finite_or_raise(torch.tensor([[[[1.0, nan], [inf, 2.0]]]]), "here")
    with pytest.raises(FloatingPointError, match="here: every validation loss of 1 of 4 heads"):
        finite_or_raise(torch.tensor([[[[1.0, nan], [2.0, inf]]], [[[nan, inf], [1.0, 1.0]]]]), "here")
