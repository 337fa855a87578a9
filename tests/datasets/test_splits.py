from pathlib import Path

from musictf.datasets.base import Track
from musictf.datasets.splits import connected_groups, groups_across_splits


def track(group, split, **labels):
    return Track(track_id=f"{group}{split}", audio=Path("a.wav"), split=split, group=group, labels=labels)


def test_a_group_in_two_splits_straddles_and_is_told_with_them():
    tracks = [track("x", "test"), track("x", "train"), track("y", "valid"), track("z", "train"), track("z", "train")]
    assert groups_across_splits(tracks) == {"x": ("train", "test")}
    assert groups_across_splits(tracks[2:]) == {}


def test_artists_are_counted_apart_from_source_tracks():
    tracks = [track("x", "train", artist="Ann"), track("y", "valid", artist="Ann"), track("z", "test", artist="Bob")]
    assert groups_across_splits(tracks) == {}
    assert groups_across_splits(tracks, of="artist") == {"Ann": ("train", "valid")}


def test_tracks_without_the_label_say_nothing():
    assert groups_across_splits([track("x", "train"), track("x", "test")], of="artist") == {}


def test_collaborators_are_one_group_however_long_the_chain():
    assert connected_groups([["d"], ["c", "d"], ["a", "b"], ["e"], ["b", "c"]]) == ["a", "a", "a", "e", "a"]


def test_groups_do_not_depend_on_the_order_of_entries():
    entries = [["d"], ["c", "d"], ["a", "b"], ["e"], ["b", "c"], ["f", "e"]]
    assert connected_groups(entries[::-1])[::-1] == connected_groups(entries)
