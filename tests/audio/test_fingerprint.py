"""Fingerprints: they follow a recording through level, codec, rate and cut, and no other recording has the same."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile

from musictf.audio.fingerprint import (
    THRESHOLD,
    Fingerprinter,
    FingerprintIndex,
    decoded_blocks,
    fingerprint,
    match,
    pack,
    unpack,
)
from musictf.errors import InputError
from musictf.synthesis.composition import compose
from musictf.synthesis.rendering import cast, record

RATE = 44_100
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "pop909_rendered"


def melody(seed, seconds=30.0, sample_rate=RATE, harmonics=(1.0, 0.5, 0.3, 0.2), octave=0, decay=4.0):
    """Notes that ring out, three voices at random times; the same seed plays the same notes on any instrument."""
    generator = np.random.default_rng(seed)
    waveform = np.zeros(int(seconds * sample_rate) + 2 * sample_rate)
    time = np.arange(sample_rate) / sample_rate
    for onset in np.sort(generator.uniform(0, seconds, int(6 * seconds))):
        pitch = 220 * 2 ** (generator.integers(-5, 20) / 12 + octave)
        tones = [level * np.sin(2 * np.pi * pitch * (k + 1) * time) for k, level in enumerate(harmonics)]
        start = int(onset * sample_rate)
        waveform[start : start + len(time)] += np.sum(tones, axis=0) * np.exp(-decay * time)
    waveform = waveform[: int(seconds * sample_rate)]
    return (0.5 * waveform / np.abs(waveform).max()).astype(np.float32)


def printed(waveform, sample_rate=RATE):
    printer = Fingerprinter(sample_rate)
    printer.add(waveform)
    return printer.finish()


@pytest.fixture(scope="module")
def songs():
    return [melody(seed) for seed in range(5)]


@pytest.fixture(scope="module")
def prints(songs):
    return [printed(song) for song in songs]


def encode(path, waveform, sample_rate, **options):
    with soundfile.SoundFile(path, "w", sample_rate, 1, **options) as file:
        for start in range(0, len(waveform), 4096):  # libsndfile dies of long writes to Vorbis
            file.write(waveform[start : start + 4096])
    return path


# (sample rate, suffix, compression level of libsndfile): mp3 at 128 and at 64 kbit/s, Vorbis at quality 2.
COPIES = [
    (44_100, "mp3", 0.65),
    (16_000, "mp3", 0.65),
    (44_100, "ogg", 0.8),
    (16_000, "ogg", 0.8),
    (8_000, "wav", None),
    (22_050, "flac", None),
]


@pytest.mark.parametrize(("rate", "suffix", "compression"), COPIES)
@pytest.mark.parametrize("decibels", [-20, 0, 20])
def test_a_copy_is_recognised(tmp_path, rate, suffix, compression, decibels):
    song = melody(7)
    quiet = song * 10 ** (-max(decibels, 0) / 20)  # so that the copy that is 20 dB up does not clip
    cut = song[int(11.2345 * RATE) : int(21.2345 * RATE)] * 10 ** (min(decibels, 0) / 20)
    cut = np.clip(scipy.signal.resample_poly(cut, rate, RATE), -1, 1)
    options = {} if compression is None else {"compression_level": compression}
    options |= {"bitrate_mode": "CONSTANT"} if suffix == "mp3" else {}
    path = encode(tmp_path / f"copy.{suffix}", cut, rate, **options)
    original, copy = printed(quiet), fingerprint(path)
    assert match(copy, original) > THRESHOLD
    assert match(original, copy) > THRESHOLD  # whichever of the two is the cut


def test_the_rate_of_mp3_in_these_tests_is_what_they_say(tmp_path):
    for rate, bits in ((44_100, 128_000), (16_000, 64_000)):
        path = encode(tmp_path / "a.mp3", melody(7, 10, rate), rate, compression_level=0.65, bitrate_mode="CONSTANT")
        assert 8 * path.stat().st_size / 10 == pytest.approx(bits, rel=0.05)


def test_other_recordings_share_little(prints):
    for number, peaks in enumerate(prints):
        assert all(match(peaks, other) < THRESHOLD / 2 for other in prints[number + 1 :])


@pytest.mark.parametrize("other", [{"octave": 1}, {"harmonics": (0.1, 1.0, 0.05, 0.8), "decay": 1.0}])
def test_another_instrument_is_another_recording(prints, other):
    assert match(prints[0], printed(melody(0, **other))) < THRESHOLD


def test_a_song_on_other_instruments_in_the_same_octaves_is_another_recording():
    song = compose(3, 5, 24.0)
    first = cast(np.random.default_rng(0), song)
    second = cast(np.random.default_rng(1), song, first)
    second = {role: replace(player, shift=first[role].shift) for role, player in second.items()}
    waveforms = [record(song, players, 24.0, 16_000, [5]) for players in (first, second)]  # one room, one tuning
    assert match(printed(waveforms[0], 16_000), printed(waveforms[0], 16_000)) == 1.0
    assert match(*(printed(waveform, 16_000) for waveform in waveforms)) < THRESHOLD


def test_white_noise_and_silence_are_nobody(white_noise, prints):
    noise = printed(white_noise(20 * RATE, seed=1))
    assert match(noise, printed(white_noise(20 * RATE, seed=2))) < THRESHOLD / 2
    silence = printed(np.zeros(20 * RATE, np.float32))
    assert len(silence) == 0
    assert match(silence, silence) == match(silence, noise) == match(noise, silence) == 0.0
    assert len(printed(np.zeros(10, np.float32))) == 0
    # the silence that rounding to 16 bits makes of a faint noise is no sound either
    assert len(printed(np.rint(white_noise(5 * RATE, level=1e-5) * 32768).astype(np.float32) / 32768)) == 0


def test_a_passage_of_less_than_eight_seconds_does_not_make_a_copy(songs):
    first, second = songs[:2]
    joined = np.concatenate([first[-5 * RATE :], second])
    assert match(printed(joined), printed(first)) < THRESHOLD
    assert match(printed(joined), printed(second)) > 0.9


def test_recordings_that_overlap_by_half_are_recognised(songs):
    song = songs[0]
    assert match(printed(song[: 20 * RATE]), printed(song[10 * RATE + 77 :])) > THRESHOLD


def test_a_short_clip_that_is_whole_in_another_is_recognised(songs):
    assert match(printed(songs[0][5 * RATE : 9 * RATE]), printed(songs[0])) > THRESHOLD


@pytest.mark.parametrize("block", [999, 40_000, 10**7])
def test_blocks_of_any_size_make_the_same_fingerprint(songs, prints, block):
    printer = Fingerprinter(RATE)
    for start in range(0, len(songs[0]), block):
        printer.add(songs[0][start : start + block])
    np.testing.assert_array_equal(printer.finish(), prints[0])


def test_frames_taken_at_a_time_do_not_matter(songs, prints, monkeypatch):
    monkeypatch.setattr("musictf.audio.fingerprint._BLOCK_FRAMES", 3)
    np.testing.assert_array_equal(printed(songs[0]), prints[0])


def test_peaks_are_the_local_maxima_of_the_spectrogram(songs, prints):
    # the whole spectrogram at once, by numpy, and a maximum found by looking at every neighbour
    length = round(0.064 * RATE)
    starts = [round(0.016 * frame * RATE) for frame in range(int((len(songs[0]) - length) / (0.016 * RATE)) + 1)]
    window = np.hanning(length)
    frames = np.stack([songs[0][start : start + length] for start in starts if start + length <= len(songs[0])])
    levels = np.abs(np.fft.rfft(frames * window))
    peaks = {(int(peak) >> 8, int(peak) & 255) for peak in prints[0]}
    assert len(peaks) == len(prints[0]) > 200
    generator = np.random.default_rng(0)
    for frame, band in generator.permutation(sorted(peaks))[:50]:
        around = levels[max(0, frame - 20) : frame + 21, max(9, band - 12) : min(224, band + 13)]
        assert levels[frame, band] >= (1 - 1e-4) * around.max()
    frame, band = np.unravel_index(np.argmax(levels[:, 9:224]), (len(levels), 215))
    assert (frame, band + 9) in peaks


def test_stereo_is_averaged(songs, prints):
    stereo = np.stack([1.5 * songs[0], 0.5 * songs[0]], axis=1)
    assert match(printed(stereo), prints[0]) > 0.99


def test_the_index_finds_the_copy_among_many(songs, prints):
    index = FingerprintIndex(prints)
    cut = printed(songs[4][8 * RATE : 20 * RATE])
    (best, score), *others = index.scores(cut)
    assert (best, score) == (4, pytest.approx(match(cut, prints[4])))
    assert score > THRESHOLD > 2 * max((other for _, other in others), default=0.0)
    assert FingerprintIndex([]).scores(cut) == []
    assert index.scores(np.zeros(0, np.uint32)) == []


def test_a_packed_fingerprint_is_small_and_comes_back(prints):
    for peaks in (*prints, np.zeros(0, np.uint32)):
        np.testing.assert_array_equal(unpack(pack(peaks)), peaks)
    assert len(pack(prints[0])) < 1500 * 30 / 60  # bytes a minute


def test_memory_does_not_grow_with_the_length(white_noise):
    second = white_noise(16_000)

    def peak(seconds):
        tracemalloc.start()
        printer = Fingerprinter(16_000)
        for _ in range(seconds):
            printer.add(second)
        printer.finish()
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(240) < 1.1 * peak(60)


def test_what_cannot_be_decoded_is_refused_with_its_name(tmp_path):
    (tmp_path / "a.flac").write_bytes(b"no flac")
    with pytest.raises(InputError, match=r"a.flac: cannot be decoded"):
        fingerprint(tmp_path / "a.flac")
    soundfile.write(tmp_path / "nan.wav", np.full(9000, np.nan, np.float32), RATE, subtype="FLOAT")
    with pytest.raises(InputError, match=r"nan.wav: holds NaN"):
        list(decoded_blocks(tmp_path / "nan.wav"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="no rendered pop songs beside the repository")
def test_rendered_songs_differ_and_their_copies_match(tmp_path):
    lines = (SHARED / "manifest.jsonl").read_text().splitlines()
    paths = [SHARED / json.loads(line)["audio"] for line in lines[:8]]
    index = FingerprintIndex([fingerprint(path) for path in paths])
    for number, path in enumerate(paths):
        waveform, rate = soundfile.read(path, dtype="float32", start=12_345 * (1 + number), frames=160_000)
        copy = encode(tmp_path / "copy.mp3", 0.1 * waveform, rate, compression_level=0.65, bitrate_mode="CONSTANT")
        scores = dict(index.scores(fingerprint(copy)))
        assert scores.pop(number) > THRESHOLD
        assert max(scores.values(), default=0.0) < THRESHOLD / 2
