"""Whole tracks as batches of overlapping excerpts, read ahead.

Excerpts overlap and start on the token grid, so the tokens of neighbouring excerpts fall on the same times. A batch
holds excerpts of several tracks. Audio is read by a thread, a stretch of some excerpts at a time: memory grows with
neither the length of a track nor their number.
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
from musictf.models.backbone import Backbone

_STRETCH = 8  # excerpts that are read from a file at once
_READ_AHEAD = 4  # stretches


class OverlapAverage:
    """Rows of overlapping excerpts as one series: averaged where they meet, those near an edge counting less."""

    def __init__(self) -> None:
        self._first = 0  # token that the pending ones begin with
        self._total = self._weight = torch.zeros(0)

    def add(self, first: int, rows: Tensor) -> Tensor:
        """Take the next excerpt, and give the rows that no later one can change.

        Args:
            first: Its first token; not smaller than that of the one before.
            rows: (T, ...).

        Returns:
            Rows of the tokens before ``first`` that were not given yet, (n, ...).
        """
        ready = self._give(first - self._first)
        missing = len(rows) - len(self._total)
        self._total = torch.cat([self._total.reshape(-1, *rows.shape[1:]), rows.new_zeros(missing, *rows.shape[1:])])
        self._weight = torch.cat([self._weight, torch.zeros(missing)])
        taper = edge_taper(len(rows))
        self._total += taper.reshape(-1, *[1] * (rows.dim() - 1)) * rows
        self._weight += taper
        return ready

    def rest(self) -> Tensor:
        """The rows that are left when no excerpt follows, (n, ...)."""
        return self._give(len(self._total))

    def _give(self, number: int) -> Tensor:
        total, weight = self._total[:number], self._weight[:number]
        self._total, self._weight, self._first = self._total[number:], self._weight[number:], self._first + number
        return total / weight.reshape(-1, *[1] * (total.dim() - 1))


@dataclass
class ExcerptPlan:
    """A track and where its excerpts of ``length`` start, in samples at the backbone's rate."""

    path: Path  # of the entry
    audio: Path
    num_samples: int
    length: int
    starts: list[int]


Excerpt = tuple[ExcerptPlan, int, Tensor]  # a track, the start of an excerpt and its waveform (N,)


def excerpt_batches(
    backbone: Backbone,
    missing: dict[Path, Path],
    excerpt_hop: int,
    batch_size: int,
    advance: Callable[[], None] = lambda: None,
) -> Iterator[list[Excerpt]]:
    """Excerpts of tracks whose entries the store lacks, in batches of neighbours.

    Args:
        backbone: What the excerpts are for: their rate, length and grid.
        missing: Audio files by their entries.
        excerpt_hop: Tokens between excerpts.
        batch_size: Excerpts in a batch.
        advance: Called for a track that another process has finished meanwhile.

    Raises:
        InputError: a track is too short for one token, or the hop leaves gaps.
    """
    stretches = _read_ahead(_stretches(backbone, _own_start(missing), excerpt_hop, advance))
    return _batches(stretches, batch_size, backbone.num_samples)


def stacked(waveforms: Sequence[Tensor], longest: int, batch_size: int) -> Tensor:
    """Excerpts of one length as a batch, (batch_size, N); those of a track shorter than an excerpt as they are."""
    batch = torch.stack(list(waveforms))
    if batch.shape[1] == longest:
        # Always the same size: a product of another shape may round in another way.
        batch = F.pad(batch, (0, 0, 0, batch_size - len(batch)))
    return batch


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


def _batches(stretches: Iterable[list[Excerpt]], size: int, longest: int) -> Iterator[list[Excerpt]]:
    """Whole batches across tracks; a track shorter than an excerpt goes alone, for its length is its own."""
    waiting: list[Excerpt] = []
    for excerpts in stretches:
        if excerpts[0][0].length < longest:
            yield excerpts
            continue
        waiting += excerpts
        while len(waiting) >= size:
            yield waiting[:size]
            waiting = waiting[size:]
    if waiting:
        yield waiting


def _stretches(
    backbone: Backbone, missing: dict[Path, Path], excerpt_hop: int, advance: Callable[[], None]
) -> Iterator[list[Excerpt]]:
    """Excerpts of track after track, some neighbouring ones read at once."""
    front_end = backbone.front_end.config
    for path, audio in missing.items():
        if read_entry(path) is not None:  # somebody else was faster
            advance()
            continue
        cut = _excerpt_plan(backbone, path, audio, excerpt_hop)
        for first in range(0, len(cut.starts), _STRETCH):
            starts = cut.starts[first : first + _STRETCH]
            waveform = torch.zeros(starts[-1] + cut.length - starts[0])
            present = min(len(waveform), cut.num_samples - starts[0])
            read = read_excerpt(audio, starts[0], present, front_end.sample_rate, front_end.normalise)
            # The last excerpt may lack a part of one hop: zeros, whose tokens are dropped later.
            waveform[:present] = torch.from_numpy(read)
            yield [(cut, start, waveform[start - starts[0] :][: cut.length]) for start in starts]


def _excerpt_plan(backbone: Backbone, path: Path, audio: Path, excerpt_hop: int) -> ExcerptPlan:
    front_end = backbone.front_end.config
    num_samples = audio_info(audio).num_samples(backbone.sample_rate)
    if num_samples < front_end.n_fft:
        raise InputError(f"{audio}: lasts {num_samples / backbone.sample_rate:.3f} s, too short for one window")
    hop = excerpt_hop * front_end.hop_length
    if hop > backbone.num_samples:
        raise InputError(
            f"features.excerpt_hop={excerpt_hop} tokens leaves gaps between excerpts of "
            f"{backbone.num_samples // front_end.hop_length}; make it smaller"
        )
    starts = excerpt_starts(num_samples, backbone.num_samples, hop, front_end.hop_length)
    return ExcerptPlan(path, audio, num_samples, min(backbone.num_samples, num_samples), starts)


def _read_ahead(items: Iterator[list[Excerpt]]) -> Iterator[list[Excerpt]]:
    """The same items, the next few made by a thread meanwhile."""
    with ThreadPoolExecutor(1) as reader:
        ahead = deque(reader.submit(next, items, None) for _ in range(_READ_AHEAD))
        while (item := ahead.popleft().result()) is not None:
            ahead.append(reader.submit(next, items, None))
            yield item


def _own_start(missing: dict[Path, Path]) -> dict[Path, Path]:
    """The same entries from another one on: ranks and processes that work side by side share the work."""
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    turn = rank() * len(missing) // ranks if ranks > 1 else os.getpid() % len(missing)
    entries = list(missing.items())
    return dict(entries[turn:] + entries[:turn])
