"""Text and JSON files of corpora: columns without a header, and objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from musictf.annotations import numbered_lines
from musictf.datasets.index import read_text
from musictf.errors import InputError


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
