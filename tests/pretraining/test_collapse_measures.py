"""The meters at the ends of their scales, and against naive formulas."""

from __future__ import annotations

import math

import pytest
import torch

from musictf.pretraining.collapse_measures import alignment, effective_rank, positive_negative_gap, uniformity


@pytest.fixture
def embeddings():
    return torch.randn(7, 5, generator=torch.Generator().manual_seed(0))


def test_alignment_is_0_for_equal_and_4_for_opposite_directions(embeddings):
    assert alignment(embeddings, 3 * embeddings).item() == pytest.approx(0, abs=1e-6)
    assert alignment(embeddings, -embeddings).item() == pytest.approx(4, abs=1e-5)


def test_alignment_is_two_less_twice_the_cosine(embeddings):
    other = embeddings.flip(0)
    cosine = torch.nn.functional.cosine_similarity(embeddings, other).mean()
    assert alignment(embeddings, other).item() == pytest.approx((2 - 2 * cosine).item(), abs=1e-5)


def test_uniformity_is_the_log_of_the_mean_potential_of_all_pairs(embeddings):
    points = [[value / math.dist(point, [0] * 5) for value in point] for point in embeddings.tolist()]
    potentials = [math.exp(-2 * math.dist(points[i], points[j]) ** 2) for i in range(7) for j in range(i)]
    assert uniformity(embeddings).item() == pytest.approx(math.log(sum(potentials) / 21), abs=1e-5)
    assert uniformity(torch.ones(4, 3)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_effective_rank_counts_orthogonal_directions(rank):
    axes = torch.eye(8)[:rank].repeat(3, 1)  # each direction equally often
    assert effective_rank(axes).item() == pytest.approx(rank, abs=1e-4)


def test_effective_rank_of_a_collapsed_batch_is_1(embeddings):
    assert effective_rank(embeddings[:1].repeat(6, 1)).item() == pytest.approx(1, abs=1e-3)
    assert 1 < effective_rank(embeddings).item() < 5


def test_the_gap_is_the_cosine_of_partners_less_that_of_everyone_else(embeddings):
    first, second = 3 * embeddings[:4], embeddings[3:] + 0.5
    views = torch.cat([first, second])
    cosines = torch.nn.functional.cosine_similarity(views[:, None], views[None], dim=-1)
    partners = [cosines[k, (k + 4) % 8].item() for k in range(8)]
    others = [cosines[k, j].item() for k in range(8) for j in range(8) if j not in (k, (k + 4) % 8)]
    expected = sum(partners) / 8 - sum(others) / 48
    assert positive_negative_gap(first, second).item() == pytest.approx(expected, abs=1e-6)


def test_the_gap_is_1_for_orthogonal_pairs_and_0_after_a_collapse(embeddings):
    assert positive_negative_gap(torch.eye(6), 2 * torch.eye(6)).item() == pytest.approx(1, abs=1e-6)
    assert positive_negative_gap(embeddings[:1].repeat(6, 1), embeddings[:1].repeat(6, 1)).item() == pytest.approx(
        0, abs=1e-5
    )
    assert positive_negative_gap(embeddings[:1], embeddings[1:2]).isnan()


def test_the_meters_survive_what_they_are_there_to_show():
    broken = torch.full((4, 3), float("nan"))
    assert effective_rank(broken).isnan()
    assert alignment(broken, broken).isnan()
