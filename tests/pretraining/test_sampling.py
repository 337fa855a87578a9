"""Sampling of tracks: each once an epoch, groups together, shares exact, and a function of position and seed alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from musictf.datasets.base import Track
from musictf.errors import InputError
from musictf.pretraining.sampling import track_sampler


def tracks_of(*groups, field=None):
    """Tracks of groups given as letters, in their order."""
    return [
        Track(
            track_id=f"t{index}",
            audio=Path(f"t{index}.wav"),
            group="" if field else name,
            source=name,
            labels={field: name} if field else {},
        )
        for index, name in enumerate("".join(groups))
    ]


def drawn(sampler, num_positions):
    return [sampler(position) for position in range(num_positions)]


def test_every_track_comes_once_before_any_comes_twice():
    sampler = track_sampler(tracks_of("abcdefg"), seed=3, tracks_per_batch=4)
    passes = np.array(drawn(sampler, 21)).reshape(3, 7)
    assert all(sorted(one) == list(range(7)) for one in passes.tolist())
    assert len({tuple(one) for one in passes.tolist()}) == 3  # in another order each time


@pytest.mark.parametrize("settings", [{}, {"batch_by": "group"}, {"weights": [1, 2]}])
def test_a_position_gives_the_same_track_in_any_order_of_calls(settings):
    tracks = tracks_of("aabab" * 6)
    straight = drawn(track_sampler(tracks, seed=5, tracks_per_batch=4, **settings), 2500)
    again = track_sampler(tracks, seed=5, tracks_per_batch=4, **settings)
    for position in (2400, 3, 1999, 0, 999, 1000):
        assert again(position) == straight[position]
    assert drawn(track_sampler(tracks, seed=6, tracks_per_batch=4, **settings), 50) != straight[:50]


@pytest.mark.parametrize("field", ["group", "album"])
def test_tracks_of_one_group_come_together(field):
    tracks = tracks_of("abc" * 16, field=None if field == "group" else field)
    sampler = track_sampler(tracks, seed=0, tracks_per_batch=8, batch_by=field)
    batches = np.array(drawn(sampler, 48)).reshape(6, 8)
    assert sorted(batches.flatten().tolist()) == list(range(48))
    assert all(len({index % 3 for index in batch}) == 1 for batch in batches.tolist())
    plain = np.array(drawn(track_sampler(tracks, seed=0, tracks_per_batch=8), 48)).reshape(6, 8)
    assert not any(len({index % 3 for index in batch}) == 1 for batch in plain.tolist())


def test_groups_that_fill_no_batch_do_not_push_the_others_out_of_step():
    sampler = track_sampler(tracks_of("a" * 21 + "b" * 19 + "c" * 23), seed=0, tracks_per_batch=8, batch_by="group")
    whole = [len({tracks_of("a" * 21 + "b" * 19 + "c" * 23)[index].group for index in batch}) == 1
             for batch in np.array(drawn(sampler, 5600)).reshape(-1, 8).tolist()]  # fmt: skip
    assert np.mean(whole) > 0.8  # 2 + 2 + 2 whole batches of an epoch of 7


def test_tracks_that_an_epoch_skips_are_drawn_in_another():
    tracks = tracks_of("a" * 21 + "b" * 19 + "c" * 23)
    sampler = track_sampler(tracks, seed=0, tracks_per_batch=8, batch_by="group")
    assert set(drawn(sampler, 7 * 8 * 20)) == set(range(63))


def test_groups_of_one_track_each_are_refused():
    with pytest.raises(InputError, match="every track has a value of its own"):
        track_sampler(tracks_of("abc"), seed=0, tracks_per_batch=2, batch_by="group")


def test_a_corpus_that_would_never_be_drawn_is_refused():
    with pytest.raises(InputError, match="is never drawn"):
        track_sampler(tracks_of("ab"), seed=0, tracks_per_batch=2, weights=[1, 3000])


def test_groups_do_not_always_bring_the_same_tracks_together():
    sampler = track_sampler(tracks_of("ab" * 16), seed=0, tracks_per_batch=8, batch_by="group")
    batches = [frozenset(drawn(sampler, 320)[start : start + 8]) for start in range(0, 320, 8)]
    assert len(set(batches)) > 30


def test_a_field_that_no_track_has_is_refused():
    with pytest.raises(InputError, match=r"pairs\.batch_by=albun: no track has that field; there are album, group"):
        track_sampler(tracks_of("aab", field="album"), seed=0, tracks_per_batch=2, batch_by="albun")


def test_shares_are_exact_over_every_thousand_positions():
    tracks = tracks_of("a" * 3 + "b" * 50 + "c" * 7)
    sampler = track_sampler(tracks, seed=1, tracks_per_batch=8, weights=[2, 1, 0.5])
    for start in (0, 1000, 5000):
        counts = Counter(tracks[sampler(position)].source for position in range(start, start + 1000))
        assert counts == {"a": 571, "b": 286, "c": 143}


def test_within_a_corpus_every_track_comes_once_before_any_comes_twice():
    tracks = tracks_of("a" * 3 + "b" * 50)
    sampler = track_sampler(tracks, seed=1, tracks_per_batch=8, weights=[1, 3])
    of_b = [index for index in drawn(sampler, 2000) if tracks[index].source == "b"]
    assert len(of_b) == 1500
    assert all(sorted(of_b[start : start + 50]) == list(range(3, 53)) for start in range(0, 1500, 50))


def test_corpora_are_mixed_within_a_batch():
    tracks = tracks_of("a" * 40 + "b" * 40)
    sampler = track_sampler(tracks, seed=1, tracks_per_batch=8, weights=[1, 1])
    batches = np.array(drawn(sampler, 800)).reshape(50, 16) < 40
    assert (batches.mean(axis=1) > 0.1).all()
    assert (batches.mean(axis=1) < 0.9).all()


@pytest.mark.parametrize("weights", [[1], [1, 1, 1]])
def test_there_are_as_many_weights_as_corpora(weights):
    with pytest.raises(InputError, match=rf"pairs\.weights has {len(weights)} values; .* are a, b"):
        track_sampler(tracks_of("ab"), seed=0, tracks_per_batch=2, weights=weights)
