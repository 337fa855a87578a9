"""Light music transformers: contrastive pretraining, linear probes, and inspection of what they learnt.

>>> import musictf
>>> run = musictf.pretrain("dataset=folder", max_steps=2000, **{"dataset.root": "~/music"})  # doctest: +SKIP
>>> rows = musictf.probe(backbone=run.folder, task="chord", seeds=[0]).rows  # doctest: +SKIP
>>> print(musictf.report("runs").text)  # doctest: +SKIP
>>> backbone = musictf.load_backbone(run.backbone)  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musictf.commands.inspect import inspect
    from musictf.commands.pretrain import pretrain
    from musictf.commands.probe import probe
    from musictf.commands.report import report
    from musictf.commands.run_result import RunResult
    from musictf.errors import FailedRun, InputError, Interruption
    from musictf.models.backbone import load_backbone

__version__ = "0.1.0"
__all__ = [
    "FailedRun",
    "InputError",
    "Interruption",
    "RunResult",
    "__version__",
    "inspect",
    "load_backbone",
    "pretrain",
    "probe",
    "report",
]

_MODULES = {
    "FailedRun": "errors",
    "InputError": "errors",
    "Interruption": "errors",
    "RunResult": "commands.run_result",
    "inspect": "commands.inspect",
    "load_backbone": "models.backbone",
    "pretrain": "commands.pretrain",
    "probe": "commands.probe",
    "report": "commands.report",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: ``import musictf`` and help must not import torch."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"musictf.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'musictf' has no attribute {name!r}")
