"""Tables of what rows hold beyond scores: by class or quality, confusions, counts.

A task writes plain numbers, lists and dicts into ``details`` of a selected row. The shape of a value decides how it is
shown, so a new task needs nothing here:

* a number: a row of one table of counts; a list of texts: a row of one table of names;
* ``{name: number}``: a table with a row a name and a column a system (errors of keys, octaves of tempi);
* ``{class: {support, score, ...}}``: one such table a score; `SUPPORT` names the counts that a class may have;
* ``{reference: {estimate: [12 numbers] or number}}``: a confusion by semitones from the right to the estimated root;
* ``{labels: [...], counts: [[...]]}``: a confusion of classes.

Shapes:  C classes
Conventions: a system is represented by the readout that validation prefers; several seeds by their mean. Confusions are
those of the pretrained systems, or of the first system where there is no pretrained one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from musictf.reporting.comparison_blocks import Block, summary_table
from musictf.reporting.table import ABSENT, Table
from musictf.reporting.table_lines import Line, by_system, comparable, decimal, representative
from musictf.results.names import DECODER_FREE, PRETRAINED
from musictf.results.rows import Row

SUPPORT = ("seconds", "positives", "tracks")
SEMITONES = 12
_MOST_LABELS = 12  # a larger confusion is shown by its most frequent errors
_MOST_ERRORS = 20


def details_tables(rows: Sequence[Row]) -> list[Table]:
    """Tables of the details of the selected rows, task by task and decoder by decoder.

    Args:
        rows: Rows as `musictf.results.read_runs.read_runs` returns them.
    """
    blocks = summary_table(rows)
    return [table for block in blocks for decoder in decoders_of(block) for table in _tables(block, decoder)]


def decoders_of(block: Block) -> list[str]:
    """The decoders of the probed systems; of all systems where none was probed."""
    probed = [line.decoder for line in block.lines if line.kind not in DECODER_FREE]
    return list(dict.fromkeys(probed or [line.decoder for line in block.lines]))


def detailed_lines(block: Block, decoder: str) -> list[tuple[Line, dict[str, Any]]]:
    """The line that represents each system under a decoder, with its details: the mean over its seeds."""
    groups = by_system(line for line in block.lines if comparable(line, decoder))
    lines = [representative(group) for group in groups.values()]
    return [(line, mean_details([row.get("details") or {} for row in line.rows])) for line in lines]


def mean_details(values: Sequence[Any]) -> Any:
    """Mean of nested dicts, lists and numbers of one shape; a value that is None or missing is left out of its mean."""
    given = [value for value in values if value is not None]
    if not given:
        return None
    first = given[0]
    if isinstance(first, dict):
        names = dict.fromkeys(name for value in given for name in value)
        return {name: mean_details([value[name] for value in given if name in value]) for name in names}
    if isinstance(first, list):
        return [mean_details(column) for column in zip(*given, strict=False)]
    if not _is_number(first) or all(value == first for value in given):
        return first
    return float(np.mean(given))


def shape_of(value: Any) -> str:
    """``number``, ``names``, ``column``, ``classes``, ``rotation``, ``matrix``, or ``nothing`` that can be shown."""
    if value is None or _is_number(value):
        return "number"
    if isinstance(value, list):
        return "names" if value and all(isinstance(name, str) for name in value) else "nothing"
    if not isinstance(value, dict) or not value:
        return "nothing"
    if {"labels", "counts"} <= value.keys():
        return "matrix"
    if all(isinstance(inner, dict) for inner in value.values()):
        cells = [cell for inner in value.values() for cell in inner.values()]
        return "rotation" if any(isinstance(cell, list) for cell in cells) else "classes"
    return "column" if all(cell is None or _is_number(cell) for cell in value.values()) else "nothing"


def shares(confusion: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], list[float]]:
    """Share of each reference that is estimated as each class, by distance of the roots.

    Args:
        confusion: reference -> estimate -> 12 numbers, one a semitone, or one number where either has no root.

    Returns:
        (reference, estimate) -> 12 shares, or one share; references that never occur are left out.
    """
    result: dict[tuple[str, str], list[float]] = {}
    for reference, row in confusion.items():
        cells = {estimate: cell if isinstance(cell, list) else [cell] for estimate, cell in row.items()}
        total = sum(map(sum, cells.values()))
        if total > 0:
            result |= {(reference, estimate): [value / total for value in cell] for estimate, cell in cells.items()}
    return result


def _is_number(value: Any) -> bool:
    # A bool is a number to Python, but no count.
    return isinstance(value, Real) and not isinstance(value, bool)


def _tables(block: Block, decoder: str) -> Iterator[Table]:
    """Tables of one task under one decoder."""
    where = f"{block.task} on {block.dataset}, decoder {decoder}"
    detailed = [(line, details) for line, details in detailed_lines(block, decoder) if details]
    lines = [line for line, _ in detailed]
    keys = dict.fromkeys(key for _, details in detailed for key in details)
    columns = {key: [details.get(key) for _, details in detailed] for key in keys}
    by_shape: dict[str, dict[str, list[Any]]] = defaultdict(dict)
    for key, values in columns.items():
        shape = next((shape_of(value) for value in values if value is not None), "number")
        by_shape[shape][key] = values
        if shape in _OF_ALL:
            yield from _OF_ALL[shape](where, key, [line.system for line in lines], [value or {} for value in values])
        elif shape in _OF_ONE:
            confusions = [(line, value) for line, value in zip(lines, values, strict=True) if value]
            pretrained = [pair for pair in confusions if pair[0].kind == PRETRAINED]
            for line, value in pretrained or confusions[:1]:
                yield _OF_ONE[shape](f"{where}, {line.system} ({line.readout})", value)
    if counts := by_shape["number"]:
        rows = tuple((key, *map(_text, values)) for key, values in counts.items())
        yield Table(f"{where}: counts", ("", *(line.system for line in lines)), rows)
    if names := tuple(_names(by_shape["names"], by_shape["classes"])):
        yield Table(f"{where}: names", ("", "names"), names)


def _names(
    lists: Mapping[str, Sequence[Sequence[str] | None]], tables: Mapping[str, Sequence[Mapping[str, Any] | None]]
) -> Iterator[tuple[str, str]]:
    """Lists of texts, without repetitions and without lists whose names are all rows of a table by class."""
    classes = {name for values in tables.values() for value in values for name in value or ()}
    for key, values in lists.items():
        for names in dict.fromkeys(tuple(value or ()) for value in values):
            if not set(names) <= classes:
                yield key, ", ".join(names)


def column_table(where: str, key: str, systems: Sequence[str], values: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """One table with a row a name and a column a system."""
    names = dict.fromkeys(name for value in values for name in value)
    rows = tuple((name, *(_text(value.get(name)) for value in values)) for name in names)
    yield Table(f"{where}: {key}", ("", *systems), rows)


def class_tables(
    where: str, key: str, systems: Sequence[str], values: Sequence[dict[str, dict[str, Any]]]
) -> Iterator[Table]:
    """One table a score, a row a class."""
    what = key.removeprefix("by_")
    classes = dict.fromkeys(name for value in values for name in value)
    columns = dict.fromkeys(column for value in values for inner in value.values() for column in inner)
    supports = [column for column in columns if column in SUPPORT]
    for score in (column for column in columns if column not in SUPPORT):
        rows = []
        for name in classes:
            cells = [value.get(name, {}) for value in values]
            support = [next((f"{cell[column]:.0f}" for cell in cells if column in cell), ABSENT) for column in supports]
            rows.append((name, *support, *(_text(cell.get(score)) for cell in cells)))
        yield Table(f"{where}: {score} by {what}", (what, *supports, *systems), tuple(rows))


def rotation_table(where: str, value: dict[str, dict[str, Any]]) -> Table:
    """A confusion by semitones from the right root to the estimated one, in percent of each reference."""
    rows = []
    for (reference, estimate), cells in shares(value).items():
        distances = [_percent(cell) for cell in cells] if len(cells) == SEMITONES else [ABSENT] * SEMITONES
        rows.append((f"{reference} → {estimate}", *distances, _percent(sum(cells))))
    columns = ("reference → estimate", *map(str, range(SEMITONES)), "in all")
    heading = f"{where}: % of each reference, by semitones from the right root up to the estimated one"
    return Table(heading, columns, tuple(rows))


def matrix_table(where: str, value: dict[str, Any]) -> Table:
    """A confusion of classes: whole where there are few, by its most frequent errors where there are many."""
    labels, counts = value["labels"], np.asarray(value["counts"], dtype=np.float64)  # (C, C)
    if len(labels) <= _MOST_LABELS:
        rows = tuple((name, *map(_count, row.tolist())) for name, row in zip(labels, counts, strict=True))
        heading = f"{where}: tracks of each reference (row) that are estimated as each class (column)"
        return Table(heading, ("reference", *labels), rows)
    wrong = counts * (1 - np.eye(len(labels)))  # (C, C), zero on the diagonal
    # Stable, so that errors of the same frequency keep the order of their labels.
    most = np.argsort(-wrong, axis=None, kind="stable")[: min(_MOST_ERRORS, np.count_nonzero(wrong))]
    pairs = [divmod(int(place), len(labels)) for place in most]
    rows = tuple(
        (f"{labels[i]} → {labels[j]}", _count(counts[i, j]), _percent(counts[i, j] / counts[i].sum())) for i, j in pairs
    )
    heading = f"{where}: the most frequent confusions"
    return Table(heading, ("reference → estimate", "tracks", "% of the reference"), rows)


_OF_ALL: dict[str, Callable[[str, str, Sequence[str], Sequence[Any]], Iterator[Table]]] = {
    "column": column_table,
    "classes": class_tables,
}
_OF_ONE: dict[str, Callable[[str, Any], Table]] = {"rotation": rotation_table, "matrix": matrix_table}


def _text(value: Any) -> str:
    """A score or a share with three decimals, a count without, a mean of counts above 1 with one."""
    if value is None:
        return ABSENT
    return decimal(value) if isinstance(value, float) and abs(value) <= 1 else _count(value)


def _count(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else f"{value:.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def tidy_details(tables: Sequence[Table]) -> Table:
    """All tables as one tidy table for CSV, a cell a row."""
    rows = [
        (table.title, row[0].text, column, cell.text)
        for table in tables
        for row in table.cells()
        for column, cell in zip(table.columns[1:], row[1:], strict=True)
    ]
    return Table("", ("table", "line", "column", "value"), tuple(rows), 4)
