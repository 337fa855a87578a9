"""RWC Popular: 100 songs recorded for research, with beats, downbeats and chords.

Goto, Hashiguchi, Nishimura and Oka, "RWC Music Database: Popular, Classical and Jazz Music Databases", ISMIR 2002;
beats by Goto, "AIST annotation for the RWC Music Database", ISMIR 2006; chords by Cho and Bello, "A feature smoothing
method for chord recognition using recurrence plots", ISMIR 2011.

Conventions: piece numbers 1 to 100 name the tracks (``RM-P001``). Audio is found in the layout of the seven discs
(``audio/rwc-p-m01/1.wav``) and in that of the release of 2026 (``RWC-P/RWC_P001.wav``). A beat file has three columns:
start and end in hundredths of a second, and the position in the bar: 384 is the downbeat, other numbers count ticks
from it. Positions are counted from the previous downbeat; those of an upbeat are counted back from the first downbeat,
in bars as long as the first whole one. Lines with -1 lie outside of any bar and are no beats. Splits are derived piece
by piece: artists are named in a file of metadata that not every copy has.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from musictf.annotations import BeatRow, Beats, assemble_beats, numbered_lines, parse_number, read_chords
from musictf.datasets.bar_positions import positions_of
from musictf.datasets.base import AnnotationFile, Dataset, Track, derived_split, single_root
from musictf.datasets.layout import annotation_files, annotation_folder
from musictf.errors import InputError

# The piece with which each of the seven discs begins.
FIRST_PIECES = (1, 17, 33, 49, 65, 81, 91)
DOWNBEAT = 384  # third column of a downbeat
OUTSIDE = -1  # third column of a line outside of any bar


@dataclass(kw_only=True)
class RWCPopular(Dataset):
    """Songs with beats and chords. ``root`` holds ``annotations/AIST.RWC-MDB-P-2001.BEAT`` (and ``.CHORD``)."""

    name: ClassVar[str] = "rwc_popular"
    annotations: ClassVar[tuple[str, ...]] = ("beats", "chords")
    citation: ClassVar[str] = (
        "M. Goto, H. Hashiguchi, T. Nishimura, R. Oka: RWC Music Database: Popular, Classical and Jazz Music "
        "Databases. ISMIR 2002; chords: T. Cho, J. P. Bello. ISMIR 2011"
    )
    license: ClassVar[str] = "CC BY-NC 4.0 (release of 2026); copies on compact disc by agreement with AIST"
    homepage: ClassVar[str] = (
        "audio RWC-P.zip at https://doi.org/10.5281/zenodo.18656623; "
        "annotations AIST.RWC-MDB-P-2001.BEAT.zip and .CHORD.zip at "
        "https://staff.aist.go.jp/m.goto/RWC-MDB/AIST-Annotation"
    )
    published: ClassVar[dict[str, int]] = {"tracks": 100}

    root: Any = None

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        beats = annotation_folder(root, self.name, "annotations/AIST.RWC-MDB-P-2001.BEAT", "AIST.RWC-MDB-P-2001.BEAT")
        # N001-M01-T01.lab is piece 1; files may be in subfolders.
        chords = {path.name[:4]: path for path in (beats.parent / "AIST.RWC-MDB-P-2001.CHORD").rglob("N*.lab")}
        paths = annotation_files(beats, self.name, "RM-P*.BEAT.TXT")
        return [_track(root, path, chords) for path in paths]


def _track(root: Path, beats: Path, chords: dict[str, Path]) -> Track:
    name = beats.name.removesuffix(".BEAT.TXT")
    if not name[4:].isdecimal() or not 1 <= int(name[4:]) <= 100:
        raise InputError(f"{beats}: expected a piece number from 001 to 100 (RM-P001.BEAT.TXT)")
    labels: dict[str, Any] = {"beats": AnnotationFile(beats, read_aist_beats)}
    if f"N{name[4:]}" in chords:
        labels["chords"] = AnnotationFile(chords[f"N{name[4:]}"], read_chords)
    piece = int(name[4:])
    disc = sum(piece >= first for first in FIRST_PIECES)
    # Tracks are numbered from 1 on each disc.
    on_disc = root / "audio" / f"rwc-p-m{disc:02d}" / f"{piece - FIRST_PIECES[disc - 1] + 1}.wav"
    released = [root / folder / f"RWC_P{piece:03d}.wav" for folder in ("RWC-P", "audio/RWC-P", "audio", ".")]
    audio = next((path for path in (on_disc, *released) if path.is_file()), on_disc)
    return Track(track_id=name, audio=audio, split=derived_split(name), group=name, labels=labels)


def read_aist_beats(path: Path) -> Beats:
    """Beats of an AIST file: ``start end position`` a line, in hundredths of a second and ticks.

    Raises:
        InputError: a line does not parse, times do not ascend, or no beat is a downbeat.
    """
    rows: list[tuple[str, float, int]] = []
    for number, line in numbered_lines(path):
        fields, where = line.split(), f"{path}:{number}"
        if len(fields) != 3:
            raise InputError(f"{where}: expected 'start end position', found {line!r}")
        ticks = int(parse_number(fields[2], where))
        if ticks != OUTSIDE:
            rows.append((where, parse_number(fields[0], where) / 100, ticks))
    downbeats = [ticks == DOWNBEAT for _, _, ticks in rows]
    if not any(downbeats):
        raise InputError(f"{path}: no line is a downbeat (third column {DOWNBEAT})")
    positions = positions_of(downbeats)
    beats: list[BeatRow] = [(where, time, position) for (where, time, _), position in zip(rows, positions, strict=True)]
    return assemble_beats(beats, path)
