"""Onsets and sections of composed songs: they agree with the notes and the form, and survive their files."""

import librosa
import numpy as np
import pytest

from musictf.synthesis import composition, rendering
from musictf.synthesis.synthetic import Synthetic

SAMPLE_RATE = 16000
SECONDS = 12.0


@pytest.fixture(scope="module")
def songs():
    return [composition.compose(0, index, 40.0) for index in range(40)]


@pytest.fixture(scope="module")
def recordings():
    """Eight songs with one other version each: (song, first waveform, second waveform)."""
    found = []
    for index in range(8):
        song = composition.compose(3, index, SECONDS)
        (_, first), (_, second) = rendering.recorded_versions(song, 3, index, SECONDS, SAMPLE_RATE, num_versions=1)
        found.append((song, first, second))
    return found


def test_onsets_are_those_of_the_notes_as_played(songs):
    for song in songs[:20]:
        played = np.sort(np.concatenate([part.notes[:, 0] for part in song.parts]))
        assert len(song.onsets)
        assert np.all(np.diff(song.onsets) > composition.TOGETHER_SECONDS)
        nearest = np.abs(played[:, None] - song.onsets).min(axis=1)
        assert nearest.max() <= composition.TOGETHER_SECONDS  # every note begins at one
        assert np.isin(song.onsets, played).all()  # and no onset is without a note


def test_onsets_are_heard(recordings):
    """librosa's onset strength is higher there than on the whole."""
    for song, first, second in recordings:
        for waveform in (first, second):
            strength = librosa.onset.onset_strength(y=waveform, sr=SAMPLE_RATE, hop_length=160, n_fft=512)
            frames = np.rint(song.onsets * 100).astype(int)[:, None] + np.arange(-1, 4)
            assert strength[np.clip(frames, 0, len(strength) - 1)].max(axis=1).mean() > 1.5 * strength.mean()


def test_sections_follow_the_form_and_last_as_long_as_the_music(songs):
    for song in songs:
        intervals, labels = song.sections.intervals, song.sections.labels
        assert len(labels) == len(intervals)
        assert set(labels) <= set("ABC")
        assert np.allclose(intervals[1:, 0], intervals[:-1, 1], atol=1e-5)
        assert np.isclose(intervals[0, 0], song.beats.times[0], atol=1e-5)
        assert intervals[-1, 1] >= song.beats.times[-1]
        bars = np.array([song.beats.times[np.argmin(abs(song.beats.times - start))] for start, _ in intervals])
        assert np.allclose(bars, intervals[:, 0], atol=1e-5)  # a section begins on a beat


def test_tracks_come_with_their_onsets_and_sections(tmp_path, monkeypatch):
    monkeypatch.setenv("MUSICTF_CACHE", str(tmp_path))
    track = Synthetic(num_tracks=1, seconds=SECONDS, workers=1).all_tracks()[0]
    song = composition.compose(0, 0, SECONDS)
    assert np.allclose(track.annotation("onsets"), song.onsets, atol=1e-6)
    assert track.annotation("sections").labels == song.sections.labels
