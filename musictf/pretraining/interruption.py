"""Interruptions of a pretraining run: Ctrl-C, pre-emption, the time limit of SLURM, a failed process.

Conventions: on SIGINT (Ctrl-C), SIGTERM (``docker stop``, pre-emption) and SIGUSR1 (``sbatch --signal=USR1@90``) a run
finishes the step, its log and its validation, writes ``last.ckpt`` and exits with status 1. The run is not finished, so
the next commands of a script must not start. A job that SLURM has requeued stays queued whatever the status is, because
SLURM has confirmed it before the run ends.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning.pytorch as L
from torch._dynamo.exc import TorchDynamoException
from torch.distributed import DistError

from musictf.distributed import rank
from musictf.errors import InputError
from musictf.pretraining.callbacks import Interrupted, KeepCheckpoints, stop_all_ranks

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_POLL_S = 1.0  # seconds between checks of the parent process
_SCONTROL_S = 60.0  # seconds to wait for SLURM's answer
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk full, over quota, file too large


class StopCleanly(L.Callback):
    """On a signal: finish the step, its log and its validation, write the checkpoint, stop.

    A second Ctrl-C stops at once. Signals reach the ranks at different steps, so the ranks agree every ``agree_every``
    steps whether to stop.

    Args:
        keeper: Writes the checkpoint; must come before this callback in the trainer's list.
        agree_every: Steps from one agreement to the next.
        requeue: Requeue a SLURM job after SIGTERM too, not only after SIGUSR1.

    Attributes:
        received: Number of the signal that this process has received, if any.
    """

    def __init__(self, keeper: KeepCheckpoints, agree_every: int, requeue: bool = False) -> None:
        self.keeper, self.agree_every = keeper, agree_every
        self.requeue_signals = {signal.SIGUSR1, signal.SIGTERM} if requeue else {signal.SIGUSR1}
        self.received: int | None = None
        self._stopping = self._requeues = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle signals inside the block, and restore the previous handlers after it.

        Must enclose the start of the loader processes: SLURM signals them too, and inherited handlers keep them alive.
        """
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, *SIGNALS)}
        for number in SIGNALS:
            signal.signal(number, self._receive)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # SIGINT only from here on: before the first step nothing can be lost, so Ctrl-C may stop at once. SIGTERM
        # again, because Lightning has replaced our handler by one that raises without a checkpoint.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.world_size > 1 and trainer.global_step % self.agree_every:
            return
        if _any_rank(trainer, self.received is not None):
            self._requeues = _any_rank(trainer, self.received in self.requeue_signals)
            self._stopping = True
            self.keeper.hold(trainer)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if not self._stopping:
            return
        note = requeue() if self._requeues and trainer.is_global_zero else ""
        trainer.strategy.barrier()  # SLURM may kill all tasks of a job step once the first one exits
        stop_all_ranks(trainer, f"stopped after step {trainer.global_step}{note}")

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number


def requeue() -> str:
    """Requeue this SLURM job.

    Returns:
        The outcome, as a clause of a message; empty outside of a job and in an interactive one.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if not job or os.environ.get("SLURM_JOB_NAME") in {"bash", "interactive"}:
        return ""
    if "SLURM_ARRAY_JOB_ID" in os.environ:  # SLURM_JOB_ID would requeue the whole array
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        answer = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=_SCONTROL_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f", but job {job} is not queued again ({error})"
    if answer.returncode:
        return f", but job {job} is not queued again (scontrol: {' '.join(answer.stderr.split())})"
    return f", job {job} is queued again"


@contextmanager
def in_one_line(trainer: L.Trainer) -> Iterator[None]:
    """Turn failures with an external cause, such as a full disk or a dead process, into one-line errors.

    Raises:
        Interrupted: the run can be resumed from its last checkpoint.
        InputError: a file cannot be read, or the encoder cannot be compiled here.
    """
    try:
        yield
    except InputError as error:  # from a loader process, its message holds the whole traceback
        raise InputError(str(error).rpartition("InputError: ")[2].strip()) from error
    except TorchDynamoException as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"compile=true: {reason[:200]}; compile=false needs no compiler") from error
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise Interrupted(f"{error.filename or 'output_dir'}: {error.strerror}; free disk space") from error
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        if trainer.world_size == 1 or not (isinstance(error, DistError) or "gloo" in first):
            raise
        raise Interrupted(f"another process of the run died, or hung for trainer.timeout_s ({first[:200]})") from error


def follow_launcher() -> None:
    """End this process when the one that started it has died.

    A rank in a collective would wait for a dead rank 0: over NCCL on one machine nothing else detects that. The
    opposite case, a dead rank above 0, is detected by Lightning.
    """
    if rank() > 0:
        threading.Thread(target=_follow, args=(os.getppid(),), name="follow-launcher", daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os._exit(1)  # not sys.exit, which ends this thread alone


def _any_rank(trainer: L.Trainer, value: bool) -> bool:
    """Whether a value is true on any rank; all ranks must call this."""
    return trainer.strategy.reduce_boolean_decision(value, all=False)
