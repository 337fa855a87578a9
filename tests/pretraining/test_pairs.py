"""Pairs: where they lie, and that neither workers, ranks nor restarts change what is heard."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from musictf.audio.io import read_excerpt
from musictf.audio.spectrogram import LogMelConfig
from musictf.datasets.base import Track
from musictf.datasets.folder import Folder
from musictf.errors import InputError
from musictf.pretraining.pairs import PairConfig, Pairs, StepBatches, pair_starts

RATE, LENGTH = 16_000, 8_000
SECOND = PairConfig(min_distance=0.5, max_distance=1.5)


@pytest.fixture
def pairs(corpus):
    return Pairs(Folder(root=str(corpus)).all_tracks(), SECOND, LogMelConfig(), LENGTH, seed=3)


def distances(track_seconds, count=300):
    """Distance in seconds of drawn pairs; asserts on the way that both excerpts lie within the track."""
    last = track_seconds * RATE - 4 * RATE
    generator = np.random.default_rng(0)
    starts = [pair_starts(last, PairConfig(), RATE, generator) for _ in range(count)]
    assert all(0 <= start <= last for pair in starts for start in pair)
    return np.array([second - first for first, second in starts]) / RATE


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in ("first", "second", "track"))


def test_pairs_lie_5_to_90_seconds_apart_in_a_long_track():
    found = distances(300)
    assert 5 <= np.abs(found).min() < 10
    assert 80 < np.abs(found).max() <= 90
    assert 0.4 < (found > 0).mean() < 0.6  # either view may come first


def test_the_start_of_a_pair_is_spread_over_the_track():
    generator = np.random.default_rng(0)
    first = [min(pair_starts(296 * RATE, PairConfig(), RATE, generator)) for _ in range(300)]
    assert min(first) < 10 * RATE
    assert max(first) > 250 * RATE


@pytest.mark.parametrize(
    ("track_seconds", "nearest", "farthest"), [(30, 5, 26), (10, 5, 6), (9, 5, 5), (7, 3, 3), (4, 0, 0)]
)
def test_short_tracks_give_the_distance_they_have(track_seconds, nearest, farthest):
    found = np.abs(distances(track_seconds))
    assert nearest <= found.min()
    assert found.max() <= farthest
    assert found.max() - found.min() >= 0.8 * (farthest - nearest)


def test_the_views_are_excerpts_of_the_track_they_name(pairs):
    for example in range(4):
        pair = pairs[example]
        whole = read_excerpt(pairs.tracks[int(pair["track"])].audio, 0, 3 * RATE, RATE)
        at = [np.flatnonzero(whole[: len(whole) - LENGTH + 1] == pair[view][0].item()) for view in ("first", "second")]
        first, second = (
            next(start for start in starts if np.array_equal(whole[start : start + LENGTH], pair[view]))
            for starts, view in zip(at, ("first", "second"), strict=True)
        )
        assert 0.5 <= abs(second - first) / RATE <= 1.5


def test_an_example_depends_on_seed_and_number_alone(pairs, corpus):
    tracks = Folder(root=str(corpus)).all_tracks()
    again = Pairs(tracks, SECOND, LogMelConfig(), LENGTH, seed=3)
    other = Pairs(tracks, SECOND, LogMelConfig(), LENGTH, seed=4)
    numbers = [5, 0, 17, 5]
    assert all(same(pairs[number], again[number]) for number in numbers)
    assert not any(same(pairs[number], other[number]) for number in numbers)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(9)
    assert same(pairs[5], again[5])


def test_the_excerpts_of_a_track_change_from_epoch_to_epoch(pairs):
    first, second = ({int(pairs[i]["track"]): pairs[i] for i in epoch} for epoch in (range(4), range(4, 8)))
    assert not any(same(first[track], second[track]) for track in range(4))


def test_every_track_comes_once_an_epoch(pairs):
    orders = [[int(pairs[4 * epoch + place]["track"]) for place in range(4)] for epoch in range(6)]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert len({tuple(order) for order in orders}) > 1


def batches(pairs, num_workers=0, first_step=0, rank=0, world_size=1, count=4):
    sampler = StepBatches(4, rank, world_size, first_step)
    loader = DataLoader(pairs, batch_sampler=sampler, num_workers=num_workers, collate_fn=lambda batch: batch)
    return list(islice(iter(loader), count))


def test_workers_do_not_change_what_is_heard(pairs):
    for alone, helped in zip(batches(pairs), batches(pairs, num_workers=2), strict=True):
        assert same(alone, helped)


def test_the_batches_of_two_ranks_are_the_batch_of_one(pairs):
    ranks = [batches(pairs, rank=rank, world_size=2) for rank in (0, 1)]
    for step, whole in enumerate(batches(pairs)):
        union = {name: torch.cat([ranks[0][step][name], ranks[1][step][name]]) for name in whole}
        assert same(union, whole)


def test_a_restart_goes_on_with_the_next_batch(pairs):
    assert all(same(one, other) for one, other in zip(batches(pairs)[2:], batches(pairs, first_step=2, count=2)))


def test_the_views_of_a_track_with_versions_come_from_different_files(tmp_path):
    paths = [tmp_path / f"version{number}.wav" for number in range(3)]
    for number, path in enumerate(paths):
        soundfile.write(path, np.full(3 * RATE, 0.1 * (number + 1)), RATE, subtype="FLOAT")
    track = Track(track_id="a", audio=paths[0], versions=tuple(paths[1:]))
    pairs = Pairs([track], SECOND, LogMelConfig(), LENGTH, seed=0)
    found = {tuple(round(10 * pairs[i][view][0].item()) for view in ("first", "second")) for i in range(60)}
    assert found == {(a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a != b}


def test_the_shortest_version_bounds_the_pair(tmp_path):
    paths = [tmp_path / "long.wav", tmp_path / "short.wav"]
    for path, seconds in zip(paths, (10, 1)):
        soundfile.write(path, np.full(seconds * RATE, 0.1), RATE)
    pairs = Pairs([Track(track_id="a", audio=paths[0], versions=(paths[1],))], SECOND, LogMelConfig(), LENGTH, seed=0)
    assert all(pairs[example]["second"].shape == (LENGTH,) for example in range(10))


@pytest.mark.parametrize(("silence_db", "has_silence"), [(-60.0, False), (-400.0, True)])
def test_near_silent_excerpts_are_drawn_again(tmp_path, white_noise, silence_db, has_silence):
    waveform = white_noise(20 * RATE)
    waveform[: 2 * RATE] *= 1e-4  # -100 dB; a quarter of all draws touches it, all five draws of a pair hardly ever
    soundfile.write(tmp_path / "a.wav", waveform, RATE, subtype="FLOAT")
    config = PairConfig(min_distance=0.5, max_distance=15.0, silence_db=silence_db)
    pairs = Pairs([Track(track_id="a", audio=tmp_path / "a.wav")], config, LogMelConfig(), LENGTH, seed=0)
    levels = [pairs[i][view].square().mean().sqrt().item() for i in range(30) for view in ("first", "second")]
    assert (min(levels) < 1e-3) == has_silence


def test_a_silent_track_is_heard_rather_than_waited_for(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(3 * RATE), RATE)
    pairs = Pairs([Track(track_id="a", audio=tmp_path / "a.wav")], SECOND, LogMelConfig(), LENGTH, seed=0)
    assert not pairs[0]["first"].any()


def test_all_tracks_that_are_too_short_are_named_at_once(corpus, white_noise):
    for number in (1, 2):
        soundfile.write(corpus / f"jingle{number}.wav", white_noise(LENGTH - 1), RATE)
    with pytest.raises(InputError, match="2 of 6 tracks") as caught:
        Pairs(Folder(root=str(corpus)).all_tracks(), SECOND, LogMelConfig(), LENGTH, seed=0)
    message = str(caught.value)
    assert "jingle1.wav" in message
    assert "jingle2.wav" in message
    assert "0.5 s" in message
    assert "\n" not in message


@pytest.mark.parametrize(("lowest", "highest"), [(-1, 5), (6, 5)])
def test_an_impossible_distance_is_refused(lowest, highest):
    with pytest.raises(InputError, match="min_distance"):
        PairConfig(min_distance=lowest, max_distance=highest)
