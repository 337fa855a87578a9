"""Ends of a pretraining run that others decide on: Ctrl-C, pre-emption, SLURM's time limit, a process that died.

Conventions: SIGINT (Ctrl-C), SIGTERM (``docker stop``, pre-emption) and SIGUSR1 (``sbatch --signal=USR1@90``) finish
the step, its log and its validation, write ``last.ckpt`` and end the run with exit status 1: it is not done, and what a
script has after it must not go on. A job that SLURM has queued again keeps that state whatever the status is, because
SLURM has answered before the run ends.
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
from musictf.pretraining.callbacks import Interrupted, KeepCheckpoints, leave

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_POLL_S = 1.0
_SCONTROL_S = 60.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StopCleanly(L.Callback):
    """On a signal: finish the step, its log and its validation, write the checkpoint, stop.

    A second Ctrl-C does not wait. Signals reach the ranks at different steps, so ranks agree every ``agree_every``
    steps before any of them stops.

    Args:
        keeper: What writes the checkpoint; it stands before this callback.
        agree_every: Steps from one agreement to the next.
        requeue: Ask SLURM to queue the job again after SIGTERM too, not only after SIGUSR1.
    """

    def __init__(self, keeper: KeepCheckpoints, agree_every: int, requeue: bool = False) -> None:
        self.keeper, self.agree_every = keeper, agree_every
        self.requeue_signals = {signal.SIGUSR1, signal.SIGTERM} if requeue else {signal.SIGUSR1}
        self.asked: int | None = None
        self._stopping = self._requeues = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Answer to signals inside the block; afterwards everything is as it was.

        It begins before the loaders' workers do: SLURM signals them too, and they must not die of it.
        """
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, *SIGNALS)}
        for number in SIGNALS:
            signal.signal(number, self._ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Ctrl-C waits for nothing while nothing can be lost; SIGTERM once more, as Lightning's own answer to it
        # replaced ours: it broadcasts inside the handler and raises without a checkpoint.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.world_size > 1 and trainer.global_step % self.agree_every:
            return
        if _any_rank(trainer, self.asked is not None):
            self._requeues = _any_rank(trainer, self.asked in self.requeue_signals)
            self._stopping = True
            self.keeper.hold(trainer)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if not self._stopping:
            return
        note = requeue() if self._requeues and trainer.is_global_zero else ""
        trainer.strategy.barrier()  # SLURM may end the step with the first task that leaves
        leave(trainer, f"stopped after step {trainer.global_step}{note}")

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = number


def requeue() -> str:
    """Ask SLURM to queue this job again; what came of it, or nothing outside of a job and in an interactive one."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job or os.environ.get("SLURM_JOB_NAME") in {"bash", "interactive"}:
        return ""
    if "SLURM_ARRAY_JOB_ID" in os.environ:  # one task of an array has the number of the whole array
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
    """Say what ended a run from outside, a full disk or a process that died, instead of where it was noticed.

    Raises:
        Interrupted: the run can go on from its last checkpoint.
        InputError: a file cannot be read, or nothing can be compiled here.
    """
    try:
        yield
    except InputError as error:  # one of a loader's process comes with all it went through
        raise InputError(str(error).rpartition("InputError: ")[2].strip()) from error
    except TorchDynamoException as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"compile=true: {reason[:200]}; compile=false does without a compiler") from error
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise Interrupted(f"{error.filename or 'output_dir'}: {error.strerror}; make room") from error
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        if trainer.world_size == 1 or not (isinstance(error, DistError) or "gloo" in first):
            raise
        raise Interrupted(f"another process of the run died, or hung for trainer.timeout_s ({first[:200]})") from error


def follow_launcher() -> None:
    """End this process with the one that started it: a rank in a collective would wait for a dead rank 0.

    Over NCCL on one machine nothing else notices. Other ranks that die under rank 0 are what Lightning watches.
    """
    if rank() > 0:
        threading.Thread(target=_follow, args=(os.getppid(),), name="follow-launcher", daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os._exit(1)


def _any_rank(trainer: L.Trainer, answer: bool) -> bool:
    return trainer.strategy.reduce_boolean_decision(answer, all=False)
