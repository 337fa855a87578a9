"""Pairs of excerpts: what the contrast is between.

Shapes:  n pairs of a batch   N audio samples

Conventions: an *example* is a pair of excerpts of one track; it is numbered over the whole run, and everything random
about it is drawn from (seed, number), so workers, ranks and restarts do not change what is heard. Of packed corpora
batches hold 16-bit integers, which the device multiplies by their ``gain``: half the memory, and nothing to convert
where audio is read.

References:
    Positives 5 to 90 s apart and near-silent excerpts dropped: the loader of the paper's group; the bound on silence
    and what happens in short tracks are ours.
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
from musictf.pretraining.sampling import track_order

Batch = dict[str, Tensor]

_TRIES = 5  # draws of a place before a near-silent excerpt is accepted
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(kw_only=True)
class PairConfig:
    """How the pairs of a batch are drawn.

    Attributes:
        min_distance: Smallest distance between the starts of the two excerpts of a pair, in seconds.
        max_distance: Largest distance between them, in seconds.
        silence_db: Level in dB of full scale below which an excerpt is drawn again, a few times.
        excerpts_per_track: Pairs of one track in a batch, negatives of each other. Passages of a track differ in
            harmony, hardly in timbre, so timbre alone does not separate them.
        min_gap_seconds: Smallest distance between excerpts of two such pairs, in seconds. In tracks too short for it
            the pairs lie anywhere and are not each other's negatives.
        batch_by: Field whose value the tracks of a batch share as far as possible (group, artist, tags, ...), for
            harder negatives.
        weights: Share of each corpus of ``dataset.root`` in every batch, in their order. An empty list: every track
            once before any track twice.
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
            raise InputError("pairs.silence_db=nan is no level")
        if any(not 0 < weight < np.inf for weight in self.weights):
            raise InputError("pairs.weights must be positive; leave a corpus out of dataset.root instead")
        if self.weights and self.batch_by is not None:
            raise InputError("pairs.weights and pairs.batch_by exclude each other: a batch is mixed or it is alike")


class Pairs(Dataset[Batch]):
    """Numbers of examples to a batch.

    ``first`` and ``second`` (n, N) are int16, or float32 where a track is not packed; ``gain`` (n, 2) brings them to
    full scale; ``track`` (n,) is what pairs that are not each other's negatives have in common, ``example`` (n,) their
    numbers.
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
        self.order = track_order(
            tracks, seed, max(1, batch_size // config.excerpts_per_track), config.batch_by, config.weights
        )
        self.lengths = _lengths(tracks, front_end.sample_rate, num_samples)
        self._say_who_has_no_places()

    def __getitems__(self, examples: list[int]) -> Batch:
        views = np.empty((2, len(examples), self.num_samples), np.int16 if self.packed else np.float32)
        gains, keys = np.empty((len(examples), 2), np.float32), np.empty(len(examples), np.int64)
        for row, example in enumerate(examples):
            keys[row] = self._read(example, views[:, row], gains[row])
        first, second = torch.from_numpy(views)
        return {
            "first": first,
            "second": second,
            "gain": torch.from_numpy(gains),
            "track": torch.from_numpy(keys),
            "example": torch.tensor(examples),
        }

    def __getitem__(self, example: int) -> Batch:
        """One example: a batch of one without its first axis."""
        return {name: value[0] for name, value in self.__getitems__([example]).items()}

    def track_of(self, example: int) -> Track:
        """The track that an example is taken from."""
        return self.tracks[self.order(example // self.config.excerpts_per_track)]

    def _read(self, example: int, views: npt.NDArray[np.generic], gains: npt.NDArray[np.float32]) -> int:
        """Fill both views (2, N) of an example and their gains (2,); returns what they are told apart by."""
        slot, place = divmod(example, self.config.excerpts_per_track)
        index = self.order(slot)
        generator = np.random.default_rng([self.seed, example])
        room, stretch = self._stretch(index)
        for attempt in range(_TRIES):
            recordings = generator.permutation(1 + len(self.tracks[index].versions))[:2]
            starts = pair_starts(room, self.config, self.front_end.sample_rate, generator)
            starts = (starts[0] + place * stretch, starts[1] + place * stretch)
            last = attempt == _TRIES - 1
            audible = [
                self._read_view(index, recording, start, views[view], gains[view : view + 1], last)
                for view, (recording, start) in enumerate(zip((recordings[0], recordings[-1]), starts, strict=True))
            ]
            if all(audible):
                break
        return index * self.config.excerpts_per_track + (place if stretch else 0)

    def _stretch(self, index: int) -> tuple[int, int]:
        """Last start within a place and distance of places, in samples; distance 0 where the track has one place."""
        places, length = self.config.excerpts_per_track, self.lengths[index]
        if places > 1:
            gap = int(self.config.min_gap_seconds * self.front_end.sample_rate)
            width = (length + gap) // places
            if width - gap >= self.num_samples:
                return width - gap - self.num_samples, width
        return length - self.num_samples, 0

    def _say_who_has_no_places(self) -> None:
        """Tracks too short for their places make weaker negatives; where all are, there is nothing left to learn."""
        if self.config.excerpts_per_track == 1:
            return
        short = [track for index, track in enumerate(self.tracks) if not self._stretch(index)[1]]
        words = (
            f"{len(short)} of {len(self.tracks)} tracks are too short for pairs.excerpts_per_track={self.config.excerpts_per_track} with "
            f"pairs.min_gap_seconds={self.config.min_gap_seconds}"
        )
        if len(short) == len(self.tracks):
            raise InputError(f"{words}: choose fewer places or a smaller gap")
        if short and rank() == 0:
            print(f"{words}, {short[0].track_id} for one: their places are no negatives of each other", file=sys.stderr)

    def _read_view(
        self,
        index: int,
        recording: int,
        start: int,
        out: npt.NDArray[np.generic],
        gain: npt.NDArray[np.float32],
        always: bool,
    ) -> bool:
        """Fill ``out`` (N,) unless the excerpt is near silence and need not be taken; says whether it was filled."""
        track, front_end = self.tracks[index], self.front_end
        if self.packed:
            slot = track.slots[recording]
            # Of the waveform as the model hears it, as it is for files.
            level = self.config.silence_db + (_decibels(slot.peak) if front_end.normalise == "peak" else 0.0)
            if not always and slot.is_quiet(start, self.num_samples, level):
                return False
            slot.read(start, self.num_samples, cast(PCM, out))
            gain[0] = slot.gain / max(slot.peak, _TINY) if front_end.normalise == "peak" else slot.gain
            return True
        path = (track.audio, *track.versions)[recording]
        out[:] = read_excerpt(path, start, self.num_samples, front_end.sample_rate, front_end.normalise)
        gain[0] = 1.0
        return always or not self._is_silent(out)

    def _is_silent(self, waveform: npt.NDArray[np.generic]) -> bool:
        return bool(np.sqrt(np.mean(np.square(waveform))) < 10 ** (self.config.silence_db / 20))


def _decibels(amplitude: float) -> float:
    return 20 * math.log10(max(amplitude, _TINY))


def waveforms(batch: Batch) -> Tensor:
    """Both views of a batch as float32, the first ones before the second ones: (2n, N)."""
    views = torch.cat([batch["first"], batch["second"]]).float()
    return views * batch["gain"].T.reshape(-1, 1) if "gain" in batch else views


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
    """Batches of pairs for training, and one fixed batch of the validation tracks.

    Args:
        train: What is trained on.
        valid: What is validated on, if anything.
        batch_size: Pairs of a step, over all ranks.
        num_workers: Processes that read ahead, for each rank.
        in_parts: Leave batches where they are: their parts move to the device when their turn comes.
    """

    def __init__(
        self, train: Pairs, valid: Pairs | None, batch_size: int, num_workers: int, in_parts: bool = False
    ) -> None:
        super().__init__()
        self.train, self.valid, self.batch_size, self.num_workers = train, valid, batch_size, num_workers
        self.in_parts = in_parts

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """What a batch in parts is spared."""
        if self.in_parts:
            return batch
        moved: Batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return moved

    def tracks_of_step(self, number: int) -> list[str]:
        """Names of the tracks in a training step, numbered from 1, of all ranks."""
        first = (number - 1) * self.batch_size
        return [self.train.track_of(example).track_id for example in range(first, first + self.batch_size)]

    def train_dataloader(self) -> DataLoader[Batch]:
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
            collate_fn=_collated,
            pin_memory=trainer.accelerator.__class__.__name__ == "CUDAAccelerator",
            persistent_workers=self.num_workers > 0,
            worker_init_fn=_leave_signals_to_the_run,
        )

    def val_dataloader(self) -> DataLoader[Batch] | list[object]:
        if self.valid is None:
            return []
        assert self.trainer is not None
        own = self.batch_size // self.trainer.world_size
        first = own * self.trainer.global_rank
        return DataLoader(self.valid, batch_sampler=[list(range(first, first + own))], collate_fn=_collated)


def _collated(batch: Any) -> Any:
    """A batch comes whole: there is nothing to put together."""
    return batch


def _leave_signals_to_the_run(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal: the run itself decides when its loaders stop."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _lengths(tracks: Sequence[Track], sample_rate: int, num_samples: int) -> list[int]:
    """Samples that every recording of a track has; complains once about all tracks that are too short."""
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
    if not track.slots:
        return min(audio_info(path).num_samples(sample_rate) for path in (track.audio, *track.versions))
    if other := {slot.sample_rate for slot in track.slots} - {sample_rate}:
        raise InputError(
            f"track {track.track_id!r} is packed at {other.pop()} Hz, front_end.sample_rate is {sample_rate}: "
            f"pack again with sample_rate={sample_rate}"
        )
    return min(slot.num_samples for slot in track.slots)
