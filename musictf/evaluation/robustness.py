"""Robustness: scores on perturbed recordings; off unless ``robustness.perturbations`` names some.

Heads, layers, thresholds and vocabularies are those of the clean recordings: nothing is trained or selected again.
Rows have ``perturbation {name, amount, unit}``. The clean recordings are scored as well, under the name ``clean``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from musictf.audio.perturb import PERTURBATIONS, perturbation
from musictf.datasets.base import Track
from musictf.datasets.perturbed import perturbed_tracks
from musictf.errors import InputError
from musictf.results.rows import PerturbationField, Row

ROBUSTNESS = "robustness.jsonl"


def _default_amounts() -> dict[str, list[float]]:
    return {name: [float(amount) for amount in change.amounts] for name, change in PERTURBATIONS.items()}


@dataclass(kw_only=True)
class RobustnessConfig:
    """Perturbations of the test audio under which the chosen heads are scored again.

    Attributes:
        perturbations: Any of gain, noise, mp3, ogg, pitch, stretch; an empty list means none.
        amounts: Amounts of the perturbation, in its unit.
    """

    perturbations: list[str] = field(default_factory=list)
    amounts: dict[str, list[float]] = field(default_factory=_default_amounts)

    def __post_init__(self) -> None:
        if len(set(self.perturbations)) < len(self.perturbations):
            raise InputError(f"robustness.perturbations={self.perturbations}: give each once")
        for name in self.perturbations:
            perturbation(name, "robustness.perturbations")
        for name, amounts in self.amounts.items():
            where = f"robustness.amounts.{name}"
            change = perturbation(name, "robustness.amounts")
            if not amounts or len(set(amounts)) < len(amounts):
                raise InputError(f"{where}={amounts}: give at least one amount, each once")
            for amount in amounts:
                change.check(amount, where)
        self.amounts = _default_amounts() | self.amounts  # Python callers may name only some perturbations

    def amounts_of(self, name: str) -> list[float]:
        """Amounts to score, ascending, without the neutral one, which is the clean recording."""
        return sorted(amount for amount in self.amounts[name] if amount != PERTURBATIONS[name].neutral)


def curves(tracks: Sequence[Track], config: RobustnessConfig, score: Callable[[list[Track]], list[Row]]) -> list[Row]:
    """Rows of the clean tracks and of every perturbation and amount; an empty list if robustness is off.

    Args:
        tracks: Tracks of the test split, clean.
        config: The perturbations and their amounts.
        score: Returns the rows of tracks, for the same probed models in every call.
    """
    if not config.perturbations:
        return []
    clean: PerturbationField = {"name": "clean", "amount": None, "unit": ""}
    rows: list[Row] = [row | {"perturbation": clean} for row in score(list(tracks))]
    for name in config.perturbations:
        for amount in config.amounts_of(name):
            condition: PerturbationField = {"name": name, "amount": amount, "unit": PERTURBATIONS[name].unit}
            rows += [row | {"perturbation": condition} for row in score(perturbed_tracks(tracks, name, amount))]
    return rows
