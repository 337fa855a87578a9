"""What people wrote down about a track: chords, beats and onsets, and the text files that hold them.

Conventions: times in seconds from the start of the track; intervals ascending, without overlap; chord labels in
Harte syntax as `mir_eval.chord` reads them; a beat's position counts from 1, the downbeat, within its bar.
A gap between two chords becomes ``X`` (unknown), which no comparison of mir_eval counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mir_eval
import numpy as np
import numpy.typing as npt

from musictf.errors import InputError

Seconds = npt.NDArray[np.float64]

# Shorter gaps and overlaps than this are rounding in the file, not music.
ROUNDING_SECONDS = 2e-3


@dataclass(frozen=True)
class Chords:
    """Chord labels over time: intervals (n, 2) in seconds, one Harte label each."""

    intervals: Seconds
    labels: list[str]


@dataclass(frozen=True)
class Beats:
    """Beat times (n,) in seconds and, where bars are annotated, positions (n,) with 1 = downbeat."""

    times: Seconds
    positions: npt.NDArray[np.int64] | None = None

    @property
    def downbeats(self) -> Seconds | None:
        """Times of position 1 in seconds, or None where bars are not annotated."""
        return None if self.positions is None else self.times[self.positions == 1]


def read_chords(path: str | Path) -> Chords:
    """Chords of a ``.lab`` file: ``start end label`` a line, seconds.

    Raises:
        InputError: a line does not parse, an interval runs backwards, or two intervals overlap.
    """
    starts: list[float] = []
    ends: list[float] = []
    labels: list[str] = []
    for number, line in _lines(path):
        fields = line.split(maxsplit=2)
        if len(fields) != 3:
            raise InputError(f"{path}:{number}: expected 'start end label', found {line!r}")
        start, end = (_number(field, path, number) for field in fields[:2])
        label = _chord_label(fields[2].strip(), path, number)
        previous = ends[-1] if ends else start
        if end <= start:
            raise InputError(f"{path}:{number}: the interval ends at {end} s, before its start at {start} s")
        if start < previous - ROUNDING_SECONDS:
            raise InputError(f"{path}:{number}: starts at {start} s, before the previous chord ends at {previous} s")
        if start > previous + ROUNDING_SECONDS:
            starts.append(previous)
            ends.append(start)
            labels.append("X")
        starts.append(previous if abs(start - previous) <= ROUNDING_SECONDS else start)
        ends.append(end)
        labels.append(label)
    if not labels:
        raise InputError(f"{path}: holds no chord; leave 'chords' out of the manifest for a track without them")
    return Chords(np.column_stack([starts, ends]).astype(np.float64), labels)


def write_chords(path: str | Path, chords: Chords) -> None:
    """Write a ``.lab`` file with microseconds, so that boundaries survive the round trip."""
    rows = zip(chords.intervals, chords.labels, strict=True)
    Path(path).write_text("".join(f"{start:.6f}\t{end:.6f}\t{label}\n" for (start, end), label in rows))


def read_beats(path: str | Path) -> Beats:
    """Beats of a ``.beats`` file: ``time[<tab>position]`` a line, seconds; an empty file means no beats.

    Raises:
        InputError: a line does not parse, times do not ascend, or only some beats have a position.
    """
    times: list[float] = []
    positions: list[int] = []
    for number, line in _lines(path):
        fields = line.split()
        time = _number(fields[0], path, number)
        if times and time <= times[-1]:
            raise InputError(f"{path}:{number}: beat at {time} s does not come after the one at {times[-1]} s")
        times.append(time)
        if len(fields) > 1:
            positions.append(_position(fields[1], path, number))
    if positions and len(positions) != len(times):
        raise InputError(f"{path}: {len(positions)} of {len(times)} beats have a position in the bar; give all or none")
    return Beats(np.asarray(times, dtype=np.float64), np.asarray(positions, dtype=np.int64) if positions else None)


def write_beats(path: str | Path, beats: Beats) -> None:
    """Write a ``.beats`` file with microseconds and, where known, positions."""
    if beats.positions is None:
        lines = [f"{time:.6f}\n" for time in beats.times]
    else:
        lines = [f"{time:.6f}\t{position}\n" for time, position in zip(beats.times, beats.positions, strict=True)]
    Path(path).write_text("".join(lines))


def read_onsets(path: str | Path) -> Seconds:
    """Onset times (n,) in seconds, ascending: one a line, columns after the first left alone; may be empty.

    Raises:
        InputError: a line does not parse.
    """
    times = [_number(line.split()[0], path, number) for number, line in _lines(path)]
    return np.unique(np.asarray(times, dtype=np.float64))  # two notes may begin together


def write_onsets(path: str | Path, onsets: Seconds) -> None:
    """Write onset times with microseconds, one a line."""
    Path(path).write_text("".join(f"{time:.6f}\n" for time in onsets))


def _lines(path: str | Path) -> list[tuple[int, str]]:
    """Numbered lines that are neither empty nor comments."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    lines = enumerate(text.splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip() and not line.startswith("#")]


def _number(field: str, path: str | Path, line: int) -> float:
    try:
        value = float(field)
    except ValueError:
        raise InputError(f"{path}:{line}: expected a number, found {field!r}") from None
    if not np.isfinite(value):
        raise InputError(f"{path}:{line}: expected a finite number, found {field!r}")
    return value


def _position(field: str, path: str | Path, line: int) -> int:
    value = _number(field, path, line)
    if value < 1 or value != int(value):
        raise InputError(
            f"{path}:{line}: a position in the bar is a whole number from 1, the downbeat; found {field!r}"
        )
    return int(value)


def _chord_label(label: str, path: str | Path, line: int) -> str:
    try:
        mir_eval.chord.validate_chord_label(label)
    except mir_eval.chord.InvalidChordException:
        raise InputError(f"{path}:{line}: {label!r} is not a chord in Harte syntax (C:maj, A:min7/b3, N, X)") from None
    return label
