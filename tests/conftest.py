"""What every test stands on: a cache and run names of its own, and a small corpus of sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

LAUNCHERS = ("MUSICTF_RUN_NAME", "SLURM_JOB_ID", "SLURM_PROCID", "RANK", "LOCAL_RANK", "WORLD_SIZE")


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUSICTF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in LAUNCHERS:
        monkeypatch.setenv(name, "")  # so that what a test sets is undone even where nothing was set before
        monkeypatch.delenv(name)


def noise(num_samples: int, seed: int = 0, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(num_samples)).clip(-1, 1).astype(np.float32)


def make_corpus(folder: Path, num_tracks: int = 4, seconds: float = 3.0, sample_rate: int = 16_000) -> Path:
    """A folder of wav files; each track is a chord of its own in noise, so that tracks can be told apart."""
    folder.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    for index in range(num_tracks):
        tones = [np.sin(2 * np.pi * 110 * 2 ** ((5 * index + step) / 12) * time) for step in (0, 4, 7)]
        waveform = 0.1 * np.sum(tones, axis=0) + noise(len(time), index, 0.02)
        soundfile.write(folder / f"track{index}.wav", waveform, sample_rate, subtype="FLOAT")
    return folder


@pytest.fixture
def corpus(tmp_path):
    """Folder of four tracks of three seconds."""
    return make_corpus(tmp_path / "corpus")


@pytest.fixture(scope="session")
def white_noise():
    """Maker of noise: (num_samples, seed, level) -> float32."""
    return noise


@pytest.fixture(scope="session")
def corpus_maker():
    """Maker of corpora: (folder, num_tracks, seconds, sample_rate) -> folder."""
    return make_corpus
