"""What a corpus is: tracks with an identity, a split and perhaps annotations.

A new corpus is one file in this folder with one ``Dataset`` subclass, and one file in ``conf/dataset/``.

Conventions: a track is the unit of splits and of scoring; split names are ``train``, ``valid`` and ``test``; paths are
absolute once a corpus is read. A corpus lists every track that its index names, whether or not the audio is there:
what a copy lacks is reported (``musictf data prepare``), never passed over.
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

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class AnnotationFile:
    """An annotation in a file of its own, read when it is asked for."""

    path: Path
    read: Callable[[Path], Any]


class PackedRecording(Protocol):
    """A recording whose samples lie in a pack; `musictf.packing` makes and reads them."""

    @property
    def folder(self) -> str:
        """The pack."""

    @property
    def num_samples(self) -> int:
        """Its length in samples at the pack's rate."""

    @property
    def sample_rate(self) -> int:
        """The pack's rate in hertz."""

    @property
    def peak(self) -> float:
        """Largest magnitude of its waveform, before any resampling."""

    @property
    def gain(self) -> float:
        """What brings its integers to full scale."""

    @property
    def digest(self) -> str:
        """SHA-256 of its integers (64 hexadecimal digits)."""

    def read(self, start: int, num_samples: int, out: npt.NDArray[np.int16] | None = None) -> npt.NDArray[np.int16]:
        """Samples ``start`` to ``start + num_samples``, (num_samples,)."""

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
        group: What must not be torn apart by a split (an album, a work, an artist); intervals are drawn over groups.
        source: The folder it comes from, where a corpus is joined of several.
        slots: Where its samples lie in a pack: of ``audio``, then of each of ``versions``; empty for other corpora.
        labels: Everything else that is known, by name (``tags chords beats onsets key genre instrument tempo artist``):
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
        """An annotation by name, read from its file where it has one; None where the track has none.

        Raises:
            InputError: the annotation's file is missing or does not parse.
        """
        value = self.labels.get(name)
        return value.read(value.path) if isinstance(value, AnnotationFile) else value


@dataclass(kw_only=True)
class Dataset:
    """A corpus. Subclasses are dataclasses whose fields are the keys of their file in ``conf/dataset/``.

    Attributes:
        name: What commands call it.
        citation: What to cite.
        license: Of audio and annotations.
        homepage: Where it is obtained today, in a sentence a person can follow.
        published: Counts that its authors state, by name: ``tracks``, a split, or an annotation.
        annotations: Names of the labels its tracks have.
        known_bad: Tracks that are left out because every copy of them is broken, with the reason.
        exclusions: A file that names more tracks to leave out, one ``track_id<tab>reason`` a line, as
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
        """Every track of the index, in an order that never changes. The one method a corpus must have."""
        raise NotImplementedError

    def all_tracks(self) -> list[Track]:
        """Every track that is not left out."""
        tracks, excluded = self.read_tracks(), read_exclusions(self.exclusions)
        unknown = sorted(excluded.keys() - {track.track_id for track in tracks})
        if unknown:
            raise InputError(
                f"dataset.exclusions={self.exclusions}: {len(unknown)} names are no track of {self.label}, "
                f"{unknown[0]!r} for one; mend or remove them"
            )
        out = self.known_bad.keys() | excluded.keys()
        return [track for track in tracks if track.track_id not in out]

    def tracks(self, split: str) -> list[Track]:
        """The tracks of one split."""
        if split not in SPLITS:
            raise InputError(f"split {split!r} is unknown: one of {', '.join(SPLITS)}")
        return [track for track in self.all_tracks() if track.split == split]

    @property
    def label(self) -> str:
        """What rows and tables call this corpus."""
        return self.name


def roots(value: Any, dataset: str) -> list[Path]:
    """The folders that ``dataset.root`` names: one path or a list of them.

    Raises:
        InputError: none is given, or one is not a folder.
    """
    if not value:
        raise InputError(f"dataset={dataset} needs dataset.root=FOLDER (or a list: dataset.root=[A,B])")
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
    """Tracks to leave out, each with its reason: ``track_id<tab>reason`` a line; ``#`` starts a comment without tab.

    Raises:
        InputError: the file cannot be read.
    """
    if path is None:
        return {}
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"dataset.exclusions={path}: cannot be read ({error})") from None
    pairs = (line.partition("\t") for line in lines if line.strip() and (not line.startswith("#") or "\t" in line))
    return {track_id.strip(): reason.strip() for track_id, _, reason in pairs}


def require_audio(tracks: Sequence[Track], corpus: str, files: bool = False) -> None:
    """Stop before a long run finds out that audio is missing.

    Args:
        tracks: The tracks.
        corpus: What to call the corpus.
        files: The files themselves are needed: packed samples do not replace them.

    Raises:
        InputError: some of the tracks have no audio file, or lack one of their versions.
    """
    needed = [track for track in tracks if files or not track.slots]
    lacking = [path for track in needed for path in (track.audio, *track.versions) if not path.is_file()]
    if lacking:
        raise InputError(
            f"{corpus}: {len(lacking)} audio files of {len(tracks)} tracks do not exist, {lacking[0]} for one; "
            "musictf data check dataset=... output=FILE lists them, dataset.exclusions=FILE leaves them out"
        )


def derived_split(identity: str) -> str:
    """Split of a track that names none: 80 / 10 / 10 by a hash, the same on every machine."""
    share = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big") / 2**64
    return "train" if share < 0.8 else "valid" if share < 0.9 else "test"


def corpus_digest(tracks: Sequence[Track]) -> str:
    """Digest of which tracks these are and how large their audio is, or which if packed (16 hexadecimal digits)."""
    lines = sorted(f"{track.track_id}\t{track.split}\t{_audio_mark(track)}" for track in tracks)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _audio_mark(track: Track) -> str:
    return ",".join(slot.digest for slot in track.slots) or str(track.audio.stat().st_size)


def split_digest(tracks: Sequence[Track]) -> str:
    """Digest of a split: two scores compare only if it agrees (16 hexadecimal digits).

    It covers ids, sizes of the audio and annotations: ids alone are shared by generated corpora of other seeds, and
    may be by two folders of one name.
    """
    state = hashlib.sha256(corpus_digest(tracks).encode())
    for track in sorted(tracks, key=lambda track: track.track_id):
        for name, value in sorted(track.labels.items()):
            if isinstance(value, AnnotationFile):
                state.update(name.encode() + _content(value.path))
            else:
                state.update(name.encode() + json.dumps(value, sort_keys=True).encode())
    return state.hexdigest()[:16]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: annotation cannot be read ({error.strerror})") from None
