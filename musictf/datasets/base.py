"""What a corpus is: tracks with an identity, a split and perhaps annotations.

A new corpus is one file in this folder with one ``Dataset`` subclass, and one file in ``conf/dataset/``.

Conventions: a track is the unit of splits and of scoring; split names are ``train``, ``valid`` and ``test``;
paths are absolute once a corpus is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from musictf.annotations import read_beats, read_chords
from musictf.errors import InputError

SPLITS = ("train", "valid", "test")

# Annotations that live in files of their own; all others stand in the manifest line itself.
READERS: dict[str, Callable[[Path], Any]] = {"chords": read_chords, "beats": read_beats}


@dataclass(frozen=True, kw_only=True)
class Track:
    """One recording.

    Attributes:
        track_id: Name, unique within the corpus.
        audio: Its audio file.
        split: ``train``, ``valid`` or ``test``.
        versions: Other recordings of the same music, aligned in time with ``audio`` and of the same length;
            the second view of a contrastive pair is drawn from them where there are any.
        group: What must not be torn apart by a split (an album, a work, an artist).
        labels: Everything else that is known; paths for the annotations of ``READERS``, values for the rest.
    """

    track_id: str
    audio: Path
    split: str = "train"
    versions: tuple[Path, ...] = ()
    group: str = ""
    labels: dict[str, Any] = field(default_factory=dict)

    def annotation(self, name: str) -> Any | None:
        """An annotation by name, read from its file where it has one; None where the track has none.

        Raises:
            InputError: the annotation's file is missing or does not parse.
        """
        value = self.labels.get(name)
        return READERS[name](value) if name in READERS and isinstance(value, Path) else value


@dataclass(kw_only=True)
class Dataset:
    """A corpus. Subclasses are dataclasses whose fields are the keys of their file in ``conf/dataset/``."""

    name: ClassVar[str] = ""
    citation: ClassVar[str] = ""
    license: ClassVar[str] = ""

    def all_tracks(self) -> list[Track]:
        """Every track, in an order that never changes. The one method a corpus must have."""
        raise NotImplementedError

    def tracks(self, split: str) -> list[Track]:
        """The tracks of one split."""
        if split not in SPLITS:
            raise InputError(f"split {split!r} is unknown: one of {', '.join(SPLITS)}")
        return [track for track in self.all_tracks() if track.split == split]

    @property
    def label(self) -> str:
        """What rows and tables call this corpus."""
        return self.name


def derived_split(identity: str) -> str:
    """Split of a track that names none: 80 / 10 / 10 by a hash, the same on every machine."""
    share = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big") / 2**64
    return "train" if share < 0.8 else "valid" if share < 0.9 else "test"


def corpus_digest(tracks: Sequence[Track]) -> str:
    """Digest of which tracks these are and how large their audio is (16 hexadecimal digits)."""
    lines = sorted(f"{track.track_id}\t{track.split}\t{track.audio.stat().st_size}" for track in tracks)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def split_digest(tracks: Sequence[Track]) -> str:
    """Digest of a split: two scores compare only if it agrees (16 hexadecimal digits).

    It covers ids, sizes of the audio and annotations: ids alone are shared by generated corpora of other seeds, and
    may be by two folders of one name.
    """
    state = hashlib.sha256(corpus_digest(tracks).encode())
    for track in sorted(tracks, key=lambda track: track.track_id):
        for name, value in sorted(track.labels.items()):
            content = value.read_bytes() if isinstance(value, Path) else json.dumps(value, sort_keys=True).encode()
            state.update(name.encode() + content)
    return state.hexdigest()[:16]
