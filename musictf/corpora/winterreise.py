"""Schubert Winterreise Dataset: 24 songs in nine performances, with chords and keys.

Weiß, Zalkow, Arifi-Müller, Müller, Koops, Volk and Grohganz, "Schubert Winterreise dataset: a multimodal scenario for
music analysis", ACM Journal on Computing and Cultural Heritage 14(2), 2021.

Conventions: a track is a song in one performance (``Schubert_D911-01_HU33``). All nine performances are annotated,
but only HU33 and SC06 may be copied: these are the default, and ``performances`` adds those whose audio you have. A
group is a song: no performance of it is in another split. Chords are those of column ``shorthand``, which writes the
bass as a note (``C:min/G``); here it is the interval above the root, as in Harte syntax (``C:min/5``). Keys are those
of whole songs and follow the transposition of each performance; local keys are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import mir_eval

from musictf.annotations import ChordRow, Chords, assemble_chords, key_name, parse_number
from musictf.datasets.base import AnnotationFile, Dataset, Track, derived_split, single_root
from musictf.datasets.layout import annotation_files, annotation_folder, incomplete_copy, index_file
from musictf.datasets.tabular import table_rows
from musictf.errors import InputError

# Harte's name of each interval above the root, by semitones; enharmonic names (#4, b5) are not distinguished.
DEGREES = ("1", "b2", "2", "b3", "3", "4", "b5", "5", "b6", "6", "b7", "7")


@dataclass(kw_only=True)
class Winterreise(Dataset):
    """Songs with chords and keys, in several performances.

    Attributes:
        root: The unpacked archive: ``01_RawData`` and ``02_Annotations``.
        performances: Names of performances; null takes all nine, of which seven must be bought.
    """

    name: ClassVar[str] = "winterreise"
    annotations: ClassVar[tuple[str, ...]] = ("chords", "key")
    citation: ClassVar[str] = (
        "C. Weiß, F. Zalkow, V. Arifi-Müller, M. Müller, H. V. Koops, A. Volk, H. G. Grohganz: Schubert Winterreise "
        "dataset: a multimodal scenario for music analysis. ACM JOCCH 14(2), 2021"
    )
    license: ClassVar[str] = (
        "CC BY 3.0 (annotations and SC06, which must not be passed on modified); HU33 public domain"
    )
    homepage: ClassVar[str] = "https://doi.org/10.5281/zenodo.5139893: Schubert_Winterreise_Dataset_v2-0.zip"
    published: ClassVar[dict[str, int]] = {"tracks": 48}

    root: Any = None
    performances: list[str] | None = field(default_factory=lambda: ["HU33", "SC06"])

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        # The archive has one folder, which the root may or may not include.
        top = "Schubert_Winterreise_Dataset_v2-0"
        folder = annotation_folder(root, self.name, "02_Annotations", f"{top}/02_Annotations")
        keys = _keys(index_file(folder, self.name, "ann_audio_globalkey.csv"))
        paths = annotation_files(folder / "ann_audio_chord", self.name, "Schubert_D911-*_*.csv")
        known = sorted({path.stem.rpartition("_")[2] for path in paths})
        chosen = known if self.performances is None else self.performances
        for performance in chosen:
            if performance not in known:
                raise incomplete_copy(
                    folder, self.name, f"dataset.performances: {performance!r} is not one of {', '.join(known)}"
                )
        audio = folder.parent / "01_RawData" / "audio_wav"
        return [_track(path, audio, keys) for path in paths if path.stem.rpartition("_")[2] in chosen]


def _track(path: Path, audio: Path, keys: dict[str, str]) -> Track:
    song = path.stem.rpartition("_")[0]
    labels: dict[str, Any] = {"chords": AnnotationFile(path, read_table_chords)}
    if path.stem in keys:  # keys are in one table, by song and performance
        labels["key"] = keys[path.stem]
    split = derived_split(song)
    return Track(track_id=path.stem, audio=audio / f"{path.stem}.wav", split=split, group=song, labels=labels)


def _keys(path: Path) -> dict[str, str]:
    """Key of each song in each performance, by the name of the track."""
    keys = {}
    for where, row in table_rows(path, ["WorkID", "PerformanceID", "key"], delimiter=";"):
        name = key_name(row["key"])
        if name is None:
            raise InputError(f"{where}: {row['key']!r} is not a major or minor key (C:maj, A:min)")
        keys[f"{row['WorkID']}_{row['PerformanceID']}"] = name
    return keys


def read_table_chords(path: Path) -> Chords:
    """Chords of ``start;end;shorthand;...``, in seconds, whose bass is written as a note.

    Raises:
        InputError: a line does not parse, a label is no chord, or two intervals overlap.
    """
    return assemble_chords(_chord_rows(path), path)


def _chord_rows(path: Path) -> Iterator[ChordRow]:
    for where, row in table_rows(path, ["start", "end", "shorthand"], delimiter=";"):
        yield where, parse_number(row["start"], where), parse_number(row["end"], where), harte(row["shorthand"])


def harte(label: str) -> str:
    """Harte syntax of a chord whose bass is written as a note; other labels stay as they are.

    >>> harte("D:hdim7/F"), harte("A:(3,5,b7,b9)/A"), harte("G:7/5")
    ('D:hdim7/b3', 'A:(3,5,b7,b9)', 'G:7/5')
    """
    chord, _, bass = label.partition("/")
    root = re.match(r"[A-G][b#]*", chord)
    if root is None or not re.fullmatch(r"[A-G][b#]*", bass):
        return label
    semitone = mir_eval.chord.pitch_class_to_semitone
    interval = (semitone(bass) - semitone(root[0])) % 12
    return f"{chord}/{DEGREES[interval]}" if interval else chord
