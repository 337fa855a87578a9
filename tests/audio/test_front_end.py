"""Front ends of several parts: each equals an outside computation, each has its time on the grid, old files stay."""

from __future__ import annotations

import hashlib

import librosa
import numpy as np
import pytest
import torch

from musictf.audio.front_end import (
    BINS_PER_OCTAVE,
    LOWEST_PITCH,
    NUM_PITCH_BINS,
    PITCH_WINDOW,
    FrontEnd,
    FrontEndConfig,
    pitch_filters,
)
from musictf.audio.spectrogram import LogMel, LogMelConfig
from musictf.errors import InputError

RATE, HOP = 16_000, 512
ALL = ["mel", "pitch", "rise"]


def frames(waveform, parts):
    """Frames (F, T) of one waveform."""
    return FrontEnd(FrontEndConfig(parts=parts))(torch.from_numpy(waveform.astype(np.float32))[None])[0].numpy()


def tone(hertz, seconds=1.0):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)


def test_the_mel_alone_is_the_papers_front_end(white_noise):
    waveform = white_noise(RATE)
    expected = LogMel(LogMelConfig())(torch.from_numpy(waveform)[None])[0].numpy()
    np.testing.assert_array_equal(frames(waveform, ["mel"]), expected)


def test_parts_stand_side_by_side_each_as_it_is_alone(white_noise):
    waveform = white_noise(RATE)
    together = frames(waveform, ["rise", "mel", "pitch"])  # the order of the configuration does not matter
    np.testing.assert_array_equal(together, np.concatenate([frames(waveform, [name]) for name in ALL]))


@pytest.mark.parametrize("level", [0.5, 1e-3])
def test_pitch_is_that_of_librosas_spectrogram(white_noise, level):
    waveform = white_noise(2 * RATE, level=level) + level * tone(440, 2)
    power = np.abs(librosa.stft(waveform, n_fft=PITCH_WINDOW, hop_length=HOP, pad_mode="reflect")) ** 2
    window = librosa.filters.get_window("hann", PITCH_WINDOW, fftbins=True)
    hertz = librosa.fft_frequencies(sr=RATE, n_fft=PITCH_WINDOW)
    expected = []
    for k in range(NUM_PITCH_BINS):  # slowly, bin by bin
        below, centre, above = (LOWEST_PITCH * 2 ** ((k + step) / BINS_PER_OCTAVE) for step in (-1, 0, 1))
        weights = np.interp(hertz, [min(below, centre - hertz[1]), centre, max(above, centre + hertz[1])], [0, 1, 0])
        expected.append(weights @ power / weights.sum() / np.sum(window**2))
    expected = librosa.power_to_db(np.array(expected), ref=1.0, amin=1e-10, top_db=100.0)
    np.testing.assert_allclose(frames(waveform, ["pitch"]), expected, rtol=0, atol=1e-2)  # decibels


@pytest.mark.parametrize("bin_number", range(0, NUM_PITCH_BINS, 5))
def test_a_tone_lies_in_its_quarter_tone(bin_number):
    hertz = LOWEST_PITCH * 2 ** (bin_number / BINS_PER_OCTAVE)
    level = frames(tone(hertz), ["pitch"]).mean(axis=1)
    # Below C3 a quarter tone is narrower than half an FFT bin: the neighbour may be louder, not the next but one.
    assert abs(int(level.argmax()) - bin_number) <= (1 if bin_number < 24 else 0)


def test_a_semitone_is_told_apart_where_the_mel_cannot():
    def difference(part):
        first, second = (frames(tone(hertz), [part]) for hertz in (librosa.note_to_hz("E3"), librosa.note_to_hz("F3")))
        return np.abs(first - second).mean(axis=1).max()

    assert difference("pitch") > 20  # decibels
    assert difference("pitch") > 2 * difference("mel")


def test_every_pitch_filter_weighs_noise_alike():
    filters = pitch_filters(RATE)
    np.testing.assert_allclose(filters.sum(axis=1), 1.0)
    assert (filters > 0).any(axis=1).all()
    assert (filters >= 0).all()


def test_rise_is_the_increase_of_the_level(white_noise):
    waveform = white_noise(RATE) * np.linspace(0, 1, RATE)
    level = frames(waveform, ["mel"])
    expected = np.maximum(np.diff(level, axis=1, prepend=level[:, :1]), 0) / 10
    np.testing.assert_allclose(frames(waveform, ["rise"]), expected, atol=1e-6)


@pytest.mark.parametrize("frame", [10, 15, 20])
@pytest.mark.parametrize("part", ALL)
def test_a_click_at_a_frames_centre_shows_in_that_frame(part, frame):
    waveform = 1e-4 * np.random.default_rng(0).normal(size=RATE)
    waveform[frame * HOP] = 1.0
    level = frames(waveform, [part]).mean(axis=0)
    middle = np.flatnonzero(level >= level.max() - 1e-3 * np.abs(level).max()).mean()  # a long window has a flat top
    assert abs(middle - frame) <= 0.5


@pytest.mark.parametrize("offset", [128, 256, 384])
def test_a_click_between_frames_shows_within_a_hop(offset):
    waveform = 1e-4 * np.random.default_rng(0).normal(size=RATE)
    waveform[12 * HOP + offset] = 1.0
    for part, latest in (("mel", 13), ("rise", 13)):
        assert 12 <= frames(waveform, [part]).mean(axis=0).argmax() <= latest


def test_batches_and_neighbours_change_nothing(white_noise):
    front_end = FrontEnd(FrontEndConfig(parts=ALL))
    quiet, loud = (torch.from_numpy(white_noise(RATE, seed=seed, level=level)) for seed, level in ((0, 1e-3), (1, 0.3)))
    torch.testing.assert_close(front_end(torch.stack([quiet, loud]))[:1], front_end(quiet[None]), rtol=0, atol=1e-4)


def test_silence_is_finite():
    found = frames(np.zeros(RATE), ALL)
    assert np.isfinite(found).all()
    assert (found[-128:] == 0).all()


def test_digests_of_one_part_are_those_of_the_log_mel():
    assert FrontEndConfig().digest() == LogMelConfig().digest()
    assert "parts" not in FrontEndConfig().to_json()
    assert FrontEndConfig(parts=["mel", "pitch"]).to_json()["parts"] == ["mel", "pitch"]
    configs = [FrontEndConfig(parts=parts) for parts in (["mel"], ["pitch"], ["mel", "pitch"], ALL)]
    assert len({config.digest() for config in configs}) == len(configs)
    assert FrontEndConfig().digest() == hashlib.sha256(repr(LogMelConfig()).encode()).hexdigest()[:16]


@pytest.mark.parametrize("parts", [[], ["mel", "mel"], ["chroma"]])
def test_parts_that_are_none_are_refused(parts):
    with pytest.raises(InputError, match="front_end.parts"):
        FrontEndConfig(parts=parts)


def test_a_rate_too_low_for_the_pitches_is_refused():
    with pytest.raises(InputError, match="4186 Hz"):
        FrontEndConfig(parts=["pitch"], sample_rate=8000, f_max=4000.0)
