"""What a corpus is before it is packed: how long its recordings are, where each will lie, which annotations it has.

Conventions: lengths follow from headers, at the pack's rate; a track lies in one shard; annotations are written into
the pack in the formats of a manifest, whatever the corpus has them in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from musictf.annotations import Beats, Chords, Sections, write_beats, write_chords, write_onsets, write_sections
from musictf.audio.io import audio_info
from musictf.datasets.base import AnnotationFile, Track
from musictf.errors import InputError
from musictf.packing.format import SAMPLE_BYTES
from musictf.packing.journal import Part, recording_mark

Place = tuple[int, int]  # shard, first sample


@dataclass(frozen=True)
class Look:
    """What is known of a track before it is decoded: lengths in samples, labels, and why it cannot be packed.

    ``files`` are its annotations that have a file in the pack, by name.
    """

    lengths: list[int]
    labels: dict[str, Any]
    files: dict[str, str]
    faults: list[str]


def look_at(folder: Path, number: int, track: Track, sample_rate: int) -> Look:
    """Read the headers and annotations of a track.

    Args:
        folder: The pack, which gets the annotations that have files.
        number: What to call them.
        track: The track.
        sample_rate: The pack's rate in hertz.
    """
    found = Look([], {}, {}, [])
    for path in recordings(track):
        try:
            found.lengths.append(audio_info(path).num_samples(sample_rate))
        except InputError as error:
            found.faults.append(f"{track.track_id}: {error}")
    for name, value in track.labels.items():
        if not isinstance(value, AnnotationFile):
            found.labels[name] = value
            continue
        try:
            _keep_annotation(folder, number, name, track.annotation(name), found)
        except InputError as error:
            found.faults.append(f"{track.track_id}: {error}")
    return found


def _keep_annotation(folder: Path, number: int, name: str, value: Any, look: Look) -> None:
    """An annotation that has a file, in a file of the pack's own; what is none of these kinds as a label."""
    suffix = {Chords: ".lab", Beats: ".beats", Sections: ".sections", np.ndarray: ".txt"}.get(type(value))
    if suffix is None:
        look.labels[name] = value
        return
    look.files[name] = f"annotations/{name}/{number:06d}{suffix}"
    path = folder / look.files[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    writers = {".lab": write_chords, ".beats": write_beats, ".sections": write_sections, ".txt": write_onsets}
    write: Any = writers[suffix]
    write(path, value)


def plan_places(lengths: Sequence[Sequence[int]], shard_gb: float) -> list[Place]:
    """Where each track lies, which is never split over shards."""
    most = int(shard_gb * 1e9) // SAMPLE_BYTES
    shard, end, found = 0, 0, []
    for track in lengths:
        if end and end + sum(track) > most:
            shard, end = shard + 1, 0
        found.append((shard, end))
        end += sum(track)
    return found


def plan_parts(
    tracks: Sequence[Track], looks: Sequence[Look], places: Sequence[Place], sample_rate: int
) -> Iterator[Part]:
    """The recordings of all tracks, in order."""
    for track, look, (shard, offset) in zip(tracks, looks, places, strict=True):
        for path, length in zip(recordings(track), look.lengths, strict=True):
            yield Part(path, length, shard, offset, recording_mark(path, sample_rate))
            offset += length


def recordings(track: Track) -> tuple[Path, ...]:
    """The files of a track."""
    return (track.audio, *track.versions)
