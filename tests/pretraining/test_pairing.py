"""Positives and negatives: regions of one track, tracks of one group, packed samples against decoded files."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import soundfile
import torch

from musictf.audio.spectrogram import LogMelConfig
from musictf.datasets.base import Track
from musictf.datasets.folder import Folder
from musictf.errors import InputError
from musictf.packing.make_pack import pack
from musictf.packing.packed import Packed
from musictf.pretraining.pairs import PairConfig, PairModule, Pairs, waveforms

RATE, LENGTH = 16_000, 8_000
NEAR = {"min_distance": 0.0, "max_distance": 2.0}


@pytest.fixture
def ramp(tmp_path):
    """Maker of tracks whose samples say where they lie: value k is k / 2**20, exact in float32."""

    def make(seconds, name="ramp"):
        waveform = np.arange(seconds * RATE, dtype=np.float32) / 2**20
        soundfile.write(tmp_path / f"{name}.wav", waveform, RATE, subtype="FLOAT")
        return Track(track_id=name, audio=tmp_path / f"{name}.wav")

    return make


def starts(batch):
    """First sample of both views of each pair, (n, 2)."""
    return np.stack([np.rint(batch[view][:, 0].numpy() * 2**20).astype(int) for view in ("first", "second")], axis=1)


def test_the_regions_of_a_track_lie_apart_and_are_negatives_of_each_other(ramp):
    config = PairConfig(**NEAR, excerpts_per_track=4, min_gap_seconds=2.0)
    pairs = Pairs([ramp(30)], config, LogMelConfig(), LENGTH, 0, batch_size=8)
    for position in range(20):
        batch = pairs.__getitems__(list(range(4 * position, 4 * position + 4)))
        assert batch["track"].tolist() == [0, 1, 2, 3]
        firsts = np.sort(starts(batch), axis=1)
        assert (
            firsts[1:, 0] - (firsts[:-1, 1] + LENGTH) >= 2 * RATE
        ).all()  # the next begins a gap after the last ends
        assert (np.diff(firsts, axis=1) <= 2 * RATE).all()
        assert 0 <= firsts.min() <= firsts.max() <= 30 * RATE - LENGTH


def test_a_region_is_used_to_its_edges(ramp):
    pairs = Pairs([ramp(30)], PairConfig(**NEAR, excerpts_per_track=4, min_gap_seconds=2.0), LogMelConfig(), LENGTH, 0)
    firsts = np.array([starts(pairs.__getitems__([4 * position + 1]))[0] for position in range(200)])
    assert firsts.min() / RATE == pytest.approx(8.0, abs=0.3)  # (30 + 2) / 4 seconds a region, gap at the end
    assert firsts.max() / RATE == pytest.approx(16.0 - 2.0 - 0.5, abs=0.3)


def test_a_track_too_short_for_its_regions_is_not_its_own_negative(ramp):
    tracks = [ramp(5, "short"), ramp(30, "long")]
    pairs = Pairs(tracks, PairConfig(**NEAR, excerpts_per_track=4, min_gap_seconds=2.0), LogMelConfig(), LENGTH, 0)
    keys = {
        pairs.track_of(example).track_id: pairs.__getitems__([example + region for region in range(4)])["track"]
        for example in (0, 4)
    }
    assert len(set(keys["short"].tolist())) == 1
    assert len(set(keys["long"].tolist())) == 4
    assert not set(keys["short"].tolist()) & set(keys["long"].tolist())


def test_the_pairs_of_a_position_come_from_one_track(ramp):
    tracks = [ramp(30, name) for name in "abc"]
    pairs = Pairs(tracks, PairConfig(**NEAR, excerpts_per_track=2), LogMelConfig(), LENGTH, 0)
    names = [pairs.track_of(example).track_id for example in range(12)]
    assert names[::2] == names[1::2]
    assert sorted(names[:6:2]) == sorted(names[6::2]) == ["a", "b", "c"]


@pytest.fixture
def packed(corpus, tmp_path):
    """The corpus, and the same corpus packed."""
    folder = pack(Folder(root=str(corpus)), str(tmp_path / "pack"), sample_rate=RATE)
    return Folder(root=str(corpus)).all_tracks(), Packed(root=str(folder)).all_tracks()


@pytest.mark.parametrize("normalise", ["none", "peak"])
def test_packed_pairs_are_those_of_the_files(packed, normalise):
    config, front_end = PairConfig(min_distance=0.5, max_distance=1.5), LogMelConfig(normalise=normalise)
    plain, fast = (Pairs(tracks, config, front_end, LENGTH, seed=3) for tracks in packed)
    batch = fast.__getitems__(list(range(8)))
    assert batch["first"].dtype == torch.int16
    expected = waveforms(plain.__getitems__(list(range(8))))
    unpacked = waveforms(batch)
    assert unpacked.dtype == torch.float32
    assert (unpacked - expected).abs().max() <= 2.0**-15 / (0.3 if normalise == "peak" else 1)
    assert expected.abs().max() > 0.1


def test_a_corpus_that_is_packed_in_part_is_read_in_part_from_files(packed):
    files, slots = packed
    mixed = Pairs([files[0], *slots[1:]], PairConfig(**NEAR), LogMelConfig(), LENGTH, seed=3)
    whole = Pairs(slots, PairConfig(**NEAR), LogMelConfig(), LENGTH, seed=3)
    one, other = (waveforms(pairs.__getitems__(list(range(4)))) for pairs in (mixed, whole))
    torch.testing.assert_close(one, other, rtol=0, atol=2.0**-15)


def test_quiet_excerpts_of_a_pack_are_drawn_again(tmp_path, white_noise):
    waveform = white_noise(20 * RATE)
    waveform[: 10 * RATE] = 0
    (tmp_path / "music").mkdir()
    soundfile.write(tmp_path / "music" / "a.wav", waveform, RATE)
    soundfile.write(tmp_path / "music" / "b.wav", white_noise(20 * RATE, 1), RATE)
    folder = pack(Folder(root=str(tmp_path / "music")), str(tmp_path / "pack"), sample_rate=RATE)
    tracks = Packed(root=str(folder)).all_tracks()
    pairs = Pairs(tracks, PairConfig(min_distance=0.0, max_distance=1.0), LogMelConfig(), LENGTH, seed=0)
    levels = waveforms(pairs.__getitems__(list(range(40)))).square().mean(dim=1).sqrt()
    assert (levels < 1e-3).float().mean() < 0.1  # five draws: one pair in 32 finds nothing else, at most


def test_another_rate_than_the_packs_is_refused(packed):
    with pytest.raises(InputError, match=r"packed at 16000 Hz.*pack again with sample_rate=22050"):
        Pairs(packed[1], PairConfig(), LogMelConfig(sample_rate=22_050), LENGTH, seed=0)


def test_the_tracks_of_a_step_are_those_of_its_batch(corpus):
    tracks = Folder(root=str(corpus)).all_tracks()
    config = PairConfig(**NEAR, excerpts_per_track=2, min_gap_seconds=0.5)
    pairs = Pairs(tracks, config, LogMelConfig(), LENGTH, 0, batch_size=4)
    names = PairModule(pairs, None, 4, 0).tracks_of_step(3)
    assert names == [pairs.track_of(example).track_id for example in range(8, 12)]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"excerpts_per_track": 0}, "excerpts_per_track"),
        ({"min_gap_seconds": -1.0}, "min_gap_seconds"),
        ({"weights": [1.0, 0.0]}, "pairs.weights must be positive"),
        ({"weights": [1.0], "batch_by": "group"}, "exclude each other"),
    ],
)
def test_impossible_pairs_are_refused(keys, words):
    with pytest.raises(InputError, match=words):
        PairConfig(**keys)


def test_tracks_too_short_for_their_regions_are_reported_and_a_corpus_of_them_is_refused(ramp, capsys):
    config = PairConfig(**NEAR, excerpts_per_track=4, min_gap_seconds=2.0)
    with pytest.raises(InputError, match=r"1 of 1 tracks are too short for pairs\.excerpts_per_track=4"):
        Pairs([ramp(5, "short")], config, LogMelConfig(), LENGTH, 0)
    Pairs([ramp(5, "short"), ramp(30, "long")], config, LogMelConfig(), LENGTH, 0)
    assert "1 of 2 tracks are too short" in capsys.readouterr().err


def test_the_shortest_packed_version_bounds_the_pair(tmp_path, white_noise):
    (tmp_path / "in").mkdir()
    for name, seconds in (("a", 10), ("b", 1)):
        soundfile.write(tmp_path / "in" / f"{name}.wav", white_noise(seconds * RATE), RATE)
    long, short = Packed(root=str(pack(Folder(root=str(tmp_path / "in")), str(tmp_path / "out")))).all_tracks()
    both = dataclasses.replace(long, versions=(short.audio,), slots=(*long.slots, *short.slots))
    pairs = Pairs([both], PairConfig(**NEAR), LogMelConfig(), LENGTH, seed=0)
    assert pairs.lengths == [RATE]
    assert pairs.__getitems__(list(range(20)))["first"].any()


def test_silence_is_judged_alike_in_files_and_packs(tmp_path, white_noise):
    """A quiet recording that the model reads at full level is not silence."""
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "a.wav", white_noise(20 * RATE, level=5e-5), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "in" / "b.wav", white_noise(20 * RATE, 1, level=5e-5), RATE, subtype="FLOAT")
    corpus, config = Folder(root=str(tmp_path / "in")), PairConfig(**NEAR)
    slots = Packed(root=str(pack(corpus, str(tmp_path / "out")))).all_tracks()
    front_end = LogMelConfig(normalise="peak")
    plain, fast = (Pairs(tracks, config, front_end, LENGTH, seed=3) for tracks in (corpus.all_tracks(), slots))
    one, other = (waveforms(pairs.__getitems__(list(range(8)))) for pairs in (plain, fast))
    torch.testing.assert_close(other, one, rtol=0, atol=1e-3)
