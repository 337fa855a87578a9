"""The index files of published corpora: found by name, read as tables.

Conventions: columns are found by their name, never by their place; line numbers in messages count from 1; a file that
a copy lacks is named, with the command that lists everything it lacks.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from musictf.errors import InputError


def index_file(root: Path, dataset: str, *names: str) -> Path:
    """The first of some files that a copy has: distributions of one corpus differ in where they put their index.

    Raises:
        InputError: it has none of them.
    """
    for name in names:
        if (root / name).is_file():
            return root / name
    others = f" (nor {', '.join(names[1:])})" if len(names) > 1 else ""
    raise InputError(
        f"{root / names[0]} does not exist{others}; musictf data prepare {dataset} ROOT lists what a copy lacks"
    )


def audio_folder(root: Path, *names: str) -> Path:
    """The first of some folders that exists, else the first: its files are then reported as missing, one by one."""
    return next((root / name for name in names if (root / name).is_dir()), root / names[0])


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
