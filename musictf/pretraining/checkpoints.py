"""Resumable checkpoints on disk: written so that no kill can harm them, and the newest whole one found again.

Conventions: ``checkpoints/`` of a run holds ``last.ckpt``, ``best.ckpt`` and, where asked for, ``step-00000200.ckpt``.
Each is complete: any of them can be gone on from. A name either does not exist or names a whole file: what is written
goes to a hidden temporary file beside it, is flushed to the disk, read back, and takes the name in one step.
"""

from __future__ import annotations

import errno
import io
import os
import pickle
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
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
_CHOICE = "MUSICTF_RESUME"  # what rank 0 goes on from, for the ranks that it starts
_KEEPER = "KeepCheckpoints"  # the callback whose state says which step was the best


class DamagedCheckpoint(Exception):
    """A file that cannot be gone on from, and why."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint: the optimisation steps that were done, and which of them was the best so far (0: none)."""

    path: Path
    step: int
    best_step: int


class VerifiedCheckpointIO(TorchCheckpointIO):
    """Lightning's files, written atomically and read back. A kill at any instant leaves the earlier file as it was."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            OSError: it could not be written whole; what was there before is still there.
        """
        buffer = io.BytesIO()  # torch's own writer ends the process where the disk is full
        torch.save(checkpoint, buffer)
        _write(buffer.getbuffer(), Path(path))


def step_name(step: int) -> str:
    """File name of the checkpoint of a step, in the order of the steps."""
    return f"step-{step:08d}.ckpt"


def read_checkpoint(path: Path) -> Checkpoint:
    """Look into a checkpoint.

    Raises:
        DamagedCheckpoint: the file is not whole, not safe to load, or not one of a pretraining run.
    """
    _require_whole(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise DamagedCheckpoint(f"torch cannot read it: {str(error).partition(chr(10))[0]}") from error
    if missing := sorted(_NEEDED - set(content if isinstance(content, dict) else ())):
        raise DamagedCheckpoint(f"without {', '.join(missing)}")
    best = content["callbacks"].get(_KEEPER, {})
    return Checkpoint(path, int(content["global_step"]), int(best.get("best_step", 0)))


def newest_valid(folder: Path) -> tuple[Checkpoint | None, dict[Path, str]]:
    """The whole checkpoint of a folder with the most steps; and the damaged ones met on the way, with their reasons."""
    found: Checkpoint | None = None
    damaged: dict[Path, str] = {}
    for path in _candidates(folder):
        if found is not None and path.name == step_name(found.step):
            break  # the numbered ones come newest first: none that follows has more steps
        try:
            checkpoint = read_checkpoint(path)
        except DamagedCheckpoint as error:
            damaged[path] = str(error)
            continue
        if found is None or checkpoint.step > found.step:
            found = checkpoint
        if path.name not in {LAST, BEST}:
            break
    return found, damaged


def choose(resume: str, folder: Path) -> Checkpoint | None:
    """What a run goes on from, with its folder in order: no leavings of a killed writer, damaged files set aside.

    A run's own progress is never given up for an older checkpoint: a command with ``resume=PATH`` that is started
    again, as SLURM does, goes on where it was.

    Args:
        resume: ``auto``, ``never``, a checkpoint, or the folder of a run.
        folder: The run's own ``checkpoints/``.

    Raises:
        InputError: there is no whole checkpoint at ``resume``, or ``never`` would give up what the folder holds.
    """
    own = _own(folder)
    if resume == "never" and own is not None:
        raise InputError(
            f"resume=never: {folder.parent} holds {own.step} steps already; overwrite=true gives them up, "
            "another output_dir= keeps them"
        )
    if resume in {"auto", "never"}:
        return own
    wanted = _elsewhere(resume)
    if own is None or own.step < wanted.step:
        return wanted
    if own.step > wanted.step:
        print(
            f"resume={resume} is at step {wanted.step}, but {folder.parent} at step {own.step}: going on from there "
            "(another output_dir= begins at the older step)",
            file=sys.stderr,
        )
    return own


def require_fitting(path: Path, weights: Mapping[str, Tensor], resume: str) -> int:
    """Refuse a checkpoint of another network; answers with its step.

    Args:
        path: The checkpoint.
        weights: Those that it is to replace.
        resume: What named it.

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
            f"{others.get(name, 'missing')} there, {shapes.get(name, 'missing')} here); give the model it was made with"
        )
    return int(content["global_step"])


def agreed(trainer: L.Trainer, decide: Callable[[], Checkpoint | None]) -> Path | None:
    """What rank 0 goes on from, on every rank: the others might look at a folder that it is putting in order."""

    def path() -> Path | None:
        found = decide()
        return None if found is None else found.path

    if trainer.world_size == 1:
        return path()
    if rank() > 0 and _CHOICE in os.environ:  # started by rank 0, after it had decided
        return Path(os.environ[_CHOICE]) if os.environ[_CHOICE] else None
    strategy = trainer.strategy
    if trainer._accelerator_connector.cluster_environment.creates_processes_externally:
        strategy.setup_environment()  # Lightning would do it in `fit`, and finds it done
        return strategy.broadcast(path() if rank() == 0 else None)
    choice = path()
    os.environ[_CHOICE] = str(choice or "")
    return choice


def _own(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint of the run's own folder, under every name it should have."""
    for leaving in [*folder.parent.glob(".*.tmp"), *folder.glob(".*.tmp")]:
        leaving.unlink()
    found, damaged = newest_valid(folder)
    for path in damaged:
        os.replace(path, path.with_name(f"{path.name}.damaged"))
    if damaged:
        names = "; ".join(f"{path} ({reason})" for path, reason in damaged.items())
        then = f"going on from {found.path.name}, step {found.step}" if found else "none is whole: starting afresh"
        print(f"damaged checkpoints, set aside as *.damaged: {names}; {then}", file=sys.stderr)
    if found is not None:
        _complete(folder, found)
    return found


def _complete(folder: Path, found: Checkpoint) -> None:
    """Give a checkpoint the names that a kill between two files left without it; the numbered one is written first."""
    if found.path.name != LAST:
        _write(found.path.read_bytes(), folder / LAST)
    best = folder / BEST
    if found.best_step == found.step and not (best.is_file() and read_checkpoint(best).step == found.step):
        _write(found.path.read_bytes(), best)


def _elsewhere(resume: str) -> Checkpoint:
    path = Path(resume).expanduser()
    if path.is_dir():
        found, damaged = newest_valid(path / "checkpoints")
        if found is None:
            raise InputError(f"resume={resume}: no{' whole' if damaged else ''} checkpoint there")
        return found
    if not path.is_file():
        raise InputError(f"resume={resume}: no checkpoint there; give a run folder, a .ckpt file, auto or never")
    try:
        return read_checkpoint(path)
    except DamagedCheckpoint as error:
        raise InputError(f"resume={resume}: damaged ({error}); give another one") from error


def _candidates(folder: Path) -> Iterator[Path]:
    yield from (folder / name for name in (LAST, BEST) if (folder / name).is_file())
    yield from sorted(folder.glob("step-*.ckpt"), reverse=True)


def _write(content: bytes | memoryview, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):  # so that reading back asks the disk, not the memory it came from
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        _require_whole(temporary)
        os.replace(temporary, path)
    except DamagedCheckpoint as error:
        temporary.unlink()
        raise OSError(errno.EIO, f"what was read back is not what was written: {error}") from error
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _require_whole(path: Path) -> None:
    """Check the checksum of every part: what torch writes is a zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except (OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise DamagedCheckpoint(f"not a whole archive: {error}") from error
    if wrong is not None:
        raise DamagedCheckpoint(f"wrong checksum of {wrong}")


def _flush_folder(folder: Path) -> None:
    """Bring the new name to the disk as well: without it a power cut could undo the renaming."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
