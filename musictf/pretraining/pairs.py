"""Pairs of excerpts: the two positives of the contrastive loss, drawn from one track.

Shapes:  n pairs of a batch   N audio samples

Conventions: an *example* is a pair of excerpts of one track; it is numbered over the whole run. All its random draws
come from (seed, number), so the number of workers, the number of ranks and restarts do not change what is drawn.
Batches of packed corpora hold 16-bit integers, which the device multiplies by their ``gain``: half the memory, and no
conversion in the loader.

References:
    Positives 5 to 90 s apart and near-silent excerpts dropped: the loader of the paper's group. The level of silence
    and the rule for short tracks are our choice.
"""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import lightning.pytorch as L
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from musictf.audio.io import audio_info, read_excerpt
from musictf.audio.spectrogram import LogMelConfig
from musictf.datasets.base import Track
from musictf.distributed import rank
from musictf.errors import InputError
from musictf.packing.format import PCM
from musictf.pretraining.sampling import track_sampler

Batch = dict[str, Tensor]

_MAX_DRAWS = 5  # draws of an example before a near-silent excerpt is accepted
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(kw_only=True)
class PairConfig:
    """How positives and negatives are drawn.

    With ``excerpts_per_track`` above 1 a track is divided into as many regions, and each gives one pair. Pairs of one
    track are each other's negatives: they differ in harmony but hardly in timbre, so timbre alone does not distinguish
    them. Tracks too short for their regions give pairs from anywhere, which are then no negatives of each other.

    Attributes:
        min_distance: Least distance between the starts of the two excerpts of a pair, in seconds.
        max_distance: Greatest distance between the starts of the two excerpts of a pair, in seconds.
        silence_db: Excerpts below this level (dB of full scale) are drawn again, up to 4 times.
        excerpts_per_track: Pairs of one track in a batch, each other's negatives.
        min_gap_seconds: Least gap between two regions of a track, in seconds.
        batch_by: Field that the tracks of a batch share as far as possible: ``group``, ``artist``, ...
        weights: Share of each corpus of ``dataset.root`` in every batch; empty: each track once an epoch.
    """

    min_distance: float = 5.0
    max_distance: float = 90.0
    silence_db: float = -60.0
    excerpts_per_track: int = 1
    min_gap_seconds: float = 4.0
    batch_by: str | None = None
    weights: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not 0 <= self.min_distance <= self.max_distance:
            raise InputError(
                f"pairs.min_distance={self.min_distance} must be from 0 to pairs.max_distance={self.max_distance}"
            )
        if self.excerpts_per_track < 1 or self.min_gap_seconds < 0:
            raise InputError(
                f"pairs: excerpts_per_track ({self.excerpts_per_track}) must be at least 1 and min_gap_seconds "
                f"({self.min_gap_seconds}) not negative"
            )
        if math.isnan(self.silence_db):
            raise InputError("pairs.silence_db=nan is not a level in dB")
        if any(not 0 < weight < np.inf for weight in self.weights):
            raise InputError("pairs.weights must be positive; leave a corpus out of dataset.root instead")
        if self.weights and self.batch_by is not None:
            raise InputError(
                "pairs.weights and pairs.batch_by exclude each other: weights mix corpora in every batch, "
                "batch_by fills it with similar tracks"
            )


class Pairs(Dataset[Batch]):
    """Numbers of examples to a batch.

    ``first`` and ``second`` (n, N) are int16, or float32 where a track is not packed; ``gain`` (n, 2) scales them to
    full scale. Pairs with equal ``track`` (n,) are not each other's negatives. ``example`` (n,) holds their numbers.

    Args:
        tracks: The tracks to draw from.
        config: How pairs are drawn.
        front_end: Sample rate and normalisation of the excerpts.
        num_samples: Length of an excerpt, at the rate of the front end.
        seed: Source of all draws, together with the number of the example.
        batch_size: Pairs of a batch, over all ranks.

    Raises:
        InputError: tracks are too short, or the configuration does not fit them.
    """

    def __init__(
        self,
        tracks: Sequence[Track],
        config: PairConfig,
        front_end: LogMelConfig,
        num_samples: int,
        seed: int,
        batch_size: int = 1,
    ) -> None:
        self.tracks, self.config, self.front_end = tracks, config, front_end
        self.num_samples, self.seed = num_samples, seed
        self.packed = all(track.slots for track in tracks)
        tracks_per_batch = max(1, batch_size // config.excerpts_per_track)
        self.sampler = track_sampler(tracks, seed, tracks_per_batch, config.batch_by, config.weights)
        self.lengths = _lengths(tracks, front_end.sample_rate, num_samples)
        if config.excerpts_per_track > 1:
            self._check_regions()

    def __getitems__(self, examples: list[int]) -> Batch:
        views = np.empty((2, len(examples), self.num_samples), np.int16 if self.packed else np.float32)
        gains, tracks = np.empty((len(examples), 2), np.float32), np.empty(len(examples), np.int64)
        for row, example in enumerate(examples):
            tracks[row] = self._read(example, views[:, row], gains[row])
        first, second = torch.from_numpy(views)  # each (n, N)
        return {
            "first": first,
            "second": second,
            "gain": torch.from_numpy(gains),
            "track": torch.from_numpy(tracks),
            "example": torch.tensor(examples),
        }

    def __getitem__(self, example: int) -> Batch:
        """One example: a batch of one pair without its first axis."""
        return {name: value[0] for name, value in self.__getitems__([example]).items()}

    def track_of(self, example: int) -> Track:
        """The track that an example is taken from."""
        return self.tracks[self.sampler(example // self.config.excerpts_per_track)]

    def _read(self, example: int, views: npt.NDArray[np.generic], gains: npt.NDArray[np.float32]) -> int:
        """Fill both views (2, N) of an example and their gains (2,).

        Returns:
            A number that pairs share if and only if they are not each other's negatives.
        """
        position, region = divmod(example, self.config.excerpts_per_track)
        index = self.sampler(position)
        generator = np.random.default_rng([self.seed, example])
        last_start, spacing = self._regions(index)
        for draw in range(_MAX_DRAWS):
            # Two versions of the track where it has several: the same music, recorded or encoded differently.
            versions = generator.permutation(1 + len(self.tracks[index].versions))[:2]
            starts = pair_starts(last_start, self.config, self.front_end.sample_rate, generator)
            is_last = draw == _MAX_DRAWS - 1
            are_filled = [
                self._read_view(index, version, start + region * spacing, views[view], gains[view : view + 1], is_last)
                for view, (version, start) in enumerate(zip((versions[0], versions[-1]), starts, strict=True))
            ]
            if all(are_filled):
                break
        return index * self.config.excerpts_per_track + (region if spacing else 0)

    def _regions(self, index: int) -> tuple[int, int]:
        """Last start within a region of a track and spacing of its regions, in samples; spacing 0: one region."""
        num_regions, length = self.config.excerpts_per_track, self.lengths[index]
        if num_regions > 1:
            gap = int(self.config.min_gap_seconds * self.front_end.sample_rate)
            spacing = (length + gap) // num_regions  # a region and the gap after it; the last one needs no gap
            if spacing - gap >= self.num_samples:
                return spacing - gap - self.num_samples, spacing
        return length - self.num_samples, 0

    def _check_regions(self) -> None:
        """Warn of tracks too short for their regions; refuse a corpus in which all are."""
        short = [track for index, track in enumerate(self.tracks) if not self._regions(index)[1]]
        message = (
            f"{len(short)} of {len(self.tracks)} tracks are too short for "
            f"pairs.excerpts_per_track={self.config.excerpts_per_track} with "
            f"pairs.min_gap_seconds={self.config.min_gap_seconds}"
        )
        if len(short) == len(self.tracks):
            raise InputError(f"{message}: choose fewer excerpts or a smaller gap")
        if short and rank() == 0:
            print(
                f"{message} (for example {short[0].track_id}): their pairs are not negatives of each other",
                file=sys.stderr,
            )

    def _read_view(
        self,
        index: int,
        version: int,
        start: int,
        out: npt.NDArray[np.generic],
        gain: npt.NDArray[np.float32],
        always: bool,
    ) -> bool:
        """Fill ``out`` (N,) and ``gain`` (1,) unless the excerpt is near-silent.

        Args:
            index: Index of the track.
            version: Index of its recording: 0 is the track itself, the others are its further versions.
            start: First sample, at the rate of the front end.
            out: Where the samples go, (N,).
            gain: Where their scale goes, (1,).
            always: Fill even if the excerpt is near-silent.

        Returns:
            Whether ``out`` and ``gain`` were filled with an excerpt to keep.
        """
        track, normalise = self.tracks[index], self.front_end.normalise
        if self.packed:
            slot = track.slots[version]
            level_db = self.config.silence_db
            if normalise == "peak":  # level of the normalised waveform, as for files
                level_db += 20 * math.log10(max(slot.peak, _TINY))
            if not always and slot.is_quiet(start, self.num_samples, level_db):
                return False
            slot.read(start, self.num_samples, cast(PCM, out))
            gain[0] = slot.gain / max(slot.peak, _TINY) if normalise == "peak" else slot.gain
            return True
        path = (track.audio, *track.versions)[version]
        out[:] = read_excerpt(path, start, self.num_samples, self.front_end.sample_rate, normalise)
        gain[0] = 1.0
        return always or not bool(np.sqrt(np.mean(np.square(out))) < 10 ** (self.config.silence_db / 20))


def waveforms(batch: Batch) -> Tensor:
    """Both views of a batch as float32 at full scale, the first views before the second ones: (2n, N)."""
    views = torch.cat([batch["first"], batch["second"]]).float()
    return views * batch["gain"].T.reshape(-1, 1) if "gain" in batch else views


def pair_starts(
    last_start: int, config: PairConfig, sample_rate: int, generator: np.random.Generator
) -> tuple[int, int]:
    """Starts of the two excerpts of a pair in samples, in random order.

    Their distance is uniform between the configured bounds, as far as the track allows.

    Args:
        last_start: Last sample an excerpt may start at.
        config: Bounds of the distance.
        sample_rate: In hertz.
        generator: Source of the draw.
    """
    highest = min(int(config.max_distance * sample_rate), last_start)
    lowest = min(int(config.min_distance * sample_rate), highest)
    distance = int(generator.integers(lowest, highest + 1))
    start = int(generator.integers(0, last_start - distance + 1))
    return (start, start + distance) if generator.random() < 0.5 else (start + distance, start)


class StepBatches(Sampler[list[int]]):
    """Example numbers of this rank, step by step, beginning at the step a run has reached.

    It has no length: the run ends at ``max_steps``, and a resumed run must not look shorter than it is.

    Args:
        batch_size: Pairs of a step, over all ranks.
        rank: Rank of this process.
        world_size: Number of processes; divides ``batch_size``.
        first_step: Steps done before.
    """

    def __init__(self, batch_size: int, rank: int, world_size: int, first_step: int) -> None:
        self.batch_size, self.rank, self.world_size, self.step = batch_size, rank, world_size, first_step

    def __iter__(self) -> Iterator[list[int]]:
        pairs_per_rank = self.batch_size // self.world_size
        while True:
            first = self.step * self.batch_size + self.rank * pairs_per_rank
            self.step += 1
            yield list(range(first, first + pairs_per_rank))


class PairModule(L.LightningDataModule):
    """Batches of pairs for training, and one fixed batch of the validation tracks.

    Args:
        train: Pairs to train on.
        valid: Pairs to validate on; None: no validation.
        batch_size: Pairs of a step, over all ranks.
        num_workers: Loader processes of each rank.
        in_parts: Leave batches on the host; the module moves one micro-batch at a time to the device.
    """

    def __init__(
        self, train: Pairs, valid: Pairs | None, batch_size: int, num_workers: int, in_parts: bool = False
    ) -> None:
        super().__init__()
        self.train, self.valid, self.batch_size, self.num_workers = train, valid, batch_size, num_workers
        self.in_parts = in_parts

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        if self.in_parts:  # a whole batch would not fit on the device
            return batch
        moved: Batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return moved

    def tracks_of_step(self, number: int) -> list[str]:
        """Identifiers of the tracks of a training step over all ranks; steps are numbered from 1."""
        first = (number - 1) * self.batch_size
        return [self.train.track_of(example).track_id for example in range(first, first + self.batch_size)]

    def train_dataloader(self) -> DataLoader[Batch]:
        assert self.trainer is not None
        if self.batch_size % self.trainer.world_size:
            raise InputError(
                f"batch_size={self.batch_size} is not a multiple of the {self.trainer.world_size} processes"
            )
        trainer = self.trainer
        batches = StepBatches(self.batch_size, trainer.global_rank, trainer.world_size, trainer.global_step)
        return DataLoader(
            self.train,
            batch_sampler=batches,
            num_workers=self.num_workers,
            collate_fn=_identity,  # `Pairs.__getitems__` returns a whole batch
            pin_memory=trainer.accelerator.__class__.__name__ == "CUDAAccelerator",
            persistent_workers=self.num_workers > 0,
            worker_init_fn=_ignore_signals,
        )

    def val_dataloader(self) -> DataLoader[Batch] | list[object]:
        if self.valid is None:
            return []
        assert self.trainer is not None
        pairs_per_rank = self.batch_size // self.trainer.world_size
        first = pairs_per_rank * self.trainer.global_rank
        examples = list(range(first, first + pairs_per_rank))  # the same ones at every validation
        return DataLoader(self.valid, batch_sampler=[examples], collate_fn=_identity)


# At module level, because loader processes may receive it by pickle.
def _identity(batch: Any) -> Any:
    return batch


def _ignore_signals(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the run itself decides when its loaders stop."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _lengths(tracks: Sequence[Track], sample_rate: int, num_samples: int) -> list[int]:
    """Samples that every recording of a track has, for each track.

    Raises:
        InputError: tracks are shorter than an excerpt; one message names them all.
    """
    lengths = [_length(track, sample_rate) for track in tracks]
    short = [track for track, length in zip(tracks, lengths, strict=True) if length < num_samples]
    if short:
        names = ", ".join(str(track.audio) for track in short[:3]) + (", ..." if len(short) > 3 else "")
        raise InputError(
            f"{len(short)} of {len(tracks)} tracks are too short for an excerpt of "
            f"{num_samples / sample_rate:.1f} s ({names}): leave them out of the corpus "
            "(dataset.exclusions=FILE; folder: dataset.exclude=[PATTERN])"
        )
    return lengths


def _length(track: Track, sample_rate: int) -> int:
    """Samples of a track's shortest recording at ``sample_rate``."""
    if not track.slots:
        return min(audio_info(path).num_samples(sample_rate) for path in (track.audio, *track.versions))
    if other_rates := {slot.sample_rate for slot in track.slots} - {sample_rate}:
        raise InputError(
            f"track {track.track_id!r} is packed at {other_rates.pop()} Hz, front_end.sample_rate is {sample_rate}: "
            f"pack again with sample_rate={sample_rate}"
        )
    return min(slot.num_samples for slot in track.slots)
