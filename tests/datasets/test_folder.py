"""A plain folder: every audio file below it is a track, and no more than those."""

from __future__ import annotations

import pytest

from musictf.datasets.folder import Folder
from musictf.errors import InputError


@pytest.fixture
def root(tmp_path):
    names = ["b.wav", "a.FLAC", "sub/c.ogg", "sub/demo/d.mp3", "sub/e.aiff", "cover.jpg", "notes.txt", "sub/f.aif"]
    for name in names:
        path = tmp_path / "music" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "music" / "folder.wav").mkdir()
    return tmp_path / "music"


def names(**settings):
    return [track.track_id for track in Folder(**settings).all_tracks()]


def test_audio_files_are_tracks_named_by_their_path_in_a_fixed_order(root):
    found = names(root=str(root))
    below = ["sub/c.ogg", "sub/demo/d.mp3", "sub/e.aiff", "sub/f.aif"]
    assert found == names(root=str(root)) == [f"music/{name}" for name in ("a.FLAC", "b.wav", *below)]
    assert all(track.audio.is_absolute() for track in Folder(root=str(root)).all_tracks())
    assert Folder(root=str(root)).label == "music"


def test_what_is_excluded_stays_out(root):
    assert names(root=str(root), exclude=["*/demo/*", "*.aif*"]) == ["music/a.FLAC", "music/b.wav", "music/sub/c.ogg"]


def test_about_one_track_in_ten_is_held_out_and_none_is_for_testing(root):
    for number in range(300):
        (root / f"{number}.wav").touch()
    splits = [track.split for track in Folder(root=str(root)).all_tracks()]
    assert set(splits) == {"train", "valid"}
    assert 0.05 < splits.count("valid") / len(splits) < 0.16


def test_a_track_keeps_its_split_when_others_come(root):
    before = {track.track_id: track.split for track in Folder(root=str(root)).all_tracks()}
    for number in range(20):
        (root / f"{number}.wav").touch()
    after = {track.track_id: track.split for track in Folder(root=str(root)).all_tracks()}
    assert before.items() <= after.items()


def test_the_only_track_is_for_training(tmp_path):
    for number in range(30):  # among thirty names some fall into the held-out tenth
        folder = tmp_path / f"{number}"
        folder.mkdir()
        (folder / "a.wav").touch()
        assert [track.split for track in Folder(root=str(folder)).all_tracks()] == ["train"]


def test_several_roots_are_joined(root, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "z.wav").touch()
    corpus = Folder(root=[str(root), str(tmp_path / "more")])
    assert len(corpus.all_tracks()) == 7
    assert corpus.label == "music+more"


def test_folders_of_one_name_must_not_hold_files_of_one_name(root, tmp_path):
    other = tmp_path / "other" / "music"
    other.mkdir(parents=True)
    (other / "z.wav").touch()
    assert len(names(root=[str(root), str(other)])) == 7
    (other / "b.wav").touch()
    with pytest.raises(InputError, match="rename one"):
        names(root=[str(root), str(other)])


def test_a_folder_without_audio_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no audio \(.*\.wav"):
        names(root=str(tmp_path))
    with pytest.raises(InputError, match=r"dataset.root=FOLDER"):
        names()


def test_a_folder_with_a_manifest_keeps_its_splits(tmp_path):
    (tmp_path / "manifest.jsonl").write_text("{}")
    with pytest.raises(InputError, match="use dataset=manifest"):
        Folder(root=str(tmp_path)).all_tracks()
