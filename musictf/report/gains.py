"""Paired differences between lines of a table: the same tracks, one difference a track, an interval over tracks."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from musictf.errors import InputError
from musictf.evaluation.statistics import paired_difference
from musictf.report.tables import (
    FOLDER,
    PRETRAINED,
    Block,
    Gain,
    Line,
    Row,
    Score,
    by_system,
    representative,
    summary_table,
)

FLOORS = ("random", "mel")
_COLUMNS = frozenset({"track_id", "task", "readout", "layer", "seed", "decoder", "backbone", "metric", "value"})


def with_floor_gains(block: Block) -> Block:
    """The block with what each pretrained system gains over random weights and over the log-mel."""
    groups = by_system(block.lines)
    gains = []
    for (decoder, _), lines in groups.items():
        floors = [group for (other, _), group in groups.items() if other == decoder and group[0].kind in FLOORS]
        for floor in floors if lines[0].kind == PRETRAINED else ():
            gains.append(gain(representative(lines), representative(floor), block.headline))
    return replace(block, gains=gains)


def with_baseline_gains(blocks: Sequence[Block], baseline: Sequence[Row]) -> list[Block]:
    """The blocks with differences against a baseline's lines, readout by readout.

    A line is compared with the baseline's line of the same readout, and where the baseline has no such readout
    with the one that validation prefers.

    Raises:
        InputError: nothing of the baseline has the task, dataset, split digest and decoder of any line.
    """
    references = {(block.task, block.dataset, block.digest): block for block in summary_table(baseline)}
    result = []
    for block in blocks:
        reference = references.get((block.task, block.dataset, block.digest))
        lines = [] if reference is None else reference.lines
        pairs = [pair for line in block.lines if line.selected for pair in _pairs(line, lines)]
        result.append(replace(block, gains=[gain(line, against, block.headline) for line, against in pairs]))
    if not any(block.gains for block in result):
        raise InputError(
            "--baseline: no row to compare; task, dataset, split digest and decoder must agree. "
            f"Baseline: {_described(references.values())}. Rows: {_described(blocks)}"
        )
    return result


def gain(line: Line, against: Line, score: str) -> Gain:
    """Mean difference of a score per track between two lines, with its 95 % interval where it can be had."""
    first, second = (_track_values(side, score) for side in (line, against))
    shared = sorted(first.keys() & second.keys())
    if not first or not second:
        return Gain(line, against, score, None, 0, f"no {score} per track")
    if len(shared) < 2:
        return Gain(line, against, score, None, len(shared), "fewer than two tracks in common")
    values = [np.array([side[track] for track in shared]) for side in (first, second)]
    return Gain(line, against, score, Score(*paired_difference(values[0], values[1])), len(shared))


def _pairs(line: Line, candidates: Sequence[Line]) -> list[tuple[Line, Line]]:
    """The line with its counterpart in each system of the baseline, itself excepted."""
    digests = {row["backbone"].get("digest") for row in line.rows}
    pairs = []
    for (decoder, _), group in by_system(candidates).items():
        same = [other for other in group if other.readout == line.readout]
        against = same[0] if same else representative(group)
        itself = against.kind == line.kind and digests == {row["backbone"].get("digest") for row in against.rows}
        if decoder == line.decoder and not itself:
            pairs.append((line, against))
    return pairs


def _described(blocks: Iterable[Block]) -> str:
    parts = ((block, "+".join(sorted({line.decoder for line in block.lines}))) for block in blocks)
    return ", ".join(f"{block.task}/{block.dataset}/{block.digest[:8]}/{decoders}" for block, decoders in parts)


def _track_values(line: Line, score: str) -> dict[str, float]:
    """Score of each track, the mean over the line's seeds; tracks without a value (nan) are absent."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in line.rows:
        for track_id, value in _values_of_row(row, score).items():
            values[track_id].append(value)
    # A track that some seed lacks would compare means over different seeds.
    return {track_id: float(np.mean(found)) for track_id, found in values.items() if len(found) == len(line.rows)}


def _values_of_row(row: Row, score: str) -> dict[str, float]:
    if not row.get("per_track") or FOLDER not in row:
        return {}
    path = Path(row[FOLDER]) / row["per_track"]
    if not path.is_file():
        return {}
    table = _read_per_track(path, path.stat().st_mtime_ns)
    key = (row["task"], row["readout"], str(row["layer"]), str(row["seed"]), row["decoder"]["name"], score)
    found = table.get(key, [])
    return {track: value for name, track, value in found if _names(name, row["backbone"]) and not np.isnan(value)}


def _names(name: str, backbone: dict[str, Any]) -> bool:
    """Whether a cell of the column ``backbone`` means this backbone: its digest (or the start of it), path or kind."""
    digest = str(backbone.get("digest"))
    return name in {digest, backbone.get("path"), backbone["kind"]} or (len(name) >= 8 and digest.startswith(name))


@lru_cache(maxsize=256)
def _read_per_track(path: Path, modified: int) -> dict[tuple[str, ...], list[tuple[str, str, float]]]:
    """(task, readout, layer, seed, decoder, metric) -> (backbone, track, value), read once a version of the file."""
    table: dict[tuple[str, ...], list[tuple[str, str, float]]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = _COLUMNS - set(reader.fieldnames or ())
        if missing:
            raise InputError(f"{path}: no column {', '.join(sorted(missing))}")
        for line in reader:
            key = tuple(line[name] for name in ("task", "readout", "layer", "seed", "decoder", "metric"))
            table[key].append((line["backbone"], line["track_id"], _number(line["value"], path, reader.line_num)))
    return dict(table)


def _number(text: str | None, path: Path, line: int) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        raise InputError(f"{path}:{line}: value {text!r} is not a number") from None
