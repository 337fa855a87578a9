"""The run folder: where a command writes, what state it is in, and where its numbers come from.

A folder holds ``config.yaml`` (every value, with the choices that led to it), ``status.json`` (``running``,
``finished`` or ``failed`` with the last error) and whatever the command makes. Running a command again on an
unfinished folder goes on; on a finished one it changes nothing unless told to overwrite.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import yaml

from musictf.distributed import rank
from musictf.errors import InputError
from musictf.files import write_atomically

_PACKAGES = ("torch", "torchaudio", "lightning", "torchmetrics", "librosa", "mir_eval", "numpy", "soundfile")


@dataclass(kw_only=True)
class WandbConfig:
    """Weights & Biases; nothing ever asks for a login.

    Attributes:
        mode: auto (online where a key is configured, else offline), online, offline or disabled.
        project: Project.
        group: Group of runs; null means none.
    """

    mode: str = "auto"
    project: str = "musictf"
    group: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in {"auto", "online", "offline", "disabled"}:
            raise InputError(f"wandb.mode={self.mode!r} is unknown: one of auto, online, offline, disabled")


class FinishedRun(Exception):
    """The folder holds a finished run and ``overwrite`` was not given: there is nothing to do."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder} is finished already; nothing was changed (overwrite=true starts afresh)")
        self.folder = folder


def default_folder(verb: str) -> Path:
    """``runs/<verb>/<time>``, the same on every rank of one run.

    Raises:
        InputError: the processes were started one by one from outside, so they cannot agree on a time.
    """
    # In a job that may be queued again: the same command of the same job comes back to the same folder.
    name = os.environ.get("SLURM_JOB_ID") if os.environ.get("SLURM_JOB_NAME") not in {"bash", "interactive"} else None
    if name is not None:
        name += f"-{hashlib.sha256(repr(sys.argv[1:]).encode()).hexdigest()[:6]}"
    if name is None and "TORCHELASTIC_RUN_ID" in os.environ:
        raise InputError(
            "torchrun starts processes that cannot agree on a folder by themselves: give output_dir=FOLDER"
        )
    if name is None and rank() > 0:
        name = os.environ.get("MUSICTF_RUN_NAME")  # left there by the process that launched this one
    if name is None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        taken = sorted(Path("runs", verb).glob(f"{stamp}*"))
        name = f"{stamp}-{len(taken) + 1}" if taken else stamp
        os.environ["MUSICTF_RUN_NAME"] = name
    return Path("runs") / verb / name


@contextmanager
def open_run(
    folder: Path,
    config: Mapping[str, Any],
    overwrite: bool = False,
    verb: str = "",
    may_change: Set[str] = frozenset(),
) -> Iterator[Path]:
    """A run folder whose status follows what happens inside the block.

    Args:
        folder: The folder; made if missing.
        config: Resolved configuration, written as ``config.yaml`` and compared with what an unfinished run used.
        overwrite: Start afresh, whatever the folder holds; not in a job that SLURM has queued again, which goes on.
        verb: What runs; a folder that another verb made is never overwritten.
        may_change: Keys that say how a run is done, not what it computes: they may differ when an unfinished run goes
            on. The dataclass of the run names them (``MAY_CHANGE``).

    Raises:
        FinishedRun: the folder holds a finished run.
        InputError: the folder holds something else, or an unfinished run of another configuration.
    """
    overwrite = overwrite and int(os.environ.get("SLURM_RESTART_COUNT", 0)) == 0
    if read_status(folder).get("status") == "finished" and not overwrite:  # said by every rank, or none waits
        _refuse_other_config(folder, config, "a finished run", may_change - {"max_steps"})
        raise FinishedRun(folder)
    lock = None
    if rank() == 0:
        try:
            lock = _lock(folder)
            _claim(folder, config, overwrite, verb, may_change)
        except InputError:
            _release(lock)
            raise
        except OSError as error:
            raise InputError(f"output_dir: {folder} cannot be written ({error.strerror})") from error
        write_atomically(folder / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
        _write_status(folder, "running", verb)
    state = "failed"
    try:
        yield folder
        state = "finished"
    finally:  # whatever ends the run, Ctrl-C as well, leaves its trace and passes on
        raised = None if state == "finished" else sys.exc_info()[1]
        if rank() == 0:
            _write_last_status(folder, state, verb, f"{type(raised).__name__}: {raised}" if raised else None)
        _release(lock)


def read_status(folder: Path) -> dict[str, Any]:
    """What ``status.json`` says, or nothing where there is none."""
    path = folder / "status.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def provenance() -> dict[str, Any]:
    """The state of the code and the versions it ran with."""
    return {"git": _git(), "versions": _versions()}


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "musictf": metadata.version("musictf")} | {
        name: metadata.version(name) for name in _PACKAGES
    }


def _git() -> dict[str, Any]:
    """Commit of the checkout this code runs from; ``None`` where it was installed as a wheel."""
    here = Path(__file__).resolve().parents[1]
    if not (here / ".git").exists() or shutil.which("git") is None:
        return {"commit": None, "dirty": None}

    def answer(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True).stdout.strip()

    return {"commit": answer("rev-parse", "HEAD") or None, "dirty": bool(answer("status", "--porcelain", "-uno"))}


def _lock(folder: Path) -> IO[str]:
    """Hold a run folder for this process; the lock goes with the process, however that ends.

    Raises:
        InputError: another process holds it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = open(folder.parent / f".{folder.name}.lock", "w")  # noqa: SIM115 (held until the run ends)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InputError(f"output_dir: another process is at work in {folder}; choose another folder") from None
    return file


def _release(lock: IO[str] | None) -> None:
    if lock is not None:
        Path(lock.name).unlink(missing_ok=True)
        lock.close()


def _claim(folder: Path, config: Mapping[str, Any], overwrite: bool, verb: str, may_change: Set[str]) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output_dir: {folder} is a file")
    if folder.is_dir() and not _is_blank(folder):
        status = read_status(folder)
        if not status:
            raise InputError(f"output_dir: {folder} is not empty and holds no run; choose another folder")
        if status.get("verb", verb) != verb:
            raise InputError(f"output_dir: {folder} holds a run of {status['verb']}; choose another folder")
        if overwrite:
            shutil.rmtree(folder)
        elif any((folder / name).exists() for name in ("checkpoints", "heads", "results.jsonl")):
            _refuse_other_config(folder, config, "an unfinished run", may_change)
    folder.mkdir(parents=True, exist_ok=True)


def _is_blank(folder: Path) -> bool:
    """Whether a folder holds nothing but what a run leaves that was killed before it could say its name."""
    names = {path.name for path in folder.iterdir()} - {"config.yaml"}
    return all(name.startswith(".") and name.endswith(".tmp") for name in names)


def _refuse_other_config(folder: Path, config: Mapping[str, Any], what: str, may_differ: Set[str]) -> None:
    path = folder / "config.yaml"
    before = yaml.safe_load(path.read_text()) if path.is_file() else {}
    changed = [key for key in before if key not in may_differ and before[key] != config.get(key)]
    if changed:
        raise InputError(
            f"{folder} holds {what} with other values of {', '.join(changed)}; "
            "give the same values, another output_dir=, or overwrite=true"
        )
    if before.get("max_steps") != config.get("max_steps"):
        print(
            f"{folder} was begun with max_steps={before.get('max_steps')}: its schedules go on as those of "
            f"max_steps={config.get('max_steps')}, with a step in between",
            file=sys.stderr,
        )


def _write_last_status(folder: Path, state: str, verb: str, error: str | None) -> None:
    """The status a run ends with; where even that finds no room, what ended the run is still what is told."""
    try:
        _write_status(folder, state, verb, error)
    except OSError as full:
        print(f"{folder / 'status.json'} cannot be written ({full.strerror})", file=sys.stderr)


def _write_status(folder: Path, state: str, verb: str, error: str | None = None) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    write_atomically(
        folder / "status.json", json.dumps({"status": state, "verb": verb, "error": error, "time": now}) + "\n"
    )
