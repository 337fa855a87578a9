"""McGill Billboard: 890 slots of American charts from 1958 to 1991, 740 songs, with chords.

Burgoyne, Wild and Fujinaga, "An expert ground truth set for audio chord recognition and music analysis", ISMIR 2011.

Conventions: slots were drawn at random, so a song may occur under several numbers: all of them are tracks, as the
authors advise, and a song is a group (title and artist without case, punctuation and a leading "The"), so that it lies
in one split. Slots without a title were never annotated. Splits are derived song by song. MIREX splits by number (1 to
1000 for training, 1001 to 1300 the test set of 2012), which puts some songs in both. Chords are those of ``full.lab``,
whose last line has only white space.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from musictf.annotations import read_chords
from musictf.datasets.base import AnnotationFile, Dataset, Track, derived_split, single_root
from musictf.datasets.layout import annotation_folder, audio_file, index_file
from musictf.datasets.tabular import table_rows
from musictf.errors import InputError


@dataclass(kw_only=True)
class Billboard(Dataset):
    """Songs with chords.

    ``root`` holds ``billboard-2.0-index.csv``, ``McGill-Billboard/<number>/full.lab`` with numbers of four digits, and
    ``audio/<number>.mp3`` (or another container), which the authors do not distribute.
    """

    name: ClassVar[str] = "billboard"
    annotations: ClassVar[tuple[str, ...]] = ("chords",)
    citation: ClassVar[str] = (
        "J. A. Burgoyne, J. Wild, I. Fujinaga: An expert ground truth set for audio chord recognition and music "
        "analysis. ISMIR 2011"
    )
    license: ClassVar[str] = "CC0 1.0 (annotations); audio commercial"
    homepage: ClassVar[str] = (
        "http://ddmal.music.mcgill.ca/research/The_McGill_Billboard_Project_(Chord_Analysis_Dataset): the index and "
        "the LAB files of version 2.0; audio from your own records"
    )
    published: ClassVar[dict[str, int]] = {"tracks": 890}

    root: Any = None

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        index = index_file(root, self.name, "billboard-2.0-index.csv")
        folder = annotation_folder(root, self.name, "McGill-Billboard")
        tracks: dict[str, Track] = {}
        # Other columns are dates and ranks in the charts.
        for where, row in table_rows(index, ["id", "title", "artist"]):
            if not row["title"].strip():
                continue  # never annotated
            if not row["id"].isdecimal() or f"{int(row['id']):04d}" in tracks:
                raise InputError(f"{where}: expected a number that no other slot has, found {row['id']!r}")
            # The index writes 3, the folders 0003.
            name = f"{int(row['id']):04d}"
            tracks[name] = _track(name, row, folder / name / "full.lab", root / "audio")
        return list(tracks.values())


def _track(name: str, row: dict[str, str], chords: Path, audio: Path) -> Track:
    group = f"{_normalised(row['title'])} / {_normalised(row['artist'])}"
    labels: dict[str, Any] = {"chords": AnnotationFile(chords, read_chords), "artist": row["artist"]}
    path = audio_file(audio, name, ".mp3")
    return Track(track_id=name, audio=path, split=derived_split(group), group=group, labels=labels)


def _normalised(text: str) -> str:
    """A name without what varies between its spellings: ``The Rolling Stones`` and ``Rolling Stones``.

    >>> _normalised("Rock & Roll"), _normalised("The Beach Boys")
    ('rockandroll', 'beachboys')
    """
    lower = re.sub(r"^the\s+", "", text.strip().casefold()).replace("&", "and")
    return "".join(character for character in lower if character.isalnum())
