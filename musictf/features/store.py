"""The feature store: one folder an extractor, one memory-mapped file a recording.

``$MUSICTF_CACHE/features/<extractor>/<audio>.safetensors``: the extractor is a digest of everything that shapes
features (weights and front end, version, layers, excerpt hop, precision; ``about.json`` says which), the audio a digest
of the file's bytes. So nothing can be stale: another model, another file or another version is another name.

Conventions: an entry is written under a temporary name and renamed when it is whole and its checksum is in it; an
entry that is not whole is made again, never used. Any number of processes may read and write one store. Entries are
written row by row as they are computed, so memory does not grow with the length of a track.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
from torch import Tensor

from musictf.errors import InputError
from musictf.files import cache_folder, file_digest, write_atomically

_DTYPES = {"float16": ("F16", np.float16), "float32": ("F32", np.float32), "float64": ("F64", np.float64)}
_DAY = 86_400  # seconds; a temporary file that old was left by a process that died


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
        """Where the features of an audio file are, or would be."""
        status = audio.stat()
        return self.folder / f"{_audio_digest(str(audio), status.st_mtime_ns, status.st_size)}.safetensors"

    def entries(self) -> list[Path]:
        """Every finished entry."""
        return sorted(self.folder.glob("[!.]*.safetensors"))


class EntryWriter:
    """Writes one entry, each tensor row by row; nothing is there before ``finish``.

    Args:
        path: The entry.
        tensors: Shape and dtype (``float16``, ``float32``, ``float64``) of each tensor.
    """

    def __init__(self, path: Path, tensors: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
        self.path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
        self._types: dict[str, Any] = {}
        self._next: dict[str, int] = {}
        self._end: dict[str, int] = {}
        self._header: dict[str, Any] = {"__metadata__": {"digest": "0" * 32}}
        offset = 0
        for name, (shape, dtype) in tensors.items():
            code, self._types[name] = _DTYPES[dtype]
            length = int(np.prod(shape)) * np.dtype(self._types[name]).itemsize
            self._header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [offset, offset + length]}
            self._next[name], self._end[name] = offset, offset + length
            offset += length
        self._start = 8 + len(_header_bytes(self._header))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._temporary, "w+b")  # noqa: SIM115 (closed by finish or abandon)

    def append(self, name: str, rows: npt.ArrayLike) -> None:
        """Write the next rows of a tensor."""
        content = np.ascontiguousarray(rows, dtype=self._types[name]).tobytes()
        self._file.seek(self._start + self._next[name])
        self._file.write(content)
        self._next[name] += len(content)

    def finish(self) -> None:
        """Put the checksum in and give the entry its name.

        Raises:
            RuntimeError: a tensor was not written to its end.
        """
        unfinished = [name for name, end in self._end.items() if self._next[name] != end]
        if unfinished:
            self.abandon()
            raise RuntimeError(f"{self.path.name}: {', '.join(unfinished)} not written to the end")
        self._file.seek(self._start)
        self._header["__metadata__"]["digest"] = _digest(self._header, self._file)
        text = _header_bytes(self._header)
        self._file.seek(0)
        self._file.write(struct.pack("<Q", len(text)) + text)
        self._file.close()
        os.replace(self._temporary, self.path)

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def store_folder() -> Path:
    """Where all features are kept."""
    return cache_folder() / "features"


def read_entry(path: Path) -> dict[str, Tensor] | None:
    """Tensors of an entry, mapped, not read; None where there is no whole entry."""
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (FileNotFoundError, safetensors.SafetensorError):
        return None


def is_intact(path: Path) -> bool:
    """Whether an entry's content is what was written, by its checksum; reads all of it."""
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
            return bool(header["__metadata__"]["digest"] == _digest(header, file)) and read_entry(path) is not None
    except (OSError, ValueError, KeyError, TypeError, struct.error, MemoryError, OverflowError):
        return False


def extractors() -> Iterator[Extractor]:
    """Every extractor that has a folder, whatever its version."""
    for path in sorted(store_folder().glob("*/about.json")):
        yield Extractor(path.parent, json.loads(path.read_text()))


def prune(wanted: str | None = None, unused_days: float | None = None, broken: bool = False) -> tuple[int, int]:
    """Delete entries.

    Args:
        wanted: Only extractors whose folder, backbone digest or kind begins with this text.
        unused_days: Only entries that nobody has read or written for so many days.
        broken: Only entries that fail their checksum, and what dead processes left behind.

    Returns:
        How many files were deleted, and their bytes.

    Raises:
        InputError: no extractor is called so.
    """
    chosen = [extractor for extractor in extractors() if wanted is None or _is_called(extractor, wanted)]
    if wanted is not None and not chosen:
        raise InputError(f"no features of {wanted!r}: see musictf data features list")
    doomed = [path for extractor in chosen for path in extractor.entries() if _is_doomed(path, unused_days, broken)]
    doomed += [path for extractor in chosen for path in extractor.folder.glob(".*.tmp") if _age(path) > 1]
    size = sum(map(_delete, doomed))
    for extractor in chosen:
        if not broken and not extractor.entries() and not list(extractor.folder.glob(".*.tmp")):
            shutil.rmtree(extractor.folder, ignore_errors=True)
    return len(doomed), size


def _is_called(extractor: Extractor, name: str) -> bool:
    known = (extractor.folder.name, str(extractor.about.get("backbone")), str(extractor.about.get("kind")))
    return any(text.startswith(name) for text in known)


def _is_doomed(path: Path, unused_days: float | None, broken: bool) -> bool:
    if broken:
        return not is_intact(path)
    return unused_days is None or _age(path) >= unused_days


def _age(path: Path) -> float:
    """Days since a file was last read or written; 0 for one that another process has renamed or deleted meanwhile."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0.0
    return (time.time() - max(status.st_atime, status.st_mtime)) / _DAY


def _delete(path: Path) -> int:
    """Delete a file; its bytes, 0 where another process was faster."""
    try:
        size = path.stat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    return size


def _header_bytes(header: Mapping[str, Any]) -> bytes:
    text = json.dumps(header).encode()
    return text + b" " * (-len(text) % 8)


def _digest(header: Mapping[str, Any], file: Any) -> str:
    """Of a header but for its digest, and of what follows in an open file (32 hexadecimal digits)."""
    tensors = {name: about for name, about in header.items() if name != "__metadata__"}
    state = hashlib.blake2b(_header_bytes(tensors), digest_size=16)
    while block := file.read(1 << 20):
        state.update(block)
    return state.hexdigest()


@functools.lru_cache(maxsize=65536)
def _audio_digest(path: str, modified: int, size: int) -> str:
    return file_digest(Path(path))[:32]
