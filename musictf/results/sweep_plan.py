"""Cells of a sweep: which jobs it planned, and which of them are missing, failed, still running or finished.

A sweep writes ``sweep.json`` into its folder before the first job starts. Every job has a folder in there, named by its
number, whose ``status.json`` holds its state. A cell is one job: backbone x task x dataset x seed. Paths in
``output_dir`` and in overrides are relative to the folder in which the sweep was started.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from musictf.errors import InputError
from musictf.files import write_atomically
from musictf.run_folder import read_status

PLAN = "sweep.json"
PLAN_SCHEMA = 1
FINISHED, RUNNING, FAILED, MISSING = "finished", "running", "failed", "missing"
COLUMNS = ("job", "backbone", "task", "dataset", "seed", "other", "state", "remark")


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Attributes:
        number: Its place in the sweep, and the name of its folder.
        overrides: ``key=value`` each, as on the command line; ``output_dir`` is not among them.
        output_dir: Its run folder.
        cell: Which cell of the table it fills: ``backbone``, ``task``, ``dataset``, ``seed``, and ``other`` overrides
            in which it differs from jobs of the same cell.
    """

    number: int
    overrides: tuple[str, ...]
    output_dir: str
    cell: dict[str, str]

    def arguments(self) -> list[str]:
        """Arguments that run this job alone: the overrides and the output folder."""
        return [*self.overrides, f"output_dir={quoted(self.output_dir)}"]


@dataclass(frozen=True)
class SweepCell:
    """A planned job and its state; ``remark`` is the error of a failed job, or since when a job runs."""

    job: Job
    verb: str
    folder: Path
    started_in: str
    state: str
    remark: str

    @property
    def command(self) -> str:
        """The shell command that runs this job."""
        return shlex.join(["musictf", self.verb, *self.job.arguments()])

    def texts(self) -> list[str]:
        """Its values of `COLUMNS`."""
        return [str(self.folder), *(self.job.cell.get(name, "") for name in COLUMNS[1:6]), self.state, self.remark]


def quoted(value: str) -> str:
    """A path for Hydra's override grammar: in quotes unless it is a plain relative or absolute path.

    Example:
        >>> quoted("runs/a-1"), quoted("my runs/a=1"), quoted("007")
        ('runs/a-1', "'my runs/a=1'", "'007'")
    """
    if re.fullmatch(r"[A-Za-z0-9_.-]*(/[A-Za-z0-9_.-]+)+", value):
        return value
    # Backslashes count double before a quote, the closing one too, and only there.
    text = re.sub(r"(\\+)(?='|\Z)", r"\1\1", value)
    return "'" + text.replace("'", "\\'") + "'"


def write_plan(folder: Path, verb: str, jobs: Sequence[Job]) -> None:
    """Write ``sweep.json`` of a sweep that starts now, from this folder."""
    plan = {
        "schema": PLAN_SCHEMA,
        "verb": verb,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "started_in": str(Path.cwd()),
        "jobs": [asdict(job) for job in jobs],
    }
    write_atomically(folder / PLAN, json.dumps(plan, indent=1, ensure_ascii=False) + "\n")


def read_plan(path: Path) -> dict[str, Any]:
    """A ``sweep.json`` with its jobs as `Job`.

    Raises:
        InputError: it is not one.
    """
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        jobs = [Job(**{**job, "overrides": tuple(job["overrides"])}) for job in plan["jobs"]]
        if plan["schema"] != PLAN_SCHEMA:
            raise InputError(f"{path}: schema {plan['schema']!r}, this version reads {PLAN_SCHEMA}")
        return {"verb": str(plan["verb"]), "started_in": str(plan["started_in"]), "jobs": jobs}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the plan of a sweep ({error!r}); start the sweep again") from None


def read_cells(directories: Iterable[str | Path]) -> list[SweepCell]:
    """The cells of every ``sweep.json`` below the directories, each file once.

    Raises:
        InputError: a directory is missing, or a plan does not parse.
    """
    plans: dict[Path, Path] = {}
    for directory in map(Path, directories):
        if not directory.is_dir():
            raise InputError(f"{directory}: no such folder; give run folders, or a folder that holds some")
        plans |= {path.resolve(): path for path in sorted(directory.rglob(PLAN))}
    cells = []
    for path in plans.values():
        plan = read_plan(path)
        for job in plan["jobs"]:
            # By name below the plan: a sweep that was moved or copied is still whole.
            folder = path.parent / Path(job.output_dir).name
            cells.append(SweepCell(job, plan["verb"], folder, plan["started_in"], *state_of(folder)))
    return cells


def state_of(folder: Path) -> tuple[str, str]:
    """State of a run folder and a remark: the error of a failed run, or since when a run is running."""
    try:
        status = read_status(folder)
    except json.JSONDecodeError:
        return FAILED, f"{folder / 'status.json'} does not parse"
    if not status:
        return MISSING, ""
    state = str(status["status"])
    if state == RUNNING:
        return state, f"since {status['time']}, unless it was killed"
    return state, " ".join((status.get("error") or "").split())


def counted(cells: Sequence[SweepCell]) -> str:
    """A sentence with the number of cells in each state."""
    states = [cell.state for cell in cells]
    others = [f"{states.count(state)} {state}" for state in (FAILED, RUNNING, MISSING) if state in states]
    return ", ".join([f"{states.count(FINISHED)} of {len(cells)} jobs finished", *others])


def missing_commands(cells: Sequence[SweepCell]) -> str:
    """Commands of the jobs that are missing or failed, one a line; jobs that run, or were killed, are comments."""
    lines: list[str] = []
    # Paths in overrides are relative: a command only works in the folder in which its sweep was started.
    place = str(Path.cwd())
    for cell in cells:
        if cell.state == FINISHED:
            continue
        if cell.started_in != place:
            place = cell.started_in
            lines.append(f"cd {shlex.quote(place)}")
        lines.append(f"# running {cell.remark}: {cell.command}" if cell.state == RUNNING else cell.command)
    return "".join(f"{line}\n" for line in lines)
