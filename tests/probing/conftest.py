"""Splits of features that can be learned, beside the fixtures of features."""

import numpy as np
import pytest
import torch
from feature_fixtures import backbone, cache, elsewhere, few, passes, wav  # noqa: F401
from probe_problems import problem

from musictf.features.readouts import Split
from musictf.probing.linear_probe import LinearProbe


@pytest.fixture
def make_split():
    """A split from features (n, L, D), those of ``sequence`` or by readout, and targets (n, ...), one example a row."""

    def make(rows, targets):
        rows = rows if isinstance(rows, dict) else {"sequence": rows}
        rows = {readout: torch.as_tensor(values) for readout, values in rows.items()}
        index = {readout: torch.arange(len(values)) for readout, values in rows.items()}
        return Split([], [], rows, index, torch.as_tensor(targets))

    return make


@pytest.fixture
def splits(make_split):
    return make_split(*problem(0, 600)), make_split(*problem(1, 300))


@pytest.fixture
def probes(monkeypatch):
    """The probes that ``fit`` trains, to look inside."""
    seen = []
    original = LinearProbe.__init__

    def spy(self, *arguments):
        original(self, *arguments)
        seen.append(self)

    monkeypatch.setattr(LinearProbe, "__init__", spy)
    return seen


@pytest.fixture
def overfitted(make_split):
    """Two readouts of few noisy examples: fast heads overfit at once, slow ones never."""

    def make(seed, num_examples):
        rows, targets = problem(seed, num_examples, dim=20, noise=4)
        return make_split({"class": rows, "sequence": np.ascontiguousarray(rows[:, ::-1, ::-1])}, targets)

    return make(0, 150), make(1, 200)
