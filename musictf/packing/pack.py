"""``musictf data pack``: decode a corpus once, so that training reads excerpts instead of files.

Conventions: a pack comes into being in a folder beside its own (``.NAME.packing``) and is moved into place when it is
whole; nothing half-written has its name. Where each recording will lie follows from the headers of the files, so the
threads that decode write to places of their own and their number changes nothing. A second run decodes what a killed
one has not. A file that does not decode, or an annotation that does not read, stops the pack once all are known.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from musictf.audio.io import Waveform, audio_info, read_excerpt, track_peak
from musictf.datasets.base import SPLITS, Dataset, PackedRecording, Track, corpus_digest
from musictf.datasets.corpus_check import output_console, print_some
from musictf.datasets.identity import FILE_NAME, identities, write_identities
from musictf.datasets.parallel import in_threads
from musictf.errors import InputError
from musictf.files import write_atomically
from musictf.packing.format import (
    FORMAT,
    HEADER,
    INDEX,
    PCM,
    SAMPLE_BYTES,
    SHARDS,
    Recorded,
    block_samples,
    read_pack,
    record,
    shard_path,
)
from musictf.packing.journal import JOURNAL, Journal, Part, aside
from musictf.packing.packed import Packed
from musictf.packing.plan import Look, Place, look_at, plan_parts, plan_places, recordings
from musictf.packing.streamed import CHUNKS, SEGMENT_SECONDS, litdata, write_segments

FORMS = ("pcm", "litdata")
_RESERVE = 1 << 26  # bytes that index, annotations and fingerprints may take beside the samples
_VERIFY_SAMPLES = 1 << 22


@dataclass(frozen=True)
class PackConfig:
    """How a corpus is packed; see `pack`."""

    sample_rate: int
    splits: tuple[str, ...]
    shard_gb: float
    form: str

    def __post_init__(self) -> None:
        if self.sample_rate < 1000:
            raise InputError(f"sample_rate={self.sample_rate} is no sample rate in hertz")
        if self.shard_gb <= 0:
            raise InputError(f"shard_gb={self.shard_gb} must be positive")
        if self.form not in FORMS:
            raise InputError(f"format={self.form!r} is unknown: one of {', '.join(FORMS)}")
        if unknown := set(self.splits) - set(SPLITS):
            raise InputError(f"splits: {', '.join(sorted(unknown))} unknown: any of {', '.join(SPLITS)}")


def pack(
    dataset: Dataset,
    output: str,
    sample_rate: int = 16_000,
    splits: Sequence[str] = SPLITS,
    shard_gb: float = 1.0,
    form: str = "pcm",
    overwrite: bool = False,
) -> Path:
    """Pack a corpus.

    Args:
        dataset: The corpus.
        output: The folder to make.
        sample_rate: Samples a second; that of the front end that will hear them.
        splits: Which tracks.
        shard_gb: Largest size of a shard in gigabytes, unless one track is larger.
        form: ``pcm``, or ``litdata`` for object storage.
        overwrite: Replace a pack that is there already, once the new one is whole.

    Returns:
        The folder.

    Raises:
        InputError: something cannot be decoded (all that cannot is listed), there is no room, or ``output`` is taken.
    """
    config = PackConfig(sample_rate, tuple(splits), shard_gb, form)
    target = Path(output).expanduser().resolve()
    _refuse_taken(target, overwrite)
    if config.form == "litdata":
        litdata()
    tracks = [track for track in dataset.all_tracks() if track.split in config.splits]
    if not tracks:
        raise InputError(f"{dataset.label}: no track in {'+'.join(config.splits)}; choose with splits=[...]")
    try:
        with _staging(target) as folder:
            _fill(folder, tracks, config, dataset)
            _move_into_place(folder, target)
    except OSError as error:
        raise InputError(f"output={output}: cannot be written ({error.strerror or error})") from error
    return target


def verify(folder: str) -> int:
    """Compare every recording of a pack with its digest.

    Returns:
        How many there are.

    Raises:
        InputError: samples are not those that were packed.
    """
    tracks = Packed(root=folder).all_tracks()
    slots = [(track.track_id, slot) for track in tracks for slot in track.slots]
    with _progress() as progress:
        found = in_threads(lambda pair: _digest(pair[1]), slots, progress, f"verifying {len(slots)} recordings")
    bad = [name for (name, slot), digest in zip(slots, found, strict=True) if digest != slot.digest]
    print_some(output_console(), "not what was packed", bad)
    if bad:
        raise InputError(f"{folder}: {len(bad)} of {len(slots)} recordings are damaged; copy or make the pack again")
    return len(slots)


def _fill(folder: Path, tracks: Sequence[Track], config: PackConfig, dataset: Dataset) -> None:
    """Everything that a pack holds."""
    shutil.rmtree(folder / "annotations", ignore_errors=True)
    with _progress() as progress:
        numbered = list(enumerate(tracks))
        title = f"reading {len(tracks)} headers"
        looks = in_threads(lambda pair: look_at(folder, *pair, config.sample_rate), numbered, progress, title)
        faults = [fault for look in looks for fault in look.faults]
        _report(faults)
        tracks = [track for track, look in zip(tracks, looks, strict=True) if not look.faults]
        looks = [look for look in looks if not look.faults]
        places = plan_places([look.lengths for look in looks], config.shard_gb)
        parts = list(plan_parts(tracks, looks, places, config.sample_rate))
        recorded, broken = _decode(folder, parts, config, progress)
    _report(broken)
    _refuse_bad(faults + broken, dataset)
    write_identities(folder / FILE_NAME, identities(tracks))
    origin = {"corpus": dataset.label, "corpus_digest": corpus_digest(tracks)}
    _finish(folder, _lines(tracks, looks, places, recorded), config, origin)


def _progress() -> Progress:
    return Progress(console=Console(stderr=True), transient=True)


def _decode(
    folder: Path, parts: Sequence[Part], config: PackConfig, progress: Progress
) -> tuple[list[Recorded | None], list[str]]:
    """Write every recording that is not yet written; answers what is known of them, and why some cannot be."""
    journal = Journal(folder, parts)
    written = [journal.written(part) for part in parts]
    missing = sum(part.num_samples for part, known in zip(parts, written, strict=True) if known is None)
    if config.form == "litdata":  # chunks stand beside the samples until they are whole
        missing += sum(part.num_samples for part in parts)
    _refuse_no_room(folder, missing * SAMPLE_BYTES + _RESERVE)
    for number in {part.shard for part in parts}:
        shard_path(folder, number).parent.mkdir(exist_ok=True)
        shard_path(folder, number).touch()
    broken: list[str] = []

    def make(work: tuple[Part, Recorded | None]) -> Recorded | None:
        part, known = work
        try:
            return known or journal.add(part, journal.copied(part) or _write(folder, part, config.sample_rate))
        except InputError as error:
            broken.append(str(error))
            return None

    recorded = in_threads(make, list(zip(parts, written, strict=True)), progress, f"packing {len(parts)} recordings")
    return recorded, sorted(broken)


def _write(folder: Path, part: Part, sample_rate: int) -> Recorded:
    step = block_samples(sample_rate)

    def blocks() -> Iterator[Waveform]:
        for start in range(0, part.num_samples, step):
            yield read_excerpt(part.path, start, min(step, part.num_samples - start), sample_rate)

    is_resampled = audio_info(part.path).sample_rate != sample_rate
    peak = float(track_peak(str(part.path))) if is_resampled else None
    return record(shard_path(folder, part.shard), part.offset, sample_rate, blocks, peak)


def _lines(
    tracks: Sequence[Track], looks: Sequence[Look], places: Sequence[Place], recorded: Sequence[Recorded | None]
) -> list[dict[str, Any]]:
    """The lines of the index."""
    known, lines = iter(recorded), []
    for track, look, (shard, offset) in zip(tracks, looks, places, strict=True):
        entries = [entry.line() for entry in islice(known, len(look.lengths)) if entry is not None]
        who = {name: getattr(track, name) for name in ("track_id", "split", "group", "source")}
        where = {"audio": [str(path) for path in recordings(track)], "shard": shard, "offset": offset}
        lines.append({**who, **where, "labels": look.labels, "files": look.files, "recordings": entries})
    return lines


def _finish(folder: Path, lines: list[dict[str, Any]], config: PackConfig, origin: dict[str, Any]) -> None:
    """Index, chunks and ``pack.json``, in this order."""
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    write_atomically(folder / INDEX, content)
    lengths = [sum(entry["num_samples"] for entry in line["recordings"]) for line in lines]
    ends = {line["shard"]: line["offset"] + length for line, length in zip(lines, lengths, strict=True)}
    # What a killed run left behind the last track of a shard, or behind the last shard, goes.
    for number, end in ends.items():
        os.truncate(shard_path(folder, number), end * SAMPLE_BYTES)
    for path in set((folder / SHARDS).iterdir()) - {shard_path(folder, number) for number in ends}:
        path.unlink()
    segment = SEGMENT_SECONDS * config.sample_rate
    shutil.rmtree(folder / CHUNKS, ignore_errors=True)
    if config.form == "litdata":
        write_segments(folder / CHUNKS, _segments(folder, lines, segment))
    samples = sorted((folder / (SHARDS if config.form == "pcm" else CHUNKS)).iterdir())
    digests = [[line["track_id"], line["split"], *(entry["digest"] for entry in line["recordings"])] for line in lines]
    header = {
        "format": FORMAT,
        "store": config.form,
        "sample_rate": config.sample_rate,
        "segment": segment if config.form == "litdata" else None,
        "tracks": len(lines),
        "recordings": sum(len(line["recordings"]) for line in lines),
        "samples": sum(lengths),
        "digest": hashlib.sha256(json.dumps([config.sample_rate, digests]).encode()).hexdigest(),
        "index": hashlib.sha256(content).hexdigest(),
        "files": {str(path.relative_to(folder)): path.stat().st_size for path in samples},
    }
    write_atomically(folder / HEADER, json.dumps(header | origin, indent=1) + "\n")


def _segments(folder: Path, lines: Sequence[dict[str, Any]], segment: int) -> Iterator[PCM]:
    for line in lines:
        offset = line["offset"]
        for entry in line["recordings"]:
            for start in range(0, entry["num_samples"], segment):
                count, first = min(segment, entry["num_samples"] - start), (offset + start) * SAMPLE_BYTES
                yield np.fromfile(shard_path(folder, line["shard"]), np.int16, count, offset=first)
            offset += entry["num_samples"]


def _digest(slot: PackedRecording) -> str:
    digest = hashlib.sha256()
    for start in range(0, slot.num_samples, _VERIFY_SAMPLES):
        digest.update(slot.read(start, min(_VERIFY_SAMPLES, slot.num_samples - start)).astype("<i2").data)
    return digest.hexdigest()


def _report(faults: Sequence[str]) -> None:
    print_some(output_console(), "cannot be packed", faults)


def _refuse_bad(faults: Sequence[str], dataset: Dataset) -> None:
    if faults:
        raise InputError(
            f"{len(faults)} files cannot be packed (listed above); musictf data check dataset={dataset.name} ... "
            "output=FILE lists their tracks, dataset.exclusions=FILE leaves them out; what is decoded is kept"
        )


def _refuse_taken(target: Path, overwrite: bool) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (target / HEADER).is_file():
        raise InputError(f"output={target} is there and no pack; choose another folder")
    if not overwrite:
        raise InputError(f"output={target} holds a pack already; overwrite=true replaces it")


def _refuse_no_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(f"output: {folder.parent} needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """The folder in which a pack comes into being, held for this process."""
    folder = target.with_name(f".{target.name}.packing")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f"{folder.name}.lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"output={target}: another process packs there") from None
        try:
            yield folder
        finally:
            Path(lock.name).unlink()


def _move_into_place(folder: Path, target: Path) -> None:
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(folder, target)
    # What only an unfinished pack needs goes last: its journal must never stand without its samples.
    (target / JOURNAL).unlink(missing_ok=True)
    if (target / CHUNKS).exists():
        shutil.rmtree(target / SHARDS)
    for left in (old, aside(folder)):
        shutil.rmtree(left, ignore_errors=True)


def pack_keys(given: Mapping[str, str] | None = None, sample_rate: int = 16_000) -> dict[str, Any]:
    """The keys of `pack` as the command line names them, or, given some as text, the arguments of `pack`.

    Raises:
        InputError: a value is none.
    """
    kinds: dict[str, Callable[[str], Any]] = {
        "sample_rate": int,
        "splits": _listed,
        "shard_gb": float,
        "format": str,
        "overwrite": lambda text: {"true": True, "false": False}[text],
    }
    if given is None:
        return dict.fromkeys(kinds)
    arguments: dict[str, Any] = {"sample_rate": sample_rate}
    for name, text in given.items():
        try:
            arguments["form" if name == "format" else name] = kinds[name](text)
        except (KeyError, ValueError):
            raise InputError(f"{name}={text} is no value of it (musictf data --help)") from None
    return arguments


def summary(folder: Path) -> str:
    """What a pack holds, in a line."""
    header = read_pack(folder).header
    hours, size = header["samples"] / header["sample_rate"] / 3600, sum(header["files"].values())
    return (
        f"{folder}: {header['tracks']} tracks, {header['recordings']} recordings, {hours:.2f} hours at "
        f"{header['sample_rate']} Hz, {size / 1e9:.2f} GB in {len(header['files'])} files"
    )


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.strip("[]").split(",")]
