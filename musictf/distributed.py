"""Processes and devices: the rank of this process, its cores, and the arguments of Lightning's Trainer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any


@dataclass(kw_only=True)
class TrainerConfig:
    """Arguments of Lightning's Trainer, under Lightning's names.

    Attributes:
        accelerator: auto, cpu or gpu.
        devices: Processes on each machine; -1 means one for every GPU.
        strategy: auto, ddp or fsdp.
        precision: 32-true, or bf16-mixed.
        num_nodes: Machines.
        accumulate_grad_batches: Only 1: accumulated gradients add no negatives; micro_batch saves memory instead.
        deterministic: Use deterministic algorithms, which may be slower.
        enable_progress_bar: Show a progress bar.
        timeout_s: Seconds that a process waits for the others before the run fails.
    """

    accelerator: str = "auto"
    devices: Any = 1  # int, str or list[int]: OmegaConf has no such union
    strategy: str = "auto"
    precision: str = "32-true"
    num_nodes: int = 1
    accumulate_grad_batches: int = 1
    deterministic: bool = False
    enable_progress_bar: bool = True
    timeout_s: float = 300.0


def rank() -> int:
    """Rank of this process in its run, as set by its launcher; 0 on the first process and on no other."""
    if "RANK" in os.environ:
        return int(os.environ["RANK"])
    if "LOCAL_RANK" in os.environ or "NODE_RANK" in os.environ:
        # Lightning's own launcher sets no RANK. This sum is not the rank, but it is 0 on the first process alone.
        return int(os.environ.get("LOCAL_RANK") or 0) + int(os.environ.get("NODE_RANK") or 0)
    return int(os.environ.get("SLURM_PROCID", 0))


def num_cores() -> int:
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
