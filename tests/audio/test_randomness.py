"""Random numbers of a seed: the distribution by outside tests, the values fixed, the batch without influence."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from musictf.audio.randomness import normal, splitmix64, uniform

EXTREME = torch.tensor([0, 1, -1, 2**63 - 1, -(2**63), 2**62 + 12345])
MANY = torch.arange(20_000)


def correlation(first, second):
    return abs(float(np.corrcoef(first, second)[0, 1]))


def test_the_hash_is_the_published_one():
    # first five outputs of SplitMix64 from state 1234567, as its test vectors give them
    states = [(1234567 + step * 0x9E3779B97F4A7C15) % 2**64 for step in range(1, 6)]
    found = splitmix64(torch.from_numpy(np.array(states, dtype=np.uint64).view(np.int64)))
    assert found.numpy().view(np.uint64).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_the_values_stay_what_they_are():
    # another value here is another run for every seed that was ever reported
    seeds = torch.tensor([0, 1, -1, 2**62 + 12345])
    assert (uniform(seeds, 0, 3) * 2**24).tolist() == [
        [5671579, 4515256, 4556131],
        [7260255, 7140922, 9054137],
        [6901848, 2903665, 1744077],
        [11146267, 4513406, 9320505],
    ]
    assert (uniform(seeds, 7, 2) * 2**24).tolist() == [
        [5295983, 911050],
        [13325670, 2365638],
        [8212665, 9073741],
        [5977204, 4815977],
    ]
    np.testing.assert_allclose(
        normal(seeds[:2], 3, 3),
        [[0.11761038, 0.28044596, 0.40325430], [-0.11416122, 0.73643452, 3.21743131]],
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    "draws",
    [
        uniform(torch.tensor([3]), 0, 100_000)[0],
        uniform(MANY, 0, 1)[:, 0],
        uniform(MANY * 2**32, 5, 1)[:, 0],
        uniform(MANY - 10_000, 1, 5).flatten(),
        torch.cat([uniform(torch.tensor([9]), stream, 4)[0] for stream in range(2000)]),
    ],
    ids=["one seed", "near seeds", "seeds that differ above", "around zero", "streams"],
)
def test_uniform_numbers_are_uniform(draws):
    assert draws.dtype == torch.float32
    assert draws.min() >= 0
    assert draws.max() < 1
    assert scipy.stats.kstest(draws.double(), "uniform").pvalue > 0.001


def test_normal_numbers_are_normal():
    draws = normal(torch.tensor([1, 2]), 4, 100_001)
    assert draws.shape == (2, 100_001)
    assert draws.dtype == torch.float32
    assert draws.abs().max() < 5.8
    for row in draws.double().numpy():
        assert scipy.stats.kstest(row, "norm").pvalue > 0.001
        # both of a pair come from one hash
        assert correlation(row[:-1:2], row[1::2]) < 0.02
        assert correlation(row[:-1:2] ** 2, row[1::2] ** 2) < 0.02
    assert scipy.stats.kstest(normal(MANY, 0, 1)[:, 0].double(), "norm").pvalue > 0.001


@pytest.mark.parametrize("draw", [uniform, normal])
def test_streams_seeds_and_numbers_have_nothing_in_common(draw):
    seeds = torch.tensor([0, 1, 2, 2**40, -1])
    rows = [row for stream in (0, 1, 2, 100) for row in draw(seeds, stream, 20_000).double().numpy()]
    correlations = np.corrcoef(rows) - np.eye(len(rows))
    assert np.abs(correlations).max() < 0.032  # 4.5 standard errors
    assert correlation(rows[0][:-1], rows[0][1:]) < 0.032


def test_near_seeds_do_not_share_later_numbers():
    # seeds that are steps of the generator apart would run through the same states, one behind the other
    step = 0x9E3779B97F4A7C15 - 2**64
    seeds = torch.cat([torch.arange(50), step * torch.arange(1, 50)])
    drawn = torch.stack([uniform(seeds, stream, 50) for stream in range(4)])
    # rare as chance has it: 19 600 numbers of 2**24
    assert drawn.unique().numel() > drawn.numel() - 40


@pytest.mark.parametrize("draw", [uniform, normal])
def test_a_row_knows_only_its_seed(draw):
    together = draw(EXTREME, 3, 33)
    assert torch.isfinite(together).all()
    order = torch.tensor([4, 2, 0, 5, 3, 1])
    assert torch.equal(draw(EXTREME[order], 3, 33), together[order])
    for row, seed in enumerate(EXTREME):
        assert torch.equal(draw(seed[None], 3, 33)[0], together[row])


@pytest.mark.parametrize("draw", [uniform, normal])
def test_a_longer_draw_begins_with_the_shorter(draw):
    longest = draw(EXTREME, 0, 10)
    for n in (0, 1, 2, 7):
        torch.testing.assert_close(draw(EXTREME, 0, n), longest[:, :n])


@pytest.mark.parametrize("draw", [uniform, normal])
def test_the_generators_of_torch_are_left_alone(draw):
    torch.manual_seed(1)
    first, state = draw(EXTREME, 0, 5), torch.get_rng_state()
    assert torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(1).get_state())
    torch.manual_seed(2)
    assert torch.equal(draw(EXTREME, 0, 5), first)
    assert not torch.equal(torch.get_rng_state(), state)
