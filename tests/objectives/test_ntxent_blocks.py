"""NT-Xent in blocks: the same loss and gradients at every block size and on any number of ranks, in bounded memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from musictf.objectives.ntxent import nt_xent

NUM_PAIRS, DIM, TEMPERATURE = 12, 8, 0.1
TRACKS = torch.tensor([0, 1, 2, 0, 3, 4, 5, 1, 6, 7, 0, 8])
TOLERANCE = 1e-6


def whole(first, second, tracks=None):
    """The loss from one matrix of all similarities, by autograd."""
    views = F.normalize(torch.cat([first, second]), dim=-1)
    num_views = len(views)
    positive = torch.arange(num_views).roll(num_views // 2)
    hidden = torch.eye(num_views, dtype=torch.bool)
    if tracks is not None:
        same = tracks.repeat(2)[:, None] == tracks.repeat(2)[None]
        hidden |= same.scatter(1, positive[:, None], False)
    return F.cross_entropy((views @ views.T / TEMPERATURE).masked_fill(hidden, -torch.inf), positive)


def views(dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(NUM_PAIRS, DIM, generator=generator).to(dtype).requires_grad_() for _ in range(2)]


def slopes(loss, inputs):
    return torch.cat(torch.autograd.grad(loss, inputs))


@pytest.fixture(params=[None, TRACKS], ids=["all negatives", "tracks apart"])
def tracks(request):
    return request.param


@pytest.mark.parametrize("block_rows", [1, 2, 5, 7, 12, 23, 24, 100, None])
def test_loss_and_gradient_are_those_of_the_whole_matrix(block_rows, tracks):
    exact = views(torch.float64)
    expected = whole(*exact, tracks)
    inputs = views()
    loss, _ = nt_xent(*inputs, temperature=TEMPERATURE, tracks=tracks, block_rows=block_rows)
    assert loss.item() == pytest.approx(expected.item(), abs=TOLERANCE)
    distance = (slopes(loss, inputs) - slopes(expected, exact)).abs().max()
    assert distance < TOLERANCE
    assert slopes(whole(*exact, tracks), exact).abs().max() > 1e-2


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("block_rows", [1, 4, 100])
def test_the_mean_over_ranks_is_the_whole_batch(world_size, block_rows, tracks):
    exact = views(torch.float64)
    expected = whole(*exact, tracks)
    inputs = views()
    own = NUM_PAIRS // world_size
    losses = [
        nt_xent(
            inputs[0][rank * own : (rank + 1) * own],
            inputs[1][rank * own : (rank + 1) * own],
            temperature=TEMPERATURE,
            tracks=None if tracks is None else tracks[rank * own : (rank + 1) * own],
            all_first=inputs[0],
            all_second=inputs[1],
            all_tracks=tracks,
            rank=rank,
            block_rows=block_rows,
        )[0]
        for rank in range(world_size)
    ]
    mean = torch.stack(losses).mean()
    assert mean.item() == pytest.approx(expected.item(), abs=TOLERANCE)
    assert (slopes(mean, inputs) - slopes(expected, exact)).abs().max() < TOLERANCE


@pytest.mark.parametrize("block_rows", [1, 5, 24])
def test_top1_does_not_depend_on_blocks(block_rows):
    first, noise = views()
    inputs = [first, first + noise]  # near enough that some find their positive, and some do not
    _, expected = nt_xent(*inputs, block_rows=1000)
    assert torch.equal(nt_xent(*inputs, block_rows=block_rows)[1], expected)
    assert 0 < expected.sum() < len(expected)


def test_identical_embeddings_have_no_positive_on_top():
    same = torch.ones(6, 4)
    assert nt_xent(same, same)[1].float().mean() < 0.5  # a tie is no hit


def test_the_incoming_gradient_scales_the_gradient():
    inputs = views()
    once = slopes(nt_xent(*inputs)[0], inputs)
    torch.testing.assert_close(slopes(3 * nt_xent(*inputs)[0], inputs), 3 * once)


def test_one_side_may_need_no_gradient():
    first, second = views()
    whole_slope = slopes(nt_xent(first, second)[0], [first, second])[:NUM_PAIRS]
    loss, _ = nt_xent(first, second.detach())
    torch.testing.assert_close(torch.autograd.grad(loss, first)[0], whole_slope)
    assert not nt_xent(first.detach(), second.detach())[0].requires_grad


MEMORY = """
import torch
from musictf.objectives.ntxent import nt_xent
from musictf.pretraining.speed import peak_memory
def views(n): return [torch.randn(n, 16, requires_grad=True) for _ in range(2)]
nt_xent(*views(64))[0].backward()
before = peak_memory(torch.device("cpu"))
nt_xent(*views(4096))[0].backward()
print(peak_memory(torch.device("cpu")) - before)
"""


def test_memory_is_that_of_a_block():
    grown = int(subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True).stdout)
    assert grown < 128 << 20  # one matrix of 8192 x 8192 similarities alone is 256 MiB
