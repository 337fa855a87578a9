"""The feature store: one folder an extractor, one memory-mapped file a recording.

``$MUSICTF_CACHE/features/<extractor>/<audio>.safetensors``: the extractor is a digest of everything that shapes
features (weights and front end, version, layers, excerpt hop, precision; listed in ``about.json``), the audio a digest
of the file's bytes. So an entry is never stale: another model, file or version has another name.

Conventions: an entry is written under a temporary name, and renamed when it is whole and holds its checksum. An entry
that is not whole is computed again, never used. Any number of processes may read and write one store. Entries are
written row by row as they are computed, so memory does not grow with the length of a track.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import safetensors
from safetensors.numpy import save_file
from torch import Tensor

from musictf.errors import InputError
from musictf.files import cache_folder, file_digest, write_atomically

CHECKSUM = "checksum"  # a tensor of every entry: digest of all others
_CHECKSUM_BYTES = 16
_DAY = 86_400  # seconds; a temporary file of that age was left by a process that died


@dataclass(frozen=True)
class Extractor:
    """All entries of one way to compute features."""

    folder: Path
    about: dict[str, Any]

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> Extractor:
        """The folder of an extractor, made and described where it is new."""
        name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
        extractor = cls(store_folder() / name, dict(about))
        if not (extractor.folder / "about.json").is_file():
            write_atomically(extractor.folder / "about.json", json.dumps(extractor.about, indent=1) + "\n")
        return extractor

    def entry(self, audio: Path) -> Path:
        """Path of the features of an audio file, whether or not they exist."""
        # The digest is kept in memory for a file that has not changed: hashing long recordings takes time.
        status = audio.stat()
        return self.folder / f"{_audio_digest(str(audio), status.st_mtime_ns, status.st_size)}.safetensors"

    def entries(self) -> list[Path]:
        """Every finished entry."""
        return sorted(self.folder.glob("[!.]*.safetensors"))


class EntryWriter:
    """Writes one entry, each tensor row by row; the entry exists only after ``finish``.

    Args:
        path: The entry.
        tensors: Shape and dtype (``float16``, ``float32``, ``float64``) of each tensor.
    """

    def __init__(self, path: Path, tensors: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
        self.path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary.touch()
        mode = self._temporary.stat().st_mode
        # The library writes a file of zeros, whose pages take no memory; rows are then written at their positions.
        zeros = {name: np.zeros(shape, dtype) for name, (shape, dtype) in tensors.items()}
        save_file(zeros | {CHECKSUM: np.zeros(_CHECKSUM_BYTES, np.uint8)}, self._temporary)
        self._temporary.chmod(mode)  # save_file gives access to the owner only
        self._dtypes = {name: values.dtype for name, values in zeros.items()}
        self._ranges = _byte_ranges(self._temporary)
        self._next = {name: first for name, (first, _) in self._ranges.items()}
        self._file = open(self._temporary, "r+b")  # noqa: SIM115 (closed by finish or abandon)

    def append(self, name: str, rows: npt.ArrayLike) -> None:
        """Write the next rows of a tensor, (n, ...)."""
        content = np.ascontiguousarray(rows, dtype=self._dtypes[name]).tobytes()
        self._file.seek(self._next[name])
        self._file.write(content)
        self._next[name] += len(content)

    def finish(self) -> None:
        """Write the checksum and give the entry its name.

        Raises:
            RuntimeError: a tensor was not written to its end.
        """
        unfinished = [name for name in self._dtypes if self._next[name] != self._ranges[name][1]]
        if unfinished:
            self.abandon()
            raise RuntimeError(f"{self.path.name}: {', '.join(unfinished)} not written to the end")
        self._file.seek(0)
        checksum = _checksum(self._file, self._ranges[CHECKSUM])
        self._file.seek(self._ranges[CHECKSUM][0])
        self._file.write(checksum)
        self._file.close()
        os.replace(self._temporary, self.path)

    def abandon(self) -> None:
        """Delete the temporary file."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def store_folder() -> Path:
    """Folder of the feature store."""
    return cache_folder() / "features"


def read_entry(path: Path) -> dict[str, Tensor] | None:
    """Tensors of an entry by name, mapped, with the shapes given to `EntryWriter`; None without a whole entry."""
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name != CHECKSUM}  # noqa: SIM118 (no dict)
    except (FileNotFoundError, safetensors.SafetensorError):
        return None


def is_intact(path: Path) -> bool:
    """Whether an entry's content is what was written, by its checksum; reads all of it."""
    # The library checks names, shapes and lengths first: what follows may rely on them.
    if read_entry(path) is None:
        return False
    first, end = _byte_ranges(path).get(CHECKSUM, (0, 0))
    with open(path, "rb") as file:
        file.seek(first)
        stored = file.read(end - first)
        file.seek(0)
        return stored == _checksum(file, (first, end))


def extractors() -> Iterator[Extractor]:
    """Every extractor that has a folder, whatever its version."""
    for path in sorted(store_folder().glob("*/about.json")):
        yield Extractor(path.parent, json.loads(path.read_text()))


def prune(name: str | None = None, unused_days: float | None = None, broken: bool = False) -> tuple[int, int]:
    """Delete entries.

    Args:
        name: Only extractors whose folder, backbone digest or kind begins with this text.
        unused_days: Only entries that were neither read nor written for so many days.
        broken: Only entries that fail their checksum, and temporary files of dead processes.

    Returns:
        How many files were deleted, and their bytes.

    Raises:
        InputError: no extractor has this name.
    """
    if name == "":
        raise InputError("no name of features is given: see musictf data features list")
    chosen = []
    for extractor in extractors():
        names = (extractor.folder.name, str(extractor.about.get("backbone")), str(extractor.about.get("kind")))
        if name is None or any(text.startswith(name) for text in names):
            chosen.append(extractor)
    if name is not None and not chosen:
        raise InputError(f"no features of {name!r}: see musictf data features list")
    entries = [path for extractor in chosen for path in extractor.entries()]
    if broken:
        entries = [path for path in entries if not is_intact(path)]
    elif unused_days is not None:
        entries = [path for path in entries if _age(path) >= unused_days]
    # A temporary file that is a day old belongs to no process that still runs.
    left_over = [path for extractor in chosen for path in extractor.folder.glob(".*.tmp") if _age(path) > 1]
    size = sum(map(_delete, entries + left_over))
    for extractor in chosen:
        if not broken and not extractor.entries() and not list(extractor.folder.glob(".*.tmp")):
            shutil.rmtree(extractor.folder, ignore_errors=True)
    return len(entries) + len(left_over), size


def _age(path: Path) -> float:
    """Days since a file was last read or written; 0 for one that another process has renamed or deleted meanwhile."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0.0
    return (time.time() - max(status.st_atime, status.st_mtime)) / _DAY


def _delete(path: Path) -> int:
    """Delete a file; returns its bytes, 0 where another process has deleted it."""
    try:
        size = path.stat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    return size


def _byte_ranges(path: Path) -> dict[str, tuple[int, int]]:
    """Where each tensor of a safetensors file begins and ends, in bytes from the start of the file."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    ranges = {name: tensor["data_offsets"] for name, tensor in header.items() if name != "__metadata__"}
    return {name: (8 + length + first, 8 + length + end) for name, (first, end) in ranges.items()}


def _checksum(file: IO[bytes], left_out: tuple[int, int]) -> bytes:
    """Digest of an open file from its position to its end; one range of bytes is replaced by zeros."""
    state = hashlib.blake2b(digest_size=_CHECKSUM_BYTES)
    position = file.tell()
    while block := bytearray(file.read(1 << 20)):
        first, end = (min(max(edge - position, 0), len(block)) for edge in left_out)
        block[first:end] = bytes(end - first)
        state.update(block)
        position += len(block)
    return state.digest()


@functools.lru_cache(maxsize=65536)
def _audio_digest(path: str, modified: int, size: int) -> str:
    return file_digest(Path(path))[:32]
