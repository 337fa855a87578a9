"""Code that pretrain, probe and inspect share: starting a run from the command line or from Python."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musictf.distributed import rank
from musictf.errors import InputError

if TYPE_CHECKING:
    from musictf.results.rows import Row

_SWEEP = {"-m", "--multirun"}
Execute = Callable[[Any], Path]


@dataclass(frozen=True)
class RunResult:
    """Output of a run.

    Attributes:
        folder: The run folder.
        rows: The rows of its ``results.jsonl``, in their order; empty for a pretraining run.
    """

    folder: Path
    rows: list[Row]

    @property
    def backbone(self) -> Path:
        """The backbone file that a pretraining run wrote."""
        from musictf.models.backbone import FILE_NAME

        if not (path := self.folder / FILE_NAME).is_file():
            raise AttributeError(f"{self.folder} holds no {FILE_NAME}: only pretraining writes one")
        return path


def run_from_command_line(verb: str, arguments: Sequence[str], execute: Execute) -> None:
    """Run a verb, or with ``-m`` a sweep of it.

    Args:
        verb: ``pretrain``, ``probe`` or ``inspect``.
        arguments: What follows the verb on the command line.
        execute: Does one composed run and returns its folder.

    Raises:
        InputError: An argument cannot be used.
        FailedRun: The run, or a job of the sweep, failed.
    """
    from musictf.config import compose

    if not _SWEEP & set(arguments):
        _executed(compose(verb, arguments), execute)
        return
    # Lightning starts the other processes of a run with the same command line, -m included.
    if rank() > 0:
        raise InputError("-m inside a run of several processes: sweep single-process jobs, or launch each by SLURM")
    from musictf.sweep import sweep

    sweep(verb, [argument for argument in arguments if argument not in _SWEEP], execute)


def run_from_python(verb: str, overrides: Sequence[str], keys: Mapping[str, Any], execute: Execute) -> RunResult:
    """Run a verb with overrides as text, keys as Python values, or both; the keys count last.

    Args:
        verb: ``pretrain``, ``probe`` or ``inspect``.
        overrides: ``key=value`` each, as on the command line.
        keys: Values by key; a mapping holds the keys of a section.
        execute: Does one composed run and returns its folder.

    Raises:
        InputError: An override or a key cannot be used.
        FailedRun: The run failed.
    """
    from musictf.config import compose, python_overrides
    from musictf.results.rows import RESULTS, read_rows

    folder = _executed(compose(verb, [*overrides, *python_overrides(keys)]), execute)
    path = folder / RESULTS
    return RunResult(folder, read_rows(path) if path.is_file() else [])


def _executed(run: Any, execute: Execute) -> Path:
    from musictf.run_folder import FinishedRun

    try:
        return execute(run)
    except FinishedRun as finished:
        print(finished)
        return finished.folder


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Suppress advice that libraries print about themselves; their errors and warnings of ours pass."""
    import logging  # here, because help has no use for it

    loggers = [logging.getLogger(f"lightning.pytorch{name}") for name in ("", ".utilities.rank_zero")]
    levels = [logger.level for logger in loggers]
    os.environ.setdefault("WANDB_SILENT", "true")  # inherited by the processes that Lightning and wandb start
    with warnings.catch_warnings():
        # About few workers, about PyTorch's internals as Lightning uses them, and about a renamed package of NVIDIA.
        for message in (".*does not have many workers.*", ".*LeafSpec.*", ".*isinstance.treespec.*", ".*pynvml.*"):
            warnings.filterwarnings("ignore", message=message)
        try:
            for logger in loggers:
                logger.setLevel(logging.WARNING)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
