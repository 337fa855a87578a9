"""The models of a study: the requested backbone, and the baselines that are probed with the same kind of heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musictf.errors import InputError
from musictf.models.backbone import Backbone
from musictf.models.backbone_source import RANDOM, BackboneSource, load_encoder
from musictf.models.encoder import Encoder
from musictf.models.frame_controls import FRAME_CONTROL_CLASSES
from musictf.models.vit1d import ViT1DConfig
from musictf.results.rows import BackboneField


@dataclass
class ProbedModel:
    """An encoder whose features are probed, with the seeds of its probes.

    A pretrained backbone is probed with every seed. Random weights are drawn again for each seed.

    Attributes:
        encoder: What computes the features.
        seeds: Of its probes.
        backbone_field: Field ``backbone`` of the rows.
        path: Its backbone file, where it has one.
        is_requested: Whether it is the model of ``backbone=``, not a baseline.
    """

    encoder: Encoder
    seeds: list[int]
    backbone_field: BackboneField
    path: Path | None = None
    is_requested: bool = False

    @property
    def kind(self) -> str:
        """``pretrained``, ``random``, ``mel``, ``mfcc`` or ``chroma``."""
        return self.encoder.kind

    def readouts(self, requested: Sequence[str]) -> list[str]:
        """Those of the requested readouts that exist: without a class token there is no ``class``."""
        return [name for name in requested if self.encoder.has_class_token or name != "class"]

    def layers(self, requested: Any) -> list[int]:
        """Numbers of the layers that are probed.

        Raises:
            InputError: the encoder has no such layer.
        """
        depth = self.encoder.depth
        # A frame control that is a baseline has one layer, whichever layers of the backbone are requested.
        if requested == "all" or (depth == 0 and not self.is_requested):
            return list(range(depth + 1))
        if any(not 0 <= layer <= depth for layer in requested):
            raise InputError(f"layers={list(requested)}: this backbone has layers 0 to {depth}")
        return sorted(set(requested))


def probed_models(
    source: BackboneSource, like: str | None, model: ViT1DConfig, seeds: Sequence[int], baselines: Sequence[str]
) -> list[ProbedModel]:
    """The requested model, then the baselines that are probed.

    Args:
        source: What ``backbone=`` names.
        like: ``backbone=`` text of a backbone whose shape ``random`` has; by default it has that of ``model``.
        model: See ``like``.
        seeds: Of the probes, and of random weights.
        baselines: Any of `musictf.results.names.PROBE_BASELINES`.
    """
    encoders = load_encoder(source, like, model, seeds)
    first = encoders[0]
    if source.kind == RANDOM:
        models = _one_for_each_seed(encoders, seeds)
    else:
        models = [ProbedModel(first, list(seeds), backbone_field(first, source.path), source.path)]
    models[0].is_requested = True
    if RANDOM in baselines and isinstance(first, Backbone) and source.kind != RANDOM:
        models += _one_for_each_seed([first.with_random_weights(seed) for seed in seeds], seeds)
    for name in baselines:
        if name in FRAME_CONTROL_CLASSES and name != source.kind:
            control = FRAME_CONTROL_CLASSES[name](first.baseline_front_end)
            models.append(ProbedModel(control, list(seeds), backbone_field(control)))
    return models


def _one_for_each_seed(encoders: Sequence[Encoder], seeds: Sequence[int]) -> list[ProbedModel]:
    return [
        ProbedModel(encoder, [seed], backbone_field(encoder)) for encoder, seed in zip(encoders, seeds, strict=True)
    ]


def backbone_field(encoder: Encoder, path: Path | None = None) -> BackboneField:
    """Field ``backbone`` of results rows.

    Args:
        encoder: What was probed.
        path: Its backbone file, where it has one.
    """
    return {
        "path": str(path or encoder.kind),
        "digest": encoder.digest(),
        "kind": encoder.kind,
        "preset": encoder.name,
        "parameters": encoder.num_parameters,
        "shape": encoder.shape_digest(),
        "pretrain": encoder.pretraining(),
    }
