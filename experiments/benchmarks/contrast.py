"""NT-Xent forward and backward at a large batch, beside lightly's: time in one process, memory in one for each.

Float32, which ours computes in under any autocast. Memory is what is held above the embeddings; their gradients are
in it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from apart import in_new_process, peak_bytes, smaller
from frame import Measurement, Settings, alternated, faster
from lightly.loss import NTXentLoss
from torch import Tensor

from musictf.objectives.ntxent import nt_xent

PAIRS, QUICK_PAIRS, DIM, ROUNDS = 8192, 512, 128, 3
TEMPERATURE = 0.1
TARGET_TIME, TARGET_MEMORY = 1 / 0.35, 1 / 0.1

Contrast = Callable[[Tensor, Tensor], Tensor]


def measure(settings: Settings) -> list[Measurement]:
    """Time both in turn, then run each once more for its memory."""
    pairs, rounds = (QUICK_PAIRS, 1) if settings.quick else (PAIRS, ROUNDS)
    runs = {
        name: (lambda contrast=contrast: once(contrast, pairs, settings.device)) for name, contrast in SIDES.items()
    }
    for contrast in SIDES.values():
        once(contrast, 8, settings.device)
    seconds = alternated(runs, rounds, settings.synchronize)
    memory = {name: in_new_process(memory_of, name, pairs, settings.device) for name in SIDES}
    what = f"lightly's NTXentLoss, {pairs} pairs of {DIM} dimensions"
    return [
        faster("time", seconds["ours"], seconds["lightly"], what, TARGET_TIME),
        smaller("memory", memory["ours"], memory["lightly"], what, TARGET_MEMORY),
    ]


def ours(first: Tensor, second: Tensor) -> Tensor:
    """Our loss."""
    return nt_xent(first, second, temperature=TEMPERATURE)[0]


def lightly(first: Tensor, second: Tensor) -> Tensor:
    """The same of lightly."""
    loss: Tensor = NTXentLoss(temperature=TEMPERATURE)(first, second)
    return loss


SIDES: dict[str, Contrast] = {"ours": ours, "lightly": lightly}


def embeddings(pairs: int, device: str) -> tuple[Tensor, Tensor]:
    """Both views of some pairs, (n, D) each, that want a gradient."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, pairs, DIM, generator=generator).to(device)
    return first.requires_grad_(), second.requires_grad_()


def once(contrast: Contrast, pairs: int, device: str) -> None:
    """Forward and backward."""
    contrast(*embeddings(pairs, device)).backward()


def memory_of(name: str, pairs: int, device: str) -> int:
    """Most bytes that one side holds; to be called in a process of its own."""
    once(SIDES[name], 8, device)
    views = embeddings(pairs, device)
    return peak_bytes(lambda: SIDES[name](*views).backward(), device)
