"""Rows of many runs as tables of what may be compared.

Two rows are comparable only if task, dataset, split digest and decoder agree. So there is one block for each task,
dataset and split, and inside a block a best value and every difference is taken among rows of one decoder. A decoder
is known by its name, for its settings are calibrated on validation, head by head. The majority answer decodes nothing
and stands beside every decoder.

Conventions: scores lie in [0, 1] and larger is better. An interval is a 95 % bootstrap over tracks; where a line
averages several seeds it shows the mean of the seeds' means and of their bounds. What stands for a system in a
comparison (its readout) is chosen by its validation value, never by its test score.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musictf.errors import InputError

Row = dict[str, Any]

SCHEMA = 1
RESULTS = "results.jsonl"
FOLDER = "folder"  # key under which a row read from disk remembers where its per_track.csv lies
PRETRAINED = "pretrained"
MAJORITY = "majority"
# Task -> the scores that are shown, the headline first. A task that is not listed (a plug-in) shows all it has.
SHOWN = {
    "tagging": ("map", "roc_auc"),
    "chord": ("majmin", "root", "thirds", "mirex", "seg", "coverage"),
    "beat": ("f_measure", "cemgil", "cmlt", "amlt", "downbeat_f_measure"),
}
# Scores that describe the comparison and have no better or worse.
DESCRIPTIVE = frozenset({"coverage", "classes_scored"})
_REQUIRED = ("backbone", "task", "dataset", "split", "readout", "layer", "seed", "selected", "scores", "decoder")


@dataclass(frozen=True)
class Score:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """One line of a table: all seeds of one system, readout, decoder (and layer, where all layers are shown)."""

    system: str
    kind: str
    readout: str
    layers: tuple[int, ...]
    decoder: str
    selected: bool
    scores: dict[str, Score]
    rows: tuple[Row, ...] = field(repr=False)
    best: frozenset[str] = frozenset()

    @property
    def tracks(self) -> int:
        """Number of tracks scored, the smallest over the seeds."""
        return min(int(row["split"]["scored"]) for row in self.rows)

    @property
    def expected(self) -> int:
        """Number of tracks the split holds."""
        return max(int(row["split"]["expected"]) for row in self.rows)

    @property
    def valid(self) -> float | None:
        """Validation value that chose this line, mean over seeds; None where nothing was chosen (majority)."""
        found = [row["selection"]["value"] for row in self.rows if row.get("selection")]
        values = [value for value in found if value is not None]
        return sum(values) / len(values) if values else None


@dataclass(frozen=True)
class Gain:
    """A paired difference between two lines over the same tracks; ``reason`` says why where there is none."""

    line: Line
    against: Line
    score: str
    difference: Score | None
    tracks: int
    reason: str = ""


@dataclass(frozen=True)
class Block:
    """All lines that share task, dataset and split, and what may be said about them."""

    task: str
    dataset: str
    split: str
    digest: str
    alone: bool
    shown: tuple[str, ...]
    lines: list[Line]
    notes: list[str]
    gains: list[Gain] = field(default_factory=list)

    @property
    def headline(self) -> str:
        """The score that stands for the task."""
        return self.shown[0]

    @property
    def heading(self) -> str:
        """Task, dataset, split; and a warning where the same task appears on other data."""
        text = f"{self.task} on {self.dataset}, split {self.split} {self.digest[:8]}"
        return text if self.alone else f"{text} (not comparable with the other {self.task} tables)"

    def holds(self, row: Row) -> bool:
        """Whether a row is about the same task, dataset and split."""
        return (row["task"], row["dataset"], row["split"]["digest"]) == (self.task, self.dataset, self.digest)


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


def summary_table(rows: Sequence[Row], all_layers: bool = False) -> list[Block]:
    """One block for each task, dataset and split, its lines ordered by decoder and system.

    Args:
        rows: Rows as `read_rows` gives them.
        all_layers: Also show the layers that validation did not choose.
    """
    blocks: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row["selected"] or all_layers:
            blocks[row["task"], row["dataset"], row["split"]["digest"]].append(row)
    tasks = [task for task, _, _ in blocks]
    return [_block(blocks[key], tasks.count(key[0]) == 1, all_layers) for key in sorted(blocks)]


def representative(lines: Sequence[Line]) -> Line:
    """The line that stands for a system: the best on validation, the first where nothing was validated."""
    return max(lines, key=lambda line: -math.inf if line.valid is None else line.valid)


def by_system(lines: Iterable[Line]) -> dict[tuple[str, str], list[Line]]:
    """Selected lines by decoder and system."""
    groups: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in lines:
        if line.selected:
            groups[line.decoder, line.system].append(line)
    return groups


def decimal(value: float, sign: bool = False) -> str:
    """Three decimals without the leading zero: ``.712``, ``1.000``, ``+.052``; a dash for what is not a number.

    Example:
        >>> decimal(0.7123), decimal(-0.05), decimal(0.052, sign=True)
        ('.712', '-.050', '+.052')
    """
    if math.isnan(value):
        return "–"
    text = f"{value:+.3f}" if sign else f"{value:.3f}"
    return text.replace("0.", ".", 1) if text.lstrip("+-").startswith("0.") else text


def interval(score: Score, sign: bool = False) -> str:
    """``[.690 .733]``, or nothing where the bounds are unknown."""
    if math.isnan(score.low) or math.isnan(score.high):
        return ""
    return f"[{decimal(score.low, sign)} {decimal(score.high, sign)}]"


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
    inner = {"backbone": ("kind",), "split": ("name", "digest", "expected", "scored"), "decoder": ("name",)}
    missing += [
        f"{outer}.{name}" for outer, names in inner.items() for name in names if name not in row.get(outer, name)
    ]
    if missing:
        raise InputError(f"{path}:{number}: the row has no {', '.join(missing)}; probe again")
    return row


def _block(rows: list[Row], alone: bool, all_layers: bool) -> Block:
    latest, repeated = _latest(rows)
    names = system_names(latest)
    cells: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in latest:
        layer = (row["layer"], row["selected"]) if all_layers else ()
        cells[row["decoder"]["name"], system_of(row), row["readout"], layer].append(row)
    shown = _shown_scores(latest)
    lines = [_line(cell, names[system_of(cell[0])], shown) for cell in cells.values()]
    lines = _with_best(sorted(lines, key=_order), shown)
    first = latest[0]
    notes = [*_floors_that_win(lines, shown), *_protocol_notes(lines)]
    if repeated:
        notes.append(f"{repeated} older rows of the same system, readout, layer, seed and decoder are left out")
    split = first["split"]
    return Block(first["task"], first["dataset"], split["name"], split["digest"], alone, shown, lines, notes)


def _latest(rows: list[Row]) -> tuple[list[Row], int]:
    """The last row of everything that was scored more than once, and how many that said otherwise were left out."""
    last: dict[tuple[Any, ...], Row] = {}
    differing = 0
    for row in sorted(rows, key=lambda row: str(row.get("time", ""))):
        what = (system_of(row), row["backbone"].get("digest"), row["readout"], row["layer"], row["seed"])
        key = (*what, row["decoder"]["name"])
        differing += key in last and last[key]["scores"] != row["scores"]
        last[key] = row
    return list(last.values()), differing


def system_of(row: Row) -> tuple[str, str, str]:
    """What is compared. Each pretrained file is a system; random weights of one shape are one, whatever their seed."""
    backbone = row["backbone"]
    kind, preset = backbone["kind"], backbone.get("preset") or ""
    if kind == PRETRAINED:
        return kind, preset, str(backbone.get("digest"))
    if kind == "random":
        return kind, preset, str(backbone.get("shape") or backbone.get("parameters"))
    return kind, "", str(backbone.get("digest")) if kind == "mel" else ""


def system_names(rows: Iterable[Row]) -> dict[tuple[str, str, str], str]:
    """A name for each system, with a piece of the digest where two would read alike."""
    systems = {system_of(row) for row in rows}
    kinds = [(kind, preset) for kind, preset, _ in systems]
    plain = {system: f"{system[0]} {system[1]}".strip() for system in systems}
    return {
        system: f"{name} {system[2][:8]}" if kinds.count(system[:2]) > 1 else name for system, name in plain.items()
    }


def _shown_scores(rows: Sequence[Row]) -> tuple[str, ...]:
    present = list(dict.fromkeys(name for row in rows for name in row["scores"] or {}))
    known = SHOWN.get(rows[0]["task"])
    if known is None:
        return tuple(present) or ("score",)
    # The headline stays even where no row has it: an empty column says more than none.
    return tuple(name for name in known if name in present or name == known[0])


def _line(rows: list[Row], system: str, shown: Iterable[str]) -> Line:
    scores = {name: _mean_score([(row["scores"] or {}).get(name) for row in rows]) for name in shown}
    first = rows[0]
    return Line(
        system=system,
        kind=first["backbone"]["kind"],
        readout=first["readout"],
        layers=tuple(sorted({row["layer"] for row in rows})),
        decoder=first["decoder"]["name"],
        selected=bool(first["selected"]),
        scores={name: score for name, score in scores.items() if score is not None},
        rows=tuple(rows),
    )


def _mean_score(values: Sequence[dict[str, Any] | None]) -> Score | None:
    given = [value for value in values if value is not None and value["mean"] is not None]
    if not given:
        return None
    bounds = [value.get("ci95") or (None, None) for value in given]
    columns = zip(*((value["mean"], low, high) for value, (low, high) in zip(given, bounds, strict=True)), strict=True)
    return Score(*(sum(math.nan if x is None else x for x in column) / len(given) for column in columns))


def _order(line: Line) -> tuple[Any, ...]:
    kinds = (PRETRAINED, "random", "mel", "majority")
    kind = kinds.index(line.kind) if line.kind in kinds else len(kinds)
    readouts = ("class", "sequence", "average", "constant")
    readout = readouts.index(line.readout) if line.readout in readouts else len(readouts)
    return line.kind == MAJORITY, line.decoder, kind, line.system, readout, line.layers


def comparable(line: Line, decoder: str) -> bool:
    """Whether a line may stand beside the lines of a decoder."""
    return line.decoder == decoder or line.kind == MAJORITY


def _with_best(lines: list[Line], shown: Iterable[str]) -> list[Line]:
    """Mark the best value of each score among the selected lines of each decoder, ties included."""
    compared = [name for name in shown if name not in DESCRIPTIVE]
    chosen = [line for line in lines if line.selected]
    tops: dict[tuple[str, str], float] = defaultdict(lambda: -math.inf)
    for line in chosen:
        # What the majority answer wins, it must win against every decoder.
        rivals = chosen if line.kind == MAJORITY else [other for other in chosen if comparable(other, line.decoder)]
        for name in compared:
            values = [round(rival.scores[name].mean, 3) for rival in rivals if name in rival.scores]
            tops[line.decoder, name] = max(values, default=-math.inf)
    return [_marked(line, compared, tops) for line in lines]


def _marked(line: Line, compared: Iterable[str], tops: dict[tuple[str, str], float]) -> Line:
    best = {
        name
        for name in compared
        if line.selected and name in line.scores and round(line.scores[name].mean, 3) == tops[line.decoder, name]
    }
    return Line(**{**vars(line), "best": frozenset(best)})


def _floors_that_win(lines: Sequence[Line], shown: Iterable[str]) -> list[str]:
    """One sentence for each pretrained system that a floor beats, each by the line that validation prefers."""
    groups = by_system(lines)
    notes = []
    for (decoder, system), mine in groups.items():
        floors = [
            group
            for (other, _), group in groups.items()
            if comparable(group[0], decoder) and group[0].kind != PRETRAINED
        ]
        for floor in floors if mine[0].kind == PRETRAINED else ():
            wins = [_win(name, floor, mine) for name in shown if name not in DESCRIPTIVE]
            if any(wins):
                listed = ", ".join(win for win in wins if win)
                notes.append(f"the floor {floor[0].system} beats {system} (decoder {decoder}): {listed}")
    return notes


def _win(name: str, floor: Sequence[Line], mine: Sequence[Line]) -> str:
    theirs, own = (representative(group).scores.get(name) for group in (floor, mine))
    if theirs is None or own is None or theirs.mean <= own.mean:
        return ""
    return f"{name} {decimal(theirs.mean)} > {decimal(own.mean)}"


def _protocol_notes(lines: Sequence[Line]) -> list[str]:
    """Which lines are not about the whole split."""
    notes = [
        f"{line.system}, {line.readout}: only {line.tracks} of {line.expected} tracks were scored"
        for line in lines
        if line.tracks < line.expected
    ]
    return list(dict.fromkeys(notes))  # the layers of one readout would all say the same
