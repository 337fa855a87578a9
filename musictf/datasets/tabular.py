"""Files of published corpora: tables with and without a header, and JSON.

Conventions: columns that have a name are found by it, never by their position; errors name ``path:line``, lines counted
from 1.
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
        return path.read_text(encoding="utf-8-sig")  # without a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def table_rows(path: Path, columns: Sequence[str], delimiter: str = ",") -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a table whose first line names its columns, each with its position (``path:line``).

    Args:
        path: The table.
        columns: Columns that it must have; rows contain all others too.
        delimiter: Separator of fields.

    Raises:
        InputError: it cannot be read, lacks a column, or a row ends before one.
    """
    # newline="": a quoted field may contain line breaks.
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter=delimiter)
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise InputError(f"{path}:1: has no column {missing[0]!r}; is this the file as distributed?")
    for row in reader:
        where = f"{path}:{reader.line_num}"
        # DictReader fills a row that is too short with None.
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
    """The object in a JSON file.

    Raises:
        InputError: the file cannot be read or does not contain an object.
    """
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object")
    return value
