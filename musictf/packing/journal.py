"""What a pack in the making holds already, so that a run that was killed goes on.

Conventions: the journal has a line for each recording whose samples are safe in their shard. A recording is known by
its mark: file, size, time of change, and the rate it was decoded at. A journal that names other places (of another list
of tracks, or size of shards) is set aside with its samples, from which they are copied instead of decoded again.
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

from musictf.packing.format import FORMAT, SAMPLE_BYTES, Recorded, shard_path

JOURNAL = "journal.jsonl"
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class Part:
    """A recording to be packed: its file, its length in samples, and its place."""

    path: Path
    num_samples: int
    shard: int
    offset: int
    mark: str


def recording_mark(path: Path, sample_rate: int) -> str:
    """What a recording is known by."""
    status = path.stat()
    return f"{FORMAT} {sample_rate} {status.st_size} {status.st_mtime_ns} {path}"


def aside(folder: Path) -> Path:
    """Where what was packed for other places waits to be copied."""
    return folder.with_name(f"{folder.name}.aside")


class Journal:
    """The journal of a folder; several threads may add to it."""

    def __init__(self, folder: Path, parts: Sequence[Part]) -> None:
        self._folder, self._aside = folder, aside(folder)
        places = {(part.mark, part.shard, part.offset) for part in parts}
        if any(_place(entry) not in places for entry in _read(folder)):
            _set_aside(folder)
        self._written = {_place(entry): entry for entry in _read(folder)}
        self._earlier = {entry["mark"]: entry for entry in _read(self._aside)}
        self._lock = threading.Lock()

    def written(self, part: Part) -> Recorded | None:
        """What is known of a recording that lies in its place."""
        entry = self._written.get((part.mark, part.shard, part.offset))
        return Recorded.from_line(entry["recorded"]) if entry and _reaches(self._folder, entry) else None

    def copied(self, part: Part) -> Recorded | None:
        """Copy a recording that lies in another place to its own; None where there is none."""
        entry = self._earlier.get(part.mark)
        if entry is None or not _reaches(self._aside, entry):
            return None
        recorded = Recorded.from_line(entry["recorded"])
        source_path, path = shard_path(self._aside, entry["shard"]), shard_path(self._folder, part.shard)
        with open(source_path, "rb") as source, open(path, "r+b") as file:
            source.seek(entry["offset"] * SAMPLE_BYTES)
            file.seek(part.offset * SAMPLE_BYTES)
            remaining = recorded.num_samples * SAMPLE_BYTES
            while remaining:
                remaining -= file.write(source.read(min(remaining, _COPY_BYTES)))
            file.flush()
            os.fdatasync(file.fileno())
        return recorded

    def add(self, part: Part, recorded: Recorded) -> Recorded:
        """Note that a recording lies in its place."""
        entry = {"mark": part.mark, "shard": part.shard, "offset": part.offset, "recorded": recorded.line()}
        with self._lock, open(self._folder / JOURNAL, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        return recorded


def _place(entry: dict[str, Any]) -> tuple[str, int, int]:
    return entry["mark"], entry["shard"], entry["offset"]


def _reaches(folder: Path, entry: dict[str, Any]) -> bool:
    path = shard_path(folder, entry["shard"])
    end = (entry["offset"] + entry["recorded"]["num_samples"]) * SAMPLE_BYTES
    return path.is_file() and path.stat().st_size >= end


def _set_aside(folder: Path) -> None:
    """Begin the folder anew, its samples kept; what waited before makes room for them."""
    shutil.rmtree(aside(folder), ignore_errors=True)
    os.replace(folder, aside(folder))
    folder.mkdir()
    if (aside(folder) / "annotations").exists():
        os.replace(aside(folder) / "annotations", folder / "annotations")


def _read(folder: Path) -> list[dict[str, Any]]:
    """The entries; a last line that a kill cut off is taken away."""
    path = folder / JOURNAL
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return [json.loads(line) for line in whole.splitlines()]
