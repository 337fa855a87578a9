"""Sounds are what they are said to be, and begin when they are said to."""

import numpy as np
import pytest
import soundfile

from musictf.inspection.stimuli import STIMULI, stimulus_tracks

RATE, LENGTH = 16_000, 64_000


def sounds(kind, number=4):
    tracks = stimulus_tracks(kind, number, LENGTH, RATE)
    return tracks, [soundfile.read(track.audio)[0] for track in tracks]


@pytest.mark.parametrize("kind", STIMULI)
def test_sounds_have_the_requested_length_and_stay_in_range(kind):
    tracks, waveforms = sounds(kind)
    assert len({track.track_id for track in tracks}) == 4
    for waveform in waveforms:
        assert waveform.shape == (LENGTH,)
        assert np.abs(waveform).max() <= 2.5
        assert np.isfinite(waveform).all()
    assert kind == "silence" or not np.array_equal(waveforms[0], waveforms[1])


def test_silence_is_silent_and_noise_has_no_onset():
    assert not sounds("silence")[1][0].any()
    assert len(sounds("noise")[0][0].labels["onsets"]) == 0


@pytest.mark.parametrize("kind", ["clicks", "scale"])
def test_energy_rises_at_every_onset_and_nowhere_else(kind):
    for track, waveform in zip(*sounds(kind), strict=True):
        onsets = track.labels["onsets"]
        assert len(onsets) > 4
        assert (onsets < LENGTH / RATE).all()
        assert (np.diff(onsets) > 0.2).all()
        starts = [round(onset * RATE) for onset in onsets]
        before = np.array([np.abs(waveform[start - 160 : start]).mean() for start in starts])
        after = np.array([np.abs(waveform[start : start + 160]).mean() for start in starts])
        assert (after > (10 if kind == "clicks" else 1.5) * before).all()


def test_a_held_chord_sounds_as_it_is_called():
    for track, waveform in zip(*sounds("held_chord"), strict=True):
        (label,) = track.labels["chords"].labels
        assert track.labels["chords"].intervals.tolist() == [[0.0, 4.0]]
        spectrum = np.abs(np.fft.rfft(waveform * np.hanning(LENGTH)))
        lowest = np.flatnonzero(spectrum > 0.2 * spectrum.max())[0] * RATE / LENGTH
        names = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
        assert names[round(69 + 12 * np.log2(lowest / 440)) % 12] == label.split(":")[0]


def test_the_same_sounds_are_made_again():
    first, again = sounds("clicks")[1], sounds("clicks")[1]
    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
