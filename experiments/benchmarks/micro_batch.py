"""Memory of a large contrastive batch that is embedded in parts, beside a plain batch as large as one part.

Both are a training run of one step in a process of its own, by Lightning and on the run's own data module, of
`vit1d_tiny` with its front end, in float32, on noise in 16-bit integers as packed corpora give it. Without a GPU the
batches themselves are in it: two, since Lightning fetches the next one before a step.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from apart import in_new_process, peak_bytes, smaller
from frame import Measurement, Settings, accelerator
from torch.utils.data import Dataset as Examples

from musictf.datasets.folder import Folder
from musictf.distributed import TrainerConfig
from musictf.models.backbone import Backbone
from musictf.models.vit1d import ViT1DConfig
from musictf.pretraining.callbacks import MetricsFile
from musictf.pretraining.module import NTXent
from musictf.pretraining.pairs import Batch, PairModule
from musictf.pretraining.pretrain_run import PretrainRun, contrastive_module, make_trainer

PAIRS, PART = 2048, 64
QUICK_PAIRS, QUICK_PART = 16, 4
TARGET = 1 / 1.3

TINY = ViT1DConfig(preset="vit1d_tiny")
_WARM_UP_PAIRS, _WARM_UP = 2, ViT1DConfig(depth=1, embed_dim=16, num_heads=1)  # what it frees, the system gets back


def measure(settings: Settings) -> list[Measurement]:
    """Memory of a step in parts, and of a plain one."""
    pairs, part = (QUICK_PAIRS, QUICK_PART) if settings.quick else (PAIRS, PART)
    ours = in_new_process(memory_of, pairs, part, settings.device)
    plain = in_new_process(memory_of, part, None, settings.device)
    batch = sum(value.nbytes for value in Noise(Backbone().num_samples).__getitems__(list(range(pairs))).values())
    what = f"{pairs} pairs, {part} at a time (a batch: {batch / 1e9:.3g} GB); {part} pairs at once"
    return [smaller("memory", ours, plain, what, TARGET)]


class Noise(Examples[Batch]):
    """Batches of white noise, in the form that a packed corpus has."""

    def __init__(self, num_samples: int) -> None:
        self.num_samples = num_samples

    def __getitems__(self, examples: list[int]) -> Batch:
        generator = np.random.default_rng(0)
        views = generator.integers(-3000, 3000, (2, len(examples), self.num_samples), dtype=np.int16)
        first, second = torch.from_numpy(views)
        numbers = torch.tensor(examples)
        gain = torch.full((len(examples), 2), 1 / 32768)
        return {"first": first, "second": second, "gain": gain, "track": numbers, "example": numbers}


def memory_of(pairs: int, part: int | None, device: str) -> int:
    """Most bytes that a step of so many pairs holds; to be called in a process of its own."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # Lightning's advice about workers
    one_step(_WARM_UP, _WARM_UP_PAIRS, part and 1, device)
    return peak_bytes(lambda: one_step(TINY, pairs, part, device), device)


def one_step(model: ViT1DConfig, pairs: int, part: int | None, device: str) -> dict[str, Any]:
    """Train one step; answers the weights."""
    run = PretrainRun(
        dataset=Folder(),
        model=model,
        objective=NTXent(),
        trainer=TrainerConfig(accelerator=accelerator(device), enable_progress_bar=False),
        batch_size=pairs,
        micro_batch=part,
        max_steps=1,
    )
    torch.manual_seed(0)
    backbone = Backbone(run.model, run.front_end)
    noise: Any = Noise(backbone.num_samples)
    data = PairModule(noise, None, pairs, num_workers=0, in_parts=part is not None)
    module = contrastive_module(run, backbone)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(run, data, Path(folder), MetricsFile(Path(folder) / "metrics.csv"), [])
        trainer.fit(module, datamodule=data)
    return module.state_dict()
