"""Data that the parts of an inspection share: corpus, feature settings, rows, device and progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from musictf.features.extract import FeatureConfig
from musictf.inspection.inspected_models import Corpus
from musictf.inspection.inspection_rows import InspectionRows

# Begins a stage of a progress bar, given its name and number of steps; the result is called after each step.
Stage = Callable[[str, int], Callable[[], None]]


def no_progress(name: str, total: int) -> Callable[[], None]:
    """A stage that is not displayed."""
    return lambda: None


@dataclass(frozen=True, kw_only=True)
class InspectionContext:
    """Data that every part of an inspection needs besides its models and its own settings.

    Attributes:
        corpus: Tracks of the valid and test splits.
        features: How tracks are cut into excerpts, and how features are stored.
        rows: Where rows are added.
        device: Where backbones run.
        stage: Begins a stage of a progress bar.
    """

    corpus: Corpus
    features: FeatureConfig
    rows: InspectionRows
    device: str = "cpu"
    stage: Stage = field(default=no_progress)

    @property
    def num_tracks(self) -> int:
        """Number of tracks of both splits."""
        return sum(map(len, self.corpus.tracks.values()))
