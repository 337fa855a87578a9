"""Perturbations against known signals: level, noise power, alignment after a codec."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import soundfile

from musictf.audio import perturb
from musictf.audio.perturb import PERTURBATIONS, codec_delay, codec_mp3, codec_ogg, gain, noise, perturbation
from musictf.errors import InputError


def decibels(signal, reference):
    return 10 * np.log10(np.mean(np.square(signal, dtype=float)) / np.mean(np.square(reference, dtype=float)))


def clicks(sample_rate, seconds=3.0):
    """Short strokes at 700 Hz, which survive any bit rate, and the samples at which they start."""
    waveform = np.zeros(round(seconds * sample_rate) + 123, dtype=np.float32)
    time = np.arange(round(0.03 * sample_rate)) / sample_rate
    stroke = 0.5 * np.exp(-time / 0.004) * np.sin(2 * np.pi * 700 * time)
    for start in (round(at * sample_rate) for at in (0.3, 0.97, 1.5, 2.31)):
        waveform[start : start + len(stroke)] += stroke.astype(np.float32)
    return waveform


def lag(after, before):
    """Samples by which ``after`` is late."""
    correlation = scipy.signal.correlate(after, before, mode="full")
    return int(correlation.argmax()) - (len(before) - 1)


@pytest.mark.parametrize("amount", [-12.0, 6.0])
def test_gain_changes_level_and_nothing_else(amount, white_noise):
    before = white_noise(16_000, level=0.4)
    after = gain(before, 16_000, amount)
    assert decibels(after, before) == pytest.approx(amount, abs=1e-4)
    assert np.corrcoef(after, before)[0, 1] == pytest.approx(1)
    assert after.dtype == np.float32
    assert np.abs(gain(before, 16_000, 12)).max() > 1  # nothing is clipped here


@pytest.mark.parametrize("ratio", [30.0, 10.0, 0.0])
def test_noise_has_the_asked_power_and_is_white(ratio):
    before = np.sin(np.arange(40_000) / 7).astype(np.float32) * np.linspace(0, 1, 40_000, dtype=np.float32)
    added = noise(before, 16_000, ratio) - before
    assert decibels(before, added) == pytest.approx(ratio, abs=0.05)
    spectrum = scipy.signal.welch(added, nperseg=256)[1][2:-2]
    assert spectrum.max() / spectrum.min() < 2


def test_noise_repeats_and_belongs_to_its_recording(white_noise):
    first, second = white_noise(8000, seed=1), white_noise(8000, seed=2)
    np.testing.assert_array_equal(noise(first, 16_000, 10), noise(first.copy(), 16_000, 10))
    added = [noise(waveform, 16_000, 10) - waveform for waveform in (first, second)]
    assert abs(np.corrcoef(*added)[0, 1]) < 0.1
    louder = noise(first, 16_000, 0) - first
    assert np.corrcoef(added[0], louder)[0, 1] > 0.999  # one noise at several levels


def test_noise_leaves_silence_silent():
    assert not noise(np.zeros(1000, np.float32), 16_000, 10).any()


@pytest.mark.parametrize("sample_rate", [8000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("level", [0.0, 0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("codec", [codec_mp3, codec_ogg])
def test_a_codec_keeps_length_and_time(codec, level, sample_rate):
    before = clicks(sample_rate)
    after = codec(before, sample_rate, level)
    assert after.shape == before.shape
    assert after.dtype == np.float32
    assert not np.array_equal(after, before)
    assert abs(lag(after, before)) <= sample_rate / 1000


def test_a_codec_that_delays_is_noticed():
    # the header that tells the delay does not fit into frames of 24 kbit/s
    assert codec_delay("MP3", 16_000, 0.9) == 1105
    raw = perturb._round_trip(clicks(16_000), 16_000, 0.9, "MP3")
    assert lag(raw, clicks(16_000)) == 1105


@pytest.mark.parametrize("codec", [codec_mp3, codec_ogg])
def test_more_compression_loses_more(codec, white_noise):
    before = white_noise(32_000, level=0.2)
    errors = [decibels(codec(before, 16_000, level) - before, before) for level in (0.0, 0.5, 0.95)]
    assert errors == sorted(errors)
    np.testing.assert_array_equal(codec(before, 16_000, 0.5), codec(before, 16_000, 0.5))


def test_long_recordings_do_not_overflow_the_encoder():
    before = np.tile(clicks(44_100), 40)
    assert len(codec_ogg(before, 44_100, 0.5)) == len(before)


def test_a_libsndfile_without_mp3_is_said(monkeypatch):
    formats = {name: text for name, text in soundfile.available_formats().items() if name != "MP3"}
    monkeypatch.setattr(soundfile, "available_formats", lambda: formats)
    codec_delay.cache_clear()
    with pytest.raises(InputError, match="cannot write MP3"):
        codec_mp3(clicks(16_000), 16_000, 0.5)


def test_a_rate_that_mp3_does_not_know_is_said():
    with pytest.raises(InputError, match="MP3 at 96000 Hz"):
        codec_mp3(np.zeros(96_000, np.float32), 96_000, 0.5)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_every_perturbation_does_its_mildest_and_its_extremes(name, white_noise):
    change = perturbation(name)
    assert change.name == name
    assert change.neutral not in change.amounts
    waveform = white_noise(6000)
    for amount in (*change.amounts, change.lowest, change.highest):
        change.check(amount)
        result = change.apply(waveform, 16_000, amount)
        assert np.isfinite(result).all()
        assert result.dtype == np.float32
        assert len(result) == (round(6000 / amount) if name == "stretch" else 6000)


@pytest.mark.parametrize(
    ("name", "amount"),
    [("pitch", 0.5), ("pitch", 7), ("stretch", 0), ("stretch", 2.0), ("mp3", 1.0), ("ogg", -0.1), ("gain", "6")]
    + [("noise", float("nan")), ("noise", -float("inf")), ("gain", True)],
)
def test_an_amount_that_cannot_be_is_refused(name, amount):
    with pytest.raises(InputError, match=f"robustness.amounts.{name}="):
        perturbation(name).check(amount, f"robustness.amounts.{name}")


def test_an_unknown_perturbation_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="'reverb' is unknown: any of gain, noise"):
        perturbation("reverb")
