"""The run folder: the output of a command, the state of the run, and the versions of the code.

A folder holds ``config.yaml`` (all values, with the chosen option of each configuration group), ``status.json``
(``running``, ``finished`` or ``failed`` with the last error) and the output of the command. The same command resumes an
unfinished folder; on a finished one it changes nothing unless ``overwrite=true``.
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
    """Weights & Biases; there is never a login prompt.

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
    """The folder holds a finished run and ``overwrite`` is false: there is nothing to do."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder} is finished already; nothing was changed (overwrite=true starts afresh)")
        self.folder = folder


def default_folder(verb: str) -> Path:
    """``runs/<verb>/<time>``, the same on every rank of a run; in a SLURM job, ``runs/<verb>/<job>-<command>``.

    Raises:
        InputError: the processes were started one by one by torchrun, so they cannot agree on a time.
    """
    # A requeued job must find its folder again: the name depends on the job and the command only.
    name = os.environ.get("SLURM_JOB_ID") if os.environ.get("SLURM_JOB_NAME") not in {"bash", "interactive"} else None
    if name is not None:
        name += f"-{hashlib.sha256(repr(sys.argv[1:]).encode()).hexdigest()[:6]}"
    if name is None and "TORCHELASTIC_RUN_ID" in os.environ:
        raise InputError("torchrun starts processes that cannot agree on a folder by themselves: set output_dir=FOLDER")
    if name is None and rank() > 0:
        name = os.environ.get("MUSICTF_RUN_NAME")  # set by the process that launched this one
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
    """A run folder, locked for this process, whose status follows the outcome of the block.

    Args:
        folder: The folder; created if missing.
        config: Resolved configuration, written as ``config.yaml`` and compared with that of an unfinished run.
        overwrite: Delete a run of the same verb first; ignored in a job that SLURM has requeued, which resumes.
        verb: The command; a folder of another verb is never overwritten.
        may_change: Keys that change how a run is done, not what it computes: they may differ when an unfinished run is
            resumed. The dataclass of the run names them (``MAY_CHANGE``).

    Yields:
        The folder.

    Raises:
        FinishedRun: the folder holds a finished run.
        InputError: the folder holds something else, or a run of another configuration.
    """
    overwrite = overwrite and int(os.environ.get("SLURM_RESTART_COUNT", 0)) == 0
    # On every rank, so that no rank waits for another.
    if read_status(folder).get("status") == "finished" and not overwrite:
        _refuse_other_config(folder, config, "a finished run", may_change - {"max_steps"})
        raise FinishedRun(folder)
    lock = None
    if rank() == 0:
        try:
            lock = _lock(folder)
            _prepare(folder, config, overwrite, verb, may_change)
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
    finally:  # whatever ends the run, Ctrl-C included, is recorded
        ending = None if state == "finished" else sys.exc_info()[1]
        if rank() == 0:
            try:
                _write_status(folder, state, verb, f"{type(ending).__name__}: {ending}" if ending else None)
            except OSError as failure:  # a full disk must not hide the error that ended the run
                print(f"{folder / 'status.json'} cannot be written ({failure.strerror})", file=sys.stderr)
        _release(lock)


def read_status(folder: Path) -> dict[str, Any]:
    """Content of ``status.json``; empty if there is none."""
    path = folder / "status.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def provenance() -> dict[str, Any]:
    """Commit of the code, and versions of Python and the packages that affect results."""
    versions = {"python": platform.python_version(), "musictf": metadata.version("musictf")}
    return {"git": _git(), "versions": versions | {name: metadata.version(name) for name in _PACKAGES}}


def _git() -> dict[str, Any]:
    """Commit of the checkout this code runs from, and whether it has changes; None for an installed wheel."""
    checkout = Path(__file__).resolve().parents[1]
    if not (checkout / ".git").exists() or shutil.which("git") is None:
        return {"commit": None, "dirty": None}

    def output(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, text=True).stdout.strip()

    # Untracked files (-uno) do not count: runs themselves create some.
    return {"commit": output("rev-parse", "HEAD") or None, "dirty": bool(output("status", "--porcelain", "-uno"))}


def _lock(folder: Path) -> IO[str]:
    """Lock a run folder for this process; the system releases the lock when the process ends, however it ends.

    Raises:
        InputError: another process has the lock.
    """
    # Beside the folder, which ``overwrite`` may delete.
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = open(folder.parent / f".{folder.name}.lock", "w")  # noqa: SIM115 (held until the run ends)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InputError(f"output_dir: another process is running in {folder}; choose another folder") from None
    return file


def _release(lock: IO[str] | None) -> None:
    if lock is not None:
        Path(lock.name).unlink(missing_ok=True)
        lock.close()


def _prepare(folder: Path, config: Mapping[str, Any], overwrite: bool, verb: str, may_change: Set[str]) -> None:
    """Create the folder, or check that its run may be resumed or overwritten."""
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
        # A run that has computed nothing yet may be started with another configuration.
        elif any((folder / name).exists() for name in ("checkpoints", "heads", "results.jsonl")):
            _refuse_other_config(folder, config, "an unfinished run", may_change)
    folder.mkdir(parents=True, exist_ok=True)


def _is_blank(folder: Path) -> bool:
    """Whether a folder holds no more than a run that was killed before it wrote its status."""
    names = {path.name for path in folder.iterdir()} - {"config.yaml"}
    return all(name.startswith(".") and name.endswith(".tmp") for name in names)


def _refuse_other_config(folder: Path, config: Mapping[str, Any], content: str, may_change: Set[str]) -> None:
    """Refuse a configuration that differs from that of the folder; ``content`` names the run in the message."""
    path = folder / "config.yaml"
    before = yaml.safe_load(path.read_text()) if path.is_file() else {}
    changed = [key for key in before if key not in may_change and before[key] != config.get(key)]
    if changed:
        raise InputError(
            f"{folder} holds {content} with other values of {', '.join(changed)}; "
            "give the same values, another output_dir=, or overwrite=true"
        )
    if before.get("max_steps") != config.get("max_steps"):
        print(
            f"{folder} was started with max_steps={before.get('max_steps')}: its schedules continue as those of "
            f"max_steps={config.get('max_steps')}, with a jump in between",
            file=sys.stderr,
        )


def _write_status(folder: Path, state: str, verb: str, error: str | None = None) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    write_atomically(
        folder / "status.json", json.dumps({"status": state, "verb": verb, "error": error, "time": now}) + "\n"
    )
