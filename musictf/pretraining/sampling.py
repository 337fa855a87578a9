"""Which track an example comes from: one pass after another, groups kept together, corpora mixed by weight.

Conventions: places are numbered over the whole run; the track of a place is a function of its number and the seed, so
that workers, ranks and restarts do not change it. Unless corpora are weighted, every track comes once before any comes
twice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from musictf.datasets.base import AnnotationFile, Track
from musictf.errors import InputError

Indices = npt.NDArray[np.int64]

_CYCLE = 1000  # places over which weights hold exactly
_ORDER, _PATTERN, _CORPUS = 1 << 20, 1 << 21, 1 << 22  # streams of randomness, apart from those of the examples


class Order:
    """Number of a place to number of a track; every pass over the tracks has an order of its own.

    Args:
        num_tracks: How many tracks there are.
        seed: Source of all orders, with ``stream``.
        groups: Tracks that stay next to each other, as lists of their numbers; none: each for itself.
        run: Longest stretch of tracks of one group, usually those of a batch.
        stream: Tells apart orders of one seed.
    """

    def __init__(
        self, num_tracks: int, seed: int, groups: Sequence[Indices] = (), run: int = 1, stream: int = _ORDER
    ) -> None:
        self.num_tracks, self.seed, self.groups, self.run, self.stream = num_tracks, seed, groups, run, stream
        self._pass = functools.lru_cache(maxsize=4)(self._make_pass)

        # Stretches stay in step with batches: what is left over of a pass is left out of it, other tracks each time.
        self.length = num_tracks // run * run if groups and num_tracks >= run else num_tracks

    def __call__(self, place: int) -> int:
        number, position = divmod(place, self.length)
        return int(self._pass(number)[position])

    def _make_pass(self, number: int) -> Indices:
        generator = np.random.default_rng([self.seed, self.stream, number])
        if not self.groups:
            return generator.permutation(self.num_tracks)
        runs = [part for group in self.groups for part in _cut(generator.permutation(group), self.run)]
        shuffled = [runs[index] for index in generator.permutation(len(runs))]
        return np.concatenate(sorted(shuffled, key=lambda run: len(run) < self.run))  # the short ones last


class Mixture:
    """Orders of several corpora, interleaved so that each has its share of any thousand places.

    Args:
        members: Numbers of the tracks of each corpus.
        weights: Share of each corpus, of any sum.
        seed: Source of all orders.
    """

    def __init__(self, members: Sequence[Indices], weights: Sequence[float], seed: int) -> None:
        self.members, self.seed = members, seed
        self.orders = [Order(len(own), seed, stream=_CORPUS + index) for index, own in enumerate(members)]
        shares = np.asarray(weights, dtype=np.float64) / np.sum(weights)
        # Largest remainders: the counts add up to the cycle, and no corpus is off by a whole place.
        counts = np.floor(shares * _CYCLE).astype(np.int64)
        counts[np.argsort(counts - shares * _CYCLE, kind="stable")[: _CYCLE - counts.sum()]] += 1
        if not counts.all():
            raise InputError(f"pairs.weights={list(weights)}: a share below one in {_CYCLE} is never drawn")
        self.counts = counts
        self._cycle = functools.lru_cache(maxsize=4)(self._make_cycle)

    def __call__(self, place: int) -> int:
        number, position = divmod(place, _CYCLE)
        corpora, before = self._cycle(number)
        corpus = corpora[position]
        return int(self.members[corpus][self.orders[corpus](int(number * self.counts[corpus] + before[position]))])

    def _make_cycle(self, number: int) -> tuple[Indices, Indices]:
        """Corpus of each place of a cycle, and how many places before it in the cycle belong to the same corpus."""
        generator = np.random.default_rng([self.seed, _PATTERN, number])
        corpora = generator.permutation(np.repeat(np.arange(len(self.counts)), self.counts))
        before = np.zeros_like(corpora)
        for corpus, count in enumerate(self.counts):
            before[corpora == corpus] = np.arange(count)
        return corpora, before


def track_order(
    tracks: Sequence[Track], seed: int, run: int, batch_by: str | None = None, weights: Sequence[float] = ()
) -> Callable[[int], int]:
    """The order that a configuration asks for.

    Args:
        tracks: The tracks.
        seed: Source of the order.
        run: Tracks of a batch.
        batch_by: Field whose value the tracks of a batch share as far as they can: ``group``, or a field of the corpus.
        weights: Share of each corpus, in the order in which the tracks name them; none: each track once a pass.

    Raises:
        InputError: no track has the field, or there are not as many weights as corpora.
    """
    if weights:
        return _mixture(tracks, seed, weights)
    if batch_by is None:
        return Order(len(tracks), seed)
    values = [_value(track, batch_by) for track in tracks]
    if not any(values):
        known = sorted({"group", *(name for track in tracks for name in track.labels)})
        raise InputError(f"pairs.batch_by={batch_by}: no track has that field; there are {', '.join(known)}")
    if len(set(values)) == len(values):
        raise InputError(f"pairs.batch_by={batch_by}: every track has a value of its own, so none are alike")
    return Order(len(tracks), seed, _members(values), run)


def _mixture(tracks: Sequence[Track], seed: int, weights: Sequence[float]) -> Mixture:
    corpora = list(dict.fromkeys(track.source for track in tracks))
    if len(corpora) != len(weights):
        raise InputError(
            f"pairs.weights has {len(weights)} values; the corpora with tracks to train on are {', '.join(corpora)}"
        )
    members = [np.flatnonzero([track.source == name for track in tracks]) for name in corpora]
    return Mixture(members, weights, seed)


def _value(track: Track, field: str) -> str:
    value = track.group if field == "group" else track.labels.get(field)
    return repr(value) if value and not isinstance(value, AnnotationFile) else ""


def _members(values: Sequence[str]) -> list[Indices]:
    """Numbers of the tracks of each value; tracks without one are a group of their own."""
    return [np.flatnonzero([value == each for value in values]) for each in sorted(set(values))]


def _cut(numbers: Indices, length: int) -> list[Indices]:
    return [numbers[start : start + length] for start in range(0, len(numbers), length)]
