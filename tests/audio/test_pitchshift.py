"""Pitch shifts of a batch: the interval by known tones, the time by known strikes, the rest by what must stay."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from musictf.audio.pitchshift import PitchShift
from musictf.audio.spectrogram import LogMel, LogMelConfig

RATE = 16_000
CENTS = torch.tensor([-100, -50, -7, 0, 33, 50, 100])
TIMES = np.arange(0.5, 3.5, 0.437)


@pytest.fixture(scope="module")
def shift():
    return PitchShift(RATE)


def rows(waveform, cents=CENTS):
    return torch.from_numpy(np.asarray(waveform, np.float32)).repeat(len(cents), 1)


def tone(hertz, seconds=4.0, sample_rate=RATE):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * sample_rate)) / sample_rate)


def frequency(waveform, sample_rate=RATE):
    """Frequency of the loudest partial in hertz, interpolated between bins."""
    inside = waveform[len(waveform) // 8 : -len(waveform) // 8]
    size = 8 * len(inside)
    spectrum = np.abs(np.fft.rfft(inside * np.hanning(len(inside)), size))
    k = int(spectrum.argmax())
    left, middle, right = np.log(spectrum[k - 1 : k + 2])
    return (k + 0.5 * (left - right) / (left - 2 * middle + right)) * sample_rate / size


def strikes(decay_samples=32):
    """Bursts of decaying noise at ``TIMES``."""
    waveform, generator = np.zeros(4 * RATE), np.random.default_rng(0)
    for start in np.rint(TIMES * RATE).astype(int):
        waveform[start : start + 480] += np.exp(-np.arange(480) / decay_samples) * generator.standard_normal(480)
    return 0.3 * waveform


def struck_at(waveform):
    """Loudest moment within 100 ms of each of ``TIMES``, s."""
    power = np.convolve(np.asarray(waveform, float) ** 2, np.hanning(64), "same")
    firsts = np.rint((TIMES - 0.1) * RATE).astype(int)
    return np.array([(first + power[first : first + RATE // 5].argmax()) / RATE for first in firsts])


def notes(semitones=0.0):
    """Three voices of six partials, a new chord every 0.4 s."""
    generator, time = np.random.default_rng(0), np.arange(4 * RATE) / RATE
    waveform = np.zeros(4 * RATE)
    for start in np.arange(0.1, 3.5, 0.4):
        since = np.clip(time - start, 0, None)
        envelope = (time >= start) * np.exp(-4 * since) * np.minimum(1, since / 0.01)
        for pitch in 110 * 2 ** ((generator.integers(0, 30, 3) + semitones) / 12):
            for partial in range(1, 7):
                phase = 2 * np.pi * pitch * partial * since + generator.uniform(0, 6)
                waveform += 0.1 * envelope * np.sin(phase) / partial
    return waveform


@pytest.mark.parametrize("hertz", [60.0, 110.0, 441.3, 1000.0, 3000.0, 6000.0])
def test_a_tone_moves_by_its_interval_and_keeps_its_level(shift, hertz):
    before = tone(hertz)
    for after, cents in zip(shift(rows(before), CENTS).numpy(), CENTS.tolist(), strict=True):
        assert 1200 * np.log2(frequency(after) / frequency(before)) == pytest.approx(cents, abs=1)
        inside = after[:-RATE]  # within 0.1 dB at any time, from the first sample on
        level = librosa.feature.rms(y=inside, frame_length=4096, hop_length=1024, center=False)[0]
        np.testing.assert_allclose(20 * np.log10(level / (0.5 / np.sqrt(2))), 0, atol=0.6)
        np.testing.assert_allclose(20 * np.log10(level[4:] / (0.5 / np.sqrt(2))), 0, atol=0.1)


@pytest.mark.parametrize("sample_rate", [8000, 22_050, 44_100])
def test_other_sample_rates(sample_rate):
    after = PitchShift(sample_rate)(rows(tone(440.0, 2.0, sample_rate)), CENTS)
    for row, cents in zip(after.numpy(), CENTS.tolist(), strict=True):
        assert 1200 * np.log2(frequency(row, sample_rate) / 440.0) == pytest.approx(cents, abs=1)


def test_notes_sound_as_if_played_at_the_new_pitch(shift):
    log_mel = LogMel(LogMelConfig())
    after = log_mel(shift(rows(notes()), CENTS))
    for row, cents in zip(after, CENTS.tolist(), strict=True):
        wanted, unshifted = (log_mel(torch.from_numpy(notes(c)).float()[None])[0] for c in (cents / 100, 0.0))
        loud = wanted > wanted.max() - 50
        error, before = ((mel - wanted)[loud].abs().mean() for mel in (row, unshifted))
        assert error < 3.5  # dB; bins that turn on their own: 5.4
        assert abs(cents) < 50 or error < before / 2.5


@pytest.mark.parametrize("bed", ["silence", "notes"])
def test_what_strikes_stays_in_time(shift, bed):
    chord = notes() if bed == "notes" else np.zeros(4 * RATE)
    after = shift(rows(strikes() + chord), CENTS) - shift(rows(chord), CENTS)
    for row in after.numpy():
        assert np.abs(struck_at(row) - struck_at(strikes())).max() < 0.001


def test_notes_start_when_they_did(shift):
    # the level 50 ms after each start, and before it, where a smeared start would show
    after = shift(rows(notes()), CENTS).numpy()
    flux = [
        librosa.onset.onset_strength(y=row, sr=RATE, hop_length=160) for row in (notes().astype(np.float32), *after)
    ]
    for row in flux[1:]:
        lags = np.correlate(row - row.mean(), flux[0] - flux[0].mean(), "full")
        assert abs(int(lags.argmax()) - (len(flux[0]) - 1)) <= 1  # frames of 10 ms


def test_no_interval_changes_nothing(shift, white_noise):
    before = rows(white_noise(20_000), CENTS[:1])
    torch.testing.assert_close(shift(before, torch.tensor([0])), before, atol=5e-4, rtol=0)  # the bin at 8 kHz


def test_nothing_folds_back_from_the_top(shift):
    after = shift(rows(tone(7900.0), CENTS[-1:]), CENTS[-1:])[0].numpy()  # to 8370 Hz, which 16 kHz cannot hold
    assert np.std(after[4000:-4000]) < 0.005


@pytest.mark.parametrize("num_samples", [1, 100, 1600, 16_001])
def test_short_rows_keep_their_length_and_stay_finite(shift, num_samples, white_noise):
    after = shift(rows(white_noise(num_samples)), CENTS)
    assert after.shape == (len(CENTS), num_samples)
    assert torch.isfinite(after).all()
    assert after.abs().max() < 2


def test_silence_stays_silent_where_there_are_no_denormal_numbers(shift):
    before = rows(np.pad(tone(440.0, 0.5), (8000, 8000)))
    before[1] = 0
    torch.set_flush_denormal(True)
    try:
        after = shift(before, CENTS)
    finally:
        torch.set_flush_denormal(False)
    assert torch.isfinite(after).all()
    assert not after[1].any()


def test_rows_do_not_touch_each_other(shift, white_noise):
    before = torch.stack([torch.from_numpy(white_noise(16_000, seed)) for seed in range(len(CENTS))])
    before[2] *= 1e-4
    before[3] = torch.from_numpy(strikes()[:16_000])
    before[4] = torch.from_numpy(tone(440.0, 1.0))
    together = shift(before, CENTS)
    order = torch.tensor([6, 3, 0, 1, 5, 2, 4])
    torch.testing.assert_close(shift(before[order], CENTS[order]), together[order], atol=1e-4, rtol=0)
    for row in range(len(CENTS)):
        alone = shift(before[row : row + 1], CENTS[row : row + 1])[0]
        torch.testing.assert_close(alone, together[row], atol=1e-4, rtol=0)
