"""What tables of an inspection are made of: cells, names of systems, and the sentence that says which baseline wins."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from musictf.report.inspection_rows import Inspection
from musictf.report.lines import Score, decimal, interval

ABSENT = "–"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A Markdown table whose first columns (``words`` of them) are words and the rest numbers."""
    rule = "|" + "|".join("---" if place < words else "---:" for place in range(len(columns))) + "|"
    return "\n".join([f"| {' | '.join(columns)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)])


def cell(score: Score | None, sign: bool = False) -> str:
    """``.712 [.690 .733]``, or a dash."""
    if score is None or math.isnan(score.mean):
        return ABSENT
    bounds = Score(score.mean, _no_minus_zero(score.low), _no_minus_zero(score.high))
    return f"{number(score, sign)} {interval(bounds, sign)}".strip()


def number(score: Score | None, sign: bool = False) -> str:
    """``.712``, or a dash."""
    if score is None or math.isnan(score.mean):
        return ABSENT
    return signed(score.mean) if sign else decimal(_no_minus_zero(score.mean))


def signed(value: float) -> str:
    """``+.052``; what rounds to nothing is ``+.000``, never ``-.000``."""
    return decimal(_no_minus_zero(value), sign=True)


def reaching(lead: Score | None, baselines: Mapping[str, Score | None]) -> list[str]:
    """Baselines whose three decimals reach the backbone's or exceed them: ``flux .702``."""
    if lead is None:
        return []
    found = {name: baseline for name, baseline in baselines.items() if baseline is not None}
    return [f"{name} {number(s)}" for name, s in found.items() if round(s.mean, 3) >= round(lead.mean, 3)]


def _no_minus_zero(value: float) -> float:
    return 0.0 if abs(value) < 5e-4 else value


def who(found: Inspection, task: str, system: str) -> str:
    """A system, with the number of its seeds where there are several."""
    seeds = len(found.values("seed", task, system=system))
    return f"{system} (mean of {seeds} seeds)" if seeds > 1 else system


def verdict(measure: str, wins: Sequence[str], baselines: Sequence[str]) -> str:
    """One sentence: which baselines reach the backbone, that none does, or that none was there to."""
    if not baselines:
        return f"No control was run, so nothing says what {measure} is worth."
    if not wins:
        return (
            f"The mean of no baseline reaches the backbone's in {measure} ({', '.join(baselines)}); whether that is more "
            "than luck, the intervals must say."
        )
    return f"**A baseline wins or ties** in {measure}, where the backbone has {'; '.join(wins)}."
