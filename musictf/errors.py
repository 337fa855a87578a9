"""Errors that end a command with one line instead of a traceback.

Everything a user can get wrong (a misspelt key, a missing file, a broken recording, a label that does not parse) is
raised as an ``InputError``: the command prints its one line and exits with status 2. A run that fails for another
reason that is understood raises ``FailedRun`` (status 1). Any other exception is a defect and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence


class InputError(ValueError):
    """Input that cannot be used; the message is one line: what is wrong, where, and what to do."""


class FailedRun(Exception):
    """A run or a sweep that could not be completed; the message is one line."""


class Interruption(KeyboardInterrupt):
    """A run that was stopped on request; the message says how to continue it.

    A ``KeyboardInterrupt``, so that the launcher of a sweep stops the sweep instead of counting a failed job.
    """


def check_choices(key: str, values: Sequence[str], known: Sequence[str]) -> None:
    """Check a list of names that a configuration key holds.

    Raises:
        InputError: a name is unknown, or given twice.
    """
    if unknown := set(values) - set(known):
        raise InputError(f"{key}: {', '.join(sorted(unknown))} unknown: any of {', '.join(known)}")
    if len(set(values)) < len(values):
        raise InputError(f"{key}={list(values)}: give each once")
