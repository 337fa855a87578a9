"""Rows of many run folders, and the values behind their scores.

Behind a score there are either values of every track (``per_track.csv``) or, where it is no mean over tracks, its
values in resamples of the tracks (``resamples.npz``). ``tracks.csv`` names the group of each track. Older runs have
neither ``tracks.csv`` nor resamples; both are optional here.

Shapes:  R resamples
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from musictf.errors import InputError
from musictf.results.resamples import read_resamples, resample_key
from musictf.results.rows import RESULTS, TRACK_COLUMNS, TRACKS, Row, read_rows
from musictf.results.statistics import Floats


def read_runs(directories: Iterable[str | Path]) -> list[Row]:
    """Rows of every ``results.jsonl`` below the directories, each file once; the field ``folder`` says where from.

    Raises:
        InputError: a directory is missing or holds no rows, or a line is not a row of this schema.
    """
    rows: dict[Path, list[Row]] = {}
    for directory in map(Path, directories):
        if not directory.is_dir():
            raise InputError(f"{directory}: no such folder; give run folders, or a folder that holds some")
        # Resolved, so that a folder that is given twice, or inside another, counts once.
        paths = sorted(path.resolve() for path in directory.rglob(RESULTS))
        rows |= {path: read_rows(path) for path in paths if path not in rows}
        if not any(rows[path] for path in paths):
            raise InputError(f"{directory}: no rows in any {RESULTS} below it; run 'musictf probe' first")
    return [{**row, "folder": str(path.parent)} for path, of_file in rows.items() for row in of_file]


def track_values(row: Row, score: str) -> dict[str, float]:
    """Track -> score. Tracks with an undefined score are left out; empty where no values were kept.

    Raises:
        InputError: the file with the values is broken.
    """
    folder = _folder(row)
    path = folder / row["per_track"] if folder and row.get("per_track") else None
    if path is None or not path.is_file():
        return {}
    key = (row["task"], row["readout"], str(row["layer"]), str(row["seed"]), row["decoder"]["name"], score)
    lines = _read_per_track(path, path.stat().st_mtime_ns).get(key, [])
    backbone, digest = row["backbone"], str(row["backbone"].get("digest"))
    names = {digest, backbone.get("path"), backbone["kind"]}
    return {
        track: value
        for name, track, value in lines
        # Older runs name a backbone by its digest or the start of it, newer ones by its kind.
        if (name in names or (len(name) >= 8 and digest.startswith(name))) and not math.isnan(value)
    }


def resampled_values(row: Row, score: str) -> Floats | None:
    """Score in each resample of the tracks, (R,), NaN where undefined; None where it was not kept.

    Raises:
        InputError: the file with the values is broken.
    """
    folder = _folder(row)
    return read_resamples(folder).get(resample_key(row, score)) if folder else None


def groups_of(rows: Iterable[Row]) -> dict[str, str]:
    """Track -> its group, for every track that the run of some row records.

    Raises:
        InputError: two runs put one track into different groups.
    """
    groups: dict[str, str] = {}
    for folder in dict.fromkeys(_folder(row) for row in rows):
        groups_here = _groups_in(folder)
        for track in groups_here.keys() & groups.keys():
            if groups_here[track] != groups[track]:
                raise InputError(
                    f"{folder}/{TRACKS}: track {track} is of group {groups_here[track]!r}, elsewhere of "
                    f"{groups[track]!r}; their scores cannot share an interval, so probe again with one manifest"
                )
        groups |= groups_here
    return groups


def have_same_groups(rows: Iterable[Row]) -> bool:
    """Whether all rows were scored on the same tracks in the same groups; False where the first run has none."""
    groups = [_groups_in(_folder(row)) for row in rows]
    return bool(groups[0]) and all(other == groups[0] for other in groups)


def _folder(row: Row) -> Path | None:
    """Folder with the files of a row; None for perturbed recordings, because the files are of the clean ones."""
    is_clean = (row.get("perturbation") or {"name": "clean"})["name"] == "clean"
    return Path(row["folder"]) if is_clean and "folder" in row else None


def _groups_in(folder: Path | None) -> dict[str, str]:
    """Track -> group of one run; empty where the run is too old to record groups."""
    path = folder / TRACKS if folder else None
    return _read_groups(path, path.stat().st_mtime_ns) if path and path.is_file() else {}


# ``modified`` is part of the key of both caches: a file that changes is read again.
@lru_cache(maxsize=256)
def _read_per_track(path: Path, modified: int) -> dict[tuple[str, ...], list[tuple[str, str, float]]]:
    """(task, readout, layer, seed, decoder, metric) -> (backbone, track, value), read once a version of the file."""
    table: dict[tuple[str, ...], list[tuple[str, str, float]]] = defaultdict(list)
    for number, (track, *cell, metric, value, backbone) in _lines(path, TRACK_COLUMNS):
        table[(*cell, metric)].append((backbone, track, _number(value or "nan", path, number)))
    return dict(table)


@lru_cache(maxsize=256)
def _read_groups(path: Path, modified: int) -> dict[str, str]:
    """Track -> group, read once a version of the file."""
    return {track: group for _, (track, group) in _lines(path, ("track_id", "group"))}


def _lines(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Number of each line of a CSV file, and its values in some columns."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *lines = list(csv.reader(file)) or [[]]
    if missing := [name for name in columns if name not in header]:
        raise InputError(f"{path}: no column {', '.join(sorted(missing))}; probe again")
    if lines and len(lines[-1]) < len(header):
        lines.pop()  # the run is still writing it, and its row is not there yet
    indices = [header.index(name) for name in columns]
    for number, line in enumerate(lines, start=2):
        if len(line) != len(header):
            raise InputError(f"{path}:{number}: {len(line)} cells for {len(header)} columns; probe again")
        yield number, [line[index] for index in indices]


def _number(text: str, path: Path, line: int) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{path}:{line}: value {text!r} is not a number; probe again") from None
