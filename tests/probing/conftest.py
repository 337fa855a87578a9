"""A small backbone, sound files of a known content, stores to turn to, and splits of features that can be learned."""

import numpy as np
import pytest
import soundfile
import torch
from problems import problem

from musictf.datasets.base import Track
from musictf.models.controls import random_backbone
from musictf.models.vit1d import ViT1DConfig
from musictf.probing.module import LinearProbe
from musictf.probing.readouts import Split

SAMPLE_RATE = 16000


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("MUSICTF_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def backbone():
    return random_backbone(ViT1DConfig(depth=2, embed_dim=16, num_heads=2))


@pytest.fixture
def wav(tmp_path):
    """Writes a waveform as a track: of noise for so many seconds, or the one given."""

    def write(name="a", seconds=9.0, waveform=None, seed=0, sample_rate=SAMPLE_RATE):
        if waveform is None:
            waveform = 0.1 * np.random.default_rng(seed).normal(size=round(seconds * sample_rate))
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, waveform, sample_rate, subtype="FLOAT")
        return Track(track_id=name, audio=path)

    return write


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


@pytest.fixture
def passes(backbone):
    """Counts the batches that go through the backbone."""
    seen = []
    handle = backbone.register_forward_hook(lambda *arguments: seen.append(1))
    yield seen
    handle.remove()


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Turns to a store of its own, empty, and says where it is."""

    def turn(name):
        monkeypatch.setenv("MUSICTF_CACHE", str(tmp_path / name))
        return tmp_path / name

    return turn


@pytest.fixture
def few(wav):
    """Tracks from half an excerpt to six; no number of excerpts divides a batch."""
    return [wav(f"t{k}", seconds=seconds, seed=k) for k, seconds in enumerate([9.0, 2.0, 14.7, 4.0, 6.3, 2.0, 11.1])]
