"""Light music transformers, pretrained by contrast and read by linear probes.

>>> from musictf import load_backbone  # doctest: +SKIP
>>> backbone = load_backbone("runs/demo/backbone.safetensors")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musictf.models.backbone import load_backbone

__version__ = "0.1.0"
__all__ = ["__version__", "load_backbone"]


def __getattr__(name: str) -> Any:
    """Import torch only when somebody asks for a backbone: help must answer at once."""
    if name == "load_backbone":
        from musictf.models.backbone import load_backbone

        return load_backbone
    raise AttributeError(f"module 'musictf' has no attribute {name!r}")
