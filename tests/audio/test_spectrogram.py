"""Log-mel: librosa's values, each excerpt on its own, and frames whose times are exact."""

from __future__ import annotations

from fractions import Fraction

import librosa
import numpy as np
import pytest
import torch

from musictf.audio.spectrogram import LogMel, LogMelConfig
from musictf.errors import InputError

CONFIG = LogMelConfig()


@pytest.fixture(scope="module")
def log_mel():
    return LogMel(CONFIG)


def librosa_level(waveform):
    power = librosa.feature.melspectrogram(
        y=waveform, sr=16_000, n_fft=1024, hop_length=512, n_mels=128, fmin=0.0, fmax=8000.0, htk=False, norm="slaney",
        center=True, pad_mode="reflect", power=2.0,
    )  # fmt: skip
    window = librosa.filters.get_window("hann", 1024, fftbins=True)
    return librosa.power_to_db(power / np.sum(window**2), ref=1.0, amin=1e-10, top_db=100.0)


@pytest.mark.parametrize("level", [0.5, 1e-3])
def test_the_values_are_those_of_librosa(log_mel, white_noise, level):
    time = np.arange(64_000) / 16_000
    waveform = white_noise(64_000, level=level) + np.float32(level) * np.sin(2 * np.pi * (200 + 500 * time) * time)
    waveform = waveform.astype(np.float32)
    found = log_mel(torch.from_numpy(waveform)[None])[0].numpy()
    np.testing.assert_allclose(found, librosa_level(waveform), rtol=0, atol=1e-3)  # decibels


def test_no_band_is_empty(log_mel, white_noise):
    assert (log_mel.power.mel_scale.fb.sum(dim=0) > 0).all()
    assert log_mel(torch.from_numpy(white_noise(64_000))[None]).std(dim=-1).min() > 0.1


def test_four_seconds_are_126_frames(log_mel):
    assert log_mel(torch.zeros(2, 64_000)).shape == (2, 128, 126)
    assert CONFIG.num_frames(64_000) == 126
    for num_samples in (16_000, 16_001, 16_383, 16_384):
        assert log_mel(torch.zeros(1, num_samples)).shape[-1] == CONFIG.num_frames(num_samples)


def test_a_loud_neighbour_changes_nothing(white_noise):
    log_mel = LogMel(LogMelConfig(top_db=40.0))
    quiet = torch.from_numpy(white_noise(16_000, level=1e-3))
    loud = torch.from_numpy(white_noise(16_000, seed=1, level=0.3))
    alone, beside = log_mel(quiet[None])[0], log_mel(torch.stack([quiet, loud]))[0]
    torch.testing.assert_close(beside, alone, rtol=0, atol=1e-5)
    assert alone.max() < log_mel(loud[None]).max() - 40  # a baseline shared by the batch would raise all of it


def test_the_range_ends_below_the_loudest_cell_of_the_excerpt(white_noise):
    quiet_end = torch.from_numpy(white_noise(16_000, level=0.3))
    quiet_end[8000:] = 0
    level = LogMel(LogMelConfig(top_db=40.0))(quiet_end[None])
    assert level.max() - level.min() == pytest.approx(40.0, abs=1e-4)


def test_frame_times_are_exact_over_an_hour():
    num_frames = 3600 * 16_000 // 512 + 1
    exact = [float(Fraction(512 * frame + 123, 16_000)) for frame in range(num_frames)]
    assert CONFIG.frame_times(num_frames, start=123).tolist() == exact
    odd = LogMelConfig(sample_rate=44_100, hop_length=441)
    assert odd.frame_times(360_001)[-1] == 3600.0


@pytest.mark.parametrize("sample", [512 * 20, 512 * 31 + 200, 512 * 31 + 300, 512 * 77 - 3])
def test_a_click_peaks_in_the_frame_nearest_to_it(log_mel, sample):
    waveform = torch.zeros(1, 64_000)
    waveform[0, sample] = 1.0
    energy = log_mel(waveform)[0].sum(dim=0)
    nearest = np.abs(CONFIG.frame_times(126) - sample / 16_000).argmin()
    assert int(energy.argmax()) == nearest


def test_autocast_leaves_float32(log_mel, white_noise):
    waveform = torch.from_numpy(white_noise(16_000))[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = log_mel(waveform)
        from_half = log_mel(waveform.bfloat16())
    assert under.dtype == from_half.dtype == torch.float32
    assert torch.equal(under, log_mel(waveform))


@pytest.mark.parametrize("change", [{"normalise": "rms"}, {"hop_length": 0}, {"f_max": 9000.0}])
def test_an_impossible_front_end_is_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        LogMelConfig(**change)
