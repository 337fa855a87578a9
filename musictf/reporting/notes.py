"""Sentences below a table of scores: baselines that win, bases of intervals, settings, missing and seen tracks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from musictf.reporting.table_lines import (
    BOUNDS,
    Line,
    Score,
    by_system,
    comparable,
    decimal,
    interval,
    mean_of,
    representative,
    same_settings,
)
from musictf.results.names import ORACLE, PRETRAINED
from musictf.results.rows import Row
from musictf.results.systems import differing_settings


def notes_on_baselines(lines: Sequence[Line], compared: Sequence[str]) -> list[str]:
    """One sentence for each pretrained system and baseline that beats it.

    Args:
        lines: Lines of a block. Each system is represented by the line that validation prefers.
        compared: Scores that have a better and a worse.
    """
    groups = by_system(lines)
    notes = []
    for (decoder, system), group in groups.items():
        if group[0].kind != PRETRAINED:
            continue
        line = representative(group)
        for baseline in _baselines(groups.values(), decoder):
            wins = [
                f"{name} {decimal(baseline.scores[name].mean)} > {decimal(line.scores[name].mean)}"
                for name in compared
                if name in baseline.scores and name in line.scores
                if baseline.scores[name].mean > line.scores[name].mean
            ]
            if wins and same_settings(baseline, line):
                notes.append(f"the baseline {baseline.system} beats {system} (decoder {decoder}): {', '.join(wins)}")
    return notes


def notes_on_seeds(lines: Sequence[Line], score_names: Iterable[str]) -> list[str]:
    """What the intervals of lines that average several seeds are based on."""
    scores: dict[str, list[str]] = defaultdict(list)
    for name in score_names:
        for basis in dict.fromkeys(line.scores[name].basis for line in lines if name in line.scores):
            scores[basis].append(name)
    scores.pop("", None)
    if not scores:
        return []
    parts = [f"{basis} ({', '.join(names)})" if len(scores) > 1 else basis for basis, names in scores.items()]
    return [f"intervals of several seeds: {'; '.join(parts)}"]


def notes_on_settings(rows: Sequence[Row]) -> list[str]:
    """Whether the settings of features and heads differ between the rows."""
    differing = differing_settings(rows)
    if differing == []:
        return []
    state = "not recorded by every run" if differing is None else f"not the same ({', '.join(differing)})"
    return [
        f"settings of features and heads are {state}: systems are named by them, baselines and gains are of equal ones"
    ]


def notes_on_missing_tracks(lines: Sequence[Line]) -> list[str]:
    """Lines that do not cover the whole split."""
    notes = [
        f"{line.system}, {line.readout}: only {line.tracks} of {line.expected} tracks were scored"
        for line in lines
        if line.tracks < line.expected
    ]
    return list(dict.fromkeys(notes))  # the layers of one readout would repeat the same sentence


def leakage_notes(lines: Sequence[Line], headline: str) -> list[str]:
    """Which pretrained systems have seen test tracks in pretraining, and their headline without those tracks."""
    notes = []
    groups = by_system(lines)
    for (decoder, system), group in groups.items():
        if group[0].kind != PRETRAINED:
            continue
        line = representative(group)
        leakages = [row["leakage"] for row in line.rows if "leakage" in row]
        if None in leakages:
            notes.append(f"{system}: whether pretraining has seen these tracks was not checked (leakage=off)")
        elif not all(leakage and leakage.get("known") for leakage in leakages):
            notes.append(
                f"{system}: whether pretraining has seen these tracks is unknown: the backbone carries no list"
            )
        elif any(row.get("unseen") for row in line.rows):
            without = _without_seen(line, _baselines(groups.values(), decoder), headline)
            notes.append(f"{system}, {line.readout}, decoder {decoder}: {without}")
    return list(dict.fromkeys(notes))


def _baselines(groups: Iterable[Sequence[Line]], decoder: str) -> list[Line]:
    """The representatives of the baselines that may be compared under a decoder."""
    lines = [representative(group) for group in groups]
    return [line for line in lines if line.kind not in {PRETRAINED, ORACLE} and comparable(line, decoder)]


def _without_seen(line: Line, baselines: Sequence[Line], headline: str) -> str:
    """Headline of a line and of its baselines on the tracks that pretraining has not seen."""
    scored = min(row["unseen"]["scored"] for row in line.rows if row.get("unseen"))
    if scored == 0:
        return f"pretraining has seen all {line.tracks} test tracks; no score is without them"
    score = _unseen_score(line, headline)
    text = f"{headline} {decimal(score.mean)} {interval(score)}".rstrip() if score else f"no {headline}"
    text = f"without the {line.tracks - scored} test tracks that pretraining has seen: {text}"
    # Baselines of another run may have been scored on other tracks.
    others = {b.system: _unseen_score(b, headline) for b in baselines if _unseen_tracks(b) == _unseen_tracks(line)}
    listed = ", ".join(f"{name} {decimal(other.mean)}" for name, other in others.items() if other)
    text += f"; on the same tracks {listed}" if listed else ""
    return f"{text} ({BOUNDS})" if score and score.basis else text


def _unseen_tracks(line: Line) -> set[tuple[object, int | None]]:
    """The runs that a line's tracks were compared with pretraining in, and how many unseen tracks each has."""
    return {(row.get("folder"), row["unseen"]["scored"] if row.get("unseen") else None) for row in line.rows}


def _unseen_score(line: Line, name: str) -> Score | None:
    """A score on unseen tracks. Values of single tracks are not kept for them, so bounds of seeds are averaged."""
    return mean_of([row["unseen"]["scores"].get(name) if row.get("unseen") else None for row in line.rows])
