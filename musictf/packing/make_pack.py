"""``musictf data pack``: decode a corpus once, so that training reads excerpts instead of files.

Conventions: a pack is made in a folder beside its own (``.NAME.packing``) and renamed when it is complete; nothing
half-written has its name. The position of each recording follows from the headers of the files, so each thread writes
to other positions and the number of threads changes nothing. A second run decodes only what a killed one did not. A
file that does not decode, or an annotation that does not read, stops the pack, after all such files are listed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from musictf.audio.io import Waveform, audio_info, read_excerpt, track_peak
from musictf.datasets.base import SPLITS, Dataset, PackedRecording, Track, corpus_digest
from musictf.datasets.corpus_check import output_console, print_some
from musictf.datasets.identity import FILE_NAME, identities, write_identities
from musictf.datasets.parallel import in_threads
from musictf.errors import InputError
from musictf.packing.format import (
    HEADER,
    SAMPLE_BYTES,
    SHARDS,
    StoredRecording,
    block_samples,
    read_pack,
    shard_path,
    store_recording,
)
from musictf.packing.index import index_lines, write_index
from musictf.packing.journal import JOURNAL, Journal, PlannedRecording, superseded_folder
from musictf.packing.pack_layout import plan_track, planned_recordings, shard_offsets
from musictf.packing.packed import Packed
from musictf.packing.streamed_recordings import CHUNKS, litdata

FORMS = ("pcm", "litdata")  # how samples are stored; ``store`` in pack.json
_RESERVE = 1 << 26  # bytes that index, annotations and fingerprints may take beside the samples
_VERIFY_SAMPLES = 1 << 22  # samples in memory while a recording is verified, for each thread


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
        sample_rate: In hertz; use that of the front end, so that training does not resample.
        splits: Splits whose tracks are packed.
        shard_gb: Largest size of a shard in gigabytes, unless one track is larger.
        form: ``pcm``, or ``litdata`` for object storage.
        overwrite: Replace an existing pack, once the new one is complete.

    Returns:
        The folder.

    Raises:
        InputError: a file cannot be decoded (all such files are listed), the disk is too small, or ``output`` exists.
    """
    config = PackConfig(sample_rate, tuple(splits), shard_gb, form)
    target = Path(output).expanduser().resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        if not (target / HEADER).is_file():
            raise InputError(f"output={target} is there and no pack; choose another folder")
        if not overwrite:
            raise InputError(f"output={target} holds a pack already; overwrite=true replaces it")
    if config.form == "litdata":
        litdata()  # whether it is installed, before hours of decoding
    tracks = [track for track in dataset.all_tracks() if track.split in config.splits]
    if not tracks:
        raise InputError(f"{dataset.label}: no track in {'+'.join(config.splits)}; choose with splits=[...]")
    try:
        with _staging(target) as folder:
            _fill(folder, tracks, config, dataset)
    except OSError as error:
        raise InputError(f"output={output}: cannot be written ({error.strerror or error})") from error
    return target


def verify(folder: str) -> int:
    """Compare every recording of a pack with its digest.

    Returns:
        Number of recordings.

    Raises:
        InputError: samples are not those that were packed.
    """
    tracks = Packed(root=folder).all_tracks()
    slots = [(track.track_id, slot) for track in tracks for slot in track.slots]
    with _progress() as progress:
        digests = in_threads(lambda pair: _digest(pair[1]), slots, progress, f"verifying {len(slots)} recordings")
    bad = [name for (name, slot), digest in zip(slots, digests, strict=True) if digest != slot.digest]
    print_some(output_console(), "not what was packed", bad)
    if bad:
        raise InputError(f"{folder}: {len(bad)} of {len(slots)} recordings are damaged; copy or make the pack again")
    return len(slots)


def _fill(folder: Path, tracks: Sequence[Track], config: PackConfig, dataset: Dataset) -> None:
    """Write everything that a pack holds."""
    # Numbers of annotation files depend on the list of tracks, so those of a killed run may be wrong.
    shutil.rmtree(folder / "annotations", ignore_errors=True)
    with _progress() as progress:
        numbered = list(enumerate(tracks))
        title = f"reading {len(tracks)} headers"
        plans = in_threads(lambda pair: plan_track(folder, *pair, config.sample_rate), numbered, progress, title)
        faults = [fault for plan in plans for fault in plan.faults]
        print_some(output_console(), "cannot be packed", faults)
        tracks = [track for track, plan in zip(tracks, plans, strict=True) if not plan.faults]
        plans = [plan for plan in plans if not plan.faults]
        offsets = shard_offsets([plan.lengths for plan in plans], config.shard_gb)
        planned = list(planned_recordings(tracks, plans, offsets, config.sample_rate))
        # The others are decoded even where some tracks are bad: those may be left out next time.
        stored, broken = _decode(folder, planned, config, progress)
    print_some(output_console(), "cannot be packed", broken)
    if bad := faults + broken:
        raise InputError(
            f"{len(bad)} files cannot be packed (listed above); musictf data check dataset={dataset.name} ... "
            "output=FILE lists their tracks, dataset.exclusions=FILE leaves them out; what is decoded is kept"
        )
    write_identities(folder / FILE_NAME, identities(tracks))
    origin = {"corpus": dataset.label, "corpus_digest": corpus_digest(tracks)}
    write_index(folder, index_lines(tracks, plans, offsets, stored), config.sample_rate, config.form, origin)


def _progress() -> Progress:
    return Progress(console=Console(stderr=True), transient=True)


def _decode(
    folder: Path, planned: Sequence[PlannedRecording], config: PackConfig, progress: Progress
) -> tuple[list[StoredRecording | None], list[str]]:
    """Write every recording that is not in its shard yet; return all of them, and why some could not be decoded."""
    journal = Journal(folder, planned)
    written = [journal.written(recording) for recording in planned]
    missing = sum(recording.num_samples for recording, stored in zip(planned, written, strict=True) if stored is None)
    if config.form == "litdata":  # shards stay until the chunks are complete
        missing += sum(recording.num_samples for recording in planned)
    needed, free = missing * SAMPLE_BYTES + _RESERVE, shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(f"output: {folder.parent} needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
    for number in {recording.shard for recording in planned}:
        shard_path(folder, number).parent.mkdir(exist_ok=True)
        shard_path(folder, number).touch()
    broken: list[str] = []  # appended to by all threads

    def store(work: tuple[PlannedRecording, StoredRecording | None]) -> StoredRecording | None:
        recording, stored = work
        try:
            if stored is not None:
                return stored
            return journal.add(recording, journal.copied(recording) or _write(folder, recording, config.sample_rate))
        except InputError as error:  # go on, so that one run lists all bad files
            broken.append(str(error))
            return None

    work = list(zip(planned, written, strict=True))
    return in_threads(store, work, progress, f"packing {len(planned)} recordings"), sorted(broken)


def _write(folder: Path, recording: PlannedRecording, sample_rate: int) -> StoredRecording:
    """Decode a recording into its shard."""
    step = block_samples(sample_rate)

    def blocks() -> Iterator[Waveform]:
        for start in range(0, recording.num_samples, step):
            yield read_excerpt(recording.path, start, min(step, recording.num_samples - start), sample_rate)

    # The peak is that of the file: resampling changes it, and the front end normalises by the original one.
    is_resampled = audio_info(recording.path).sample_rate != sample_rate
    peak = float(track_peak(str(recording.path))) if is_resampled else None
    return store_recording(shard_path(folder, recording.shard), recording.offset, sample_rate, blocks, peak)


def _digest(slot: PackedRecording) -> str:
    digest = hashlib.sha256()
    for start in range(0, slot.num_samples, _VERIFY_SAMPLES):
        # Little-endian as in the shard, on any machine.
        digest.update(slot.read(start, min(_VERIFY_SAMPLES, slot.num_samples - start)).astype("<i2").data)
    return digest.hexdigest()


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """The folder in which a pack is made, locked for this process and renamed to ``target`` on success."""
    folder = target.with_name(f".{target.name}.packing")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f"{folder.name}.lock"), "w") as lock:
        try:
            # The lock of a killed process is released by the system.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"output={target}: another process packs there") from None
        try:
            yield folder
            old = folder.with_name(f"{folder.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            if target.exists():
                os.replace(target, old)
            os.replace(folder, target)
            # Only now: in a folder that is still unfinished, a journal must never lack its samples.
            (target / JOURNAL).unlink(missing_ok=True)
            if (target / CHUNKS).exists():
                shutil.rmtree(target / SHARDS)
            for leftover in (old, superseded_folder(folder)):
                shutil.rmtree(leftover, ignore_errors=True)
        finally:
            Path(lock.name).unlink()


def pack_keys(given: Mapping[str, str] | None = None, sample_rate: int = 16_000) -> dict[str, Any]:
    """Keys of ``musictf data pack`` as arguments of `pack`.

    Args:
        given: Values as text, by key; None returns all keys, without values.
        sample_rate: In hertz, where no key states it.

    Raises:
        InputError: a value does not parse.
    """
    kinds: dict[str, Callable[[str], Any]] = {
        "sample_rate": int,
        "splits": lambda text: [name.strip() for name in text.strip("[]").split(",")],
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
            raise InputError(f"{name}={text} is no valid value (musictf data --help)") from None
    return arguments


def summary(folder: Path) -> str:
    """Counts, duration, rate and size of a pack, in one line."""
    header = read_pack(folder).header
    hours, size = header["samples"] / header["sample_rate"] / 3600, sum(header["files"].values())
    return (
        f"{folder}: {header['tracks']} tracks, {header['recordings']} recordings, {hours:.2f} hours at "
        f"{header['sample_rate']} Hz, {size / 1e9:.2f} GB in {len(header['files'])} files"
    )
