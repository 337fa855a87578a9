"""What files of published corpora say: tables with and without a header, and JSON.

Conventions: columns that have a name are found by it, never by their place; mistakes are told by ``path:line``, lines
counted from 1.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from musictf.annotations import numbered_lines
from musictf.errors import InputError


def read_text(path: Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def table_rows(path: Path, columns: Sequence[str], delimiter: str = ",") -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a table whose first line names its columns, each with where it stands (``path:line``).

    Args:
        path: The table.
        columns: Columns it must have; the others come along.
        delimiter: Between two fields.

    Raises:
        InputError: it cannot be read, lacks a column, or a row ends before one.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter=delimiter)
    lacking = [column for column in columns if column not in (reader.fieldnames or ())]
    if lacking:
        raise InputError(f"{path}:1: has no column {lacking[0]!r}; is this the file as distributed?")
    for row in reader:
        where = f"{path}:{reader.line_num}"
        if any(row[column] is None for column in columns):
            raise InputError(f"{where}: expected {len(reader.fieldnames or ())} fields, found fewer")
        yield where, row


def columns(path: Path, count: int, separator: str | None = None) -> Iterator[tuple[str, list[str]]]:
    """Lines that are neither empty nor comments, as ``path:line`` and their first ``count`` fields.

    Raises:
        InputError: the file cannot be read, or a line has fewer fields.
    """
    for number, line in numbered_lines(path):
        fields = [field.strip() for field in line.split(separator)]
        if len(fields) < count:
            raise InputError(f"{path}:{number}: expected {count} columns, found {line!r}")
        yield f"{path}:{number}", fields[:count]


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        InputError: it cannot be read or holds something else.
    """
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object")
    return value
