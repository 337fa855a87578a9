"""Recordings as plain 16-bit samples in a few large files: an excerpt is a copy from a memory map.

A pack is a folder:

    pack.json          format, sample rate, counts, files and their sizes, digests; written last
    index.jsonl        one line a track: where its recordings lie, their levels and digests, its labels
    shards/00000.pcm   samples, little-endian 16-bit integers without header; a track lies in one shard
    annotations/       chords, beats and onsets, in the formats of a manifest
    identities.jsonl.gz

Conventions: samples are mono at the pack's rate; float32 waveform = integer * ``gain``. The gain is 1/32768, which
keeps 16-bit files exactly; a recording that exceeds full scale is scaled down instead of clipped, a faint one up, and
its gain undoes that. Levels are RMS in decibels of full scale. The silence map holds one byte for each whole or last
quarter of a second: its level, rounded down to a decibel, plus 128.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from musictf.errors import InputError

PCM = npt.NDArray[np.int16]

FORMAT = "musictf-pack/1"
HEADER, INDEX, SHARDS = "pack.json", "index.jsonl", "shards"
SAMPLE_BYTES = 2

_FULL_SCALE = 32768
_FAINT = 1 / 64  # a recording whose peak lies below has fewer than ten bits of the sixteen: it is scaled up
_CELLS_PER_SECOND = 4
_LEVEL_ZERO = 128
# Mean square of each byte of a silence map; the lowest stands for anything down to digital silence.
_POWERS = (0.0, *(10 ** ((code - _LEVEL_ZERO) / 10) for code in range(1, 256)))


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Where one recording lies in a pack, and what is known of it without reading.

    Attributes:
        num_samples: Its length at the pack's rate.
        sample_rate: The pack's rate in hertz.
        gain: What brings its integers to full scale.
        peak: Largest magnitude of its waveform, before any resampling.
        digest: SHA-256 of its integers (64 hexadecimal digits).
        levels: Its silence map.
        folder: The pack.
        pack: Digest of the pack, so that another one in the same place is not taken for it.
        shard: Number of the shard.
        offset: First sample in the shard.
    """

    num_samples: int
    sample_rate: int
    gain: float
    peak: float
    digest: str
    levels: bytes = field(repr=False)
    folder: str
    pack: str
    shard: int
    offset: int

    def read(self, start: int, num_samples: int, out: PCM | None = None) -> PCM:
        """Samples ``start`` to ``start + num_samples``, (num_samples,).

        Args:
            start: First sample.
            num_samples: How many.
            out: Where to put them, (num_samples,); a new array otherwise.

        Raises:
            InputError: the recording ends before the excerpt does, or the pack is damaged.
        """
        if start < 0 or num_samples < 0 or start + num_samples > self.num_samples:
            raise InputError(
                f"{self.folder}: {num_samples} samples from {start} of a recording of {self.num_samples} samples"
            )
        samples = self._samples(start, num_samples)
        if out is None:
            return samples.astype(np.int16)
        out[:] = samples
        return out

    def is_quiet(self, start: int, num_samples: int, level_db: float) -> bool:
        """Whether an excerpt may lie below a level, by the silence map alone.

        Every excerpt below the level is called quiet. So is one that reaches it only by its first or last quarter of a
        second or by less than a decibel: cells it does not cover whole count as silent, and levels are rounded down.
        An excerpt that covers no whole cell is judged by the quietest that it touches.
        """
        cell = self.sample_rate // _CELLS_PER_SECOND
        end = start + num_samples
        whole = self.levels[-(-start // cell) : end // cell]
        if whole:
            energy = cell * sum(map(_POWERS.__getitem__, whole))
        else:
            energy = num_samples * _POWERS[min(self.levels[start // cell : -(-end // cell)], default=0)]
        return energy < num_samples * 10 ** (level_db / 10)

    def _samples(self, start: int, num_samples: int) -> PCM:
        first = self.offset + start
        samples = _shard(self.folder, self.pack, self.shard)[first : first + num_samples]
        if len(samples) < num_samples:
            raise InputError(f"{shard_path(self.folder, self.shard)}: cut short; copy or make the pack again")
        return samples


@functools.cache
def _shard(folder: str, pack: str, number: int) -> PCM:
    """A shard, mapped once per process; forked processes share the map of their parent."""
    path = shard_path(folder, number)
    try:
        header = Path(folder) / HEADER
        if header.is_file() and json.loads(header.read_bytes())["digest"] != pack:
            raise InputError(f"{folder}: was packed anew since it was opened; start again")
        return np.asarray(np.memmap(path, "<i2", mode="r"))
    except (OSError, ValueError) as error:  # numpy maps neither an empty file nor half a sample
        raise InputError(f"{path}: cannot be read ({error}); copy or make the pack again") from None


def shard_path(folder: str | Path, number: int) -> Path:
    """The file of a shard."""
    return Path(folder) / SHARDS / f"{number:05d}.pcm"


@dataclass(frozen=True)
class Recorded:
    """What is known of a recording once its samples are written; see `Slot`. ``loudness`` is its level as a whole."""

    num_samples: int
    gain: float
    peak: float
    loudness: float
    digest: str
    levels: bytes

    def line(self) -> dict[str, Any]:
        """As JSON holds it."""
        return vars(self) | {"levels": base64.b64encode(self.levels).decode()}

    @staticmethod
    def from_line(line: dict[str, Any]) -> Recorded:
        """What `line` gave."""
        return Recorded(**(line | {"levels": base64.b64decode(line["levels"])}))


def block_samples(sample_rate: int) -> int:
    """How many samples the blocks of `record` have: a minute, in whole cells of the silence map."""
    return sample_rate // _CELLS_PER_SECOND * _CELLS_PER_SECOND * 60


def record(
    path: Path,
    offset: int,
    sample_rate: int,
    blocks: Callable[[], Iterable[npt.NDArray[np.float32]]],
    peak: float | None = None,
) -> Recorded:
    """Write one recording into a shard, and nothing beside it.

    Args:
        path: The shard, which exists.
        offset: Its first sample there.
        sample_rate: Samples a second.
        blocks: Gives its waveform, (N,) each, from the start; all but the last of `block_samples`. Called a second time
            for a recording that exceeds full scale or is faint.
        peak: Its largest magnitude, where it is not that of these samples.
    """
    meter, gain = _Meter(sample_rate), 1 / _FULL_SCALE
    digest = _write(path, offset, map(meter.add, blocks()), gain)
    exceeds = round(meter.highest * _FULL_SCALE) >= _FULL_SCALE or round(meter.lowest * _FULL_SCALE) < -_FULL_SCALE
    if exceeds or 0 < meter.peak < _FAINT:
        gain = meter.peak / (_FULL_SCALE - 1)
        digest = _write(path, offset, blocks(), gain)
    levels = bytes(meter.levels)
    return Recorded(meter.length, gain, meter.peak if peak is None else peak, meter.loudness, digest, levels)


class _Meter:
    """Range, energy and silence map of a waveform that passes by."""

    def __init__(self, sample_rate: int) -> None:
        self.cell = sample_rate // _CELLS_PER_SECOND
        self.length, self.energy, self.highest, self.lowest = 0, 0.0, 0.0, 0.0
        self.levels = bytearray()

    def add(self, block: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        powers = np.square(block, dtype=np.float64)
        edges = np.arange(0, len(block), self.cell)
        means = np.add.reduceat(powers, edges) / np.diff(edges, append=len(block))
        decibels = np.floor(10 * np.log10(np.maximum(means, 1e-20)))
        self.levels += (decibels.clip(-_LEVEL_ZERO, _LEVEL_ZERO - 1) + _LEVEL_ZERO).astype(np.uint8).tobytes()
        self.length, self.energy = self.length + len(block), self.energy + float(powers.sum())
        self.highest = max(self.highest, float(block.max()))
        self.lowest = min(self.lowest, float(block.min()))
        return block

    @property
    def peak(self) -> float:
        return max(self.highest, -self.lowest)

    @property
    def loudness(self) -> float:
        return round(10 * math.log10(max(self.energy / self.length, 1e-20)), 2)


def _write(path: Path, offset: int, blocks: Iterable[npt.NDArray[np.float32]], gain: float) -> str:
    """Write waveforms as integers, safe from a crash of the machine when it returns; answers their digest."""
    digest = hashlib.sha256()
    with open(path, "r+b") as file:
        file.seek(offset * SAMPLE_BYTES)
        for block in blocks:
            scaled = np.rint(block / np.float64(gain)).clip(-_FULL_SCALE, _FULL_SCALE - 1).astype("<i2")
            file.write(scaled.data)
            digest.update(scaled.data)
        file.flush()
        os.fdatasync(file.fileno())
    return digest.hexdigest()


@dataclass(frozen=True)
class Pack:
    """A pack as it was opened: its folder, what ``pack.json`` says, and the lines of the index."""

    folder: Path
    header: dict[str, Any]
    lines: list[dict[str, Any]]


def read_pack(folder: Path, is_here: bool = True) -> Pack:
    """Open a pack: read its index and look whether its files are whole.

    Args:
        folder: The pack.
        is_here: Whether the samples lie in the folder as well.

    Raises:
        InputError: it is no pack, of another format, or damaged.
    """
    path = folder / HEADER
    if not path.is_file():
        raise InputError(f"{folder} holds no {HEADER}, so it is no pack; musictf data pack output=FOLDER makes one")
    try:
        header = json.loads(path.read_bytes())
        if header["format"] != FORMAT:
            raise InputError(f"{path}: format {header['format']!r}, this version reads {FORMAT!r}")
        content = (folder / INDEX).read_bytes()
        if hashlib.sha256(content).hexdigest() != header["index"]:
            raise InputError(f"{folder / INDEX}: is not what was packed; copy or make the pack again")
        lines = [json.loads(line) for line in content.splitlines()]
        if is_here:
            _check_files(folder, header["files"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder}: damaged ({type(error).__name__}: {error}); copy or make the pack again") from None
    return Pack(folder, header, lines)


def pack_slots(pack: Pack, line: dict[str, Any]) -> tuple[Slot, ...]:
    """Where the recordings of a track lie, of a pack with shards of its own."""
    slots, offset = [], line["offset"]
    for entry in line["recordings"]:
        slots.append(Slot(**slot_facts(pack, entry), shard=line["shard"], offset=offset))
        offset += entry["num_samples"]
    return tuple(slots)


def slot_facts(pack: Pack, entry: dict[str, Any]) -> dict[str, Any]:
    """What every slot knows of its recording, by attribute."""
    known = vars(Recorded.from_line(entry))
    del known["loudness"]
    header = pack.header
    return known | {"sample_rate": header["sample_rate"], "folder": str(pack.folder), "pack": header["digest"]}


def _check_files(folder: Path, sizes: dict[str, int]) -> None:
    for name, expected in sizes.items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size != expected:
            found = "is missing" if size is None else f"has {size} bytes instead of {expected}"
            raise InputError(f"{path}: {found}; copy or make the pack again")
