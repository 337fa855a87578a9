"""Lines of a table: the seeds of one system, readout and decoder as one, with their mean and its interval.

Conventions: scores lie in [0, 1] and larger is better. An interval is a 95 % bootstrap over tracks, whole groups of
them where some belong together; where several seeds are averaged it is drawn over the seeds as well. What stands for a
system in a comparison (its readout) is chosen by its validation value, never by its test score.

Shapes:  S seeds   T tracks   R resamples
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from musictf.results import statistics
from musictf.results.names import DECODER_FREE, KINDS, ORACLE, READOUTS, UNPROBED
from musictf.results.rows import Row, ScoreField, validation_value
from musictf.results.runs import groups_of, have_same_groups, resampled_values, track_values
from musictf.results.systems import settings_of, system_of

# What an interval over several seeds rests on.
DRAWN = "drawn over tracks and over seeds"
UNGROUPED = "drawn over tracks and over seeds (no tracks.csv says which tracks belong together)"
BOUNDS = "means of the seeds' own bounds, which leave out how much seeds differ"


@dataclass(frozen=True)
class Score:
    """A mean and its 95 % interval; ``basis`` says what the interval rests on where seeds are averaged."""

    mean: float
    low: float
    high: float
    basis: str = ""


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
        values = [value for value in map(validation_value, self.rows) if not math.isnan(value)]
        return sum(values) / len(values) if values else None

    @property
    def is_probed(self) -> bool:
        """Whether heads were trained for it, so that its layer and seeds mean something."""
        return self.kind not in UNPROBED


def line_of(rows: Sequence[Row], system: str, shown: Iterable[str]) -> Line:
    """The line of rows that differ in nothing but their seed."""
    first = rows[0]
    scores = {name: mean_over_seeds(rows, name) for name in shown}
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


def latest(rows: Iterable[Row]) -> tuple[list[Row], int]:
    """The last row of everything that was scored more than once, and how many that said otherwise were left out.

    Of one seed validation chooses one layer, so a later choice replaces an earlier one.
    """
    last: dict[tuple[Any, ...], Row] = {}
    differing = 0
    for row in sorted(rows, key=lambda row: str(row.get("time", ""))):
        layer = "chosen" if row["selected"] else row["layer"]
        key = (system_of(row), row["readout"], layer, row["seed"], row["decoder"]["name"])
        differing += key in last and last[key]["scores"] != row["scores"]
        last[key] = row
    return list(last.values()), differing


def mean_over_seeds(rows: Sequence[Row], name: str) -> Score | None:
    """A score of several seeds: the mean of theirs, with an interval over tracks and seeds where one can be drawn.

    Args:
        rows: One a seed.
        name: Of the score.

    Returns:
        None where no row has it. One seed keeps its own interval.
    """
    found = [row["scores"].get(name) for row in rows]
    score = mean_of(found)
    if score is None or score.basis == "" or any(value is None or value["mean"] is None for value in found):
        return score
    return _over_tracks(rows, name, score.mean) or _over_resamples(rows, name, score.mean) or score


def mean_of(values: Sequence[ScoreField | None]) -> Score | None:
    """Mean of scores ``{mean, ci95}``, one a seed, and of their bounds; None where none is defined."""
    given = [value for value in values if value is not None and value["mean"] is not None]
    if not given:
        return None
    bounds = [value["ci95"] for value in given]
    columns = zip(*((value["mean"], low, high) for value, (low, high) in zip(given, bounds, strict=True)), strict=True)
    mean, low, high = (sum(math.nan if x is None else x for x in column) / len(given) for column in columns)
    return Score(mean, low, high, BOUNDS if len(values) > 1 else "")


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


def comparable(line: Line, decoder: str) -> bool:
    """Whether a line may stand beside the lines of a decoder."""
    return line.decoder == decoder or line.kind in DECODER_FREE


def same_settings(line: Line, other: Line) -> bool:
    """Whether two lines were probed alike, or one of them was not probed at all."""
    return not (line.is_probed and other.is_probed) or settings_of(line.rows[0]) == settings_of(other.rows[0])


def order(line: Line) -> tuple[Any, ...]:
    """Sorting key: decoder by decoder, then what stands beside all of them, then the ceiling."""
    kind = KINDS.index(line.kind)
    readout = READOUTS.index(line.readout) if line.readout in READOUTS else len(READOUTS)
    return 0 if line.is_probed else kind, line.decoder, kind, line.system, readout, line.layers


def with_best(lines: Sequence[Line], compared: Sequence[str]) -> list[Line]:
    """Mark the best value of each score among the selected lines of each decoder, ties included; no ceiling."""
    chosen = [line for line in lines if line.selected and line.kind != ORACLE]
    tops: dict[tuple[str, str], float] = defaultdict(lambda: -math.inf)
    for line in chosen:
        # What a line beside the decoders wins, it must win against every decoder.
        rivals = chosen if line.kind in DECODER_FREE else [other for other in chosen if comparable(other, line.decoder)]
        for name in compared:
            values = [round(rival.scores[name].mean, 3) for rival in rivals if name in rival.scores]
            tops[line.decoder, name] = max(values, default=-math.inf)
    return [_marked(line, compared, tops) for line in lines]


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


def _over_tracks(rows: Sequence[Row], name: str, mean: float) -> Score | None:
    """From the values of every track, where all seeds have the same tracks defined."""
    columns = [track_values(row, name) for row in rows]
    tracks = list(columns[0])
    if not tracks or any(column.keys() != columns[0].keys() for column in columns):
        return None
    table = np.array([[column[track] for track in tracks] for column in columns])
    groups = groups_of(rows)
    _, low, high = statistics.mean_interval(table, [groups.get(track, track) for track in tracks])
    return Score(mean, low, high, DRAWN if groups else UNGROUPED)


def _over_resamples(rows: Sequence[Row], name: str, mean: float) -> Score | None:
    """From values in the same resamples of the tracks, moved as those of one seed are."""
    columns = [resampled_values(row, name) for row in rows]
    kept = [column for column in columns if column is not None]
    if len(kept) < len(rows) or len({len(column) for column in kept}) > 1 or not have_same_groups(rows):
        return None
    return Score(mean, *statistics.interval(statistics.mean_over_drawn_seeds(np.stack(kept)), mean), DRAWN)


def _marked(line: Line, compared: Iterable[str], tops: dict[tuple[str, str], float]) -> Line:
    if not line.selected or line.kind == ORACLE:
        return line
    held = [name for name in compared if name in line.scores]
    best = {name for name in held if round(line.scores[name].mean, 3) == tops[line.decoder, name]}
    return replace(line, best=frozenset(best))
