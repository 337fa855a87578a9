"""Token grids of several rates, and annotations a person could have made."""

import numpy as np
import pytest

from musictf.annotations import Beats, Chords

SAMPLE_RATE = 16000
HOPS = {10: 1600, 15.625: 1024, 31.25: 512, 50: 320, 100: 160}  # token rate in hertz: samples between tokens
ROOTS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MUSICTF_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def token_times():
    """Token centres in seconds of a track, for a token rate in hertz."""

    def make(seconds, rate=31.25):
        hop = HOPS[rate]
        return np.arange(int(seconds * SAMPLE_RATE) // hop + 1) * hop / SAMPLE_RATE

    return make


@pytest.fixture
def triads():
    """A track of major and minor triads and silences, each of at least a second, that changes at any time."""

    def make(seconds, seed=0):
        generator = np.random.default_rng(seed)
        changes = np.cumsum(generator.uniform(1.0, 3.0, size=int(seconds)))
        changes = np.concatenate([[0.0], changes[changes < seconds - 1], [seconds]])
        names = [f"{root}:{quality}" for root in ROOTS for quality in ("maj", "min")] + ["N"]
        labels = [str(name) for name in generator.choice(names, size=len(changes) - 1)]
        return Chords(np.column_stack([changes[:-1], changes[1:]]), labels)

    return make


@pytest.fixture
def clicks():
    """Beats at a tempo, in bars of four, off the token grid, shaken by some milliseconds, none near the trim at 5 s."""

    def make(seconds, tempo, seed=0, shake=0.005):
        period = 60 / tempo
        times = np.arange((5 - 0.42 * period) % period, seconds - 0.1, period)
        times = times + np.random.default_rng(seed).normal(0, shake, size=len(times)).clip(-2 * shake, 2 * shake)
        return Beats(times, np.arange(len(times)) % 4 + 1)

    return make
