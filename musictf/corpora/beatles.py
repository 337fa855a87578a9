"""The Beatles (Isophonics): 180 songs of twelve albums with chords, keys and beats.

Mauch, Cannam, Davies, Dixon, Harte, Kolozali, Tidhar and Sandler, "OMRAS2 metadata project 2009", ISMIR 2009; chords
by Harte, "Towards automatic extraction of harmony information from music signals", PhD thesis, 2010.

Conventions:

* Chords: where two intervals overlap (bmcfee/crema issue 22 lists such files), the earlier one ends where the later
  begins; a gap becomes ``X``, which no score counts.
* Beats: the position ``New Point`` is replaced by one that follows from its neighbours, in bars as long as the longest
  of the file. Revolution 9 has no beats and no key.
* Key: the one with the longest total duration. ``E`` is E major, ``A:minor`` A minor; a song whose longest key is in
  another mode (``D:mixolydian``), or without a key, has no key here.
* Sections (``seglab``) are not read.
* A group is an album; both discs of The Beatles are one. Derived splits hold eight albums for training, Help! and
  Let It Be for validation and A Hard Day's Night for testing; The Beatles alone is a sixth of all songs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from musictf.annotations import (
    Beats,
    Chords,
    assemble_beats,
    longest_key,
    numbered_lines,
    parse_number,
    read_chords,
)
from musictf.datasets.base import AnnotationFile, Dataset, Track, derived_split, single_root
from musictf.datasets.layout import annotation_files, annotation_folder, audio_file
from musictf.errors import InputError


@dataclass(kw_only=True)
class Beatles(Dataset):
    """Songs with chords, keys and beats.

    ``root`` holds ``annotations/chordlab/The Beatles/<album>/<song>.lab`` and ``audio/<album>/<song>.wav`` (or another
    container), or the unpacked archive of annotations itself.
    """

    name: ClassVar[str] = "beatles"
    annotations: ClassVar[tuple[str, ...]] = ("chords", "beats", "key")
    citation: ClassVar[str] = (
        "M. Mauch, C. Cannam, M. Davies, S. Dixon, C. Harte, S. Kolozali, D. Tidhar, M. Sandler: "
        "OMRAS2 metadata project 2009. ISMIR 2009"
    )
    license: ClassVar[str] = "annotations not stated; audio commercial"
    homepage: ClassVar[str] = (
        "annotations http://isophonics.net/content/reference-annotations-beatles; audio from the twelve compact discs "
        "of 1987, on which the annotations were made (later remasters differ in time)"
    )
    published: ClassVar[dict[str, int]] = {"tracks": 180}

    root: Any = None

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        folder = annotation_folder(
            root, self.name, "annotations/chordlab", "chordlab", "The Beatles Annotations/chordlab"
        ).parent
        paths = annotation_files(folder / "chordlab", self.name, "The Beatles/*/*.lab")
        return [_track(root, folder, path) for path in paths]


def _track(root: Path, folder: Path, chords: Path) -> Track:
    album, song = chords.parent.name, chords.stem
    # Not every song has beats and a key; the chords are the index.
    labels: dict[str, Any] = {"chords": AnnotationFile(chords, read_song_chords), "artist": "The Beatles"}
    beats = folder / "beat" / "The Beatles" / album / f"{song}.txt"
    if beats.is_file():
        labels["beats"] = AnnotationFile(beats, read_song_beats)
    key = folder / "keylab" / "The Beatles" / album / f"{song}.lab"
    if key.is_file():
        labels["key"] = AnnotationFile(key, read_song_key)
    # 10CD1_-_The_Beatles and 10CD2_-_The_Beatles are one group.
    group = re.sub(r"^\d+(CD\d)?_-_", "", album)
    audio = audio_file(root / "audio" / album, song, ".wav")
    return Track(track_id=f"{album}/{song}", audio=audio, split=derived_split(group), group=group, labels=labels)


def read_song_chords(path: Path) -> Chords:
    """Chords of a song, overlaps trimmed."""
    return read_chords(path, overlaps="trim")


def read_song_key(path: Path) -> str | None:
    """The key with the longest total duration: ``start end Key name`` a line, besides lines with ``Silence``.

    Raises:
        InputError: a line does not parse.
    """
    intervals, labels = [], []
    for number, line in numbered_lines(path):
        fields, where = line.split(), f"{path}:{number}"
        # Silence has no name after it.
        if len(fields) < 3 or (fields[2] == "Key" and len(fields) != 4):
            raise InputError(f"{where}: expected 'start end Key name', found {line!r}")
        if fields[2] == "Key":
            intervals.append((parse_number(fields[0], where), parse_number(fields[1], where)))
            labels.append(fields[3])
    return longest_key(intervals, labels)


def read_song_beats(path: Path) -> Beats:
    """Beats of a song: ``time position`` a line, where the position may be ``New Point``.

    Raises:
        InputError: a line does not parse, or times do not ascend.
    """
    lines = [(f"{path}:{number}", line.split(maxsplit=1)) for number, line in numbered_lines(path)]
    times = [parse_number(fields[0], where) for where, fields in lines]
    positions = filled_positions([_position(fields, where) for where, fields in lines])
    return assemble_beats(zip((where for where, _ in lines), times, positions, strict=True), path)


def _position(fields: list[str], where: str) -> int | None:
    text = fields[1].strip() if len(fields) == 2 else ""
    if text == "New Point":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{where}: a position in the bar is a whole number from 1 or New Point; found {text!r}")
    return int(text)


def filled_positions(positions: Sequence[int | None]) -> list[int] | list[None]:
    """Fill missing positions: counted back from the next known one, and forward after the last known one.

    >>> filled_positions([3, 4, None, 2, None])
    [3, 4, 1, 2, 3]
    """
    known = [position for position in positions if position is not None]
    if not known:
        return [None] * len(positions)
    length, filled = max(*known, 2), list(positions)  # of a bar, in beats; 2 if all known positions are downbeats
    for index in range(len(filled) - 2, -1, -1):
        following = filled[index + 1]
        if filled[index] is None and following is not None:
            filled[index] = (following - 2) % length + 1
    last = known[-1]
    return [last := position if position is not None else last % length + 1 for position in filled]
