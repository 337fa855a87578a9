"""Annotations of a track (chords, beats, onsets, sections, tempo, key) and the text files that hold them.

Shapes:  n annotated events of a track

Conventions: times in seconds from the start of the track; intervals ascending, without overlap; chord labels in
Harte syntax as `mir_eval.chord` reads them; a beat's position counts from 1, the downbeat, within its bar.
A gap between two chords becomes ``X`` (unknown), which no comparison of mir_eval counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mir_eval
import numpy as np
import numpy.typing as npt

from musictf.errors import InputError

Seconds = npt.NDArray[np.float64]

# Location of a row for messages (``path:line``), its times in seconds, and its label or position.
ChordRow = tuple[str, float, float, str]
BeatRow = tuple[str, float, int | None]

PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")

# Gaps and overlaps shorter than this are rounding errors of the file.
ROUNDING_SECONDS = 2e-3
# mir_eval takes later times for a mistake in units, such as milliseconds for seconds.
LONGEST_SECONDS = 30_000.0


@dataclass(frozen=True)
class Chords:
    """Chord labels over time: intervals (n, 2) in seconds, and n Harte labels."""

    intervals: Seconds
    labels: list[str]


@dataclass(frozen=True)
class Sections:
    """Form of a track: intervals (n, 2) in seconds, and n names; sections of equal names have similar music."""

    intervals: Seconds
    labels: list[str]


@dataclass(frozen=True)
class Beats:
    """Beat times (n,) in seconds and, where bars are annotated, positions (n,) with 1 = downbeat."""

    times: Seconds
    positions: npt.NDArray[np.int64] | None = None

    @property
    def downbeats(self) -> Seconds | None:
        """Times (m,) of the beats at position 1, in seconds; None where bars are not annotated."""
        return None if self.positions is None else self.times[self.positions == 1]


def read_chords(path: str | Path, overlaps: str = "refuse") -> Chords:
    """Chords of a ``.lab`` file with lines ``start end label``, times in seconds.

    Args:
        path: The file.
        overlaps: As for `assemble_chords`.

    Raises:
        InputError: a line does not parse, an interval runs backwards, or two intervals overlap.
    """
    return assemble_chords(_interval_rows(path), path, overlaps)


def _interval_rows(path: str | Path) -> Iterable[ChordRow]:
    """Rows of a ``.lab`` file, parsed but not checked for order."""
    for number, line in numbered_lines(path):
        fields = line.split(maxsplit=2)  # a label may contain spaces
        if len(fields) != 3:
            raise InputError(f"{path}:{number}: expected 'start end label', found {line!r}")
        start, end = (parse_number(field, f"{path}:{number}") for field in fields[:2])
        yield f"{path}:{number}", start, end, fields[2].strip()


def assemble_chords(rows: Iterable[ChordRow], source: str | Path, overlaps: str = "refuse") -> Chords:
    """Chords of rows in order of time.

    Args:
        rows: Location of a row for messages, its start and end in seconds, its label.
        source: Origin of the rows, for messages.
        overlaps: ``refuse``, or ``trim``: a chord ends where the next one begins. A chord that would vanish is refused.

    Raises:
        InputError: a label is not a chord, an interval runs backwards, two intervals overlap, or there is no row.
    """
    starts: list[float] = []
    ends: list[float] = []
    labels: list[str] = []
    for where, start, end, label in rows:
        try:
            mir_eval.chord.validate_chord_label(label)
        except mir_eval.chord.InvalidChordException:
            raise InputError(f"{where}: {label!r} is not a chord in Harte syntax (C:maj, A:min7/b3, N, X)") from None
        _check_time(end, where)
        previous = ends[-1] if ends else start
        if end <= start:
            raise InputError(f"{where}: the interval ends at {end} s, before its start at {start} s")
        if start < previous - ROUNDING_SECONDS:
            if overlaps != "trim" or start <= starts[-1]:
                raise InputError(f"{where}: starts at {start} s, before the previous chord ends at {previous} s")
            previous = ends[-1] = start
        if start > previous + ROUNDING_SECONDS:  # a gap is filled: scores need intervals without gaps
            starts.append(previous)
            ends.append(start)
            labels.append("X")
        starts.append(previous if abs(start - previous) <= ROUNDING_SECONDS else start)  # closes rounding gaps
        ends.append(end)
        labels.append(label)
    if not labels:
        raise InputError(f"{source}: holds no chord; leave 'chords' out of the manifest for a track without them")
    return Chords(np.column_stack([starts, ends]).astype(np.float64), labels)


def write_chords(path: str | Path, chords: Chords) -> None:
    """Write a ``.lab`` file with times in microseconds, so that reading it gives the same boundaries."""
    rows = zip(chords.intervals, chords.labels, strict=True)
    Path(path).write_text("".join(f"{start:.6f}\t{end:.6f}\t{label}\n" for (start, end), label in rows))


def read_beats(path: str | Path) -> Beats:
    """Beats of a ``.beats`` file with lines ``time[<tab>position]``, times in seconds; an empty file has no beats.

    Raises:
        InputError: a line does not parse, times do not ascend, or only some beats have a position.
    """
    return assemble_beats(_beat_rows(path), path)


def _beat_rows(path: str | Path) -> Iterable[BeatRow]:
    for number, line in numbered_lines(path):
        where, fields = f"{path}:{number}", line.split()
        yield where, parse_number(fields[0], where), _position(fields[1], where) if len(fields) > 1 else None


def assemble_beats(rows: Iterable[BeatRow], source: str | Path) -> Beats:
    """Beats of rows in order of time.

    Args:
        rows: Location of a row for messages, its time in seconds, its position in the bar or None.
        source: Origin of the rows, for messages.

    Raises:
        InputError: times do not ascend, or only some beats have a position.
    """
    times: list[float] = []
    positions: list[int] = []  # shorter than ``times`` where positions are missing
    for where, time, position in rows:
        _check_time(time, where)
        if times and time <= times[-1]:
            raise InputError(f"{where}: beat at {time} s does not come after the one at {times[-1]} s")
        times.append(time)
        positions += [] if position is None else [position]
    if positions and len(positions) != len(times):
        raise InputError(
            f"{source}: {len(positions)} of {len(times)} beats have a position in the bar; give all or none"
        )
    return Beats(np.asarray(times, dtype=np.float64), np.asarray(positions, dtype=np.int64) if positions else None)


def write_beats(path: str | Path, beats: Beats, decimals: int = 6) -> None:
    """Write a ``.beats`` file: times with ``decimals`` decimals of a second and, where known, positions."""
    if beats.positions is None:
        lines = [f"{time:.{decimals}f}\n" for time in beats.times]
    else:
        lines = [
            f"{time:.{decimals}f}\t{position}\n" for time, position in zip(beats.times, beats.positions, strict=True)
        ]
    Path(path).write_text("".join(lines))


def read_onsets(path: str | Path) -> Seconds:
    """Onset times (n,) in seconds, ascending, from the first column of a text file; may be empty.

    Raises:
        InputError: a line does not parse.
    """
    times: list[float] = []
    for number, line in numbered_lines(path):
        times.append(parse_number(line.split()[0], f"{path}:{number}"))
        _check_time(times[-1], f"{path}:{number}")
    return np.unique(np.asarray(times, dtype=np.float64))  # simultaneous notes are one onset


def write_onsets(path: str | Path, onsets: Seconds) -> None:
    """Write onset times (n,) in seconds, with microseconds, one on each line."""
    Path(path).write_text("".join(f"{time:.6f}\n" for time in onsets))


def read_sections(path: str | Path) -> Sections:
    """Sections of a ``.lab`` file with lines ``start end name``, seconds, ascending; gaps belong to no section.

    Raises:
        InputError: a line does not parse, an interval runs backwards, or two intervals overlap.
    """
    intervals: list[tuple[float, float]] = []
    labels: list[str] = []
    for where, start, end, label in _interval_rows(path):
        _check_time(end, where)
        if end <= start or (intervals and start < intervals[-1][1] - ROUNDING_SECONDS):
            raise InputError(f"{where}: sections must ascend without overlap; this one lasts from {start} to {end} s")
        intervals.append((start, end))
        labels.append(label)
    if not labels:
        raise InputError(f"{path}: holds no section; leave 'sections' out of the manifest for a track without them")
    return Sections(np.array(intervals, dtype=np.float64), labels)


def write_sections(path: str | Path, sections: Sections) -> None:
    """Write a ``.lab`` file with times in microseconds."""
    rows = zip(sections.intervals, sections.labels, strict=True)
    Path(path).write_text("".join(f"{start:.6f}\t{end:.6f}\t{label}\n" for (start, end), label in rows))


def read_tempo(path: str | Path) -> float:
    """Tempo in beats per minute of a ``.bpm`` file, which contains that number only.

    Raises:
        InputError: the file contains something else.
    """
    lines = numbered_lines(path)
    if len(lines) != 1:
        raise InputError(f"{path}: expected one tempo in beats per minute, found {len(lines)} lines")
    number, line = lines[0]
    tempo = parse_number(line, f"{path}:{number}")
    if tempo <= 0:
        raise InputError(f"{path}:{number}: a tempo is more than 0 beats per minute, found {line!r}")
    return tempo


def key_name(label: str) -> str | None:
    """A key in the syntax of `mir_eval.key` (``C# minor``); None for a key in another mode and for no key.

    Reads ``E`` (major), ``A:minor``, ``A:min``, ``D major`` and ``Db maj``.

    >>> key_name("E"), key_name("Db:min"), key_name("Cb:major"), key_name("E:mixolydian")
    ('E major', 'Db minor', 'B major', None)
    """
    tonic, _, mode = label.strip().replace(" ", ":", 1).partition(":")
    names = {"": "major", "maj": "major", "major": "major", "min": "minor", "minor": "minor"}
    if mode not in names or not tonic or tonic[0] not in "ABCDEFG" or tonic[1:].strip("b#"):
        return None
    if tonic.lower() not in mir_eval.key.KEY_TO_SEMITONE:  # mir_eval lacks Cb, E# and others
        tonic = PITCH_CLASSES[mir_eval.chord.pitch_class_to_semitone(tonic) % 12]
    return f"{tonic} {names[mode]}"


def longest_key(intervals: Iterable[tuple[float, float]], labels: Sequence[str]) -> str | None:
    """The key with the longest total duration; None where that is neither major nor minor.

    Args:
        intervals: Start and end of each key, in seconds.
        labels: Label of each key.
    """
    seconds: dict[str, float] = {}
    for (start, end), label in zip(intervals, labels, strict=True):
        name = key_name(label) or label  # other modes compete too
        seconds[name] = seconds.get(name, 0.0) + end - start
    return key_name(max(seconds, key=lambda name: seconds[name])) if seconds else None


def numbered_lines(path: str | Path) -> list[tuple[int, str]]:
    """Lines of a text file with their numbers, stripped; empty lines and lines that begin with ``#`` are left out.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # some editors write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    lines = enumerate(text.splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip() and not line.startswith("#")]


def parse_number(field: str, where: str) -> float:
    """A finite number from text.

    Args:
        field: The text.
        where: Location for messages, ``path:line``.

    Raises:
        InputError: it is not a finite number.
    """
    try:
        value = float(field)
    except ValueError:
        raise InputError(f"{where}: expected a number, found {field!r}") from None
    if not np.isfinite(value):
        raise InputError(f"{where}: expected a finite number, found {field!r}")
    return value


def _position(field: str, where: str) -> int:
    """Position of a beat in its bar from text."""
    value = parse_number(field, where)
    if value < 1 or value != int(value):
        raise InputError(f"{where}: a position in the bar is a whole number from 1, the downbeat; found {field!r}")
    return int(value)


def _check_time(time: float, where: str) -> None:
    if abs(time) > LONGEST_SECONDS:
        raise InputError(f"{where}: {time} s is not a time in a recording; are these milliseconds or samples?")
