"""Cells of an inspection's tables, and the sentence that says which baseline reaches the backbone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from musictf.reporting.inspection_reader import Inspection
from musictf.reporting.table import ABSENT, Cell
from musictf.reporting.table_lines import Score, decimal, interval


def cell(score: Score | None, sign: bool = False) -> Cell:
    """A mean with its interval, ``.712 [.690 .733]``, or a dash."""
    if score is None or math.isnan(score.mean):
        return Cell(ABSENT)
    bounds = Score(score.mean, _no_minus_zero(score.low), _no_minus_zero(score.high))
    return Cell(number(score, sign), interval(bounds, sign))


def number(score: Score | None, sign: bool = False) -> str:
    """A mean alone, ``.712``, or a dash."""
    if score is None or math.isnan(score.mean):
        return ABSENT
    return signed(score.mean) if sign else decimal(_no_minus_zero(score.mean))


def signed(value: float) -> str:
    """A value with its sign: ``+.052``; what rounds to zero is ``+.000``, never ``-.000``."""
    return decimal(_no_minus_zero(value), sign=True)


def baselines_reaching(backbone: Score | None, baselines: Mapping[str, Score | None]) -> list[str]:
    """Baselines that reach the backbone's score or exceed it, at three decimals: ``flux .702``."""
    if backbone is None:
        return []
    scores = {name: score for name, score in baselines.items() if score is not None}
    return [f"{name} {number(s)}" for name, s in scores.items() if round(s.mean, 3) >= round(backbone.mean, 3)]


def system_label(inspection: Inspection, task: str, system: str) -> str:
    """A system, with the number of its seeds where there are several."""
    seeds = len(inspection.values("seed", task, system=system))
    return f"{system} (mean of {seeds} seeds)" if seeds > 1 else system


def comparison_sentence(measure: str, wins: Sequence[str], baselines: Sequence[str]) -> str:
    """One sentence: which baselines reach the backbone, that none does, or that no baseline was run."""
    if not baselines:
        return f"No control was run, so {measure} has no baseline."
    if not wins:
        return (
            f"The mean of no baseline reaches the backbone's in {measure} ({', '.join(baselines)}); "
            "compare the intervals to see whether the difference is more than chance."
        )
    return f"**A baseline wins or ties** in {measure}, where the backbone has {'; '.join(wins)}."


def _no_minus_zero(value: float) -> float:
    return 0.0 if abs(value) < 5e-4 else value
