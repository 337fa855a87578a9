"""Which rows belong to one system, and its name in tables."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from musictf.results.names import DECODER_FREE, ORACLE, PRETRAINED, RANDOM, UNPROBED
from musictf.results.rows import Row

System = tuple[str, str, str]  # kind, preset, and the rest that distinguishes it from others

_WITHOUT_EFFECT = frozenset({"batch_size", "memory_gib"})  # settings of features that change no embedding


def system_of(row: Row) -> System:
    """The system that a row is about: kind, preset, and the rest that distinguishes it from others.

    Each pretrained file is a system. Random weights of one shape are one system, whatever their seed. A backbone that
    was probed with other settings is another system.
    """
    kind, preset = row["backbone"]["kind"], row["backbone"].get("preset") or ""
    # The preset of other kinds is that of the backbone they were probed with, and does not change them.
    settings = json.dumps(settings_of(row), sort_keys=True)
    return kind, preset if kind in {PRETRAINED, RANDOM} else "", f"{_digest(row)} {settings}"


def settings_of(row: Row) -> dict[str, Any]:
    """Settings of task, features and probe; those that a row does not record are left out."""
    task = {f"task.{name}": value for name, value in (row.get("task_settings") or {}).items()}
    if row["backbone"]["kind"] in UNPROBED:
        return task
    features = {name: value for name, value in (row.get("features") or {}).items() if name not in _WITHOUT_EFFECT}
    return task | features | (row.get("probe") or {})


def differing_settings(rows: Iterable[Row]) -> list[str] | None:
    """Settings in which probed systems differ; None where some rows do not record theirs and others do."""
    settings = [settings_of(row) for row in rows if row["backbone"]["kind"] not in UNPROBED]  # older rows have none
    recorded = [values for values in settings if values]
    if recorded and len(recorded) < len(settings):
        return None
    names = dict.fromkeys(name for values in recorded for name in values)
    return [name for name in names if len({json.dumps(values.get(name)) for values in recorded}) > 1]


def system_names(rows: Iterable[Row]) -> dict[System, str]:
    """A name for each system, with a part of the digest or the settings where two would have the same name."""
    examples = {system_of(row): row for row in rows}  # one row of each system; all of its rows share the settings
    digests: dict[tuple[str, str], set[str]] = defaultdict(set)
    for (kind, preset, _), row in examples.items():
        digests[kind, preset].add(_digest(row))
    differing = differing_settings(examples.values())
    names = {}
    for (kind, preset, rest), row in examples.items():
        digest = _digest(row)[:8] if len(digests[kind, preset]) > 1 else ""
        settings = settings_of(row)
        if kind in UNPROBED:
            label = ""
        elif differing is None:
            label = "" if settings else "(settings not recorded)"
        else:
            listed = ", ".join(f"{name}={json.dumps(settings.get(name))}" for name in differing)
            label = f"({listed})" if listed else ""
        words = [kind, preset, digest, label, "(ceiling)" if kind == ORACLE else ""]
        names[kind, preset, rest] = " ".join(word for word in words if word)
    return names


def _digest(row: Row) -> str:
    """Digest of what was probed: weights, or the shape of weights that are drawn anew for each seed."""
    backbone = row["backbone"]
    if backbone["kind"] in DECODER_FREE:
        return ""
    if backbone["kind"] == RANDOM:
        return str(backbone.get("shape") or backbone.get("parameters"))
    return str(backbone.get("digest") or "")
