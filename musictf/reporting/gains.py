"""Paired differences between lines of a table: the same tracks and seeds, and an interval over both.

Conventions: where both lines have a seed, its rows are compared with each other. Systems that are not probed (the
classical system, the majority answer, the ceiling) have no seeds and are compared with every seed. Lines without a
common seed are compared by their means over seeds, and the interval is over tracks alone. Scores that are no means over
tracks are compared resample by resample, which needs two runs on the same tracks in the same groups.

Shapes:  P pairs of seeds   T tracks   R resamples
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from musictf.errors import InputError
from musictf.reporting.comparison_blocks import Block, Gain, summary_table
from musictf.reporting.table_lines import Line, Score, by_system, representative, same_settings
from musictf.results.names import PRETRAINED, PROBED_BASELINES
from musictf.results.read_runs import groups_of, have_same_groups, resampled_values, track_values
from musictf.results.rows import Row
from musictf.results.statistics import Floats, interval, mean_over_drawn_seeds, paired_difference
from musictf.results.systems import system_of


@dataclass(frozen=True)
class _Pair:
    """Rows whose difference is one value of a track or resample; several rows on one side are averaged."""

    first: tuple[Row, ...]
    second: tuple[Row, ...]


def with_gains_over_baselines(block: Block) -> Block:
    """The block with the gain of each pretrained system in the headline over baselines with the same settings."""
    groups = by_system(block.lines)
    gains = []
    for (decoder, _), lines in groups.items():
        baselines = [
            group for (other, _), group in groups.items() if other == decoder and group[0].kind in PROBED_BASELINES
        ]
        for baseline in baselines if lines[0].kind == PRETRAINED else ():
            if same_settings(lines[0], baseline[0]):
                gains.append(gain(representative(lines), representative(baseline), block.headline))
    return replace(block, gains=gains)


def with_gains_over_run(blocks: Sequence[Block], baseline: Sequence[Row]) -> list[Block]:
    """The blocks with differences against a baseline's lines, readout by readout.

    A line is compared with the baseline's line of the same readout, and where the baseline has no such readout
    with the one that validation prefers. Baselines are compared only where there is no pretrained system.

    Raises:
        InputError: nothing of the baseline has the task, dataset, split digest and decoder of any line.
    """
    references = {(block.task, block.dataset, block.digest): block for block in summary_table(baseline)}
    result = []
    for block in blocks:
        reference = references.get((block.task, block.dataset, block.digest))
        lines = [] if reference is None else _main_lines(reference.lines)
        pairs = [pair for line in _main_lines(block.lines) for pair in _counterparts(line, lines)]
        result.append(replace(block, gains=[gain(line, against, block.headline) for line, against in pairs]))
    if not any(block.gains for block in result):
        raise InputError(
            "--baseline: no row to compare; task, dataset, split digest and decoder must agree. "
            f"Baseline: {_described(references.values())}. Rows: {_described(blocks)}"
        )
    return result


def gain(line: Line, against: Line, score: str) -> Gain:
    """Mean difference of a score between two lines, with its 95 % interval where values are available."""
    pairs, remark = _pairs(line, against)
    if not same_settings(line, against):
        remark = "; ".join(filter(None, [remark, "settings of the probes differ or are not recorded"]))
    first, second = (
        [_mean_by_track(rows, score) for rows in side]
        for side in ([pair.first for pair in pairs], [pair.second for pair in pairs])
    )
    if all(first) and all(second):
        result = _over_tracks(line, against, score, first, second)
    else:  # no mean over tracks, or values of single tracks were not available
        result = _over_resamples(line, against, score, pairs)
    return replace(result, seeds=len(pairs), remark=result.remark or remark)


def _over_tracks(
    line: Line, against: Line, score: str, first: Sequence[dict[str, float]], second: Sequence[dict[str, float]]
) -> Gain:
    """Difference from scores of single tracks: a mapping track -> score for each pair of seeds and side."""
    shared = [track for track in first[0] if all(track in column for column in (*first, *second))]
    if len(shared) < 2:
        return Gain(line, against, score, None, len(shared), remark="fewer than two tracks in common")
    recorded = groups_of([*line.rows, *against.rows])
    groups = [recorded.get(track, track) for track in shared]
    tables = [np.array([[column[track] for track in shared] for column in side]) for side in (first, second)]  # (P, T)
    difference = Score(*paired_difference(tables[0], tables[1], groups))
    return Gain(line, against, score, difference, len(shared), len(set(groups)))


def _over_resamples(line: Line, against: Line, score: str, pairs: Sequence[_Pair]) -> Gain:
    """Difference from values in the same resamples, its interval shifted like that of a single score."""
    none = Gain(line, against, score, None, 0)
    tables = [(_mean_by_resample(pair.first, score), _mean_by_resample(pair.second, score)) for pair in pairs]
    available = [(first, second) for first, second in tables if first is not None and second is not None]
    if len(available) < len(pairs):
        return replace(none, remark=f"no {score} per track and no resamples of it")
    rows = [*line.rows, *against.rows]
    if not have_same_groups(rows) or len({len(column) for table in available for column in table}) > 1:
        return replace(none, remark="resampled over other tracks or groups")
    mean = float(np.mean([_mean(pair.first, score) - _mean(pair.second, score) for pair in pairs]))
    # Differences resample by resample, (P, R), then their mean over drawn seeds, (R,).
    low, high = interval(mean_over_drawn_seeds(np.stack([first - second for first, second in available])), mean)
    return Gain(line, against, score, Score(mean, low, high), line.tracks, len(set(groups_of(rows).values())))


def _pairs(line: Line, against: Line) -> tuple[list[_Pair], str]:
    """Pairs of rows to compare, and a remark on the limits of the comparison."""
    first, second = ({row["seed"]: row for row in side.rows} for side in (line, against))
    if not line.is_probed or not against.is_probed:
        return [_Pair((row,), (other,)) for row in first.values() for other in second.values()], ""
    common = sorted(first.keys() & second.keys())
    if not common:
        return [_Pair(line.rows, against.rows)], "no seed in common: means over seeds, interval over tracks alone"
    is_partial = len(common) < max(len(first), len(second))
    remark = f"only the seeds both have: {', '.join(map(str, common))}" if is_partial else ""
    return [_Pair((first[seed],), (second[seed],)) for seed in common], remark


def _mean_by_track(rows: Sequence[Row], score: str) -> dict[str, float]:
    """Track -> score, the mean over rows."""
    columns = [track_values(row, score) for row in rows]
    # A track that some row lacks would compare means over different seeds.
    shared = [track for track in columns[0] if all(track in column for column in columns)]
    return {track: sum(column[track] for column in columns) / len(columns) for track in shared}


def _mean_by_resample(rows: Sequence[Row], score: str) -> Floats | None:
    """Score in each resample, (R,), the mean over rows; None where some row has none."""
    columns = [resampled_values(row, score) for row in rows]
    available = [column for column in columns if column is not None]
    if len(available) < len(rows) or len({len(column) for column in available}) > 1:
        return None
    mean: Floats = np.mean(available, axis=0)
    return mean


def _mean(rows: Sequence[Row], score: str) -> float:
    return float(np.mean([row["scores"][score]["mean"] for row in rows]))


def _main_lines(lines: Sequence[Line]) -> list[Line]:
    """The lines of the pretrained systems; of all probed systems where there is no pretrained one."""
    probed = [line for line in lines if line.selected and line.is_probed]
    return [line for line in probed if line.kind == PRETRAINED] or probed


def _counterparts(line: Line, candidates: Sequence[Line]) -> list[tuple[Line, Line]]:
    """The line with its counterpart in each other system of the baseline run."""
    pairs = []
    for (decoder, _), group in by_system(candidates).items():
        same = [other for other in group if other.readout == line.readout]
        against = same[0] if same else representative(group)
        if decoder == line.decoder and system_of(line.rows[0]) != system_of(against.rows[0]):
            pairs.append((line, against))
    return pairs


def _described(blocks: Iterable[Block]) -> str:
    parts = ((block, "+".join(sorted({line.decoder for line in block.lines}))) for block in blocks)
    return ", ".join(f"{block.task}/{block.dataset}/{block.digest[:8]}/{decoders}" for block, decoders in parts)
