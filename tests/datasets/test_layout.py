"""Copies: what is there is found, what is not is named; the user's own audio goes by the name of its track."""

from __future__ import annotations

import pytest

from musictf.datasets.layout import Collection, audio_folder, audio_root, index_file
from musictf.errors import InputError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_audio_is_found_by_name_at_any_depth_and_in_any_container(tmp_path):
    files = Collection(touch(tmp_path, "a.wav", "x/y/b.b.FLAC", "x/c.mp3", "d.au", "e.txt"))
    found = [files.find(name) for name in ("a", "b.b", "c", "d")]
    assert found == [tmp_path / name for name in ("a.wav", "x/y/b.b.FLAC", "x/c.mp3", "d.au")]


def test_absent_audio_has_the_path_where_it_was_expected(tmp_path):
    files = Collection(touch(tmp_path, "e.txt"))
    assert files.find("e") == tmp_path / "e.wav"
    assert Collection(tmp_path / "nowhere").find("e") == tmp_path / "nowhere" / "e.wav"


def test_the_first_name_goes_before_the_others(tmp_path):
    files = Collection(touch(tmp_path, "long_a.wav", "a.wav", "b.wav"))
    assert files.find("long_a", "a").name == "long_a.wav"
    assert files.find("long_b", "b").name == "b.wav"


def test_two_files_of_one_name_are_refused_only_where_they_matter(tmp_path):
    files = Collection(touch(tmp_path, "a.wav", "x/a.mp3", "b.wav"))
    assert files.find("b").name == "b.wav"
    with pytest.raises(InputError, match="a.wav and .*a.mp3 are both named"):
        files.find("a")


def test_audio_root_must_exist_only_if_it_was_named(tmp_path):
    assert audio_root(None, tmp_path / "gone") == tmp_path / "gone"
    assert audio_root(str(tmp_path), tmp_path / "gone") == tmp_path
    with pytest.raises(InputError, match="dataset.audio_root: .*gone is not a folder"):
        audio_root(str(tmp_path / "gone"), tmp_path)


def test_the_first_file_that_is_there_is_the_index(tmp_path):
    (tmp_path / "b.csv").write_text("")
    assert index_file(tmp_path, "corpus", "a.csv", "b.csv") == tmp_path / "b.csv"
    (tmp_path / "a.csv").write_text("")
    assert index_file(tmp_path, "corpus", "a.csv", "b.csv") == tmp_path / "a.csv"


def test_a_missing_index_is_named_with_the_command_that_lists_all(tmp_path):
    with pytest.raises(InputError, match=r"a.csv does not exist \(nor b.csv\); musictf data prepare corpus ROOT lists"):
        index_file(tmp_path, "corpus", "a.csv", "b.csv")


def test_an_audio_folder_that_is_not_there_is_still_named(tmp_path):
    assert audio_folder(tmp_path, "mp3", "audio") == tmp_path / "mp3"
    (tmp_path / "audio").mkdir()
    assert audio_folder(tmp_path, "mp3", "audio") == tmp_path / "audio"
