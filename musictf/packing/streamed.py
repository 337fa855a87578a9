"""Packed recordings in object storage: chunks of a litdata dataset, read piece by piece.

Conventions: the samples of a recording are cut into segments of one length, its last one shorter, which are the items
of the dataset in the order of the index. An excerpt of at most that length lies in one or two of them; of a remote
dataset only their bytes are fetched. Everything else of the pack (``pack.json``, index, labels) stays in a local
folder. Needs the extra ``shards`` (``pip install musictf[shards]``).
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from musictf.errors import InputError
from musictf.packing.format import PCM, Pack, Slot, slot_facts

CHUNKS = "chunks"
SEGMENT_SECONDS = 10
_CHUNK_BYTES = 64_000_000


@dataclass(frozen=True, kw_only=True)
class StreamedSlot(Slot):
    """A recording in segments: ``offset`` is its first item, ``segment`` their length in samples, ``url`` their place.

    ``cache`` is a folder for what a reader of remote chunks keeps; empty: its own choice.
    """

    segment: int
    url: str
    cache: str = ""

    def _samples(self, start: int, num_samples: int) -> PCM:
        dataset = _dataset(self.url, self.pack, self.cache, os.getpid())
        first, last = start // self.segment, -(-(start + num_samples) // self.segment)
        # An empty excerpt at the end of a recording touches none of its segments.
        pieces = [_item(dataset, self.offset + number, self.url) for number in range(first, last)]
        joined: PCM = pieces[0] if len(pieces) == 1 else np.concatenate([np.zeros(0, np.int16), *pieces])
        begin = start - first * self.segment
        samples = joined[begin : begin + num_samples]
        if len(samples) < num_samples:
            raise InputError(f"{self.url}: holds other segments than {self.folder} names; copy the pack again")
        return samples


def streamed_slots(pack: Pack, url: str | None, cache: str) -> list[tuple[Slot, ...]]:
    """Where the recordings of every track lie, in the order of the index.

    Args:
        pack: A pack of format litdata.
        url: Where its chunks are, ``s3://...`` for one; beside its index if None.
        cache: A folder for chunks of remote packs.
    """
    found: list[tuple[Slot, ...]] = []
    item, segment = 0, pack.header["segment"]
    place = {"url": (url or str(pack.folder / CHUNKS)).rstrip("/"), "cache": cache if url else "", "segment": segment}
    for line in pack.lines:
        slots = []
        for entry in line["recordings"]:
            slots.append(StreamedSlot(**slot_facts(pack, entry), **place, shard=line["shard"], offset=item))
            item += -(-entry["num_samples"] // segment)
        found.append(tuple(slots))
    return found


def write_segments(folder: Path, segments: Iterable[PCM]) -> None:
    """Write the segments of all recordings, in the order of the index, as a litdata dataset into a new folder."""
    folder.mkdir(parents=True)
    cache = litdata().streaming.Cache(str(folder), chunk_bytes=_CHUNK_BYTES)
    for item, samples in enumerate(segments):
        cache[item] = samples
    cache.done()
    cache.merge()


def litdata() -> Any:
    """The library, which is not needed where packs are local.

    Raises:
        InputError: it is not installed.
    """
    # Looking for a newer version of itself costs seconds on nodes without network.
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")
    try:
        return importlib.import_module("litdata")
    except ImportError:
        raise InputError("packs of format litdata need litdata: pip install musictf[shards]") from None


@functools.lru_cache(maxsize=8)
def _dataset(url: str, pack: str, cache: str, process: int) -> Any:
    """The dataset, opened by each process for itself: its threads and handles do not survive a fork."""
    options = {"cache_dir": cache} if cache else {}
    # batch_decode: an item at a time, where the default decodes up to 256 of its neighbours as well.
    return litdata().StreamingDataset(url, batch_decode=0, **options)


def _item(dataset: Any, number: int, url: str) -> PCM:
    try:
        return dataset[number]
    except (OSError, ValueError, IndexError) as error:
        text = " ".join(str(error).split())
        raise InputError(f"{url}: segment {number} cannot be read ({type(error).__name__}: {text})") from None
