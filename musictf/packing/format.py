"""The format of a pack: recordings as plain 16-bit samples in a few large files, read through a memory map.

A pack is a folder:

    pack.json          format, sample rate, counts, files and their sizes, digests; written last
    index.jsonl        one line a track: positions, levels and digests of its recordings, its labels
    shards/00000.pcm   samples, little-endian 16-bit integers without header; a track lies in one shard
    annotations/       chords, beats and onsets, in the formats of a manifest
    identities.jsonl.gz   see `musictf.datasets.identity`

Conventions: samples are mono at the pack's rate; float32 waveform = integer * ``gain``. The gain is 1/32768, which
keeps 16-bit files exactly; a recording that exceeds full scale is scaled down instead of clipped, a faint one up, and
its gain undoes that. Levels are RMS in decibels of full scale. The silence map holds one byte for each whole or last
quarter of a second: its level, rounded down to a decibel, plus 128.

Shapes:  N samples of a block or an excerpt, at the pack's rate
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
_CELLS_PER_SECOND = 4  # cells of the silence map
_LEVEL_ZERO = 128  # the byte of the silence map that stands for 0 dB of full scale
# Mean square of each byte of a silence map; the lowest stands for anything down to digital silence.
_POWERS = (0.0, *(10 ** ((code - _LEVEL_ZERO) / 10) for code in range(1, 256)))


@dataclass(frozen=True, kw_only=True)
class Slot:
    """The position of one recording in a pack, and its properties that need no reading of samples.

    Attributes:
        num_samples: Its length at the pack's rate.
        sample_rate: The pack's rate in hertz.
        gain: Factor from its integers to the waveform, whose full scale is 1.
        peak: Largest magnitude of its waveform, before any resampling.
        digest: SHA-256 of its integers (64 hexadecimal digits).
        levels: Its silence map.
        folder: The pack.
        pack: Digest of the pack, so that a pack made anew in the same folder is noticed.
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
        """Integers of samples ``start`` to ``start + num_samples``, (N,) with N = num_samples.

        Args:
            start: First sample.
            num_samples: Number of samples.
            out: Array to write them to, (N,); a new one otherwise.

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

        Every excerpt below the level is quiet. So is one that reaches the level only by its first or last quarter of a
        second or by less than a decibel: cells that it covers partly count as silent, and levels are rounded down.
        For an excerpt that covers no whole cell the quietest cell that it touches decides.

        Args:
            start: First sample.
            num_samples: Number of samples.
            level_db: RMS level in decibels of full scale.
        """
        cell = self.sample_rate // _CELLS_PER_SECOND
        end = start + num_samples
        whole = self.levels[-(-start // cell) : end // cell]  # from the first cell that begins in the excerpt
        if whole:
            energy = cell * sum(map(_POWERS.__getitem__, whole))
        else:
            energy = num_samples * _POWERS[min(self.levels[start // cell : -(-end // cell)], default=0)]
        # Energies in units of full scale squared times samples.
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
        # Little-endian on every machine, as the format states.
        return np.asarray(np.memmap(path, "<i2", mode="r"))
    except (OSError, ValueError) as error:  # numpy maps neither an empty file nor half a sample
        raise InputError(f"{path}: cannot be read ({error}); copy or make the pack again") from None


def shard_path(folder: str | Path, number: int) -> Path:
    """The file of a shard."""
    return Path(folder) / SHARDS / f"{number:05d}.pcm"


@dataclass(frozen=True)
class StoredRecording:
    """Properties of a recording whose samples are written.

    The attributes are those of `Slot`; ``loudness`` is the RMS level of the whole recording in decibels of full scale.
    """

    num_samples: int
    gain: float
    peak: float
    loudness: float
    digest: str
    levels: bytes

    def to_json(self) -> dict[str, Any]:
        """An object that JSON can hold."""
        return vars(self) | {"levels": base64.b64encode(self.levels).decode()}

    @staticmethod
    def from_json(entry: dict[str, Any]) -> StoredRecording:
        """The inverse of `to_json`."""
        return StoredRecording(**(entry | {"levels": base64.b64decode(entry["levels"])}))


def block_samples(sample_rate: int) -> int:
    """Length of the blocks of `store_recording`: a minute, in whole cells of the silence map; rate in hertz."""
    return sample_rate // _CELLS_PER_SECOND * _CELLS_PER_SECOND * 60


def store_recording(
    path: Path,
    offset: int,
    sample_rate: int,
    blocks: Callable[[], Iterable[npt.NDArray[np.float32]]],
    peak: float | None = None,
) -> StoredRecording:
    """Write one recording into a shard; bytes before and after it stay as they are.

    Args:
        path: The shard, which exists.
        offset: Its first sample in the shard.
        sample_rate: The pack's rate in hertz.
        blocks: Returns its waveform in blocks (N,) from the start; all but the last have `block_samples` samples.
            Called a second time for a recording that exceeds full scale or is faint.
        peak: Its largest magnitude, where that is not the one of these samples.
    """
    meter, gain = _Meter(sample_rate), 1 / _FULL_SCALE
    digest = _write(path, offset, map(meter.add, blocks()), gain)
    # The gain is known only at the end; most recordings need no second pass.
    exceeds = round(meter.highest * _FULL_SCALE) >= _FULL_SCALE or round(meter.lowest * _FULL_SCALE) < -_FULL_SCALE
    if exceeds or 0 < meter.peak < _FAINT:
        # Not clipped: the peak becomes the largest integer.
        gain = meter.peak / (_FULL_SCALE - 1)
        digest = _write(path, offset, blocks(), gain)
    levels = bytes(meter.levels)
    return StoredRecording(meter.length, gain, meter.peak if peak is None else peak, meter.loudness, digest, levels)


class _Meter:
    """Range, energy and silence map of a waveform that is given block by block."""

    def __init__(self, sample_rate: int) -> None:
        self.cell = sample_rate // _CELLS_PER_SECOND
        self.length, self.energy, self.highest, self.lowest = 0, 0.0, 0.0, 0.0
        self.levels = bytearray()

    def add(self, block: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Measure a block (N,), and return it."""
        powers = np.square(block, dtype=np.float64)
        edges = np.arange(0, len(block), self.cell)  # blocks begin with a cell, see `block_samples`
        means = np.add.reduceat(powers, edges) / np.diff(edges, append=len(block))
        decibels = np.floor(10 * np.log10(np.maximum(means, 1e-20)))  # digital silence: -200 dB
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
    """Write blocks (N,) as integers and return their digest; on return they survive a crash of the machine."""
    digest = hashlib.sha256()
    with open(path, "r+b") as file:
        file.seek(offset * SAMPLE_BYTES)
        for block in blocks:
            scaled = np.rint(block / np.float64(gain)).clip(-_FULL_SCALE, _FULL_SCALE - 1).astype("<i2")
            file.write(scaled.data)
            digest.update(scaled.data)
        # The journal may list the recording only once its samples are on the disk.
        file.flush()
        os.fdatasync(file.fileno())
    return digest.hexdigest()


@dataclass(frozen=True)
class Pack:
    """An opened pack: its folder, the content of ``pack.json``, and the lines of the index."""

    folder: Path
    header: dict[str, Any]
    lines: list[dict[str, Any]]


def read_pack(folder: Path, has_samples: bool = True) -> Pack:
    """Open a pack: read its index and compare the sizes of its files with the stated ones.

    Args:
        folder: The pack.
        has_samples: Whether the samples are in the folder too, and not in object storage.

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
        for name, expected in header["files"].items() if has_samples else ():
            size = (folder / name).stat().st_size if (folder / name).is_file() else None
            if size != expected:
                fault = "is missing" if size is None else f"has {size} bytes instead of {expected}"
                raise InputError(f"{folder / name}: {fault}; copy or make the pack again")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder}: damaged ({type(error).__name__}: {error}); copy or make the pack again") from None
    return Pack(folder, header, lines)


def pack_slots(pack: Pack, line: dict[str, Any]) -> tuple[Slot, ...]:
    """Positions of the recordings of a track in a pack whose samples are in shards.

    Args:
        pack: The pack.
        line: The line of the track in the index.
    """
    slots, offset = [], line["offset"]  # recordings of a track follow each other without a gap
    for entry in line["recordings"]:
        slots.append(Slot(**slot_fields(pack, entry), shard=line["shard"], offset=offset))
        offset += entry["num_samples"]
    return tuple(slots)


def slot_fields(pack: Pack, entry: dict[str, Any]) -> dict[str, Any]:
    """Attributes of a slot that do not depend on where the samples are; ``entry`` is a recording of the index."""
    fields = vars(StoredRecording.from_json(entry))
    del fields["loudness"]
    header = pack.header
    return fields | {"sample_rate": header["sample_rate"], "folder": str(pack.folder), "pack": header["digest"]}
