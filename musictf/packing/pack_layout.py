"""What is planned before a corpus is decoded: lengths of recordings, their position in the shards, annotation files.

Conventions: lengths follow from the headers of the files, in samples at the pack's rate; a track lies in one shard;
annotations are written into the pack in the formats of a manifest, whatever their format in the corpus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from musictf.annotations import Beats, Chords, Sections, write_beats, write_chords, write_onsets, write_sections
from musictf.audio.io import audio_info
from musictf.datasets.base import AnnotationFile, Track
from musictf.errors import InputError
from musictf.packing.format import SAMPLE_BYTES
from musictf.packing.journal import PlannedRecording, recording_identity

ShardOffset = tuple[int, int]  # number of the shard, first sample in it

# Suffix and writer of each annotation type that has a file format. An array holds onsets.
WRITERS: dict[type, tuple[str, Callable[[Path, Any], None]]] = {
    Chords: (".lab", write_chords),
    Beats: (".beats", write_beats),
    Sections: (".sections", write_sections),
    np.ndarray: (".txt", write_onsets),
}


@dataclass
class TrackPlan:
    """A track before it is decoded.

    Attributes:
        lengths: Length of each of its recordings in samples at the pack's rate.
        labels: Labels that are kept in the index.
        files: Annotations that have a file in the pack, by name: the path in the pack.
        faults: Why it cannot be packed, one reason each.
    """

    lengths: list[int] = field(default_factory=list)
    labels: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def plan_track(folder: Path, number: int, track: Track, sample_rate: int) -> TrackPlan:
    """Read the headers and annotations of a track, and write the annotations into the pack.

    Args:
        folder: The pack.
        number: Position of the track in the pack; names its annotation files.
        track: The track.
        sample_rate: The pack's rate in hertz.
    """
    plan = TrackPlan()
    for path in recording_paths(track):
        try:
            plan.lengths.append(audio_info(path).num_samples(sample_rate))
        except InputError as error:
            plan.faults.append(f"{track.track_id}: {error}")
    for name, label in track.labels.items():
        try:
            value = track.annotation(name)
            # A file may hold a plain value (a key, a tempo): it becomes a label of the index.
            if not isinstance(label, AnnotationFile) or type(value) not in WRITERS:
                plan.labels[name] = value
                continue
            suffix, write = WRITERS[type(value)]
            plan.files[name] = f"annotations/{name}/{number:06d}{suffix}"
            path = folder / plan.files[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, value)
        except InputError as error:
            plan.faults.append(f"{track.track_id}: {error}")
    return plan


def shard_offsets(lengths: Sequence[Sequence[int]], shard_gb: float) -> list[ShardOffset]:
    """Shard and first sample of each track; a track is never split over shards.

    Args:
        lengths: Lengths of the recordings of each track, in samples.
        shard_gb: Largest size of a shard in gigabytes, unless one track is larger.
    """
    largest = int(shard_gb * 1e9) // SAMPLE_BYTES
    offsets: list[ShardOffset] = []
    shard, end = 0, 0
    for track in lengths:
        # An empty shard takes any track, however long.
        if end and end + sum(track) > largest:
            shard, end = shard + 1, 0
        offsets.append((shard, end))
        end += sum(track)
    return offsets


def planned_recordings(
    tracks: Sequence[Track], plans: Sequence[TrackPlan], offsets: Sequence[ShardOffset], sample_rate: int
) -> Iterator[PlannedRecording]:
    """The recordings of all tracks with their positions, in the order of the tracks; rate in hertz."""
    for track, plan, (shard, offset) in zip(tracks, plans, offsets, strict=True):
        for path, length in zip(recording_paths(track), plan.lengths, strict=True):
            yield PlannedRecording(path, length, shard, offset, recording_identity(path, sample_rate))
            offset += length


def recording_paths(track: Track) -> tuple[Path, ...]:
    """The audio files of a track: the track itself, then its other versions."""
    return (track.audio, *track.versions)
