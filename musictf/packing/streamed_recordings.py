"""Packed recordings in object storage: chunks of a litdata dataset, read piece by piece.

Conventions: the samples of a recording are cut into segments of one length, the last one shorter; these are the items
of the dataset, in the order of the index. An excerpt of at most that length lies in one or two of them, and only their
bytes are fetched from a remote dataset. Everything else of the pack (``pack.json``, index, labels) stays in a local
folder. Needs the extra ``shards`` (``pip install musictf[shards]``).

Shapes:  N samples of a segment or an excerpt
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from musictf.errors import InputError
from musictf.packing.format import PCM, SAMPLE_BYTES, Pack, Slot, shard_path, slot_fields

CHUNKS = "chunks"
SEGMENT_SECONDS = 10  # an excerpt of a few seconds then costs two segments at most
_CHUNK_BYTES = 64_000_000  # size of a file: the default of litdata


@dataclass(frozen=True, kw_only=True)
class StreamedSlot(Slot):
    """A recording in segments; ``offset`` is its first item.

    Attributes:
        segment: Length of a segment in samples.
        url: Where the dataset is.
        cache: Folder for chunks that were fetched from a remote dataset; empty for the default of litdata.
    """

    segment: int
    url: str
    cache: str = ""

    def _samples(self, start: int, num_samples: int) -> PCM:
        """Samples ``start`` to ``start + num_samples``, (N,)."""
        dataset = _dataset(self.url, self.pack, self.cache, os.getpid())
        first, last = start // self.segment, -(-(start + num_samples) // self.segment)
        pieces: list[PCM] = []
        for number in range(self.offset + first, self.offset + last):
            try:
                pieces.append(dataset[number])
            except (OSError, ValueError, IndexError) as error:
                cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
                raise InputError(f"{self.url}: segment {number} cannot be read ({cause})") from None
        # An empty excerpt at the end of a recording has no segment, and concatenate needs an array.
        joined: PCM = pieces[0] if len(pieces) == 1 else np.concatenate([np.zeros(0, np.int16), *pieces])
        begin = start - first * self.segment  # of the excerpt in its first segment
        samples = joined[begin : begin + num_samples]
        if len(samples) < num_samples:
            raise InputError(f"{self.url}: holds other segments than {self.folder} names; copy the pack again")
        return samples


def streamed_slots(pack: Pack, url: str | None, cache: str) -> list[tuple[Slot, ...]]:
    """Positions of the recordings of every track, in the order of the index.

    Args:
        pack: A pack of format litdata.
        url: Where its chunks are, such as ``s3://bucket/folder``; beside its index if None.
        cache: A folder for chunks of remote packs.
    """
    tracks: list[tuple[Slot, ...]] = []
    item, segment = 0, pack.header["segment"]
    source = {"url": (url or str(pack.folder / CHUNKS)).rstrip("/"), "cache": cache if url else "", "segment": segment}
    for line in pack.lines:
        slots = []
        for entry in line["recordings"]:
            slots.append(StreamedSlot(**slot_fields(pack, entry), **source, shard=line["shard"], offset=item))
            # Items are counted over all recordings: the index of the pack does not store them.
            item += -(-entry["num_samples"] // segment)
        tracks.append(tuple(slots))
    return tracks


def read_segments(folder: Path, lines: Sequence[dict[str, Any]], segment: int) -> Iterator[PCM]:
    """Read the shards of a pack in segments (N,), N at most ``segment``, in the order of the index.

    Args:
        folder: The pack.
        lines: Its index.
        segment: Length of a segment in samples; no segment spans two recordings.
    """
    for line in lines:
        offset = line["offset"]
        for entry in line["recordings"]:
            for start in range(0, entry["num_samples"], segment):
                count, first = min(segment, entry["num_samples"] - start), (offset + start) * SAMPLE_BYTES
                yield np.fromfile(shard_path(folder, line["shard"]), np.int16, count, offset=first)
            offset += entry["num_samples"]


def write_segments(folder: Path, segments: Iterable[PCM]) -> None:
    """Write segments (N,) as a litdata dataset into a new folder.

    Args:
        folder: The folder.
        segments: Those of all recordings, in the order of the index.
    """
    folder.mkdir(parents=True)
    cache = litdata().streaming.Cache(str(folder), chunk_bytes=_CHUNK_BYTES)
    for item, samples in enumerate(segments):
        cache[item] = samples
    cache.done()
    cache.merge()


def litdata() -> Any:
    """The library litdata, which local packs do not need.

    Raises:
        InputError: it is not installed.
    """
    # It looks for a newer version of itself on import, which costs seconds on nodes without network.
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")
    try:
        return importlib.import_module("litdata")
    except ImportError:
        raise InputError("packs of format litdata need litdata: pip install musictf[shards]") from None


@functools.lru_cache(maxsize=8)
def _dataset(url: str, pack: str, cache: str, process: int) -> Any:
    """The dataset, opened once in each process: its threads and handles do not survive a fork."""
    options = {"cache_dir": cache} if cache else {}
    # batch_decode: an item at a time, where the default decodes up to 256 of its neighbours as well.
    return litdata().StreamingDataset(url, batch_decode=0, **options)
