"""Resumable checkpoints on disk: writing that survives a kill at any instant, and the choice of the one to resume from.

Conventions: ``checkpoints/`` of a run holds ``last.ckpt``, ``best.ckpt`` and, with ``checkpoint.keep_every``, files
such as ``step-00000200.ckpt``. A run can be resumed from any of them. A file of that name is always whole: content goes
to a hidden temporary file beside it, is flushed to the disk, read back, and renamed in one step.
"""

from __future__ import annotations

import errno
import io
import os
import pickle
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor

from musictf.distributed import rank
from musictf.errors import InputError

LAST, BEST = "last.ckpt", "best.ckpt"
_NEEDED = {"global_step", "state_dict", "optimizer_states", "loops", "callbacks"}
_CHOICE = "MUSICTF_RESUME"  # environment variable: the checkpoint rank 0 resumes from, for the ranks that it starts
_KEEPER = "KeepCheckpoints"  # the callback whose state says which step was the best


class DamagedCheckpoint(Exception):
    """A file that a run cannot be resumed from; the message is the reason."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on disk.

    Attributes:
        path: The file.
        step: Optimisation steps done.
        best_step: The step with the lowest score so far; 0: none.
    """

    path: Path
    step: int
    best_step: int


class VerifiedCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written atomically and read back."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            OSError: the file could not be written whole; the previous file is still there.
        """
        buffer = io.BytesIO()  # torch's own writer ends the process when the disk is full
        torch.save(checkpoint, buffer)
        _write(buffer.getbuffer(), Path(path))


def step_name(step: int) -> str:
    """File name of the numbered checkpoint of a step; names sort as steps do."""
    return f"step-{step:08d}.ckpt"


def read_checkpoint(path: Path) -> Checkpoint:
    """Check a checkpoint file and read its step.

    Raises:
        DamagedCheckpoint: the file is not whole, not safe to load, or not from a pretraining run.
    """
    _require_whole(path)
    try:
        # weights_only: a pickle could run any code. mmap: only the small entries are read.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise DamagedCheckpoint(f"torch cannot read it: {str(error).partition(chr(10))[0]}") from error
    if missing := sorted(_NEEDED - set(content if isinstance(content, dict) else ())):
        raise DamagedCheckpoint(f"lacks {', '.join(missing)}")
    best = content["callbacks"].get(_KEEPER, {})
    return Checkpoint(path, int(content["global_step"]), int(best.get("best_step", 0)))


def newest_valid(folder: Path) -> tuple[Checkpoint | None, dict[Path, str]]:
    """The whole checkpoint of a folder with the most steps, and the damaged ones met before it with their reasons."""
    newest: Checkpoint | None = None
    damaged: dict[Path, str] = {}
    named = [folder / name for name in (LAST, BEST) if (folder / name).is_file()]
    for path in [*named, *sorted(folder.glob("step-*.ckpt"), reverse=True)]:
        if newest is not None and path.name == step_name(newest.step):
            break  # numbered ones are sorted, newest first: no further one has more steps
        try:
            checkpoint = read_checkpoint(path)
        except DamagedCheckpoint as error:
            damaged[path] = str(error)
            continue
        if newest is None or checkpoint.step > newest.step:
            newest = checkpoint
        if path.name not in {LAST, BEST}:
            break
    return newest, damaged


def choose(resume: str, folder: Path) -> Checkpoint | None:
    """The checkpoint that a run resumes from; None: it starts at the first step.

    Cleans the run folder first: temporary files of a killed process are removed, damaged checkpoints renamed.

    The progress of a run is never discarded for an older checkpoint: a command with ``resume=PATH`` that is started
    again, as SLURM does, resumes where it stopped.

    Args:
        resume: ``auto``, ``never``, a checkpoint, or the folder of a run.
        folder: The run's own ``checkpoints/``.

    Raises:
        InputError: there is no whole checkpoint at ``resume``, or ``never`` would discard the steps of the folder.
    """
    latest = _repaired(folder)
    if resume == "never" and latest is not None:
        raise InputError(
            f"resume=never: {folder.parent} holds {latest.step} steps already; overwrite=true discards them, "
            "another output_dir= keeps them"
        )
    if resume in {"auto", "never"}:
        return latest
    requested = _read_requested(resume)
    if latest is None or latest.step < requested.step:
        return requested
    if latest.step > requested.step:
        print(
            f"resume={resume} is at step {requested.step}, but {folder.parent} is at step {latest.step}: resuming from "
            "the latter (another output_dir= begins at the older step)",
            file=sys.stderr,
        )
    return latest


def require_fitting(path: Path, weights: Mapping[str, Tensor], resume: str) -> int:
    """Refuse a checkpoint of another network.

    Args:
        path: The checkpoint.
        weights: The weights to be replaced, by name; any shapes, such as (D,) or (D, D).
        resume: The setting that names the checkpoint, for the message.

    Returns:
        Optimisation steps done.

    Raises:
        InputError: a weight is missing, unknown or of another shape.
    """
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    others = {name: tuple(value.shape) for name, value in content["state_dict"].items()}
    if different := sorted(name for name in shapes.keys() | others.keys() if shapes.get(name) != others.get(name)):
        name = different[0]
        raise InputError(
            f"resume={resume}: {path} is of another network ({len(different)} weights differ: {name} is "
            f"{others.get(name, 'missing')} there, {shapes.get(name, 'missing')} here); use the model it was made with"
        )
    return int(content["global_step"])


def agreed_path(trainer: L.Trainer, decide: Callable[[], Checkpoint | None]) -> Path | None:
    """The checkpoint that rank 0 chooses, on every rank.

    Only rank 0 reads the folder, because `choose` changes it.

    Args:
        trainer: The trainer, before its fit.
        decide: The choice, called on rank 0 only.
    """

    def path() -> Path | None:
        checkpoint = decide()
        return None if checkpoint is None else checkpoint.path

    if trainer.world_size == 1:
        return path()
    if rank() > 0 and _CHOICE in os.environ:  # a process that rank 0 started after its choice
        return Path(os.environ[_CHOICE]) if os.environ[_CHOICE] else None
    strategy = trainer.strategy
    if trainer._accelerator_connector.cluster_environment.creates_processes_externally:
        strategy.setup_environment()  # needed by the broadcast; `fit` finds it done
        return strategy.broadcast(path() if rank() == 0 else None)
    choice = path()
    os.environ[_CHOICE] = str(choice or "")
    return choice


def _repaired(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint of the run's own folder, after undoing what a kill or a bad disk left there."""
    for temporary in [*folder.parent.glob(".*.tmp"), *folder.glob(".*.tmp")]:
        temporary.unlink()
    newest, damaged = newest_valid(folder)
    for path in damaged:
        os.replace(path, path.with_name(f"{path.name}.damaged"))
    if damaged:
        names = "; ".join(f"{path} ({reason})" for path, reason in damaged.items())
        consequence = (
            f"resuming from {newest.path.name}, step {newest.step}" if newest else "none is whole: starting again"
        )
        print(f"damaged checkpoints, renamed to *.damaged: {names}; {consequence}", file=sys.stderr)
    if newest is not None:
        # One state is written under several names, the numbered one first: a kill in between leaves some of them old.
        if newest.path.name != LAST:
            _write(newest.path.read_bytes(), folder / LAST)
        best = folder / BEST
        if newest.best_step == newest.step and not (best.is_file() and read_checkpoint(best).step == newest.step):
            _write(newest.path.read_bytes(), best)
    return newest


def _read_requested(resume: str) -> Checkpoint:
    """The checkpoint that ``resume=`` names: a file, or the newest one of a run folder."""
    path = Path(resume).expanduser()
    if path.is_dir():
        newest, damaged = newest_valid(path / "checkpoints")
        if newest is None:
            raise InputError(f"resume={resume}: no{' whole' if damaged else ''} checkpoint there")
        return newest
    if not path.is_file():
        raise InputError(f"resume={resume}: no checkpoint there; give a run folder, a .ckpt file, auto or never")
    try:
        return read_checkpoint(path)
    except DamagedCheckpoint as error:
        raise InputError(f"resume={resume}: damaged ({error}); give another one") from error


def _write(content: bytes | memoryview, path: Path) -> None:
    """Write a file so that a kill or a power cut leaves either the old or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):  # drops the page cache, so that reading back reads the disk
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        _require_whole(temporary)
        os.replace(temporary, path)
    except DamagedCheckpoint as error:
        temporary.unlink()
        raise OSError(errno.EIO, f"the content read back differs from that written: {error}") from error
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    # Flush the folder too: without it a power cut could undo the renaming.
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_whole(path: Path) -> None:
    """Check the checksum of every part: torch writes a zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except (OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise DamagedCheckpoint(f"not a whole archive: {error}") from error
    if wrong is not None:
        raise DamagedCheckpoint(f"wrong checksum of {wrong}")
