"""Memory, which a process can be asked for once: each thing measured runs in a process of its own.

Conventions: bytes, at the highest, above what was held when the measured part began; so imports are in nobody's.
Without a GPU that is resident memory, of which Linux alone says the peak of a part of a process.
"""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from frame import Measurement

from musictf.errors import InputError

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of a module answers in a Python of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_bytes(run: Callable[[], object], device: str = "cpu") -> int:
    """Most memory that a call holds above what was held before it.

    Raises:
        InputError: there is no GPU and this is not Linux.
    """
    gc.collect()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    if not _STATUS.is_file():
        raise InputError("memory without a GPU is measured on Linux alone; name the benchmarks to run without it")
    # Not getrusage: its peak is inherited from whoever started this process.
    _CLEAR.write_text(_RESET_PEAK)
    before = _resident("VmRSS")
    run()
    return _resident("VmHWM") - before


def smaller(name: str, ours: int, theirs: int, against: str, target: float | None = None) -> Measurement:
    """Bytes of ours beside bytes of something else."""
    ratio = theirs / ours
    return Measurement(
        name=name,
        value=ours / 1e9,
        unit="GB",
        against=f"{against}: {theirs / 1e9:.4g} GB",
        ratio=ratio,
        target=target,
        met=None if target is None else ratio >= target,
    )


def _resident(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])
