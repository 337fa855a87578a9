"""Base classes of datasets: tracks with an identity, a split and annotations.

A new corpus is one file in ``musictf/corpora/`` with one `Dataset` subclass; ``dataset=NAME`` finds it by its ``name``.

Conventions: a track is the unit of splits and of scoring; split names are ``train``, ``valid`` and ``test``; paths are
absolute once a corpus is read. A corpus lists every track of its index, whether or not the audio exists: missing audio
is reported (``musictf data prepare``), never skipped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from musictf.errors import InputError

SPLITS = ("train", "valid", "test")  # in the order in which tables show them


@dataclass(frozen=True)
class AnnotationFile:
    """An annotation in a file, which `Track.annotation` reads."""

    path: Path
    read: Callable[[Path], Any]


class PackedRecording(Protocol):
    """A recording whose samples are in a pack; `musictf.packing` makes and reads packs.

    Shapes:  N samples of an excerpt, at the pack's rate
    """

    @property
    def folder(self) -> str:
        """Folder of the pack."""

    @property
    def num_samples(self) -> int:
        """Length in samples at the pack's rate."""

    @property
    def sample_rate(self) -> int:
        """The pack's rate in hertz."""

    @property
    def peak(self) -> float:
        """Largest magnitude of its waveform, before any resampling."""

    @property
    def gain(self) -> float:
        """Factor from its integers to the waveform, whose full scale is 1."""

    @property
    def digest(self) -> str:
        """SHA-256 of its integers (64 hexadecimal digits)."""

    def read(self, start: int, num_samples: int, out: npt.NDArray[np.int16] | None = None) -> npt.NDArray[np.int16]:
        """Integers of samples ``start`` to ``start + num_samples``, (N,); written to ``out`` (N,) if given."""

    def is_quiet(self, start: int, num_samples: int, level_db: float) -> bool:
        """Whether an excerpt may lie below a level in decibels of full scale."""


@dataclass(frozen=True, kw_only=True)
class Track:
    """One recording.

    Attributes:
        track_id: Name, unique within the corpus.
        audio: Its audio file.
        split: ``train``, ``valid`` or ``test``.
        versions: Other recordings of the same music, aligned in time with ``audio`` and of the same length;
            the second view of a contrastive pair is drawn from them where there are any.
        group: Unit that must lie in one split (an album, a work, an artist); bootstrap intervals resample groups.
        source: The folder it comes from, where several corpora are joined.
        slots: Its recordings in a pack: ``audio``, then each of ``versions``; empty for other corpora.
        labels: All annotations and metadata by name (``tags chords beats onsets key genre instrument tempo artist``):
            a value, or an `AnnotationFile` that holds it.
    """

    track_id: str
    audio: Path
    split: str = "train"
    versions: tuple[Path, ...] = ()
    group: str = ""
    source: str = ""
    slots: tuple[PackedRecording, ...] = ()
    labels: dict[str, Any] = field(default_factory=dict)

    def annotation(self, name: str) -> Any | None:
        """An annotation by name, read from its file if it has one; None if the track lacks it.

        Raises:
            InputError: the annotation's file is missing or does not parse.
        """
        value = self.labels.get(name)
        return value.read(value.path) if isinstance(value, AnnotationFile) else value


@dataclass(kw_only=True)
class Dataset:
    """A corpus: its tracks, and what is published about it.

    Subclasses are dataclasses; their fields are the keys of ``dataset.*``. The module of a published corpus says in its
    docstring what the corpus is, what to cite, and the conventions: layout of a copy, units, groups, how splits are
    made, what is left out.

    Attributes:
        name: The choice of ``dataset=``.
        citation: What to cite.
        license: Licence of audio and annotations.
        homepage: Where to obtain it, with the names of the files.
        published: Counts that its authors state, by name: ``tracks``, a split, or an annotation.
        annotations: Names of the labels of its tracks.
        known_bad: Tracks that are left out because every copy of them is broken, with the reason.
        exclusions: A file that lists more tracks to leave out, one ``track_id<tab>reason`` a line, as
            ``musictf data check output=FILE`` writes it.
    """

    name: ClassVar[str] = ""
    citation: ClassVar[str] = ""
    license: ClassVar[str] = ""
    homepage: ClassVar[str] = ""
    published: ClassVar[dict[str, int]] = {}
    annotations: ClassVar[tuple[str, ...]] = ()
    known_bad: ClassVar[dict[str, str]] = {}

    exclusions: str | None = None

    def read_tracks(self) -> list[Track]:
        """Every track of the index, in an order that never changes; the only method that a corpus must have."""
        raise NotImplementedError

    def all_tracks(self) -> list[Track]:
        """Every track that is not left out.

        Raises:
            InputError: ``exclusions`` names a track that the corpus does not have, or cannot be read.
        """
        tracks, excluded = self.read_tracks(), read_exclusions(self.exclusions)
        # Otherwise a list for another corpus would silently exclude nothing.
        unknown = sorted(excluded.keys() - {track.track_id for track in tracks})
        if unknown:
            raise InputError(
                f"dataset.exclusions={self.exclusions}: {len(unknown)} names are no track of {self.label}, "
                f"such as {unknown[0]!r}; correct or remove them"
            )
        left_out = self.known_bad.keys() | excluded.keys()
        return [track for track in tracks if track.track_id not in left_out]

    def tracks(self, split: str) -> list[Track]:
        """The tracks of one split.

        Raises:
            InputError: the split is none of `SPLITS`.
        """
        if split not in SPLITS:
            raise InputError(f"split {split!r} is unknown: one of {', '.join(SPLITS)}")
        return [track for track in self.all_tracks() if track.split == split]

    @property
    def label(self) -> str:
        """Name in rows and tables; it includes the partition, where a corpus has several."""
        return self.name


def roots(value: Any, dataset: str) -> list[Path]:
    """The folders that ``dataset.root`` names: one path or a list of them.

    Raises:
        InputError: none is given, or one of them is not a folder.
    """
    if not value:
        raise InputError(f"dataset={dataset} needs dataset.root=FOLDER (or a list: dataset.root=[A,B])")
    # A shell does not expand the ~ in dataset.root=~/music.
    paths = [Path(str(entry)).expanduser().resolve() for entry in (value if isinstance(value, list) else [value])]
    for path in paths:
        if not path.is_dir():
            raise InputError(f"dataset.root: {path} is not a folder")
    return paths


def single_root(value: Any, dataset: str) -> Path:
    """The one folder that ``dataset.root`` names, for corpora whose copy is one folder.

    Raises:
        InputError: none or several are given, or it is not a folder.
    """
    paths = roots(value, dataset)
    if len(paths) > 1:
        raise InputError(f"dataset={dataset} has one root, not {len(paths)}")
    return paths[0]


def read_exclusions(path: str | None) -> dict[str, str]:
    """Tracks to leave out, each with its reason: ``track_id<tab>reason`` a line; a comment has ``#`` and no tab.

    Raises:
        InputError: the file cannot be read.
    """
    if path is None:
        return {}
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"dataset.exclusions={path}: cannot be read ({error})") from None
    # A track_id may begin with #, which is why a comment has no tab. utf-8-sig: editors may write a byte order mark.
    pairs = (line.partition("\t") for line in lines if line.strip() and (not line.startswith("#") or "\t" in line))
    return {track_id.strip(): reason.strip() for track_id, _, reason in pairs}


def require_audio(tracks: Sequence[Track], corpus: str, files: bool = False) -> None:
    """Raise if audio is missing, before a long run begins.

    Args:
        tracks: The tracks.
        corpus: Name of the corpus in the message.
        files: Whether the files are needed even for packed tracks.

    Raises:
        InputError: some of the tracks have no audio file, or lack one of their versions.
    """
    # Probing decodes the files of packed tracks too, at the rate of its own front end.
    needed = [track for track in tracks if files or not track.slots]
    missing = [path for track in needed for path in (track.audio, *track.versions) if not path.is_file()]
    if missing:
        raise InputError(
            f"{corpus}: {len(missing)} audio files of {len(tracks)} tracks do not exist, such as {missing[0]}; "
            "musictf data check dataset=... output=FILE lists them, dataset.exclusions=FILE leaves them out"
        )


def derived_split(identity: str) -> str:
    """Split of a track without an official one: 80 / 10 / 10 by a hash of its group, the same on every machine."""
    # 64 bits of the hash as a number in [0, 1); Python's own hash() differs between processes.
    share = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big") / 2**64
    return "train" if share < 0.8 else "valid" if share < 0.9 else "test"


def corpus_digest(tracks: Sequence[Track]) -> str:
    """Digest of ids, splits and audio of tracks (16 hexadecimal digits).

    Audio enters by the size of its file, which costs no reading, or by the digests of packed samples.
    """
    audio = (",".join(slot.digest for slot in track.slots) or str(track.audio.stat().st_size) for track in tracks)
    lines = sorted(f"{track.track_id}\t{track.split}\t{mark}" for track, mark in zip(tracks, audio, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def split_digest(tracks: Sequence[Track]) -> str:
    """Digest of a split (16 hexadecimal digits): scores are comparable only if it agrees.

    It covers ids, audio (see `corpus_digest`) and annotations. Ids alone do not suffice: synthetic corpora of different
    seeds share them, and two folders of one name may.

    Raises:
        InputError: an annotation cannot be read.
    """
    state = hashlib.sha256(corpus_digest(tracks).encode())
    # Sorted, so that the order of the index does not matter.
    for track in sorted(tracks, key=lambda track: track.track_id):
        for name, value in sorted(track.labels.items()):
            if not isinstance(value, AnnotationFile):
                state.update(name.encode() + json.dumps(value, sort_keys=True).encode())
                continue
            # Bytes of the file: what they parse to may change with the version of the reader.
            try:
                state.update(name.encode() + value.path.read_bytes())
            except OSError as error:
                raise InputError(f"{value.path}: annotation cannot be read ({error.strerror})") from None
    return state.hexdigest()[:16]
