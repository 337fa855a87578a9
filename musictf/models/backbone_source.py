"""Interpretation of the text ``backbone=...``; no other module interprets it.

A backbone file, a run folder that holds one, ``random`` (untrained weights) or a frame control.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from musictf.errors import InputError
from musictf.models.backbone import Backbone, backbone_file, load_backbone
from musictf.models.encoder import Encoder
from musictf.models.frame_controls import FRAME_CONTROL_CLASSES
from musictf.models.vit1d import ViT1DConfig

RANDOM = "random"


@dataclass(frozen=True)
class BackboneSource:
    """What a ``backbone=`` text names, before anything is loaded.

    Attributes:
        kind: ``pretrained``, ``random``, or the name of a frame control.
        path: The backbone file of a pretrained one; None for the others.
    """

    kind: str
    path: Path | None = None


def backbone_source(text: str) -> BackboneSource:
    """Interpret a ``backbone=`` text.

    Raises:
        InputError: it is neither a control nor a backbone file nor a folder that holds one.
    """
    if text == RANDOM or text in FRAME_CONTROL_CLASSES:
        return BackboneSource(text)
    return BackboneSource("pretrained", backbone_file(text))


def load_encoder(source: BackboneSource, like: str | None, model: ViT1DConfig, seeds: Sequence[int]) -> list[Encoder]:
    """The encoder that a source names; for ``random`` one with other weights for each seed.

    Args:
        source: See `backbone_source`.
        like: ``backbone=`` text of a backbone whose shape ``random`` has, or whose front end a control has.
        model: Shape of ``random`` without ``like``.
        seeds: Of random weights.
    """
    if source.path is not None:
        return [load_backbone(source.path)]
    if source.kind in FRAME_CONTROL_CLASSES:
        front_end = load_backbone(like).baseline_front_end if like else None
        return [FRAME_CONTROL_CLASSES[source.kind](front_end)]
    if source.kind != RANDOM:
        raise ValueError(f"no encoder of kind {source.kind!r}")  # a kind that `backbone_source` knows and this does not
    shape = load_backbone(like) if like else Backbone(model)
    return [shape.with_random_weights(seed) for seed in seeds]


def encoder_with_attention(encoder: Encoder) -> Backbone:
    """The encoder, for analyses that read its attention maps.

    Raises:
        InputError: it has none.
    """
    if encoder.num_heads == 0 or not isinstance(encoder, Backbone):
        raise InputError(
            f"backbone={encoder.kind} has neither layers nor attention; give a backbone file, a run, or random"
        )
    return encoder
