"""NT-Xent: lightly's values, a slow loop's, and the closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from lightly.loss import NTXentLoss

from musictf.objectives.ntxent import nt_xent

GRID = [(n, dim, temperature) for n in (2, 3, 8) for dim in (2, 16) for temperature in (0.05, 0.1, 0.5, 1.0)]


def views(num_pairs, dim=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_pairs, dim, generator=generator), torch.randn(num_pairs, dim, generator=generator)


def slow_loss(first, second, temperature, tracks=None):
    """Equation 1 of the SimCLR paper, view by view in float64, less the candidates of the view's own track."""
    both = np.concatenate([np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)])
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    num_pairs = len(both) // 2
    tracks = list(range(num_pairs)) if tracks is None else list(tracks)
    losses = []
    for i in range(2 * num_pairs):
        positive = (i + num_pairs) % (2 * num_pairs)
        others = [
            j
            for j in range(2 * num_pairs)
            if j == positive or (j != i and tracks[j % num_pairs] != tracks[i % num_pairs])
        ]
        scores = {j: both[i] @ both[j] / temperature for j in others}
        losses.append(math.log(sum(math.exp(score) for score in scores.values())) - scores[positive])
    return float(np.mean(losses))


@pytest.mark.parametrize(("num_pairs", "dim", "temperature"), GRID)
def test_the_loss_is_that_of_lightly_and_of_a_slow_loop(num_pairs, dim, temperature):
    first, second = views(num_pairs, dim)
    loss, _ = nt_xent(first, second, temperature=temperature)
    assert loss.item() == pytest.approx(NTXentLoss(temperature=temperature)(first, second).item(), abs=1e-5)
    assert loss.item() == pytest.approx(slow_loss(first, second, temperature), abs=1e-5)


@pytest.mark.parametrize("num_pairs", [2, 5, 32])
def test_identical_embeddings_leave_chance_among_all_others(num_pairs):
    same = torch.ones(num_pairs, 4)
    assert nt_xent(same, same)[0].item() == pytest.approx(math.log(2 * num_pairs - 1), abs=1e-5)


def test_positives_alone_in_their_direction_cost_what_the_formula_says():
    axes = torch.eye(6)
    loss, is_top1 = nt_xent(axes, axes, temperature=0.5)
    assert loss.item() == pytest.approx(math.log(1 + 10 * math.exp(-2)), abs=1e-6)
    assert is_top1.all()


def test_top1_says_which_views_have_their_positive_nearest():
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert nt_xent(first, torch.tensor([[1.0, 0.1], [0.1, 1.0]]))[1].tolist() == [True] * 4
    assert nt_xent(first, first.flip(0))[1].tolist() == [False] * 4
    # the second view of pair 1 is nearest to its positive for the positive, but itself nearer to pair 0
    assert nt_xent(first, torch.tensor([[1.0, 0.1], [0.5, 0.4]]))[1].tolist() == [True, True, True, False]


def test_order_of_views_does_not_matter():
    first, second = views(6)
    assert nt_xent(first, second)[0].item() == pytest.approx(nt_xent(second, first)[0].item(), abs=1e-6)


def test_order_of_pairs_does_not_matter():
    first, second = views(6)
    tracks, order = torch.tensor([0, 0, 1, 2, 1, 3]), torch.tensor([3, 1, 5, 0, 2, 4])
    straight = nt_xent(first, second, tracks=tracks)[0].item()
    assert nt_xent(first[order], second[order], tracks=tracks[order])[0].item() == pytest.approx(straight, abs=1e-6)


def test_only_directions_matter():
    first, second = views(6)
    assert nt_xent(100 * first, second / 100)[0].item() == pytest.approx(nt_xent(first, second)[0].item(), abs=1e-5)


@pytest.mark.parametrize("tracks", [[0, 1, 2, 3, 4], [0, 0, 1, 2, 2], [7, 3, 7, 3, 7]])
def test_pairs_of_one_track_are_not_each_others_negatives(tracks):
    first, second = views(5)
    loss, _ = nt_xent(first, second, temperature=0.2, tracks=torch.tensor(tracks))
    assert loss.item() == pytest.approx(slow_loss(first, second, 0.2, tracks), abs=1e-5)
    if len(set(tracks)) < 5:
        assert abs(loss.item() - slow_loss(first, second, 0.2)) > 1e-2


def test_the_mask_never_hides_the_positive():
    first, second = views(4)
    loss, is_top1 = nt_xent(first, second, tracks=torch.zeros(4, dtype=torch.long))
    assert loss.item() == 0.0  # one track only: the positive is the one candidate left
    assert is_top1.all()


@pytest.mark.parametrize("tracks", [None, [0, 1, 2, 0, 4, 1]])
def test_the_blocks_of_the_ranks_make_the_loss_of_the_whole_batch(tracks):
    first, second = views(6)
    tracks = None if tracks is None else torch.tensor(tracks)
    losses, is_top1 = [], []
    for rank in range(3):
        own = slice(2 * rank, 2 * rank + 2)
        loss, rank_is_top1 = nt_xent(
            first[own],
            second[own],
            tracks=None if tracks is None else tracks[own],
            all_first=first,
            all_second=second,
            all_tracks=tracks,
            rank=rank,
        )
        losses.append(loss)
        is_top1.append(rank_is_top1.reshape(2, 2))
    whole, whole_is_top1 = nt_xent(first, second, tracks=tracks)
    torch.testing.assert_close(torch.stack(losses).mean(), whole)
    assert torch.equal(torch.cat(is_top1, dim=1).flatten(), whole_is_top1)


def test_autocast_changes_nothing():
    first, second = views(8)
    expected = nt_xent(first, second)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nt_xent(first, second)[0]
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


@pytest.mark.parametrize("tracks", [None, [0, 1, 0, 2]])
def test_the_gradient_is_the_slope_of_the_slow_loop(tracks):
    first, second = (view.requires_grad_() for view in views(4, dim=3, seed=5))
    nt_xent(first, second, temperature=0.3, tracks=None if tracks is None else torch.tensor(tracks))[0].backward()
    step = 1e-6
    point = np.stack([first.detach().double().numpy(), second.detach().double().numpy()])
    slope = np.zeros_like(point)
    for index in np.ndindex(point.shape):
        ahead, behind = point.copy(), point.copy()
        ahead[index] += step
        behind[index] -= step
        slope[index] = (slow_loss(*ahead, 0.3, tracks) - slow_loss(*behind, 0.3, tracks)) / (2 * step)
    assert np.abs(slope).max() > 0.1
    np.testing.assert_allclose(np.stack([first.grad, second.grad]), slope, rtol=0, atol=1e-5)
