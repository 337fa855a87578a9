"""Whole tracks as batches of overlapping excerpts, read ahead.

Excerpts overlap and start on the token grid, so the tokens of neighbouring excerpts fall on the same times. A batch
holds excerpts of several tracks. A thread reads a few excerpts of a file at a time: memory grows with neither the
length of a track nor the number of tracks.

Shapes:  N audio samples   T tokens of an excerpt
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from musictf.audio.io import audio_info, read_excerpt
from musictf.distributed import rank
from musictf.errors import InputError
from musictf.features.store import read_entry
from musictf.models.encoder import Encoder

_EXCERPTS_PER_READ = 8  # excerpts read from a file at once
_READ_AHEAD = 4  # reads


class OverlapAverage:
    """Joins rows of overlapping excerpts into one series: a weighted mean, with less weight near excerpt edges."""

    def __init__(self) -> None:
        self._first = 0  # token that the pending rows begin with
        self._total = self._weight = torch.zeros(0)

    def add(self, first: int, rows: Tensor) -> Tensor:
        """Add the next excerpt, and return the rows that no later excerpt can change.

        Args:
            first: Its first token; not smaller than that of the excerpt before.
            rows: (T, ...).

        Returns:
            Rows of the tokens before ``first`` that were not returned yet, (n, ...).
        """
        ready = self._pop(first - self._first)
        missing = len(rows) - len(self._total)
        self._total = torch.cat([self._total.reshape(-1, *rows.shape[1:]), rows.new_zeros(missing, *rows.shape[1:])])
        self._weight = torch.cat([self._weight, torch.zeros(missing)])
        taper = edge_taper(len(rows))
        self._total += taper.reshape(-1, *[1] * (rows.dim() - 1)) * rows
        self._weight += taper
        return ready

    def rest(self) -> Tensor:
        """The remaining rows after the last excerpt, (n, ...)."""
        return self._pop(len(self._total))

    def _pop(self, number: int) -> Tensor:
        total, weight = self._total[:number], self._weight[:number]
        self._total, self._weight, self._first = self._total[number:], self._weight[number:], self._first + number
        return total / weight.reshape(-1, *[1] * (total.dim() - 1))


@dataclass
class ExcerptPlan:
    """A track and the excerpts it is cut into; positions in samples at the encoder's rate.

    Attributes:
        entry: Where the store keeps what is computed from it.
        audio: Its audio file.
        num_samples: Its length.
        length: Length of each excerpt.
        starts: First sample of each excerpt.
    """

    entry: Path
    audio: Path
    num_samples: int
    length: int
    starts: list[int]


Excerpt = tuple[ExcerptPlan, int, Tensor]  # plan of its track, first sample, waveform (N,)


def excerpt_plan(encoder: Encoder, entry: Path, audio: Path, excerpt_hop: int) -> ExcerptPlan:
    """Cut a track into overlapping excerpts that cover it.

    Args:
        encoder: Its longest excerpt and its token grid are used.
        entry: Where the store keeps what is computed from the track.
        audio: The track's audio file.
        excerpt_hop: Tokens between the starts of neighbouring excerpts.

    Raises:
        InputError: the track is too short for one token, or the hop leaves gaps between excerpts.
    """
    grid = encoder.grid
    num_samples = audio_info(audio).num_samples(grid.sample_rate)
    if num_samples < encoder.min_samples:
        raise InputError(f"{audio}: lasts {num_samples / grid.sample_rate:.3f} s, too short for one window")
    hop = excerpt_hop * grid.hop_length
    if hop > encoder.num_samples:
        raise InputError(
            f"features.excerpt_hop={excerpt_hop} tokens leaves gaps between excerpts of "
            f"{encoder.num_samples // grid.hop_length}; make it smaller"
        )
    starts = excerpt_starts(num_samples, encoder.num_samples, hop, grid.hop_length)
    return ExcerptPlan(entry, audio, num_samples, min(encoder.num_samples, num_samples), starts)


def excerpt_starts(num_samples: int, excerpt: int, hop: int, grid: int) -> list[int]:
    """First samples of overlapping excerpts that cover a track, all on the token grid.

    Args:
        num_samples: Length of the track.
        excerpt: Length of an excerpt.
        hop: Distance of excerpts, a multiple of ``grid``.
        grid: Samples between tokens.

    Example:
        >>> excerpt_starts(num_samples=100, excerpt=40, hop=20, grid=10)
        [0, 20, 40, 60]
    """
    last = max(0, -(-(num_samples - excerpt) // grid) * grid)
    return [*range(0, last, hop), last]


def edge_taper(num_tokens: int) -> Tensor:
    """Weights of an excerpt's tokens where excerpts overlap, (num_tokens,): a triangle, above 0 at the edges."""
    ramp = torch.arange(1, num_tokens + 1, dtype=torch.float32)
    return torch.minimum(ramp, ramp.flip(0))


def excerpt_batches(
    encoder: Encoder,
    missing: dict[Path, Path],
    excerpt_hop: int,
    batch_size: int,
    advance: Callable[[], None] = lambda: None,
) -> Iterator[list[Excerpt]]:
    """Excerpts of the tracks whose entries the store lacks, in batches of neighbours.

    Args:
        encoder: Its sample rate, excerpt length and token grid are used.
        missing: Audio files by their entries.
        excerpt_hop: Tokens between excerpts.
        batch_size: Excerpts in a batch.
        advance: Called for a track that another process has finished meanwhile.

    Raises:
        InputError: a track is too short for one token, or the hop leaves gaps.
    """
    parts = _read_ahead(_read_in_parts(encoder, _rotated(missing), excerpt_hop, advance))
    waiting: list[Excerpt] = []
    for excerpts in parts:
        # A track shorter than an excerpt goes alone: a batch has one length.
        if excerpts[0][0].length < encoder.num_samples:
            yield excerpts
            continue
        waiting += excerpts
        while len(waiting) >= batch_size:
            yield waiting[:batch_size]
            waiting = waiting[batch_size:]
    if waiting:
        yield waiting


def stacked(waveforms: Sequence[Tensor], longest: int, batch_size: int) -> Tensor:
    """Excerpts of one length as a batch, (batch_size, N); those shorter than ``longest`` without padding, (B, N)."""
    batch = torch.stack(list(waveforms))
    if batch.shape[1] == longest:
        # Always the same size: a matrix product of another shape may round differently.
        batch = F.pad(batch, (0, 0, 0, batch_size - len(batch)))
    return batch


def _read_in_parts(
    encoder: Encoder, missing: dict[Path, Path], excerpt_hop: int, advance: Callable[[], None]
) -> Iterator[list[Excerpt]]:
    """Excerpts track by track, a few neighbouring ones read from the file at once."""
    for entry, audio in missing.items():
        if read_entry(entry) is not None:  # another process has computed it meanwhile
            advance()
            continue
        plan = excerpt_plan(encoder, entry, audio, excerpt_hop)
        for first in range(0, len(plan.starts), _EXCERPTS_PER_READ):
            starts = plan.starts[first : first + _EXCERPTS_PER_READ]
            waveform = torch.zeros(starts[-1] + plan.length - starts[0])
            present = min(len(waveform), plan.num_samples - starts[0])
            samples = read_excerpt(audio, starts[0], present, encoder.grid.sample_rate, encoder.normalise)
            # The last excerpt may lack a part of one hop: zeros, whose tokens are dropped later.
            waveform[:present] = torch.from_numpy(samples)
            yield [(plan, start, waveform[start - starts[0] :][: plan.length]) for start in starts]


def _read_ahead(items: Iterable[list[Excerpt]]) -> Iterator[list[Excerpt]]:
    """The same items; a thread makes the next few while the current one is used."""
    source = iter(items)
    with ThreadPoolExecutor(1) as reader:
        ahead = deque(reader.submit(next, source, None) for _ in range(_READ_AHEAD))
        while (item := ahead.popleft().result()) is not None:
            ahead.append(reader.submit(next, source, None))
            yield item


def _rotated(missing: dict[Path, Path]) -> dict[Path, Path]:
    """The same entries, starting at another one: ranks and parallel processes then share the work."""
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    first = rank() * len(missing) // ranks if ranks > 1 else os.getpid() % len(missing)
    entries = list(missing.items())
    return dict(entries[first:] + entries[:first])
