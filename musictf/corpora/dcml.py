"""DCML: scores with a harmonic analysis by experts: the Annotated Mozart Sonatas, and all corpora in their layout.

Hentschel, Neuwirth and Rohrmeier, "The Annotated Mozart Sonatas: score, harmony, and cadence", TISMIR 4(1), 2021.

Layout: ``harmonies/<piece>.harmonies.tsv``, ``measures/<piece>.measures.tsv`` and the scores, ``MS3/<piece>.mscx``. The
root may also be a folder of such corpora, whose pieces are then named ``<corpus>/<piece>``.

Conventions: no recordings exist. Audio is ``audio_root/<piece>.wav``, a rendering of the score that you make, for
example with MuseScore: at ``tempo`` quarter notes a minute throughout (without tempo marks, stretched fermatas and the
pauses of section breaks), "Play repeats" off. Every bar is then played once, in the order of the score, first endings
too: this is the time line of the column ``quarterbeats_all_endings``, or of ``quarterbeats`` in a table without
endings, which lacks the first. A rendering at another tempo cannot be detected here: listen to one.

A chord lasts until the next one, as in the DCML standard; rows that mark a phrase or a cadence without a chord do not
end one. ``@none`` (no harmony can be inferred) is ``N``; a text that is no label of the standard is ``X``. The root is
that of the analysis (``V(64)`` is on G in C major), but the tones above it are those of the column ``chord_tones``, so
that suspensions are annotated (``G:(4,6)``); added tones follow as 9, 11 and 13. An augmented sixth is written from the
lower note of that interval (``F:(3,5,#6)``), which is its bass: the root of the analysis does not sound. Pedal notes
are not written. Beats follow the time signature; if its numerator is 6, 9 or 12, a beat has three of its units. The key
is that of the piece; local keys serve the chords only. Movements of a work share a split.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

from musictf.annotations import (
    BeatRow,
    Beats,
    ChordRow,
    Chords,
    assemble_beats,
    assemble_chords,
    key_name,
    parse_number,
)
from musictf.datasets.base import AnnotationFile, Dataset, Track, derived_split, single_root
from musictf.datasets.layout import audio_file, audio_root, incomplete_copy
from musictf.datasets.line_of_fifths import degree, note, quality, tonic
from musictf.datasets.tabular import table_rows
from musictf.errors import InputError

CHORD_COLUMNS = (
    "duration_qb",  # in quarter notes
    "globalkey",
    "localkey",
    "numeral",
    "chord_type",
    "chord_tones",
    "added_tones",
    "root",
    "bass_note",
)
AUGMENTED_SIXTHS = ("It", "Fr", "Ger")  # of the column chord_type


@dataclass(kw_only=True)
class DCML(Dataset):
    """Scores with ``chords``, ``beats`` and ``key``; the published count is that of Mozart's sonatas.

    Attributes:
        root: The checkout of a corpus (``harmonies``, ``measures``), or a folder of several.
        audio_root: Your renderings, ``<piece>.wav``; ``root/audio`` by default.
        tempo: Tempo of all renderings in quarter notes a minute.
    """

    name: ClassVar[str] = "dcml"
    citation: ClassVar[str] = (
        "Hentschel, Neuwirth, Rohrmeier: The Annotated Mozart Sonatas: Score, harmony, and cadence. TISMIR 4(1), 2021"
    )
    license: ClassVar[str] = "CC BY-NC-SA 4.0 (scores and annotations); audio: rendered by the user"
    homepage: ClassVar[str] = (
        "git clone https://github.com/DCMLab/mozart_piano_sonatas; audio rendered from MS3/*.mscx at one tempo, "
        "without repeats (more corpora: https://github.com/DCMLab/dcml_corpora)"
    )
    published: ClassVar[dict[str, int]] = {"tracks": 54}
    annotations: ClassVar[tuple[str, ...]] = ("chords", "beats", "key")

    root: Any = None
    audio_root: Any = None
    tempo: float = 120.0

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        if not (self.tempo > 0 and math.isfinite(self.tempo)):
            raise InputError(f"dataset.tempo={self.tempo}: a tempo is more than 0 quarter notes a minute")
        paths = sorted(path for path in root.rglob("harmonies/*.harmonies.tsv") if not path.name.startswith("."))
        if not paths:
            raise incomplete_copy(root, self.name, "no file harmonies/*.harmonies.tsv")
        audio = audio_root(self.audio_root, root / "audio")
        return [self._track(path, root, audio) for path in paths]

    def _track(self, path: Path, root: Path, audio: Path) -> Track:
        piece, corpus = path.name.removesuffix(".harmonies.tsv"), path.parent.parent
        folder, work = corpus.relative_to(root), work_of(piece)
        measures = corpus / "measures" / f"{piece}.measures.tsv"
        labels = {
            "chords": AnnotationFile(path, functools.partial(read_chords, tempo=self.tempo)),
            "beats": AnnotationFile(measures, functools.partial(read_beats, tempo=self.tempo)),
            "key": AnnotationFile(path, read_key),
        }
        return Track(
            track_id=(folder / piece).as_posix(),
            audio=audio_file(audio / folder, piece, ".wav"),
            split=derived_split(f"dcml/{work}"),  # without the folder, whose name is the user's
            group=(folder / work).as_posix(),
            labels=labels,
        )


def work_of(piece: str) -> str:
    """The work whose movement a piece is, as the corpora name them: its number or letter comes last.

    >>> work_of("K545-3"), work_of("n01op18-1_04"), work_of("op01n08a"), work_of("l000_soirs")
    ('K545', 'n01op18-1', 'op01n08', 'l000_soirs')
    """
    return re.sub(r"([-_]\d+[a-z]?|(?<=\d)[a-z])$", "", piece) or piece


def read_chords(path: Path, tempo: float) -> Chords:
    """Chords of a table of harmonies, in Harte syntax.

    Args:
        path: ``<piece>.harmonies.tsv``.
        tempo: Quarter notes a minute.

    Raises:
        InputError: a row does not parse, or there is no chord.
    """
    return assemble_chords(_chord_rows(path, tempo), path)


def _chord_rows(path: Path, tempo: float) -> Iterator[ChordRow]:
    """Start and end in seconds and Harte label of each chord, with its ``path:line``."""
    rows = [
        (where, position, row)
        for where, position, row in _positions(path, CHORD_COLUMNS)
        # A row without a numeral that marks the end of a phrase or a cadence is no chord.
        if row["numeral"] or not (row.get("phraseend") or row.get("cadence"))
    ]
    for index, (where, position, row) in enumerate(rows):
        is_last = index + 1 == len(rows)
        end = position + parse_number(row["duration_qb"], where) if is_last else rows[index + 1][1]
        if end != position:  # of two labels at one position, the later one holds
            yield where, float(position) * 60 / tempo, float(end) * 60 / tempo, harte(row, where)


def _positions(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, Fraction, dict[str, str]]]:
    """Rows with their ``path:line`` and their distance from the start of the piece in quarter notes."""
    for where, row in table_rows(path, ("quarterbeats", *columns), delimiter="\t"):
        yield where, _fraction(row.get("quarterbeats_all_endings") or row["quarterbeats"], where), row


def harte(row: dict[str, str], where: str) -> str:
    """The chord of a row of a table of harmonies; N if the row states that there is none, X if it is no chord.

    Args:
        row: Columns of ``CHORD_COLUMNS``.
        where: ``path:line``, for errors.

    Raises:
        InputError: its key or a number does not parse.
    """
    if row["numeral"] == "@none":
        return "N"
    if not row["chord_tones"]:
        return "X"
    tones = _fifths(row["chord_tones"], where)  # relative to the tonic of the local key
    root = min(tones) if row["chord_type"] in AUGMENTED_SIXTHS else _fifths(row["root"], where)[0]
    bass = _fifths(row["bass_note"], where)[0]
    extra = _fifths(row["added_tones"], where) if row["added_tones"] else []
    added = [degree(tone - root, compound=True) for tone in extra]
    above = f"/{degree(bass - root)}" if bass != root else ""
    return f"{note(tonic(row['globalkey'], row['localkey'], where) + root)}:{quality(tones, root, added)}{above}"


def read_beats(path: Path, tempo: float) -> Beats:
    """Beats of a table of measures, with positions; an upbeat and the rest of a split bar count on in their bar.

    Args:
        path: ``<piece>.measures.tsv``.
        tempo: Quarter notes a minute.

    Raises:
        InputError: a row does not parse, or bars do not ascend.
    """
    return assemble_beats(_beat_rows(path, tempo), path)


def _beat_rows(path: Path, tempo: float) -> Iterator[BeatRow]:
    """Time in seconds and position of each beat, with its ``path:line``."""
    for where, start, row in _positions(path, ("timesig", "act_dur", "mc_offset")):
        beat = beat_unit(row["timesig"], where)
        offset, duration = _fraction(row["mc_offset"], where), _fraction(row["act_dur"], where)
        # mc_offset: where in its bar a measure of the table begins, as the second part of a split bar does.
        for index in range(math.ceil(offset / beat), math.ceil((offset + duration) / beat)):
            quarters = start + 4 * (index * beat - offset)
            yield where, float(quarters) * 60 / tempo, index + 1


def beat_unit(signature: str, where: str) -> Fraction:
    """Length of a beat in whole notes: the unit of the time signature, or three units where it groups them by three.

    >>> [str(beat_unit(signature, "")) for signature in ("4/4", "2/2", "3/8", "6/8", "12/16")]
    ['1/4', '1/2', '1/8', '3/8', '3/16']

    Raises:
        InputError: it is not a time signature.
    """
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", signature)
    if match is None:
        raise InputError(f"{where}: {signature!r} is not a time signature")
    return Fraction(3 if match[1] in ("6", "9", "12") else 1, int(match[2]))


def read_key(path: Path) -> str | None:
    """The global key, or None if a table has several.

    Raises:
        InputError: a row does not parse.
    """
    # Column globalkey: lower case is minor.
    keys = {_key(row["globalkey"], where) for where, row in table_rows(path, ("globalkey",), delimiter="\t")}
    return keys.pop() if len(keys) == 1 else None


def _key(globalkey: str, where: str) -> str:
    name = key_name(f"{globalkey[:1].upper()}{globalkey[1:]}:{'min' if globalkey[:1].islower() else 'maj'}")
    if name is None:
        raise InputError(f"{where}: {globalkey!r} is not a global key (C, f#, Eb)")
    return name


def _fraction(text: str, where: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"{where}: expected a fraction (3/2), found {text!r}") from None


def _fifths(text: str, where: str) -> list[int]:
    try:
        return [int(tone) for tone in text.split(",")]
    except ValueError:
        raise InputError(f"{where}: expected steps on the line of fifths (0, 4, 1), found {text!r}") from None
