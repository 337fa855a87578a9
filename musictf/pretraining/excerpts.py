"""Pairs of excerpts: what the contrast is between.

Conventions: an *example* is a pair of excerpts of one track; it is numbered over the whole run, and everything random
about it is drawn from (seed, number), so workers, ranks and restarts do not change what is heard. Every track comes
once before any comes twice.

References:
    Positives 5 to 90 s apart and near-silent excerpts dropped: the loader of the paper's group; the bound on silence
    and what happens in short tracks are ours.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from musictf.audio.io import Waveform, audio_info, read_excerpt
from musictf.audio.spectrogram import LogMelConfig
from musictf.datasets.base import Track
from musictf.errors import InputError

_TRIES = 5  # draws of a place before a near-silent excerpt is accepted


@dataclass(kw_only=True)
class PairConfig:
    """Where the two excerpts of a pair lie: distance of their starts in seconds, level in dB of full scale."""

    min_distance: float = 5.0
    max_distance: float = 90.0
    silence_db: float = -60.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_distance <= self.max_distance:
            raise InputError(f"pairs: 0 <= min_distance ({self.min_distance}) <= max_distance ({self.max_distance})")


class Pairs(Dataset[dict[str, Tensor]]):
    """Example number to a pair of waveforms (N,) each, and the number of their track."""

    def __init__(
        self, tracks: Sequence[Track], config: PairConfig, front_end: LogMelConfig, num_samples: int, seed: int
    ) -> None:
        self.tracks = tracks
        self.config = config
        self.front_end = front_end
        self.num_samples = num_samples
        self.seed = seed
        self.lengths = _lengths(tracks, front_end.sample_rate, num_samples)

    def __getitem__(self, example: int) -> dict[str, Tensor]:
        epoch, position = divmod(example, len(self.tracks))
        index = int(track_order(len(self.tracks), self.seed, epoch)[position])
        generator = np.random.default_rng([self.seed, example])
        for attempt in range(_TRIES):
            first, second = self._draw(index, generator)
            if attempt == _TRIES - 1 or not (self._is_silent(first) or self._is_silent(second)):
                break
        return {"first": torch.from_numpy(first), "second": torch.from_numpy(second), "track": torch.tensor(index)}

    def _draw(self, index: int, generator: np.random.Generator) -> tuple[Waveform, Waveform]:
        track = self.tracks[index]
        recordings = (track.audio, *track.versions)
        chosen = generator.permutation(len(recordings))[:2]
        starts = pair_starts(self.lengths[index] - self.num_samples, self.config, self.front_end.sample_rate, generator)
        first, second = (
            read_excerpt(recordings[i], start, self.num_samples, self.front_end.sample_rate, self.front_end.normalise)
            for i, start in zip((chosen[0], chosen[-1]), starts, strict=True)
        )
        return first, second

    def _is_silent(self, waveform: Waveform) -> bool:
        return bool(np.sqrt(np.mean(np.square(waveform))) < 10 ** (self.config.silence_db / 20))


def pair_starts(
    last_start: int, config: PairConfig, sample_rate: int, generator: np.random.Generator
) -> tuple[int, int]:
    """Starts in samples of two excerpts, as far apart as asked or as the track allows, in random order.

    Args:
        last_start: The last sample an excerpt may start at.
        config: The wanted distance.
        sample_rate: Samples a second.
        generator: Source of the draw.
    """
    highest = min(int(config.max_distance * sample_rate), last_start)
    lowest = min(int(config.min_distance * sample_rate), highest)
    distance = int(generator.integers(lowest, highest + 1))
    start = int(generator.integers(0, last_start - distance + 1))
    return (start, start + distance) if generator.random() < 0.5 else (start + distance, start)


@functools.lru_cache(maxsize=4)
def track_order(num_tracks: int, seed: int, epoch: int) -> np.ndarray:
    """Order of the tracks in one pass over the corpus."""
    return np.random.default_rng([seed, 1 << 20, epoch]).permutation(num_tracks)


class StepBatches(Sampler[list[int]]):
    """Example numbers of this rank, step by step, from the step a run has reached.

    It has no length: the run ends at ``max_steps``, and a resumed run must not look shorter than it is.
    """

    def __init__(self, batch_size: int, rank: int, world_size: int, first_step: int) -> None:
        self.batch_size, self.rank, self.world_size, self.step = batch_size, rank, world_size, first_step

    def __iter__(self) -> Iterator[list[int]]:
        own = self.batch_size // self.world_size
        while True:
            first = self.step * self.batch_size + self.rank * own
            self.step += 1
            yield list(range(first, first + own))


class PairModule(L.LightningDataModule):
    """Batches of pairs for training, and one fixed batch of the validation tracks."""

    def __init__(self, train: Pairs, valid: Pairs | None, batch_size: int, num_workers: int) -> None:
        super().__init__()
        self.train, self.valid, self.batch_size, self.num_workers = train, valid, batch_size, num_workers

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        assert self.trainer is not None
        if self.batch_size % self.trainer.world_size:
            raise InputError(
                f"batch_size={self.batch_size} pairs do not divide among {self.trainer.world_size} processes"
            )
        trainer = self.trainer
        batches = StepBatches(self.batch_size, trainer.global_rank, trainer.world_size, trainer.global_step)
        return DataLoader(
            self.train,
            batch_sampler=batches,
            num_workers=self.num_workers,
            pin_memory=trainer.accelerator.__class__.__name__ == "CUDAAccelerator",
            persistent_workers=self.num_workers > 0,
            worker_init_fn=_leave_signals_to_the_run,
        )

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]] | list[object]:
        if self.valid is None:
            return []
        assert self.trainer is not None
        own = self.batch_size // self.trainer.world_size
        first = own * self.trainer.global_rank
        return DataLoader(self.valid, batch_sampler=[list(range(first, first + own))])


def _leave_signals_to_the_run(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal: the run itself decides when its loaders stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _lengths(tracks: Sequence[Track], sample_rate: int, num_samples: int) -> list[int]:
    """Samples that every recording of a track has; complains once about all tracks that are too short."""
    lengths = [
        min(audio_info(path).num_samples(sample_rate) for path in (track.audio, *track.versions)) for track in tracks
    ]
    short = [track for track, length in zip(tracks, lengths, strict=True) if length < num_samples]
    if short:
        names = ", ".join(str(track.audio) for track in short[:3]) + (", ..." if len(short) > 3 else "")
        raise InputError(
            f"{len(short)} of {len(tracks)} tracks are too short for an excerpt of "
            f"{num_samples / sample_rate:.1f} s ({names}): leave them out of the corpus "
            "(folder: dataset.exclude=[PATTERN])"
        )
    return lengths
