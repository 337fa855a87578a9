"""Rows of many runs as tables of what may be compared.

Two rows are comparable only if task, dataset, split digest and decoder agree. So there is one block for each task,
dataset and split, and inside a block a best value and every difference is taken among rows of one decoder. A decoder
is known by its name, for its settings are calibrated on validation, head by head. The majority answer and a classical
system decode by themselves and stand beside every decoder. The ceiling (``oracle``) comes last and competes with
nothing. Systems that were probed with other settings are named by them and never merged.

How lines come about is in `musictf.report.lines`, how rows are read in `musictf.results.runs`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from musictf.report.lines import (
    BOUNDS,
    Line,
    Score,
    by_system,
    comparable,
    decimal,
    interval,
    latest,
    line_of,
    mean_of,
    order,
    representative,
    same_settings,
    with_best,
)
from musictf.results.names import ORACLE, PRETRAINED
from musictf.results.rows import Row
from musictf.results.systems import differing_settings, system_names, system_of

_CLASSES = ("accuracy", "macro_f1")
_TARGETS = ("onset", "librosa_onset", "beat", "downbeat", "chord_change", "downbeat_among_beats", "change_among_beats")
# Task -> the scores that are shown, the headline first. A task that is not listed (a plug-in) shows all it has.
SHOWN = {
    "tagging": ("map", "roc_auc"),
    "chord": ("majmin", "wcsr_majmin", "root", "mirex", "seg", "coverage"),
    "beat": ("f_measure", "cemgil", "cmlt", "amlt", "downbeat_f_measure"),
    "downbeat": ("f_measure", "cmlt", "amlt"),
    "tempo": ("accuracy1", "accuracy2", "p_score"),
    "onset": ("f_measure", "precision", "recall"),
    "key": ("weighted", "accuracy"),
    "classification": _CLASSES,
    "genre": _CLASSES,
    "instrument": _CLASSES,
    "ssm_profile": ("rank_correlation", "rank_correlation_above_shifted", "cka", "cka_above_shifted"),
    "boundary": ("f_measure", "f_measure_above_shifted", "precision", "recall"),
    **dict.fromkeys(
        (f"attention_{target}" for target in _TARGETS),
        ("auc", "auc_above_shifted", "f_measure", "f_measure_above_shifted"),
    ),
}
# Scores that describe the comparison and have no better or worse.
DESCRIPTIVE = frozenset({"coverage", "wcsr_coverage", "classes_scored"})


@dataclass(frozen=True)
class Gain:
    """A paired difference between two lines over the same tracks.

    Attributes:
        line: What is compared.
        against: With what.
        score: In which score.
        difference: ``line`` minus ``against``; None where it cannot be had.
        tracks: How many it is over.
        groups: How many groups these are in.
        seeds: Over how many pairs of seeds the difference is the mean.
        remark: What else a reader must know of it; where there is no difference, why.
    """

    line: Line
    against: Line
    score: str
    difference: Score | None
    tracks: int
    groups: int = 0
    seeds: int = 1
    remark: str = ""


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


def summary_table(rows: Sequence[Row], all_layers: bool = False) -> list[Block]:
    """One block for each task, dataset and split, its lines ordered by decoder and system.

    Args:
        rows: Rows as `musictf.results.runs.read_runs` gives them.
        all_layers: Also show the layers that validation did not choose.
    """
    blocks: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row["selected"] or all_layers:
            blocks[row["task"], row["dataset"], row["split"]["digest"]].append(row)
    tasks = [task for task, _, _ in blocks]
    return [_block(blocks[key], tasks.count(key[0]) == 1, all_layers) for key in sorted(blocks)]


def _block(rows: list[Row], alone: bool, all_layers: bool) -> Block:
    kept, repeated = latest(rows)
    names = system_names(kept)
    cells: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in kept:
        layer = (row["layer"], row["selected"]) if all_layers else ()
        cells[row["decoder"]["name"], system_of(row), row["readout"], layer].append(row)
    shown = _shown_scores(kept)
    lines = [line_of(cell, names[system_of(cell[0])], shown) for cell in cells.values()]
    lines = with_best(sorted(lines, key=order), [name for name in shown if name not in DESCRIPTIVE])
    first = kept[0]
    notes = [
        *_baselines_that_win(lines, shown),
        *_seeds_notes(lines, shown),
        *_settings_notes(kept),
        *_protocol_notes(lines),
        *_leakage_notes(lines, shown[0]),
    ]
    if repeated:
        notes.append(f"{repeated} older rows of the same system, readout, seed and decoder are left out")
    split = first["split"]
    return Block(first["task"], first["dataset"], split["name"], split["digest"], alone, shown, lines, notes)


def _shown_scores(rows: Sequence[Row]) -> tuple[str, ...]:
    present = list(dict.fromkeys(name for row in rows for name in row["scores"]))
    known = SHOWN.get(rows[0]["task"])
    if known is None:
        return tuple(present) or ("score",)
    # The headline stays even where no row has it: an empty column says more than none.
    return tuple(name for name in known if name in present or name == known[0])


def _baselines_that_win(lines: Sequence[Line], shown: Iterable[str]) -> list[str]:
    """One sentence for each pretrained system that a baseline beats, each by the line that validation prefers."""
    groups = by_system(lines)
    compared = [name for name in shown if name not in DESCRIPTIVE]
    notes = []
    for (decoder, system), mine in groups.items():
        for baseline in _baselines(mine[0], groups.values()) if mine[0].kind == PRETRAINED else ():
            wins = [_win(name, baseline, mine) for name in compared]
            if any(wins):
                listed = ", ".join(win for win in wins if win)
                notes.append(f"the baseline {baseline[0].system} beats {system} (decoder {decoder}): {listed}")
    return notes


def _baselines(mine: Line, groups: Iterable[list[Line]]) -> list[list[Line]]:
    """The systems that a pretrained one must beat under its decoder."""
    return [
        group
        for group in groups
        if group[0].kind not in {PRETRAINED, ORACLE}
        and comparable(group[0], mine.decoder)
        and same_settings(group[0], mine)
    ]


def _win(name: str, baseline: Sequence[Line], mine: Sequence[Line]) -> str:
    theirs, own = (representative(group).scores.get(name) for group in (baseline, mine))
    if theirs is None or own is None or theirs.mean <= own.mean:
        return ""
    return f"{name} {decimal(theirs.mean)} > {decimal(own.mean)}"


def _seeds_notes(lines: Sequence[Line], shown: Iterable[str]) -> list[str]:
    """What the intervals of lines that average several seeds rest on."""
    scores: dict[str, list[str]] = defaultdict(list)
    for name in shown:
        for basis in dict.fromkeys(line.scores[name].basis for line in lines if name in line.scores):
            scores[basis].append(name)
    scores.pop("", None)
    if not scores:
        return []
    parts = [f"{basis} ({', '.join(names)})" if len(scores) > 1 else basis for basis, names in scores.items()]
    return [f"intervals of several seeds: {'; '.join(parts)}"]


def _settings_notes(rows: Sequence[Row]) -> list[str]:
    differing = differing_settings(rows)
    if differing == []:
        return []
    what = "not recorded by every run" if differing is None else f"not the same ({', '.join(differing)})"
    return [
        f"settings of features and heads are {what}: systems are named by them, baselines and gains are of equal ones"
    ]


def _protocol_notes(lines: Sequence[Line]) -> list[str]:
    """Which lines are not about the whole split."""
    notes = [
        f"{line.system}, {line.readout}: only {line.tracks} of {line.expected} tracks were scored"
        for line in lines
        if line.tracks < line.expected
    ]
    return list(dict.fromkeys(notes))  # the layers of one readout would all say the same


def _leakage_notes(lines: Sequence[Line], headline: str) -> list[str]:
    """What is known of test tracks that pretraining has heard, and scores without them."""
    notes = []
    groups = by_system(lines)
    for (decoder, system), mine in groups.items():
        if mine[0].kind != PRETRAINED:
            continue
        line = representative(mine)
        if any("leakage" in row and not (row["leakage"] or {}).get("known") for row in line.rows):
            notes.append(_unknown(line))
        elif any(row.get("unseen") for row in line.rows):
            rivals = [representative(group) for group in groups.values() if comparable(group[0], decoder)]
            baselines = [rival for rival in rivals if rival.kind not in {PRETRAINED, ORACLE}]
            notes.append(f"{system}, {line.readout}, decoder {decoder}: {_without_seen(line, baselines, headline)}")
    return list(dict.fromkeys(notes))


def _unknown(line: Line) -> str:
    if any("leakage" in row and row["leakage"] is None for row in line.rows):
        return f"{line.system}: whether pretraining has heard these tracks was not checked (leakage=off)"
    return f"{line.system}: whether pretraining has heard these tracks is unknown: the backbone carries no list"


def _without_seen(line: Line, baselines: Sequence[Line], headline: str) -> str:
    """Headline score of a line and of its baselines on the tracks that pretraining has not heard."""
    scored = min(row["unseen"]["scored"] for row in line.rows if row.get("unseen"))
    if scored == 0:
        return f"pretraining has heard all {line.tracks} test tracks; no score is without them"
    heard = f"without the {line.tracks - scored} test tracks that pretraining has heard"
    own = _unseen_score(line, headline)
    text = f"{heard}: {headline} {decimal(own.mean)} {interval(own)}".rstrip() if own else f"{heard}: no {headline}"
    others = {
        baseline.system: _unseen_score(baseline, headline)
        for baseline in baselines
        if _seen_by(baseline) == _seen_by(line)
    }
    listed = ", ".join(f"{name} {decimal(score.mean)}" for name, score in others.items() if score)
    text += f"; on the same tracks {listed}" if listed else ""
    return f"{text} ({BOUNDS})" if own and own.basis else text


def _seen_by(line: Line) -> set[tuple[object, int | None]]:
    """Which run's pretraining a line's tracks were compared with, and how many were left."""
    return {(row.get("folder"), row["unseen"]["scored"] if row.get("unseen") else None) for row in line.rows}


def _unseen_score(line: Line, name: str) -> Score | None:
    """A score of the tracks that were not heard; nothing is kept of each track, so seeds bring their own bounds."""
    return mean_of([row["unseen"]["scores"].get(name) if row.get("unseen") else None for row in line.rows])
