import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from musictf.corpora.magnatagatune import TOP_50, MagnaTagATune
from musictf.datasets.splits import groups_across_splits
from musictf.errors import InputError

FORMATS = Path(__file__).resolve().parents[3] / "shared" / "data" / "formats" / "magnatagatune"
CLIPS = {
    "2": ("f/ann-album-01-song-30-59.mp3", {"guitar", "vocals"}),
    "6": ("0/ann-album-01-song-59-88.mp3", {"rare"}),
    "7": ("c/ann-album-02-other_song-0-29.mp3", {"slow", "vocals"}),
    "9": ("b/bob-album-01-tune-0-29.mp3", {"vocals", "rare", "slow"}),
    "35644": ("6/norine_braun-now_and_zen-08-gently-117-146.mp3", {"slow"}),
}


def write(root, clips=CLIPS):
    columns = ["clip_id", "rare", *sorted(TOP_50), "mp3_path"]
    rows = [columns]
    for clip_id, (path, tags) in clips.items():
        rows.append([clip_id, *("1" if tag in tags else "0" for tag in columns[1:-1]), path])
    lines = ("\t".join(f'"{field}"' for field in row) for row in rows)
    (root / "annotations_final.csv").write_text("\n".join(lines) + "\n")
    return root


def lists(folder, variant, train, valid=(), test=()):
    """Published lists in their own formats, of clip ids."""
    folder.mkdir()
    for ids, short, long in zip((train, valid, test), ("train", "val", "test"), ("train", "valid", "test")):
        paths = [CLIPS[clip_id][0] for clip_id in ids]
        if variant == "pons2019":
            (folder / f"{short}_gt_mtt.tsv").write_text("".join(f"{clip_id}\t[0.0, 1.0]\n" for clip_id in ids))
        elif variant == "won2020":
            np.save(folder / f"{long}.npy", np.array([f"{n}\t{path}" for n, path in enumerate(paths)], dtype="U99"))
        else:
            entries = [path.replace(".mp3", ".npy") for path in paths]
            (folder / f"{long}_list_pub.cP").write_bytes(pickle.dumps(entries, protocol=0))
    return str(folder)


def test_clips_are_split_by_folder_and_keep_their_tags_in_order(tmp_path):
    corpus = MagnaTagATune(root=str(write(tmp_path)))
    tracks = {track.track_id: track for track in corpus.read_tracks()}
    assert {name: track.split for name, track in tracks.items()} == {
        "2": "test", "6": "train", "7": "valid", "9": "train", "35644": "train"
    }  # fmt: skip
    assert tracks["9"].labels["tags"] == ["slow", "vocals"]  # by frequency, the published order
    assert tracks["2"].audio == tmp_path / "f/ann-album-01-song-30-59.mp3"
    assert corpus.label == "mtt:folders"


def test_a_clip_without_a_top_tag_is_kept_by_the_folder_rule(tmp_path):
    (clip,) = [track for track in MagnaTagATune(root=str(write(tmp_path))).read_tracks() if track.track_id == "6"]
    assert clip.annotation("tags") == []


def test_source_tracks_and_artists_on_two_sides_can_be_counted(tmp_path):
    tracks = MagnaTagATune(root=str(write(tmp_path))).all_tracks()
    assert groups_across_splits(tracks) == {"ann-album-01-song": ("train", "test")}
    assert groups_across_splits(tracks, of="artist") == {"ann": ("train", "valid", "test")}


def test_the_three_broken_clips_are_listed_and_left_out(tmp_path):
    corpus = MagnaTagATune(root=str(write(tmp_path)))
    assert "35644" in {track.track_id for track in corpus.read_tracks()}
    assert "35644" not in {track.track_id for track in corpus.all_tracks()}
    assert set(corpus.known_bad) == {"35644", "55753", "57881"}


def test_the_published_tags_are_fifty_and_need_not_be_the_most_frequent_of_a_cut_copy(tmp_path):
    assert len(set(TOP_50)) == 50
    corpus = MagnaTagATune(root=str(write(tmp_path)))
    assert not any("rare" in track.labels["tags"] for track in corpus.read_tracks())


def test_another_number_of_tags_is_by_frequency_with_ties_in_alphabetical_order(tmp_path):
    # slow 3, vocals 3, rare 2, guitar 1
    corpus = MagnaTagATune(root=str(write(tmp_path)), top_tags=3)
    tags = {track.track_id: track.labels["tags"] for track in corpus.read_tracks()}
    assert tags["9"] == ["slow", "vocals", "rare"]
    assert tags["2"] == ["vocals"]
    assert corpus.label == "mtt:folders-top3"


@pytest.mark.parametrize("variant", ["pons2019", "won2020", "lee2017"])
def test_published_lists_decide_who_is_in_and_where(tmp_path, variant):
    folder = lists(tmp_path / "lists", variant, train=["2", "9"], valid=["6"], test=["7"])
    corpus = MagnaTagATune(root=str(write(tmp_path)), variant=variant, lists=folder)
    splits = {track.track_id: track.split for track in corpus.read_tracks()}
    assert splits == {"2": "train", "9": "train", "6": "valid", "7": "test"}
    assert corpus.label == f"mtt:{variant}"
    tags = {track.track_id: track.labels["tags"] for track in corpus.read_tracks()}
    assert tags["2"] == ["guitar", "vocals"]  # from annotations_final.csv, not by place in the list


@pytest.mark.parametrize(
    ("variant", "source"),
    [
        ("pons2019", "train_gt_mtt.tsv.*musicnn-training"),
        ("won2020", "train.npy, valid.npy, test.npy.*sota-music-tagging-models"),
        ("lee2017", "train_list_pub.cP.*music_dataset_split"),
    ],
)
def test_lists_that_are_not_there_are_named_with_their_source(tmp_path, variant, source):
    with pytest.raises(InputError, match=f"dataset.lists=FOLDER with .*{source}"):
        MagnaTagATune(root=str(write(tmp_path)), variant=variant).read_tracks()
    with pytest.raises(InputError, match="does not hold all of"):
        MagnaTagATune(root=str(tmp_path), variant=variant, lists=str(tmp_path)).read_tracks()


@pytest.mark.parametrize("variant", ["pons2019", "won2020", "lee2017"])
def test_a_clip_in_two_lists_is_refused(tmp_path, variant):
    folder = lists(tmp_path / "lists", variant, train=["2", "9"], test=["9"])
    with pytest.raises(InputError, match="test.*is also in train"):
        MagnaTagATune(root=str(write(tmp_path)), variant=variant, lists=folder).read_tracks()


def test_a_listed_clip_that_has_no_annotation_is_refused(tmp_path):
    folder = lists(tmp_path / "lists", "won2020", train=["2"])
    write(tmp_path, {"9": CLIPS["9"]})
    with pytest.raises(InputError, match="train.npy: clip 'f/ann-album-01-song-30-59' is not in annotations_final"):
        MagnaTagATune(root=str(tmp_path), variant="won2020", lists=folder).read_tracks()


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm-done",)


@pytest.mark.parametrize("content", [pickle.dumps(Harmful()), pickle.dumps({"a": 1}), pickle.dumps([1]), b"nonsense"])
def test_a_pickle_that_is_no_list_of_texts_is_refused_and_runs_nothing(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    folder = Path(lists(tmp_path / "lists", "lee2017", train=["2"]))
    (folder / "valid_list_pub.cP").write_bytes(content)
    with pytest.raises(InputError, match="valid_list_pub.cP: not a pickled list of texts"):
        MagnaTagATune(root=str(write(tmp_path)), variant="lee2017", lists=str(folder)).read_tracks()
    assert not (tmp_path / "harm-done").exists()


def test_an_array_of_objects_is_refused(tmp_path):
    folder = Path(lists(tmp_path / "lists", "won2020", train=["2"]))
    np.save(folder / "valid.npy", np.array([Harmful()], dtype=object))
    with pytest.raises(InputError, match="valid.npy: not an array of texts"):
        MagnaTagATune(root=str(write(tmp_path)), variant="won2020", lists=str(folder)).read_tracks()


@pytest.mark.parametrize(
    ("key", "reason"),
    [({"variant": "mine"}, "one of folders, pons2019, won2020, lee2017"), ({"top_tags": 0}, "least 1")],
)
def test_a_wrong_key_is_refused(key, reason):
    with pytest.raises(InputError, match=reason):
        MagnaTagATune(root="/", **key)


@pytest.mark.parametrize(
    ("clips", "reason"),
    [
        ({"2": ("g/a-0-29.mp3", set())}, "clip 2 is in folder 'g'"),
        ({"x": ("a/a-0-29.mp3", set())}, "csv:2: expected a clip_id"),
        ({"2": ("", set())}, "csv:2: expected a clip_id"),
    ],
)
def test_a_row_that_is_none_is_refused(tmp_path, clips, reason):
    with pytest.raises(InputError, match=reason):
        MagnaTagATune(root=str(write(tmp_path, clips))).read_tracks()


@pytest.mark.skipif(not FORMATS.is_dir(), reason="no cut-down copy of MagnaTagATune beside the repository")
def test_the_real_layout_is_read():
    corpus = MagnaTagATune(root=str(FORMATS))
    tracks = corpus.read_tracks()
    assert len(tracks) == 33
    assert [len(corpus.tracks(split)) for split in ("train", "valid", "test")] == [24, 2, 7]
    first = next(track for track in tracks if track.track_id == "2")
    assert first.audio.is_file()
    assert first.labels["artist"] == "american_bach_soloists"
    assert first.group == "american_bach_soloists-j_s__bach_solo_cantatas-01-bwv54__i_aria"
    assert sum(track.audio.is_file() for track in tracks) < len(tracks)  # what is missing is listed all the same
