"""Lines of a table: the seeds of one system, readout and decoder as one, with their mean and its interval.

Conventions: scores lie in [0, 1] and larger is better. An interval is a 95 % bootstrap over tracks, or over groups of
tracks where some belong together; where several seeds are averaged, seeds are drawn as well. The readout that
represents a system in a comparison is chosen by its validation value, never by its test score.

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
from musictf.results.read_runs import groups_of, have_same_groups, resampled_values, track_values
from musictf.results.rows import Row, ScoreField, validation_value
from musictf.results.systems import settings_of, system_of

# What an interval over several seeds is based on.
DRAWN = "drawn over tracks and over seeds"
UNGROUPED = "drawn over tracks and over seeds (no tracks.csv says which tracks belong together)"
BOUNDS = "means of the seeds' own bounds, which leave out how much seeds differ"


@dataclass(frozen=True)
class Score:
    """A mean and its 95 % interval."""

    mean: float
    low: float  # NaN where the bounds are unknown
    high: float
    basis: str = ""  # what the interval is based on, where seeds are averaged


@dataclass(frozen=True)
class Line:
    """One line of a table: all seeds of one system, readout, decoder (and layer, where all layers are shown)."""

    system: str  # its name
    kind: str  # one of `musictf.results.names.KINDS`
    readout: str
    layers: tuple[int, ...]  # seeds may choose different ones
    decoder: str
    selected: bool  # whether validation chose these layers
    scores: dict[str, Score]  # those of the block that are defined
    rows: tuple[Row, ...] = field(repr=False)  # one a seed
    best: frozenset[str] = frozenset()  # scores in which no other line of the decoder is better

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
        """Whether heads were trained for it. Where not, its layer and seed mean nothing."""
        return self.kind not in UNPROBED


def line_of(rows: Sequence[Row], system: str, score_names: Iterable[str]) -> Line:
    """The line of rows that only differ in their seed."""
    first = rows[0]
    scores = {name: mean_over_seeds(rows, name) for name in score_names}
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
    """The last row of everything that was scored more than once, and the number of older rows with other scores.

    For one seed validation chooses one layer, so a later choice replaces an earlier one.
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
    """Mean of a score over seeds, with an interval over tracks and seeds where values are available.

    Args:
        rows: One row a seed.
        name: Name of the score.

    Returns:
        None where no row has the score. A single seed keeps its interval.
    """
    values = [row["scores"].get(name) for row in rows]
    score = mean_of(values)
    if score is None or score.basis == "" or any(value is None or value["mean"] is None for value in values):
        return score
    # The best basis that the files allow: values of tracks, resampled values, or bounds of single seeds.
    return _over_tracks(rows, name, score.mean) or _over_resamples(rows, name, score.mean) or score


def mean_of(values: Sequence[ScoreField | None]) -> Score | None:
    """Mean of the scores of several seeds, and of their bounds; None where none is defined."""
    defined = [value for value in values if value is not None and value["mean"] is not None]
    if not defined:
        return None
    bounds = [value["ci95"] for value in defined]
    columns = zip(
        *((value["mean"], low, high) for value, (low, high) in zip(defined, bounds, strict=True)), strict=True
    )
    mean, low, high = (sum(math.nan if x is None else x for x in column) / len(defined) for column in columns)
    return Score(mean, low, high, BOUNDS if len(values) > 1 else "")


def representative(lines: Sequence[Line]) -> Line:
    """The line that represents a system: the best on validation, the first where nothing was validated."""
    return max(lines, key=lambda line: -math.inf if line.valid is None else line.valid)


def by_system(lines: Iterable[Line]) -> dict[tuple[str, str], list[Line]]:
    """Selected lines by decoder and system."""
    groups: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in lines:
        if line.selected:
            groups[line.decoder, line.system].append(line)
    return groups


def comparable(line: Line, decoder: str) -> bool:
    """Whether a line may be compared with the lines of a decoder."""
    return line.decoder == decoder or line.kind in DECODER_FREE


def same_settings(line: Line, other: Line) -> bool:
    """Whether two lines were probed with the same settings, or one of them was not probed at all."""
    return not (line.is_probed and other.is_probed) or settings_of(line.rows[0]) == settings_of(other.rows[0])


def order(line: Line) -> tuple[Any, ...]:
    """Sorting key: decoder by decoder, then systems with a decoder of their own, then the ceiling."""
    kind = KINDS.index(line.kind)
    readout = READOUTS.index(line.readout) if line.readout in READOUTS else len(READOUTS)
    return 0 if line.is_probed else kind, line.decoder, kind, line.system, readout, line.layers


def with_best(lines: Sequence[Line], compared: Sequence[str]) -> list[Line]:
    """Mark the best value of each score among the selected lines of each decoder, ties included; no ceiling."""
    chosen = [line for line in lines if line.selected and line.kind != ORACLE]
    tops: dict[tuple[str, str], float] = defaultdict(lambda: -math.inf)
    for line in chosen:
        # A system with a decoder of its own is best only if it is so among the lines of all decoders.
        rivals = chosen if line.kind in DECODER_FREE else [other for other in chosen if comparable(other, line.decoder)]
        for name in compared:
            values = [round(rival.scores[name].mean, 3) for rival in rivals if name in rival.scores]
            tops[line.decoder, name] = max(values, default=-math.inf)
    marked = []
    for line in lines:
        # Rounded as printed, so that two equal numbers in a table are both bold.
        best = {
            name
            for name in compared
            if line.selected and line.kind != ORACLE and name in line.scores
            if round(line.scores[name].mean, 3) == tops[line.decoder, name]
        }
        marked.append(replace(line, best=frozenset(best)))
    return marked


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
    """The interval from values of single tracks; None where the seeds do not define the same tracks."""
    columns = [track_values(row, name) for row in rows]
    tracks = list(columns[0])
    if not tracks or any(column.keys() != columns[0].keys() for column in columns):
        return None
    table = np.array([[column[track] for track in tracks] for column in columns])  # (S, T)
    groups = groups_of(rows)
    _, low, high = statistics.mean_interval(table, [groups.get(track, track) for track in tracks])
    return Score(mean, low, high, DRAWN if groups else UNGROUPED)


def _over_resamples(rows: Sequence[Row], name: str, mean: float) -> Score | None:
    """The interval from values in the same resamples, shifted like that of one seed; None where they do not match."""
    columns = [resampled_values(row, name) for row in rows]
    available = [column for column in columns if column is not None]
    if len(available) < len(rows) or len({len(column) for column in available}) > 1 or not have_same_groups(rows):
        return None
    return Score(mean, *statistics.interval(statistics.mean_over_drawn_seeds(np.stack(available)), mean), DRAWN)
