import pytest

from musictf.datasets.index import audio_folder, index_file, table_rows
from musictf.errors import InputError


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


def test_columns_are_found_by_name_and_lines_counted_as_an_editor_does(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('﻿b,a,c\n1,2,3\n"4\n4",5,6\n7,8,9\n', encoding="utf-8")
    rows = list(table_rows(path, ["a", "b"]))
    assert [row["a"] for _, row in rows] == ["2", "5", "8"]
    assert rows[1][1]["b"] == "4\n4"
    assert rows[2][0] == f"{path}:5"


def test_a_separator_inside_a_field_is_no_new_line(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\nx\u2028y,z\n", encoding="utf-8")
    ((_, row),) = table_rows(tmp_path / "t.csv", ["a", "b"])
    assert row == {"a": "x\u2028y", "b": "z"}


@pytest.mark.parametrize(
    ("text", "reason"), [("", "t.csv:1: has no column 'a'"), ("a,c\n", "no column 'b'"), ("a,b\n1\n", "t.csv:2: ")]
)
def test_a_table_that_lacks_something_is_refused(tmp_path, text, reason):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=reason):
        list(table_rows(tmp_path / "t.csv", ["a", "b"]))


def test_a_table_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match="t.csv: cannot be read"):
        list(table_rows(tmp_path / "t.csv", ["a"]))
