"""The journal of an unfinished pack: its complete recordings, so that a run that was killed continues.

Conventions: the journal has a line for each recording whose samples are safely in their shard. A recording is
identified by its file, size, time of change and the rate it was decoded at. If the journal lists a position that the
plan does not have (another list of tracks, another size of shards), the folder is superseded: it is renamed, and its
recordings are copied to their new positions instead of decoded again.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musictf.packing.format import FORMAT, SAMPLE_BYTES, StoredRecording, shard_path

JOURNAL = "journal.jsonl"
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class PlannedRecording:
    """A recording to be packed.

    Attributes:
        path: Its audio file.
        num_samples: Its length in samples at the pack's rate.
        shard: Number of its shard.
        offset: Its first sample in the shard.
        identity: See `recording_identity`.
    """

    path: Path
    num_samples: int
    shard: int
    offset: int
    identity: str


def recording_identity(path: Path, sample_rate: int) -> str:
    """What changes whenever the decoded samples of a file may have changed; ``sample_rate`` in hertz."""
    status = path.stat()
    return f"{FORMAT} {sample_rate} {status.st_size} {status.st_mtime_ns} {path}"


def superseded_folder(folder: Path) -> Path:
    """Where an unfinished pack with other positions is kept until its recordings are copied."""
    return folder.with_name(f"{folder.name}.aside")


class Journal:
    """The journal of an unfinished pack; several threads may add to it.

    Args:
        folder: The unfinished pack.
        planned: Every recording it is going to hold.
    """

    def __init__(self, folder: Path, planned: Sequence[PlannedRecording]) -> None:
        self._folder, self._superseded = folder, superseded_folder(folder)
        positions = {(recording.identity, recording.shard, recording.offset) for recording in planned}
        if any(_position(entry) not in positions for entry in _read(folder)):
            # Only one superseded pack is kept: the older one makes room on the disk.
            shutil.rmtree(self._superseded, ignore_errors=True)
            os.replace(folder, self._superseded)
            folder.mkdir()
            # The annotations were written for the new plan, just before the journal was opened.
            if (self._superseded / "annotations").exists():
                os.replace(self._superseded / "annotations", folder / "annotations")
        self._written = {_position(entry): entry for entry in _read(folder)}
        self._earlier = {entry["mark"]: entry for entry in _read(self._superseded)}
        self._lock = threading.Lock()

    def written(self, planned: PlannedRecording) -> StoredRecording | None:
        """The recording, if it is in its position already."""
        entry = self._written.get((planned.identity, planned.shard, planned.offset))
        return StoredRecording.from_json(entry["recorded"]) if entry and _reaches(self._folder, entry) else None

    def copied(self, planned: PlannedRecording) -> StoredRecording | None:
        """Copy a recording from the superseded pack to its position; None where that does not hold it."""
        entry = self._earlier.get(planned.identity)
        if entry is None or not _reaches(self._superseded, entry):
            return None
        stored = StoredRecording.from_json(entry["recorded"])
        source_path = shard_path(self._superseded, entry["shard"])
        with open(source_path, "rb") as source, open(shard_path(self._folder, planned.shard), "r+b") as file:
            source.seek(entry["offset"] * SAMPLE_BYTES)
            file.seek(planned.offset * SAMPLE_BYTES)
            remaining = stored.num_samples * SAMPLE_BYTES
            while remaining:
                remaining -= file.write(source.read(min(remaining, _COPY_BYTES)))
            file.flush()
            os.fdatasync(file.fileno())
        return stored

    def add(self, planned: PlannedRecording, stored: StoredRecording) -> StoredRecording:
        """Record that a recording is in its position; its samples must be on the disk already."""
        entry = {
            "mark": planned.identity,
            "shard": planned.shard,
            "offset": planned.offset,
            "recorded": stored.to_json(),
        }
        with self._lock, open(self._folder / JOURNAL, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        return stored


def _position(entry: dict[str, Any]) -> tuple[str, int, int]:
    return entry["mark"], entry["shard"], entry["offset"]


def _reaches(folder: Path, entry: dict[str, Any]) -> bool:
    """Whether the shard is long enough to hold the recording of a journal entry."""
    path = shard_path(folder, entry["shard"])
    end = (entry["offset"] + entry["recorded"]["num_samples"]) * SAMPLE_BYTES
    return path.is_file() and path.stat().st_size >= end


def _read(folder: Path) -> list[dict[str, Any]]:
    """The entries of a journal; an incomplete last line, left by a kill, is removed from the file."""
    path = folder / JOURNAL
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return [json.loads(line) for line in whole.splitlines()]
