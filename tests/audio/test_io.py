"""Excerpts: every one equals the same cut of the whole file, and only its own part of the file is decoded."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from musictf.audio.io import audio_info, read_excerpt, track_peak
from musictf.errors import InputError

RATE = 16_000
FORMATS = ["wav", "flac", "ogg", "mp3"]
# libmpg123 adds up its synthesis window in another order after a seek; all other decoders are exact.
MP3_TOLERANCE = 1e-6
RESAMPLING_TOLERANCE = 1e-5


def whole_file(path, sample_rate=RATE):
    """The file decoded and resampled in one go: what excerpts must be cut from."""
    audio, stored_rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = torch.from_numpy(audio.mean(axis=1))
    return torchaudio.functional.resample(mono, stored_rate, sample_rate).numpy()


def starts_in(total, length, count=25):
    return [0, 1, total - length, *np.random.default_rng(total).integers(0, total - length, count).tolist()]


@pytest.fixture
def music(white_noise):
    """Noise that swells: it makes an mp3 encoder lend bits from frame to frame."""

    def make(seconds, sample_rate):
        num_samples = int(seconds * sample_rate)
        swell = 1 + np.sin(np.arange(num_samples) * 7e-4)
        return (white_noise(num_samples, seed=sample_rate) * swell).astype(np.float32)

    return make


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_excerpt_is_the_cut_of_the_whole_file(tmp_path, music, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, music(6, RATE), RATE)
    whole = whole_file(path)
    assert audio_info(path).num_samples(RATE) == len(whole)
    for start in starts_in(len(whole), 3000):
        excerpt = read_excerpt(path, start, 3000, RATE)
        assert excerpt.dtype == np.float32
        np.testing.assert_allclose(excerpt, whole[start : start + 3000], rtol=0, atol=MP3_TOLERANCE)


@pytest.mark.parametrize("suffix", ["wav", "mp3"])
@pytest.mark.parametrize("stored_rate", [44_100, 48_000, 22_050, 8_000])
def test_a_resampled_excerpt_is_the_cut_of_the_file_resampled_in_one_go(tmp_path, music, stored_rate, suffix):
    path = tmp_path / f"a.{suffix}"
    # a length that is no multiple of the common period, so that the last sample lies past the last shared one
    soundfile.write(path, music(3.01237, stored_rate), stored_rate)
    whole = whole_file(path)
    assert audio_info(path).num_samples(RATE) == len(whole)
    for start in starts_in(len(whole), 2000):
        excerpt = read_excerpt(path, start, 2000, RATE)
        assert excerpt.shape == (2000,)
        np.testing.assert_allclose(excerpt, whole[start : start + 2000], rtol=0, atol=RESAMPLING_TOLERANCE)


@pytest.mark.parametrize("stored_rate", [RATE, 44_100])
@pytest.mark.parametrize("suffix", FORMATS)
def test_two_reads_meet_without_a_seam(tmp_path, music, suffix, stored_rate):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, music(4, stored_rate), stored_rate)
    for start in np.random.default_rng(1).integers(0, 2 * RATE, 10).tolist():
        seam = np.concatenate([read_excerpt(path, start, 1001, RATE), read_excerpt(path, start + 1001, 999, RATE)])
        np.testing.assert_allclose(seam, read_excerpt(path, start, 2000, RATE), rtol=0, atol=RESAMPLING_TOLERANCE)


@pytest.mark.parametrize("stored_rate", [16_000, 44_100, 8_000])
def test_a_click_lands_on_its_sample(tmp_path, stored_rate):
    waveform = np.zeros(3 * stored_rate, dtype=np.float32)
    waveform[2 * stored_rate] = 1.0  # at 2 s, whatever the rate
    soundfile.write(tmp_path / "click.wav", waveform, stored_rate)
    excerpt = read_excerpt(tmp_path / "click.wav", 2 * RATE - 777, 2000, RATE)
    assert np.abs(excerpt).argmax() == 777


def test_channels_are_averaged(tmp_path, white_noise):
    left, right = white_noise(8000, 1), white_noise(8000, 2)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    np.testing.assert_allclose(read_excerpt(tmp_path / "stereo.wav", 100, 500, RATE), ((left + right) / 2)[100:600])


def test_peak_normalisation_divides_by_the_peak_of_the_whole_track(tmp_path, white_noise):
    waveform = white_noise(70 * 8000, level=0.05)
    waveform[65 * 8000] = -0.5  # outside the excerpt, in the second block that the search for the peak reads
    soundfile.write(tmp_path / "a.wav", waveform, 8000, subtype="FLOAT")
    assert track_peak(str(tmp_path / "a.wav")) == np.float32(0.5)
    np.testing.assert_allclose(
        read_excerpt(tmp_path / "a.wav", 50, 500, 8000, normalise="peak"), waveform[50:550] / 0.5, rtol=1e-6
    )


def test_silence_stays_silence_when_normalised(tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(1000), RATE)
    assert not read_excerpt(tmp_path / "silence.wav", 0, 500, RATE, normalise="peak").any()


@pytest.mark.parametrize(("suffix", "lead"), [("wav", 0), ("flac", 0), ("ogg", 0), ("mp3", 11_520)])
def test_only_the_excerpt_is_decoded(tmp_path, white_noise, monkeypatch, suffix, lead):
    path = tmp_path / f"long.{suffix}"
    soundfile.write(path, white_noise(60 * 22_050), 22_050)
    decoded, read = [], soundfile.SoundFile.read

    def counted(file, frames=-1, *args, **kwargs):
        decoded.append(frames)
        return read(file, frames, *args, **kwargs)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    read_excerpt(path, 40 * RATE, RATE, RATE)
    # one second, and what the resampling filter needs on both sides
    assert 22_050 <= sum(decoded) < 22_050 + lead + 2_000
    assert min(decoded) > 0


def broken_files(folder, white_noise):
    """Name to path of files that no excerpt of a second can come from."""
    tone = white_noise(4 * RATE)
    paths = {name: folder / name for name in ("noise.wav", "noise.mp3", "empty.flac", "header.wav", "short.wav")}
    paths |= {name: folder / name for name in ("nan.wav", "missing.wav", "cut.flac", "cut.mp3", "cut.ogg")}
    paths["noise.wav"].write_bytes(bytes(range(256)) * 8)
    paths["noise.mp3"].write_bytes(b"\x00" * 4096)
    paths["empty.flac"].touch()
    soundfile.write(paths["header.wav"], np.zeros(0), RATE)
    soundfile.write(paths["short.wav"], tone[: RATE // 2], RATE)
    soundfile.write(paths["nan.wav"], np.where(np.arange(len(tone)) == 3 * RATE, np.nan, tone), RATE, subtype="FLOAT")
    for suffix in ("flac", "mp3", "ogg"):
        soundfile.write(folder / f"cut.{suffix}", tone, RATE)
        content = paths[f"cut.{suffix}"].read_bytes()
        paths[f"cut.{suffix}"].write_bytes(content[: len(content) // 2])
    return paths


REASONS = {
    "noise.wav": "cannot be decoded",
    "noise.mp3": "cannot be decoded",
    "empty.flac": "is an empty file",
    "header.wav": "holds no audio",
    "short.wav": "too short",
    "nan.wav": "NaN",
    "missing.wav": "does not exist",
    "cut.flac": "breaks off|cannot be decoded",
    "cut.mp3": "breaks off|cannot be decoded|too short",
    "cut.ogg": "breaks off|cannot be decoded|too short",
}


@pytest.mark.parametrize("name", REASONS)
def test_a_broken_file_is_named_in_one_line(tmp_path, white_noise, name):
    path = broken_files(tmp_path, white_noise)[name]
    with pytest.raises(InputError, match=REASONS[name]) as caught:
        read_excerpt(path, 3 * RATE - 500, RATE, RATE)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_lies_before_the_start_of_a_file(tmp_path, white_noise):
    soundfile.write(tmp_path / "a.wav", white_noise(RATE), RATE)
    with pytest.raises(InputError, match=r"a\.wav"):
        read_excerpt(tmp_path / "a.wav", -1, 100, RATE)
