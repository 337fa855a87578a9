"""Rows of run folders as a report reads them: what system each is about, and the values behind its scores.

A row is one system, readout, layer, seed and decoder on one split. Behind a score there are either values of every
track (``per_track.csv``) or, where it is no mean over tracks, its values in resamples of the tracks (``resamples/``).
``tracks.csv`` says which tracks belong together. Older runs have no ``tracks.csv`` and no resamples; nothing here
demands them.

Shapes:  R resamples
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from musictf.errors import InputError
from musictf.results.rows import cell_name

Row = dict[str, Any]
System = tuple[str, str, str]
Floats = npt.NDArray[np.float64]

SCHEMA = 1
RESULTS = "results.jsonl"
TRACKS = "tracks.csv"
RESAMPLES = "resamples"
FOLDER = "folder"  # key under which a row read from disk remembers where its files lie

PRETRAINED, RANDOM, CLASSICAL, MAJORITY, ORACLE = "pretrained", "random", "classical", "majority", "oracle"
KINDS = (PRETRAINED, RANDOM, "silence", "noise", "mel", "mfcc", "chroma", CLASSICAL, MAJORITY, ORACLE)
BESIDE = frozenset({CLASSICAL, MAJORITY})  # decode by themselves: they stand beside every decoder
UNPROBED = BESIDE | {ORACLE}

_REQUIRED = ("backbone", "task", "dataset", "split", "readout", "layer", "seed", "selected", "scores", "decoder")
_INNER = {"backbone": ("kind",), "split": ("name", "digest", "expected", "scored"), "decoder": ("name",)}
_COLUMNS = ("track_id", "task", "readout", "layer", "seed", "decoder", "backbone", "metric", "value")
_HARMLESS = frozenset({"batch_size", "memory_gib"})  # settings of features that change no embedding


def read_rows(directories: Iterable[str | Path]) -> list[Row]:
    """Rows of every ``results.jsonl`` below the directories, each file once.

    Raises:
        InputError: a directory is missing or holds no rows, or a line is not a row of this schema.
    """
    rows: dict[Path, list[Row]] = {}
    for directory in map(Path, directories):
        if not directory.is_dir():
            raise InputError(f"{directory}: no such folder; give run folders, or a folder that holds some")
        files = sorted(path.resolve() for path in directory.rglob(RESULTS))
        rows |= {path: _rows_of(path) for path in files if path not in rows}
        if not any(rows[path] for path in files):
            raise InputError(f"{directory}: no rows in any {RESULTS} below it; run 'musictf probe' first")
    return [row for of_file in rows.values() for row in of_file]


def system_of(row: Row) -> System:
    """What is compared: kind, preset, and the rest that tells it from others.

    Each pretrained file is a system; random weights of one shape are one, whatever their seed. What is probed with
    other settings is another system.
    """
    backbone = row["backbone"]
    kind, preset = backbone["kind"], backbone.get("preset") or ""
    settings = json.dumps(settings_of(row), sort_keys=True)
    return kind, preset if kind in {PRETRAINED, RANDOM} else "", f"{_identity(row)} {settings}"


def settings_of(row: Row) -> dict[str, Any]:
    """What the task was told, how features were cut and heads trained; nothing where the row does not say."""
    task = {f"task.{name}": value for name, value in (row.get("task_settings") or {}).items()}
    if row["backbone"]["kind"] in UNPROBED:
        return task
    features = {name: value for name, value in (row.get("features") or {}).items() if name not in _HARMLESS}
    return task | features | (row.get("probe") or {})


def system_names(rows: Iterable[Row]) -> dict[System, str]:
    """A name for each system, with a piece of the digest or the settings where two would read alike."""
    known = {system_of(row): row for row in rows}
    alike: dict[tuple[str, str], set[str]] = defaultdict(set)
    for (kind, preset, _), row in known.items():
        alike[kind, preset].add(_identity(row))
    differing = differing_settings(known.values())
    names = {}
    for system, row in known.items():
        digest = _identity(row)[:8] if len(alike[system[:2]]) > 1 else ""
        words = [*system[:2], digest, _said(row, differing), "(ceiling)" if system[0] == ORACLE else ""]
        names[system] = " ".join(word for word in words if word)
    return names


def differing_settings(rows: Iterable[Row]) -> list[str] | None:
    """Settings in which probed systems differ; None where some rows do not record theirs and others do."""
    found = [settings_of(row) for row in rows if row["backbone"]["kind"] not in UNPROBED]
    recorded = [settings for settings in found if settings]
    if recorded and len(recorded) < len(found):
        return None
    names = dict.fromkeys(name for settings in recorded for name in settings)
    return [name for name in names if len({json.dumps(settings.get(name)) for settings in recorded}) > 1]


def track_values(row: Row, score: str) -> dict[str, float]:
    """Score of each track; tracks that leave it undefined are absent, and all are where nothing was kept."""
    folder = _folder(row)
    path = folder / row["per_track"] if folder and row.get("per_track") else None
    if path is None or not path.is_file():
        return {}
    key = (row["task"], row["readout"], str(row["layer"]), str(row["seed"]), row["decoder"]["name"], score)
    found = _read_per_track(path, path.stat().st_mtime_ns).get(key, [])
    return {track: value for name, track, value in found if _names(name, row["backbone"]) and value == value}


def resampled_values(row: Row, score: str) -> Floats | None:
    """Score in each resample of the tracks, (R,), NaN where undefined; None where it was not kept.

    Raises:
        InputError: a line of the file is not a number.
    """
    folder = _folder(row)
    where = Path(RESAMPLES, row["backbone"]["kind"], row["decoder"]["name"], cell_name(row), f"{score}.txt")
    path = folder / where if folder else None
    if path is None or not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8").splitlines()
    return np.array([_number(line, path, number) for number, line in enumerate(lines, start=1)])


def groups_of(rows: Iterable[Row]) -> dict[str, str]:
    """Group of each track that some row's run records.

    Raises:
        InputError: two runs put one track into different groups.
    """
    groups: dict[str, str] = {}
    for folder in dict.fromkeys(_folder(row) for row in rows):
        own = _groups_in(folder)
        for track in own.keys() & groups.keys():
            if own[track] != groups[track]:
                raise InputError(
                    f"{folder}/{TRACKS}: track {track} is of group {own[track]!r}, elsewhere of {groups[track]!r}; "
                    "their scores cannot share an interval, so probe again with one manifest"
                )
        groups |= own
    return groups


def have_same_groups(rows: Iterable[Row]) -> bool:
    """Whether all rows were scored on the same tracks in the same groups, as far as their runs record them."""
    found = [_groups_in(_folder(row)) for row in rows]
    return bool(found[0]) and all(groups == found[0] for groups in found)


def _rows_of(path: Path) -> list[Row]:
    lines = path.read_text(encoding="utf-8").splitlines()
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    return [{**_row(line, path, number), FOLDER: str(path.parent)} for number, line in numbered]


def _row(line: str, path: Path, number: int) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}:{number}: half-written or broken line ({error.msg}); remove it or probe again"
        ) from None
    if not isinstance(row, dict) or row.get("schema") != SCHEMA:
        raise InputError(f"{path}:{number}: not a results row of schema {SCHEMA}")
    missing = [name for name in _REQUIRED if name not in row]
    missing += [
        f"{outer}.{name}" for outer, names in _INNER.items() for name in names if name not in row.get(outer, name)
    ]
    if missing:
        raise InputError(f"{path}:{number}: the row has no {', '.join(missing)}; probe again")
    return row


def _identity(row: Row) -> str:
    """Digest of what was probed: weights, or the shape of weights that are drawn anew for each seed."""
    backbone = row["backbone"]
    if backbone["kind"] in BESIDE:
        return ""
    if backbone["kind"] == RANDOM:
        return str(backbone.get("shape") or backbone.get("parameters"))
    return str(backbone.get("digest") or "")


def _said(row: Row, differing: list[str] | None) -> str:
    """What a name says of the settings of its system."""
    settings = settings_of(row)
    if row["backbone"]["kind"] in UNPROBED:
        return ""
    if differing is None:
        return "" if settings else "(settings not recorded)"
    listed = ", ".join(f"{name}={json.dumps(settings.get(name))}" for name in differing)
    return f"({listed})" if listed else ""


def _folder(row: Row) -> Path | None:
    """Where the files of a row lie; None for rows of perturbed recordings, for the files are of the clean ones."""
    is_clean = (row.get("perturbation") or {"name": "clean"})["name"] == "clean"
    return Path(row[FOLDER]) if is_clean and FOLDER in row else None


def _groups_in(folder: Path | None) -> dict[str, str]:
    """Group of each scored track of a run; nothing where the run is too old to record it."""
    path = folder / TRACKS if folder else None
    return _read_groups(path, path.stat().st_mtime_ns) if path and path.is_file() else {}


def _names(name: str, backbone: dict[str, Any]) -> bool:
    """Whether a cell of the column ``backbone`` means this backbone: its digest (or the start of it), path or kind."""
    digest = str(backbone.get("digest"))
    return name in {digest, backbone.get("path"), backbone["kind"]} or (len(name) >= 8 and digest.startswith(name))


@lru_cache(maxsize=256)
def _read_per_track(path: Path, modified: int) -> dict[tuple[str, ...], list[tuple[str, str, float]]]:
    """(task, readout, layer, seed, decoder, metric) -> (backbone, track, value), read once a version of the file."""
    table: dict[tuple[str, ...], list[tuple[str, str, float]]] = defaultdict(list)
    for number, line in _lines(path, _COLUMNS):
        track, *cell, backbone, metric, value = line
        table[(*cell, metric)].append((backbone, track, _number(value or "nan", path, number)))
    return dict(table)


@lru_cache(maxsize=256)
def _read_groups(path: Path, modified: int) -> dict[str, str]:
    """Track -> group, read once a version of the file."""
    return {track: group for _, (track, group) in _lines(path, ("track_id", "group"))}


def _lines(path: Path, columns: tuple[str, ...]) -> Iterable[tuple[int, list[str]]]:
    """Number and the cells of some columns of each line of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *lines = list(csv.reader(file)) or [[]]
    if missing := [name for name in columns if name not in header]:
        raise InputError(f"{path}: no column {', '.join(sorted(missing))}")
    if lines and len(lines[-1]) < len(header):
        lines.pop()  # the run is still writing it, and its row is not there yet
    places = [header.index(name) for name in columns]
    for number, line in enumerate(lines, start=2):
        if len(line) != len(header):
            raise InputError(f"{path}:{number}: {len(line)} cells for {len(header)} columns; probe again")
        yield number, [line[place] for place in places]


def _number(text: str, path: Path, line: int) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{path}:{line}: value {text!r} is not a number") from None
