"""What is probed in a study: the backbone that was asked for, and the controls beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from musictf.errors import InputError
from musictf.models.backbone import Backbone, backbone_file, load_backbone
from musictf.models.frame_controls import FRAME_CONTROL_CLASSES, random_backbone
from musictf.models.vit1d import ViT1DConfig
from musictf.results.names import FRAME_CONTROLS
from musictf.results.rows import BackboneField


@dataclass
class ProbedModel:
    """A backbone whose features are probed, with the seeds of the probes that read it.

    A pretrained backbone is read by the probes of every seed; random weights are drawn anew for each.
    """

    backbone: Backbone
    seeds: list[int]
    about: BackboneField
    is_asked: bool = False  # and not a baseline, which has the layers it has

    @property
    def kind(self) -> str:
        """``pretrained``, ``random``, ``mel``, ``mfcc`` or ``chroma``."""
        return self.backbone.kind

    def readouts(self, asked: Sequence[str]) -> list[str]:
        """Those that this system has: frames without an encoder have no class token."""
        return [name for name in asked if not (self.kind in FRAME_CONTROLS and name == "class")]

    def layers(self, asked: Any) -> list[int]:
        """Numbers of the layers that are probed."""
        if asked == "all" or (self.kind in FRAME_CONTROLS and not self.is_asked):
            return list(range(self.backbone.depth + 1))
        unknown = [layer for layer in asked if not 0 <= layer <= self.backbone.depth]
        if unknown:
            raise InputError(f"layers={list(asked)}: this backbone has layers 0 to {self.backbone.depth}")
        return sorted(set(asked))


def probed_models(
    asked: str, like: str | None, model: ViT1DConfig, seeds: Sequence[int], baselines: Sequence[str]
) -> list[ProbedModel]:
    """The system that was asked for, then the baselines that need probing.

    Args:
        asked: A backbone file, a run folder, ``random``, or one of `FRAME_CONTROLS`.
        like: A backbone whose shape ``random`` has; by default it has that of ``model``.
        model: See ``like``.
        seeds: Of the probes, and of random weights.
        baselines: Any of `musictf.results.names.PROBE_BASELINES`.
    """
    first: Backbone
    if asked in FRAME_CONTROLS:
        first = FRAME_CONTROL_CLASSES[asked]()
        found = [ProbedModel(first, list(seeds), _about(first, asked), is_asked=True)]
    elif asked == "random":
        origin = load_backbone(like) if like else Backbone(model)
        found = _random(origin, seeds)
        first = found[0].backbone
    else:
        first = load_backbone(asked)
        found = [ProbedModel(first, list(seeds), _about(first, asked))]
    if "random" in baselines and first.kind == "pretrained":
        found += _random(first, seeds)
    for name in baselines:
        if name in FRAME_CONTROLS and name != asked:
            control = FRAME_CONTROL_CLASSES[name](first.front_end.config)
            found.append(ProbedModel(control, list(seeds), _about(control, name)))
    return found


def _random(like: Backbone, seeds: Sequence[int]) -> list[ProbedModel]:
    """Random weights in the shape of a backbone, others for each seed."""
    made = [random_backbone(like.encoder.config, like.front_end.config, seed) for seed in seeds]
    return [
        ProbedModel(backbone, [seed], _about(backbone, "random")) for backbone, seed in zip(made, seeds, strict=True)
    ]


def _about(backbone: Backbone, asked: str) -> BackboneField:
    """The ``backbone`` field of rows."""
    pretrained = backbone.kind == "pretrained"
    origin = backbone.provenance
    pretrain = {
        "corpus": origin.get("corpus"),
        "digest": origin.get("corpus_digest"),
        "steps": origin.get("steps"),
        "splits": origin.get("splits"),
    }
    return {
        "path": str(backbone_file(asked)) if pretrained else backbone.kind,
        "digest": backbone.digest(),
        "kind": backbone.kind,
        "preset": backbone.name,
        "parameters": backbone.num_parameters,
        "shape": backbone.shape_digest(),
        "pretrain": pretrain if pretrained else None,
    }
