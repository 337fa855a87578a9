"""Tempo and pitch of what comes out, by signals whose tempo and pitch are known."""

from __future__ import annotations

import numpy as np
import pytest

from musictf.audio.timescale import stretched, transposed

RATES = (0.5, 0.8, 0.9, 1.1, 1.25, 1.5)


def tone(hertz, seconds, sample_rate):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * sample_rate)) / sample_rate)).astype(np.float32)


def struck(times, seconds, sample_rate, seed=0):
    """Bursts of noise of some milliseconds, which start at ``times``."""
    waveform = np.zeros(round(seconds * sample_rate), dtype=np.float32)
    decay = np.exp(-np.arange(round(0.03 * sample_rate)) / (0.002 * sample_rate))
    generator = np.random.default_rng(seed)
    for start in np.rint(times * sample_rate).astype(int):
        waveform[start : start + len(decay)] += 0.6 * decay * generator.standard_normal(len(decay))
    return waveform


def frequency(waveform, sample_rate, near):
    """Peak of the spectrum around a frequency, interpolated, in hertz."""
    size = 8 * len(waveform)
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), size))
    hertz = np.fft.rfftfreq(size, 1 / sample_rate)
    k = np.flatnonzero((hertz > 0.9 * near) & (hertz < 1.1 * near))
    k = k[spectrum[k].argmax()]
    left, middle, right = np.log(spectrum[k - 1 : k + 2])
    return hertz[k] + 0.5 * (left - right) / (left - 2 * middle + right) * hertz[1]


def struck_at(waveform, expected, sample_rate, reach=0.1):
    """Loudest moment near each expected time, in seconds."""
    power = np.convolve(waveform.astype(float) ** 2, np.hanning(round(0.004 * sample_rate)), "same")
    found = []
    for time in expected:
        first = max(0, round((time - reach) * sample_rate))
        found.append((first + power[first : round((time + reach) * sample_rate)].argmax()) / sample_rate)
    return np.array(found)


@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
@pytest.mark.parametrize("rate", RATES)
def test_what_is_struck_at_t_is_struck_at_t_over_rate(rate, sample_rate):
    times = np.arange(0.5, 3.5, 0.437)
    waveform = stretched(struck(times, 4, sample_rate), sample_rate, rate)
    assert len(waveform) == round(4 * sample_rate / rate)
    assert np.abs(struck_at(waveform, times / rate, sample_rate) - times / rate).max() < 0.010


def test_attacks_keep_their_time_over_sustained_tones():
    times = np.arange(0.5, 5.5, 0.437)
    chord = sum(tone(hertz, 6, 16_000) for hertz in (220.0, 277.2, 329.6)) / 6
    result = stretched(chord + struck(times, 6, 16_000), 16_000, 0.8)
    without = stretched(chord, 16_000, 0.8)
    assert np.abs(struck_at(result - without, times / 0.8, 16_000) - times / 0.8).max() < 0.010


@pytest.mark.parametrize("rate", RATES)
def test_a_stretch_keeps_pitch_and_level(rate):
    before = tone(220.0, 6, 16_000)
    after = stretched(before, 16_000, rate)[8000:-8000]
    assert abs(1200 * np.log2(frequency(after, 16_000, 220.0) / 220.0)) < 5
    assert abs(20 * np.log10(np.std(after) / np.std(before))) < 1.5  # what a phase vocoder loses when it slows


@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
@pytest.mark.parametrize("semitones", [-6, -2, -1, 1, 2, 6])
def test_a_transposed_tone_is_right_within_five_cents(semitones, sample_rate):
    for hertz in (110.0, 1000.0):
        before = tone(hertz, 2, sample_rate)
        after = transposed(before, sample_rate, semitones)
        assert after.shape == before.shape
        assert after.dtype == np.float32
        wanted = hertz * 2 ** (semitones / 12)
        inside = after[sample_rate // 2 : -sample_rate // 2]
        assert abs(1200 * np.log2(frequency(inside, sample_rate, wanted) / wanted)) < 5


def low_chord(semitones, seconds=4.0, sample_rate=16_000):
    """Six notes from 110 Hz with eight partials each, and the frequencies of all partials in hertz."""
    generator = np.random.default_rng(0)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    partials = [(110 * 2 ** ((note + semitones) / 12) * h, h) for note in (0, 3, 7, 10, 14, 19) for h in range(1, 9)]
    waveform = sum(0.03 / h * np.sin(2 * np.pi * hertz * time + generator.uniform(0, 6)) for hertz, h in partials)
    return waveform.astype(np.float32), np.array([hertz for hertz, _ in partials])


@pytest.mark.parametrize("semitones", [-2, -1, 1, 2])
def test_a_dense_low_chord_stays_that_chord(semitones):
    # with a short window, or with too much in the short frames, the notes blur: -10 to -22 dB
    after = transposed(low_chord(0)[0], 16_000, semitones)[8000:-8000]
    power = np.abs(np.fft.rfft(after * np.hanning(len(after)))) ** 2
    hertz = np.fft.rfftfreq(len(after), 1 / 16_000)
    away = np.abs(hertz[:, None] - low_chord(semitones)[1]).min(axis=1) > 3
    assert 10 * np.log10(power[away].sum() / power[~away].sum()) < -28


@pytest.mark.parametrize("semitones", [-2, 2])
def test_a_transposition_keeps_time(semitones):
    times = np.arange(0.5, 5.5, 0.437)
    waveform = transposed(struck(times, 6, 16_000), 16_000, semitones)
    assert np.abs(struck_at(waveform, times, 16_000) - times).max() < 0.010


@pytest.mark.parametrize("num_samples", [64, 1000, 5000])
def test_short_recordings_and_silence_go_through(num_samples, white_noise):
    assert len(stretched(white_noise(num_samples), 16_000, 0.8)) == round(num_samples / 0.8)
    assert len(transposed(white_noise(num_samples), 16_000, 2)) == num_samples
    assert not stretched(np.zeros(num_samples, np.float32), 16_000, 1.25).any()
