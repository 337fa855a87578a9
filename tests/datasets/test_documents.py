"""Columns and objects: mistakes are named by their line."""

from __future__ import annotations

import pytest

from musictf.datasets.documents import columns, read_object
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
