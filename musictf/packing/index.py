"""The last files of a pack, written once all samples are: index, chunks and ``pack.json``, in this order."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from musictf.datasets.base import Track
from musictf.files import write_atomically
from musictf.packing.format import FORMAT, HEADER, INDEX, SAMPLE_BYTES, SHARDS, StoredRecording, shard_path
from musictf.packing.pack_layout import ShardOffset, TrackPlan, recording_paths
from musictf.packing.streamed_recordings import CHUNKS, SEGMENT_SECONDS, read_segments, write_segments


def index_lines(
    tracks: Sequence[Track],
    plans: Sequence[TrackPlan],
    offsets: Sequence[ShardOffset],
    stored: Sequence[StoredRecording | None],
) -> list[dict[str, Any]]:
    """The lines of the index, one a track.

    Args:
        tracks: The tracks.
        plans: One a track.
        offsets: One a track.
        stored: The recordings of all tracks, in order; None for one that could not be decoded.
    """
    remaining, lines = iter(stored), []
    for track, plan, (shard, offset) in zip(tracks, plans, offsets, strict=True):
        entries = [entry.to_json() for entry in islice(remaining, len(plan.lengths)) if entry is not None]
        identity = {name: getattr(track, name) for name in ("track_id", "split", "group", "source")}
        position = {"audio": [str(path) for path in recording_paths(track)], "shard": shard, "offset": offset}
        lines.append({**identity, **position, "labels": plan.labels, "files": plan.files, "recordings": entries})
    return lines


def write_index(
    folder: Path, lines: list[dict[str, Any]], sample_rate: int, storage: str, origin: dict[str, Any]
) -> None:
    """Write index, chunks and ``pack.json``.

    Args:
        folder: The unfinished pack, with the samples of all recordings in its shards.
        lines: What `index_lines` returns.
        sample_rate: The pack's rate in hertz.
        storage: ``pcm`` or ``litdata``.
        origin: Fields of ``pack.json`` about the corpus.
    """
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    write_atomically(folder / INDEX, content)
    lengths = [sum(entry["num_samples"] for entry in line["recordings"]) for line in lines]
    ends = {line["shard"]: line["offset"] + length for line, length in zip(lines, lengths, strict=True)}
    # A killed run with other tracks may have left samples after the last track of a shard, or more shards.
    for number, end in ends.items():
        os.truncate(shard_path(folder, number), end * SAMPLE_BYTES)
    for path in set((folder / SHARDS).iterdir()) - {shard_path(folder, number) for number in ends}:
        path.unlink()
    segment = SEGMENT_SECONDS * sample_rate
    shutil.rmtree(folder / CHUNKS, ignore_errors=True)
    if storage == "litdata":
        write_segments(folder / CHUNKS, read_segments(folder, lines, segment))
    samples = sorted((folder / (SHARDS if storage == "pcm" else CHUNKS)).iterdir())
    # Levels and labels are left out: the digest says whether two packs hold the same recordings.
    digests = [[line["track_id"], line["split"], *(entry["digest"] for entry in line["recordings"])] for line in lines]
    header = {
        "format": FORMAT,
        "store": storage,
        "sample_rate": sample_rate,
        "segment": segment if storage == "litdata" else None,
        "tracks": len(lines),
        "recordings": sum(len(line["recordings"]) for line in lines),
        "samples": sum(lengths),
        "digest": hashlib.sha256(json.dumps([sample_rate, digests]).encode()).hexdigest(),
        "index": hashlib.sha256(content).hexdigest(),
        "files": {str(path.relative_to(folder)): path.stat().st_size for path in samples},
    }
    # Last: a folder without it is no pack.
    write_atomically(folder / HEADER, json.dumps(header | origin, indent=1) + "\n")
