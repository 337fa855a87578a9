"""Tables, columns and objects: mistakes are named by their line."""

from __future__ import annotations

import pytest

from musictf.datasets.tabular import columns, read_object, table_rows
from musictf.errors import InputError


def test_lines_are_numbered_as_in_an_editor(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes(b"a b\r\n\r\nc d e\r\n")
    assert list(columns(path, 2)) == [(f"{path}:1", ["a", "b"]), (f"{path}:3", ["c", "d"])]
    with pytest.raises(InputError, match="t.txt:1: expected 3 columns"):
        list(columns(path, 3))


def test_fields_may_hold_spaces_where_a_separator_is_given(tmp_path):
    (tmp_path / "t.txt").write_text("a b\t 1\n")
    assert [fields for _, fields in columns(tmp_path / "t.txt", 2, "\t")] == [["a b", "1"]]


@pytest.mark.parametrize(("text", "reason"), [("{\n]", r"j:2: not valid JSON"), ("[1]", "expected a JSON object")])
def test_json_that_is_no_object_is_named(tmp_path, text, reason):
    (tmp_path / "j").write_text(text)
    with pytest.raises(InputError, match=reason):
        read_object(tmp_path / "j")
    with pytest.raises(InputError, match="gone: cannot be read"):
        read_object(tmp_path / "gone")


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
