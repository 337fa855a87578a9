"""A small backbone, sound files of a known content, and splits of random features."""

import numpy as np
import pytest
import soundfile
import torch

from musictf.datasets.base import Track
from musictf.models.controls import random_backbone
from musictf.models.vit1d import ViT1DConfig
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
