"""Which track an example comes from: random permutations of the tracks, grouped batches, weighted corpora.

Conventions: examples are numbered over the whole run. The track at a position of that sequence is a function of the
position and the seed, so the number of workers, the number of ranks and restarts do not change it. Unless corpora are
weighted, every track is drawn once before any track is drawn a second time.

Notation: a *position* is an index into the endless sequence of drawn tracks; an *epoch* is one pass over all tracks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from musictf.datasets.base import AnnotationFile, Track
from musictf.errors import InputError

Indices = npt.NDArray[np.int64]

_CYCLE = 1000  # positions over which the shares of the corpora hold exactly
# Streams of randomness. Examples use [seed, example], so these lie far above the number of any epoch.
_EPOCH, _PATTERN, _CORPUS = 1 << 20, 1 << 21, 1 << 22


class TrackSampler:
    """Index of the track at a position; every epoch has a random order of its own.

    Args:
        num_tracks: Number of tracks.
        seed: Source of all orders, together with ``stream``.
        groups: Indices of the tracks of each group, which stay next to each other; empty: no groups.
        run_length: Largest number of tracks of one group in a row, usually those of a batch.
        stream: Stream of randomness; distinguishes several samplers of one seed.
    """

    def __init__(
        self,
        num_tracks: int,
        seed: int,
        groups: Sequence[Indices] = (),
        run_length: int = 1,
        stream: int = _EPOCH,
    ) -> None:
        self.num_tracks, self.seed, self.groups, self.run_length = num_tracks, seed, groups, run_length
        self.stream = stream
        self._order = functools.lru_cache(maxsize=4)(self._draw_order)

        # With groups an epoch is a whole number of runs, so that runs stay aligned with batches. The tracks left over
        # are skipped; they are different ones in every epoch.
        has_whole_runs = groups and num_tracks >= run_length
        self.epoch_length = num_tracks // run_length * run_length if has_whole_runs else num_tracks

    def __call__(self, position: int) -> int:
        epoch, offset = divmod(position, self.epoch_length)
        return int(self._order(epoch)[offset])

    def _draw_order(self, epoch: int) -> Indices:
        """Track indices of one epoch, (num_tracks,)."""
        generator = np.random.default_rng([self.seed, self.stream, epoch])
        if not self.groups:
            return generator.permutation(self.num_tracks)
        runs: list[Indices] = []
        for group in self.groups:
            shuffled = generator.permutation(group)
            runs += [shuffled[start : start + self.run_length] for start in range(0, len(group), self.run_length)]
        runs = [runs[index] for index in generator.permutation(len(runs))]
        # Short runs come last: anywhere else they would shift the following runs against the batches.
        return np.concatenate(sorted(runs, key=lambda run: len(run) < self.run_length))


class WeightedTrackSampler:
    """Several corpora interleaved, so that each has its exact share of any thousand positions.

    Args:
        members: Indices of the tracks of each corpus.
        weights: Share of each corpus; they need not sum to 1.
        seed: Source of all orders.

    Raises:
        InputError: a share is so small that the corpus is never drawn.
    """

    def __init__(self, members: Sequence[Indices], weights: Sequence[float], seed: int) -> None:
        self.members, self.seed = members, seed
        self.samplers = [
            TrackSampler(len(indices), seed, stream=_CORPUS + corpus) for corpus, indices in enumerate(members)
        ]
        shares = np.asarray(weights, dtype=np.float64) / np.sum(weights)
        # Largest remainder method: the counts sum to the cycle, and none is off by a whole position.
        counts = np.floor(shares * _CYCLE).astype(np.int64)
        counts[np.argsort(counts - shares * _CYCLE, kind="stable")[: _CYCLE - counts.sum()]] += 1
        if not counts.all():
            raise InputError(f"pairs.weights={list(weights)}: a share below one in {_CYCLE} is never drawn")
        self.counts = counts
        self._cycle = functools.lru_cache(maxsize=4)(self._draw_cycle)

    def __call__(self, position: int) -> int:
        cycle, offset = divmod(position, _CYCLE)
        corpora, ranks = self._cycle(cycle)
        corpus = corpora[offset]
        # Each corpus counts its own positions, so that all its tracks are drawn once before any is drawn twice.
        position_in_corpus = int(cycle * self.counts[corpus] + ranks[offset])
        return int(self.members[corpus][self.samplers[corpus](position_in_corpus)])

    def _draw_cycle(self, cycle: int) -> tuple[Indices, Indices]:
        """Corpus of each position of a cycle, and the number of earlier positions in it of the same corpus."""
        generator = np.random.default_rng([self.seed, _PATTERN, cycle])
        corpora = generator.permutation(np.repeat(np.arange(len(self.counts)), self.counts))  # (_CYCLE,)
        ranks = np.zeros_like(corpora)
        for corpus, count in enumerate(self.counts):
            ranks[corpora == corpus] = np.arange(count)
        return corpora, ranks


def track_sampler(
    tracks: Sequence[Track],
    seed: int,
    tracks_per_batch: int,
    batch_by: str | None = None,
    weights: Sequence[float] = (),
) -> Callable[[int], int]:
    """The sampler of a configuration: position to index of a track.

    Args:
        tracks: The tracks.
        seed: Source of the order.
        tracks_per_batch: Number of tracks in a batch.
        batch_by: Field whose value the tracks of a batch share as far as possible: ``group``, or a field of the corpus.
        weights: Share of each corpus, in the order in which the tracks name them; empty: every track once an epoch.

    Raises:
        InputError: no track has the field, or the number of weights is not that of the corpora.
    """
    if weights:
        corpora = list(dict.fromkeys(track.source for track in tracks))
        if len(corpora) != len(weights):
            raise InputError(
                f"pairs.weights has {len(weights)} values; the corpora with tracks to train on are {', '.join(corpora)}"
            )
        members = [np.flatnonzero([track.source == corpus for track in tracks]) for corpus in corpora]
        return WeightedTrackSampler(members, weights, seed)
    if batch_by is None:
        return TrackSampler(len(tracks), seed)
    values = [_value(track, batch_by) for track in tracks]
    if not any(values):
        fields = sorted({"group", *(name for track in tracks for name in track.labels)})
        raise InputError(f"pairs.batch_by={batch_by}: no track has that field; there are {', '.join(fields)}")
    if len(set(values)) == len(values):
        raise InputError(f"pairs.batch_by={batch_by}: every track has a value of its own, so nothing can be grouped")
    # Tracks without a value form one more group. Sorted, because the order of a set differs between processes.
    groups = [np.flatnonzero([value == group for value in values]) for group in sorted(set(values))]
    return TrackSampler(len(tracks), seed, groups, tracks_per_batch)


def _value(track: Track, field: str) -> str:
    """Text of a track's field; empty where it has none, or where it is an annotation file."""
    value = track.group if field == "group" else track.labels.get(field)
    return repr(value) if value and not isinstance(value, AnnotationFile) else ""
